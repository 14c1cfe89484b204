"""vidtrain doctor: what this machine and its installation are, what to change, as a text for a bug report.

The text has versions, sizes and limits. It names neither the user nor the machine; where an error of a library names a
file, the home folder is ~. Of the environment it has the variables that `doctor_machine` lists, and no others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidtrain import __version__
from vidtrain.commands.doctor_machine import Finding, limits, machine, surroundings
from vidtrain.commands.doctor_software import decoders, devices, packages
from vidtrain.errors import VidtrainError
from vidtrain.options.invocation import Invocation
from vidtrain.reports.table import counted
from vidtrain.runs.atomic import make_folder, write_text
from vidtrain.terminal import printable
from vidtrain.types import FilePath


@dataclass
class DoctorCommandConfig:
    folder: FilePath = "."
    """Where runs are to be written: its disk is looked at."""
    output: FilePath | None = None
    """Also write the text to this file."""
    strict: bool = False
    """End with an error (exit code 2) when there is something to change, for scripts."""


def run(call: Invocation[DoctorCommandConfig]) -> None:
    """Look, print, and with `output` write."""
    options = call.options
    sections = {
        "software": packages(),
        "devices": devices(),
        "decoders": decoders(),
        "machine": machine(),
        "limits": limits(Path(options.folder)),
        "environment": surroundings(),
    }
    text = as_text(sections)
    print(text)
    if options.output is not None:
        make_folder(Path(options.output).parent)
        write_text(Path(options.output), f"{text}\n")
    if options.strict and (count := len(advice_of(sections.values()))):
        raise VidtrainError(f"{counted(count, 'thing')} to change, listed above (strict=true)")


def advice_of(sections: Iterable[Sequence[Finding]]) -> list[str]:
    """What to change, in the order of the findings, each once."""
    return list(dict.fromkeys(found.advice for section in sections for found in section if found.advice))


def as_text(sections: dict[str, list[Finding]]) -> str:
    """The findings of each section as aligned lines, then numbered advice."""
    lines = [f"vidtrain {__version__}"]
    for title, found in sections.items():
        width = max((len(each.name) for each in found), default=0)
        lines += ["", f"{title}:"]
        lines += [printable(f"  {each.name.ljust(width)}  {each.value}{'  (!)' * bool(each.advice)}") for each in found]
    advice = advice_of(sections.values())
    lines += ["", "to change:" if advice else "nothing to change was found"]
    lines += [printable(f"  {number}. {text}") for number, text in enumerate(advice, 1)]
    return without_home("\n".join(lines), Path.home())


def without_home(text: str, home: Path) -> str:
    """The text with ~ for the home folder, which has the user's name."""
    return text if home.parent == home else re.sub(re.escape(str(home)) + r"(?![^/\s'\":])", "~", text)
