"""Reads list files: finds out the separator, whether there is a header, and what the columns without one mean."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vidtrain.data.formats._files.column_names import END, START, find_column
from vidtrain.data.formats._files.find_videos import IMAGES_PER_SECOND
from vidtrain.data.formats._files.rows import Rows, whole_number
from vidtrain.data.formats._files.text_files import BadRows, read_lines, whole
from vidtrain.data.manifest.files import Disk, is_video
from vidtrain.errors import DataError, did_you_mean, one_of

SEPARATORS = {"comma": ",", "tab": "\t", "semicolon": ";", "space": " "}

LAYOUTS = (
    "path label",
    "path labels",
    "path total label",
    "path total labels",
    "path offset total label",
)
"""What a line without header may hold. total: images in the folder `path`, of which the first `offset` are skipped
and the next `total` are the video; labels: one or more."""

# the more exact name first, since tables have both clip_name and clip_path
_PATH_COLUMNS = (
    *("video_path", "clip_path", "file_path", "filepath", "path"),
    *("filename", "file_name", "file", "video", "clip", "video_name", "clip_name", "name"),
)
_LABEL_COLUMNS = ("label", "class", "class_name", "label_name", "action", "category", "class_id", "label_id", "target")
_MANY = 0.1  # share of the lines with several labels above which that is taken to be meant


def check_options(separator: str, header: str | bool, columns: str) -> None:
    """Raise DataError unless all are among what `read_table` takes."""
    allowed = ["auto", *SEPARATORS]
    if separator not in allowed:
        hint = did_you_mean(str(separator), allowed)
        raise DataError(f"separator={separator!r}: expected one of {one_of(allowed)}{hint}")
    if header not in ("auto", True, False):
        raise DataError(f"header={header!r}: expected auto, true or false")
    if columns not in ("auto", *LAYOUTS):
        hint = did_you_mean(str(columns), LAYOUTS)
        raise DataError(f"columns={columns!r}: expected auto or one of {', '.join(map(repr, LAYOUTS))}{hint}")


def read_table(
    path: Path, separator: str, header: str | bool, columns: str, disk: Disk, bad: BadRows
) -> tuple[Rows, str]:
    """The rows of a list file, and their layout (one of LAYOUTS); lines that do not fit it go to `bad`.

    disk: where the videos are looked for: a first line that could be a header is none when it names one of them.
    """
    lines = read_lines(path)
    if not lines:
        raise DataError(f"{path}: empty; expected a path and a label in each line")
    name = find_separator([line for _, line in lines]) if separator == "auto" else separator
    if name == "space":
        fields = _cut_at_spaces(lines, columns)
    else:
        fields = cut_csv(path, lines, SEPARATORS[name])
    if header is True or (header == "auto" and columns == "auto" and _has_header(fields, disk)):
        where, label_at = _columns(path, fields[0])
        rows = _read_named(path, lines[1:], fields[1:], name, where, label_at, fields[0], bad)
        if header == "auto" and not _known_names(fields[0]):
            rows.notes.append(f"{path}:1: {lines[0][1]!r} is read as a header; data.header=false makes it a row")
        times = [find_column(fields[0], known) for known in (START, END)]
        if None not in times:
            listed = " and ".join(map(str, times))
            rows.notes.append(
                f"{path}: not used: the columns {listed}: data=list takes whole videos, data=table reads them"
            )
        return rows, LAYOUTS[0]
    layout = _find_layout(fields) if columns == "auto" else columns
    if name == "space" and layout != columns and any(len(cells) - 1 != layout.count(" ") for cells in fields):
        fields = _cut_at_spaces(lines, layout)  # now that the number of fields is known, a path may end in a number
    return _read_positions(path, lines, fields, name, layout, bad), layout


def _read_named(
    path: Path,
    lines: list[tuple[int, str]],
    fields: list[list[str]],
    separator: str,
    where: int,
    label_at: int,
    header: list[str],
    bad: BadRows,
) -> Rows:
    """Rows of a table with a header: a path and a label among its fields."""
    rows, width = Rows(path), len(header)
    for (number, line), cells in zip(lines, fields, strict=True):
        if cells == header:
            bad.add(path, number, line, "a row: these are the names of the columns again; remove the line")
        elif len(cells) == width and (video := cells[where].strip()) and (label := cells[label_at].strip()):
            rows.add((number, line), video, (label,))
        elif width == 2:
            bad.add(path, number, line, _expected(separator, LAYOUTS[0]))
        else:
            bad.add(path, number, line, f"{width} fields separated by {separator}, as in the header")
    return rows


def _read_positions(
    path: Path, lines: list[tuple[int, str]], fields: list[list[str]], separator: str, layout: str, bad: BadRows
) -> Rows:
    """Rows of a list without a header, by the places of the fields."""
    counts = layout.count("total") + layout.count("offset")  # fields between the path and the labels
    several = layout.endswith("labels")
    rows = Rows(path)
    if counts:
        rows.starts, rows.ends = [], []
    for (number, line), cells in zip(lines, fields, strict=True):
        fits = len(cells) > counts + 1 if several else len(cells) == counts + 2
        if not fits or not all(cell and not cell.isspace() for cell in cells):
            bad.add(path, number, line, _expected(separator, layout))
            continue
        times = None
        if counts:
            numbers = [n for cell in cells[1 : 1 + counts] if (n := whole(cell)) is not None]
            if len(numbers) < counts or not numbers[-1]:
                bad.add(path, number, line, f"{_expected(separator, layout)}, with whole numbers of images")
                continue
            first = numbers[0] if counts == 2 else 0
            times = first / IMAGES_PER_SECOND, (first + numbers[-1]) / IMAGES_PER_SECOND
        rows.add((number, line), cells[0].strip(), tuple([cell.strip() for cell in cells[1 + counts :]]), times)
    return rows


# ---------------------------------------------------------------- what the lines mean


def _find_layout(fields: list[list[str]]) -> str:
    """The layout that most of the lines have, by their trailing whole numbers."""
    widths = Counter(_numbers(cells) for cells in fields)
    lines = len(fields)
    several = sum(count for width, count in widths.items() if width > 1)
    if several <= _MANY * lines:
        return "path label"
    if 2 * sum(is_video(cells[0]) for cells in fields[:1000]) > min(lines, 1000):
        return "path labels"
    for width, layout in ((2, "path total label"), (3, "path offset total label"), (1, "path label")):
        if widths[width] >= (1 - _MANY) * lines:
            return layout
    return "path total labels"


def _numbers(cells: Sequence[str]) -> int:
    """How many whole numbers stand at the end of a line, after its path; 0 when something else stands among them."""
    if len(cells) == 2:  # nearly all lines of nearly all lists
        return int(cells[1].strip().isdecimal())
    return len(cells) - 1 if all(cell.strip().isdecimal() for cell in cells[1:]) else 0


def find_separator(lines: Sequence[str]) -> str:
    """The first of tab, comma, semicolon and space that more than half of the lines have.

    A semicolon before a comma where a video stands before it: the comma is in a number, or in the video's name.
    """
    found = [
        name
        for name in ("tab", "comma", "semicolon")
        if 2 * sum(SEPARATORS[name] in line for line in lines) > len(lines)
    ]
    if found == ["comma", "semicolon"]:
        videos = {name: sum(is_video(line.split(SEPARATORS[name], 1)[0]) for line in lines) for name in found}
        return max(found, key=lambda name: videos[name])
    return found[0] if found else "space"


def _cut_at_spaces(lines: list[tuple[int, str]], columns: str) -> list[list[str]]:
    """The path and what follows it, so that paths may hold spaces; quotes around the path are taken off.

    Where the columns are known in number the line is cut so often; else at all whole numbers at its end.
    """
    cuts = 0 if columns == "auto" or columns.endswith("labels") else columns.count(" ")
    fields = []
    for _, line in lines:
        if cuts:
            path, *rest = line.strip().rsplit(maxsplit=cuts)
        else:
            path, *rest = line.strip().rsplit(maxsplit=1)
            if rest and rest[0].isdecimal():
                while len(parts := path.rsplit(maxsplit=1)) == 2 and parts[1].isdecimal():
                    path = parts[0]
                    rest.insert(0, parts[1])
        fields.append([path.strip('"'), *rest])
    return fields


def cut_csv(path: Path, lines: list[tuple[int, str]], delimiter: str) -> list[list[str]]:
    """The fields of each line; spaces before them and at the end of the line are taken off, and so is the empty field
    behind a separator that ends every line, or every line but the header.

    Args:
        path: the file, for messages.
        lines: what `read_lines` gave.
        delimiter: one character.
    """
    texts = [line.rstrip(" ") for _, line in lines]
    fields: list[list[str]] = []
    try:
        reader = csv.reader(texts, delimiter=delimiter, strict=True, skipinitialspace=True)
        fields.extend(reader)
        if len(fields) == len(lines):
            return _without_tails(fields)
    except csv.Error:
        pass
    number, line, why = _unbalanced(lines, texts, delimiter)
    raise DataError(f"{path}:{number}: got {line!r}, expected balanced quotes: {why}")


def _without_tails(fields: list[list[str]]) -> list[list[str]]:
    first, others = fields[0], fields[1:]
    short = bool(first and first[-1])
    if (short and not others) or any(row[-1:] != [""] or len(row) != len(first) + short for row in others):
        return fields
    return [first if short else first[:-1], *(row[:-1] for row in others)]


def _unbalanced(lines: list[tuple[int, str]], texts: list[str], delimiter: str) -> tuple[int, str, str]:
    """(number, content, reason) of the first line that is no row by itself."""
    for (number, line), text in zip(lines, texts, strict=True):
        try:
            next(csv.reader([text], delimiter=delimiter, strict=True, skipinitialspace=True))
        except csv.Error as error:
            why = "a quoted field goes on in the next line" if "unexpected end" in str(error) else str(error)
            return number, line, why
    raise AssertionError("every line is a row, but the file is not one row a line")


def _has_header(fields: list[list[str]], disk: Disk) -> bool:
    """Whether the first line names columns: it is no video and its label stands in no other line."""
    first, others = fields[0], fields[1:]
    if not others or len(first) < 2 or any(is_video(cell) for cell in first):
        return False
    if _known_names(first):
        return True
    of_files = any(is_video(row[0]) for row in others[:10])
    there = disk.find(first[0].strip())
    # "videos" in a header may well be the name of the folder, too, that the files are in
    if "/" in first[0] or "\\" in first[0] or (there is not None and not (of_files and Path(there).is_dir())):
        return False
    numbered = whole_number(first[-1].strip()) is not None
    if of_files:
        return first[-1] not in {row[-1] for row in others if row} and not numbered
    # folders of images look like any word
    return not numbered and all(whole_number(row[-1].strip()) is not None for row in others if row)


def _known_names(header: Sequence[str]) -> bool:
    """Whether a line names a column for the path and one for the label, as tables usually call them."""
    cells = {cell.strip().lower() for cell in header}
    return bool(cells & set(_PATH_COLUMNS) and cells & set(_LABEL_COLUMNS))


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
    for name in (names[where], names[label_at]):
        if names.count(name) > 1 and name in (*_PATH_COLUMNS, *_LABEL_COLUMNS):
            raise DataError(f"{path}:1: {names.count(name)} columns are called {name!r}: rename all but one")
    return where, label_at


def _expected(separator: str, layout: str) -> str:
    """The layout as a line, with the rule that matters for it."""
    joint = {"comma": ",", "tab": "<tab>", "semicolon": ";", "space": " "}[separator]
    rule = "" if separator == "space" else "; quote a field that holds the separator"
    if layout == "path label":
        rule += "; columns='path labels' takes several labels"
    return layout.replace("labels", f"label{joint}label ...").replace(" ", joint).replace(f"{joint}...", " ...") + rule
