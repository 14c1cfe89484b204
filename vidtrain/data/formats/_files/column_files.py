"""The files that hold tables with named columns, read column by column."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Number
from pathlib import Path
from typing import Any

from vidtrain.data.formats._files.delimited import SEPARATORS, cut_csv, find_separator
from vidtrain.data.formats._files.text_files import BadRows, read_json_text, read_lines
from vidtrain.data.manifest.files import is_video
from vidtrain.errors import DataError, did_you_mean, one_of
from vidtrain.untrusted_data import parse_json


@dataclass
class Columns:
    """Columns of a table with N rows.

    file: where they come from.
    names: what each is called in the file, by the option that names it.
    values: (N,) cells each, by that option; text, or what JSON and Parquet hold.
    show: (number, content) of row i; entries: the number is no line. semicolons: stand between the cells.
    """

    file: Path
    names: Mapping[str, str]
    values: Mapping[str, list[Any]]
    show: Callable[[int], tuple[int, str]]
    entries: bool
    semicolons: bool = False

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def text(self, key: str) -> list[str]:
        """A column as text without spaces around; an empty cell is ""."""
        return [cell.strip() if isinstance(cell, str) else _text(cell) for cell in self.values[key]]

    def labels(self, separator: str | None) -> list[tuple[str, ...]]:
        """The labels of each row: the cell, or its parts where there is a separator; () for an empty one."""
        cells = self.values["label_column"]
        if separator is None:
            lists = {row for row, cell in enumerate(cells) if isinstance(cell, list)}  # no labels: they count as empty
            return [(text,) if text and row not in lists else () for row, text in enumerate(self.text("label_column"))]
        parts = (cell if isinstance(cell, list) else _text(cell).split(separator) for cell in cells)
        return [tuple([text for part in row if (text := _text(part))]) for row in parts]

    def odd_labels(self) -> set[int]:
        """The rows with a label that is neither text nor a number: an object, a list in a list, bytes."""
        return {
            row
            for row, cell in enumerate(self.values["label_column"])
            if not isinstance(cell, str) and not all(map(_is_plain, cell if isinstance(cell, list) else [cell]))
        }

    def bad(self, bad: BadRows, row: int, key: str, expected: str) -> None:
        """Note that a cell cannot be used."""
        number, content = self.show(row)
        bad.add(self.file, number, content, f"{expected} in column {self.names[key]!r}", entry=self.entries)


def _is_plain(cell: Any) -> bool:
    return cell is None or isinstance(cell, (str, Number))


def _text(cell: Any) -> str:
    """A cell as text; 3.0 is what pandas makes of 3 in a column with gaps, NaN of a gap."""
    if isinstance(cell, float):
        return "" if math.isnan(cell) else str(int(cell) if cell.is_integer() else cell)
    return "" if cell is None else str(cell).strip()


FindColumns = Callable[[list[str]], Mapping[str, str]]
"""Takes the names of all columns of a table; gives those that are read besides, by option."""


def read_columns(path: Path, names: Mapping[str, str], bad: BadRows, find: FindColumns | None = None) -> Columns:
    """The named columns of a table; rows that are none go to `bad`.

    Args:
        path: .csv, .tsv, .txt (tab or comma), .jsonl, .ndjson, .json or .parquet.
        names: column names by option.
        bad: takes the rows that cannot be read.
        find: names more of its columns.

    Raises:
        DataError: another kind of file, a column that is not there.
    """
    kind = path.suffix.lower()
    if kind in (".csv", ".tsv", ".txt"):
        return _read_csv(path, names, bad, find)
    if kind in (".jsonl", ".ndjson", ".json"):
        return _read_json(path, names, bad, find)
    if kind in (".parquet", ".pq"):
        return _read_parquet(path, names, find)
    raise DataError(f"{path}: expected a table that ends in .csv, .tsv, .jsonl, .json or .parquet")


def _choose(path: Path, names: Mapping[str, str], there: list[str], find: FindColumns | None) -> Mapping[str, str]:
    """The columns to read, by option; each is there, once."""
    names = names if find is None else {**names, **find(there)}
    for key, name in names.items():
        if name not in there:
            hint = did_you_mean(name, there)
            if any(map(is_video, there)):
                hint = " (it starts with a video, not with names of columns? data=list reads such files)"
            raise DataError(f"{path}: no column {name!r} ({key}){hint}; it has {one_of(there)}")
        if there.count(name) > 1:
            raise DataError(f"{path}: {there.count(name)} columns are called {name!r} ({key})")
    return names


def _read_csv(path: Path, names: Mapping[str, str], bad: BadRows, find: FindColumns | None) -> Columns:
    lines = read_lines(path)
    if not lines:
        raise DataError(f"{path}: empty; expected a line with the names of the columns")
    kind = "tab" if path.suffix.lower() == ".tsv" else find_separator([lines[0][1]])
    header, *fields = cut_csv(path, lines, SEPARATORS["comma" if kind == "space" else kind])
    header = [name.strip() for name in header]
    names = _choose(path, names, header, find)
    lines = lines[1:]
    for place, cells in zip(lines, fields, strict=True):
        if len(cells) != len(header):
            bad.add(path, *place, f"{len(header)} fields, as in the header: {','.join(header)}")
        elif cells[0].strip() == header[0] and [cell.strip() for cell in cells] == header:
            bad.add(path, *place, "a row: these are the names of the columns again; remove the line")
    if {len(cells) for cells in fields} - {len(header)}:
        good = [row for row, cells in enumerate(fields) if len(cells) == len(header)]
        lines, fields = [lines[row] for row in good], [fields[row] for row in good]
    at = {key: header.index(name) for key, name in names.items()}
    values = {key: [cells[place] for cells in fields] for key, place in at.items()}
    return Columns(path, names, values, lines.__getitem__, entries=False, semicolons=kind == "semicolon")


def _read_json(path: Path, names: Mapping[str, str], bad: BadRows, find: FindColumns | None) -> Columns:
    places: list[tuple[int, str]] = []
    objects: list[dict[str, Any]] = []
    whole = path.suffix.lower() == ".json"
    if whole:
        content = read_json_text(path)
        if not isinstance(content, list):
            raise DataError(f"{path}: expected a list of objects, [{{...}}, ...]")
        entries = list(enumerate(content, 1))
    else:
        lines = dict(read_lines(path))
        entries = [(number, _parse(line)) for number, line in lines.items()]
    for number, entry in entries:
        if isinstance(entry, dict):
            objects.append(entry)
            places.append((number, ""))
        else:
            text = json.dumps(entry) if whole else lines[number]
            bad.add(path, number, text, "an object, {...}", entry=whole)
    if objects:
        names = _choose(path, names, list({key: None for entry in objects[:1000] for key in entry}), find)
    values = {key: [entry.get(name) for entry in objects] for key, name in names.items()}
    return Columns(path, names, values, lambda row: (places[row][0], json.dumps(objects[row])), entries=whole)


def _parse(line: str) -> Any:
    try:
        return parse_json(line)
    except ValueError:
        return None


def _read_parquet(path: Path, names: Mapping[str, str], find: FindColumns | None) -> Columns:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError(f"{path}: Parquet is read by pyarrow; pip install 'vidtrain[parquet]'") from None
    try:
        file = parquet.ParquetFile(path)
        names = _choose(path, names, list(file.schema_arrow.names), find)
        columns = file.read(columns=list(dict.fromkeys(names.values())))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a Parquet file that can be read: {str(error).splitlines()[0]}") from None
    values = {key: columns.column(name).to_pylist() for key, name in names.items()}

    def show(row: int) -> tuple[int, str]:
        return row + 1, json.dumps({name: values[key][row] for key, name in names.items()}, default=str)

    return Columns(path, names, values, show, entries=True)
