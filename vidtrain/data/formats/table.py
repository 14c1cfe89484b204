"""Reads `path label` tables: finds out the separator and whether there is a header."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vidtrain.data.files import is_video
from vidtrain.data.formats.text import BadRows, read_lines
from vidtrain.errors import DataError, did_you_mean, one_of

SEPARATORS = {"comma": ",", "tab": "\t", "space": " "}

# the more exact name first, since tables have both clip_name and clip_path
_PATH_COLUMNS = (
    *("video_path", "clip_path", "file_path", "filepath", "path"),
    *("filename", "file_name", "file", "video", "clip", "video_name", "clip_name", "name"),
)
_LABEL_COLUMNS = ("label", "class", "class_name", "label_name", "action", "category", "class_id", "label_id", "target")


class Row(NamedTuple):
    """A line of a list: its number from 1, its text, and the two fields."""

    number: int
    line: str
    path: str
    label: str


def check_options(separator: str, header: str | bool) -> None:
    """Raise DataError unless both are among what `read_table` takes."""
    allowed = ["auto", *SEPARATORS]
    if separator not in allowed:
        hint = did_you_mean(str(separator), allowed)
        raise DataError(f"separator={separator!r}: expected one of {one_of(allowed)}{hint}")
    if header not in ("auto", True, False):
        raise DataError(f"header={header!r}: expected auto, true or false")


def read_table(path: Path, separator: str, header: str | bool, bad: BadRows) -> list[Row]:
    """The rows of a list file; lines without two fields go to `bad`."""
    lines = read_lines(path)
    if not lines:
        raise DataError(f"{path}: empty; expected a path and a label in each line")
    name = _find_separator([line for _, line in lines]) if separator == "auto" else separator
    fields = _cut_at_spaces(lines) if name == "space" else cut_csv(path, lines, SEPARATORS[name])
    where, label_at, width = 0, 1, 2
    if header is True or (header == "auto" and _has_header(fields)):
        where, label_at = _columns(path, fields[0])
        width, fields, lines = len(fields[0]), fields[1:], lines[1:]
    rows = []
    for (number, line), cells in zip(lines, fields, strict=True):
        if len(cells) == width and (video := cells[where].strip()) and (label := cells[label_at].strip()):
            rows.append(Row(number, line, video, label))
        else:
            bad.add(path, number, line, _expected(name, width))
    return rows


def _find_separator(lines: Sequence[str]) -> str:
    """The first of tab, comma and space that more than half of the lines have."""
    for name in ("tab", "comma"):
        if 2 * sum(SEPARATORS[name] in line for line in lines) > len(lines):
            return name
    return "space"


def _cut_at_spaces(lines: list[tuple[int, str]]) -> list[list[str]]:
    """Two fields a line, cut at the last run of spaces; quotes around the first are taken off."""
    cut = (line.strip().rsplit(maxsplit=1) for _, line in lines)
    return [[path.strip('"'), *label] for path, *label in cut]


def cut_csv(path: Path, lines: list[tuple[int, str]], delimiter: str) -> list[list[str]]:
    """The fields of each line; spaces before them and at the end of the line are taken off.

    Args:
        path: the file, for messages.
        lines: what `read_lines` gave.
        delimiter: one character.
    """
    reader = csv.reader(
        [line.rstrip(" ") for _, line in lines], delimiter=delimiter, strict=True, skipinitialspace=True
    )
    fields: list[list[str]] = []
    try:
        for cells in reader:
            if reader.line_num > len(fields) + 1:
                raise csv.Error("a quoted field goes on in the next line")  # noqa: TRY301
            fields.append(cells)
    except csv.Error as error:
        number, line = lines[len(fields)]
        raise DataError(f"{path}:{number}: got {line!r}, expected balanced quotes: {error}") from None
    return fields


def _has_header(fields: list[list[str]]) -> bool:
    """Whether the first line names columns: it is no video and its label stands in no other line."""
    first, others = fields[0], fields[1:]
    if not others or len(first) < 2 or any(is_video(cell) for cell in first):
        return False
    cells = {cell.strip().lower() for cell in first}
    if cells & set(_PATH_COLUMNS) and cells & set(_LABEL_COLUMNS):
        return True
    return first[-1] not in {row[-1] for row in others if row} and not first[-1].isdecimal()


def _columns(path: Path, header: list[str]) -> tuple[int, int]:
    """Where the path and the label stand."""
    names = [cell.strip().lower() for cell in header]
    where = next((names.index(name) for name in _PATH_COLUMNS if name in names), None)
    label_at = next((names.index(name) for name in _LABEL_COLUMNS if name in names), None)
    if len(names) == 2 and where is None:
        where = 0 if label_at is None else 1 - label_at
    if len(names) == 2 and label_at is None and where is not None:
        label_at = 1 - where
    if where is None or label_at is None:
        what, known = ("path", _PATH_COLUMNS) if where is None else ("label", _LABEL_COLUMNS)
        raise DataError(
            f"{path}:1: the header ({', '.join(header)}) has no column for the {what}; call it one of {one_of(known)}"
        )
    return where, label_at


def _expected(name: str, width: int) -> str:
    joint = {"comma": ",", "tab": "<tab>", "space": " "}[name]
    if width == 2:
        quote = "" if name == "space" else "; quote a field that holds the separator"
        return f"path{joint}label{quote}"
    return f"{width} fields separated by {name}, as in the header"
