"""Completion of a command line by Hydra, which knows neither the commands nor paths as the shell has them."""

from __future__ import annotations

import re
import shlex


def line_for_hydra(line: str) -> str:
    """The line as Hydra's completion reads it: without the command, which Hydra does not know, and the values that it
    cannot read, such as paths with spaces. They change no choices and no keys."""
    try:
        words = shlex.split(line)
    except ValueError:  # a quote is still open
        words = line.split()
    last = "" if line[-1:].isspace() else words.pop()
    kept = [word for word in words[2:] if re.fullmatch(r"[\w.+~/-]+(=[\w.,/-]*)?", word)]
    return " ".join([words[0], *kept, last])
