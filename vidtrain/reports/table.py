"""Tables: plain text for the terminal and for files, and Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from vidtrain.terminal import printable

_SPECIAL = re.compile(r"([\\`*_\[\]|~#$]|:(?=//))")
"""What Markdown gives a meaning to within a line, and what makes a link of a text."""


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligned columns, numbers to the right, columns that are empty in every row dropped."""
    header, *text = [[printable(cell) for cell in row] for row in (header, *rows)]
    kept = [c for c in range(len(header)) if any(row[c] for row in text)]
    lines = [[header[c] for c in kept], *[[row[c] for c in kept] for row in text]]
    widths = [max(len(line[c]) for line in lines) for c in range(len(kept))]
    right = [all(_is_number(line[c]) for line in lines[1:]) for c in range(len(kept))]

    def show(line: list[str]) -> str:
        cells = [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, widths, right, strict=True)]
        return "  ".join(cells).rstrip()

    rule = "  ".join("-" * w for w in widths)
    return "\n".join([show(lines[0]), rule, *[show(line) for line in lines[1:]]])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same in Markdown. header: as it is; rows: whatever is in them is text."""
    kept = [c for c in range(len(header)) if any(row[c] for row in rows)]
    lines = [[header[c] for c in kept], ["---"] * len(kept), *([markdown_text(r[c]) for c in kept] for r in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown_text(text: str) -> str:
    """A plain text within a line of Markdown: nothing in it is markup, HTML or a link."""
    return _SPECIAL.sub(r"\\\1", html.escape(printable(text), quote=False))


def counted(count: int, word: str) -> str:
    """'1 video', '65 videos'."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def _is_number(cell: str) -> bool:
    return (bool(cell) and cell.lstrip("-")[:1].isdigit()) or cell in ("", "-", "failed", "pruned", "unfinished")
