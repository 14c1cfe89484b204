"""vidtrain convert: a configuration of PySlowFast or MMAction2 as an experiment, and what could not be taken over."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from vidtrain.commands.init_choices import Chosen, to_yaml
from vidtrain.errors import ConfigError
from vidtrain.models.settings import START_KEYS
from vidtrain.options.foreign import mmaction2, pyslowfast
from vidtrain.options.foreign.reading import Foreign, ForeignChoice, read_python, read_yaml
from vidtrain.options.invocation import Invocation
from vidtrain.options.option_texts import choices_of, group_options
from vidtrain.reports.table import counted
from vidtrain.runs.atomic import make_folder, write_text
from vidtrain.terminal import print_line, printable
from vidtrain.types import FilePath


@dataclass
class ConvertConfig:
    config: FilePath = MISSING
    """PySlowFast's YAML, or MMAction2's Python file, which is parsed and not executed."""
    output: FilePath = "my_conf"
    """Folder of configurations; experiment/NAME.yaml is written below it, and nothing is overwritten."""


def run(call: Invocation[ConvertConfig]) -> None:
    """Write the experiment, print it, what was not taken over, and the command that runs it."""
    source = Path(call.options.config)
    file = Path(call.options.output) / "experiment" / f"{name_of(source)}.yaml"
    if file.exists():
        raise ConfigError(f"{file}: is there already: remove it, or give another folder with output=...")
    choices, left = converted(source)
    command = f"vidtrain train --config-dir {shlex.quote(str(call.options.output))} experiment={file.stem}"
    head = [f"Made by vidtrain convert of {source.name}", f"  {command}"]
    head += ["Not taken over:"] * bool(left) + [f"  {line}" for line in left]
    text = to_yaml([Chosen(choice.key, choice.value, printable(choice.why)) for choice in choices], head)
    make_folder(file.parent)
    write_text(file, text)
    print(text)
    note = f"; {counted(len(left), 'value')} could not be taken over, see its head" if left else ""
    print_line(f"written: {file}{note}. Then")
    print_line(f"  {command}")


def converted(source: Path) -> tuple[list[ForeignChoice], list[str]]:
    """The choices and keys of an experiment, and what of the file has no counterpart.

    Raises:
        ConfigError: a file of neither program, or of a network that the catalogue has not.
    """
    values = read_python(source) if source.suffix == ".py" else read_yaml(source)
    given = Foreign(values)
    if source.suffix == ".py" and mmaction2.is_mmaction2(values):
        found = list(mmaction2.convert(given, source.name))
    elif source.suffix != ".py" and pyslowfast.is_pyslowfast(values):
        found = list(pyslowfast.convert(given))
    else:
        raise ConfigError(
            f"config={source}: neither PySlowFast's YAML (sections MODEL and SOLVER or TRAIN) nor MMAction2's Python "
            "file (model and train_pipeline or its like)"
        )
    kept, dropped = _that_exist(found)
    return kept, [*map(_shortened, given.left()), *dropped]


def name_of(source: Path) -> str:
    """Of the experiment: that of the file, in letters that Hydra takes."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in source.stem)
    return f"{name}_converted" if name in choices_of("experiment") else name or "converted"


def _that_exist(found: list[ForeignChoice]) -> tuple[list[ForeignChoice], list[str]]:
    """Without the options that the chosen model has not; the last word for a key counts."""
    last = {choice.key: choice for choice in found}
    model = last["/model"].value
    options = {f"model.{key}" for key in group_options("model", model)}
    options |= {f"model.{key}" for key in START_KEYS}
    kept, dropped = [], []
    for key, choice in last.items():
        if key.startswith("model.") and key not in options:
            dropped.append(f"{choice.why}={choice.value}: {model} has no such option")
        else:
            kept.append(choice)
    return kept, dropped


def _shortened(text: Any) -> str:
    line = printable(text)
    return line if len(line) <= 160 else f"{line[:157]}..."
