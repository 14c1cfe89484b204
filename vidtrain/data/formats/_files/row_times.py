"""When the rows of a table with named columns begin and end: which columns say it, and their seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from vidtrain.data.formats._files.annotation_record import THOUSANDS, WITH_COMMA, WITH_POINT, seconds_of
from vidtrain.data.formats._files.column_files import Columns
from vidtrain.data.formats._files.column_names import (
    DURATION,
    END,
    END_FRAME,
    START,
    START_FRAME,
    find_column,
)
from vidtrain.data.formats._files.text_files import BadRows

_FIRST = 100  # rows in which a column that nobody named has to hold numbers
_NO = "data.start_column='' takes whole videos"


@dataclass(frozen=True)
class RowTimes:
    """Times of N rows.

    starts, ends: (N,) seconds; None: the start, the end of the video.
    end_key: the option of the column that the ends come from.
    hint: for messages about these columns.
    """

    starts: list[float] | None
    ends: list[float] | None
    end_key: str
    hint: str


@dataclass
class TimeColumns:
    """The columns of start and end of all tables of a dataset.

    others: the columns that are something else, by option.
    start, end: their names; None: looked for by the usual names; "": none, and nothing is looked for.
    """

    others: Mapping[str, str]
    start: str | None
    end: str | None
    _notes: dict[str, list[str]] = field(default_factory=dict)

    @property
    def named(self) -> dict[str, str]:
        """The columns that the user named, by option."""
        return {key: name for key, name in (("start_column", self.start), ("end_column", self.end)) if name}

    def find(self, there: list[str]) -> dict[str, str]:
        """The columns of usual names that nobody named, by option, of all that are there."""
        if "" in (self.start, self.end):
            return {}
        named = self.named
        free = [name for name in there if name not in (*self.others.values(), *named.values())]
        known = {"start_column": START, "end_column": END, "duration_column": DURATION}
        found = {key: name for key in known if key not in named and (name := find_column(free, known[key])) is not None}
        if "end_column" in {**named, **found}:
            found.pop("duration_column", None)
        if "start_column" not in {**named, **found}:
            found.pop("duration_column", None)  # then it is most likely how long the file is
        frames = find_column(free, START_FRAME), find_column(free, END_FRAME)
        if not named and not found and None not in frames:
            found = {"start_frame": str(frames[0]), "end_frame": str(frames[1])}
        return found

    def read(self, columns: Columns, bad: BadRows) -> RowTimes:
        """The times of a table; rows whose cells are no times go to `bad`."""
        use, found = list(self.named), [key for key in columns.names if key not in (*self.others, *self.named)]
        columns = _with_points(columns, [*use, *found], bad)
        if found:
            why = _unfit(columns, found)
            listed = ", ".join(columns.names[key] for key in found)
            listed = f"the column{'s' if len(found) > 1 else ''} {listed}"
            if why:
                note = f"not used: {listed}: {why}"
            else:
                note = f"times from {listed}; {_NO}"
                use += found
            self._notes.setdefault(note, []).append(columns.file.name)
        hint = f" ({_NO})" if {*use} - {*self.named} else ""
        starts = _seconds(columns, "start_column", bad, 0.0, hint) if "start_column" in use else None
        if "duration_column" in use:
            lengths = _seconds(columns, "duration_column", bad, math.inf, hint)
            begins = starts or [0.0] * len(lengths)
            ends = [start + length for start, length in zip(begins, lengths, strict=True)]
            return RowTimes(starts, ends, "duration_column", hint)
        ends_given = _seconds(columns, "end_column", bad, math.inf, hint) if "end_column" in use else None
        return RowTimes(starts, ends_given, "end_column", hint)

    def notes(self) -> list[str]:
        """What columns were found, and whether they are used, for the user."""
        return [f"{', '.join(dict.fromkeys(files))}: {note}" for note, files in self._notes.items()]


def _unfit(columns: Columns, found: list[str]) -> str:
    """Why columns that nobody named are not used, and what would use them; "" when they are."""
    if "start_frame" in found:
        return "data=table takes seconds; data=segments reads frames"
    keys = " ".join(f"data.{key}={columns.names[key]!r}" for key in found if key != "duration_column")
    if "start_column" not in columns:
        return f"no column of a usual name says where rows begin; data.start_column names it, or {keys} uses it alone"
    if "end_column" not in columns and "duration_column" not in columns:
        return f"no column of a usual name says where rows end; data.end_column names it, or {keys} uses it alone"
    for key in found:
        cells = columns.text(key)[:_FIRST]
        odd = next((row for row, cell in enumerate(cells) if _second_of(cell, 0.0) is None), None)
        if odd is not None or not any(cells):
            why = "is empty" if odd is None else f"has no seconds at {_place(columns, odd)}"
            return f"{columns.names[key]!r} {why}; data.start_column and data.end_column name others"
    return ""


def _with_points(columns: Columns, keys: Sequence[str], bad: BadRows) -> Columns:
    """The same with points for decimal commas; a cell with the one among cells with the other goes to `bad`, and one
    like 1,500, which may be 1500 as well, unless a cell such as 1,5 or semicolons between the cells tell."""
    cells = [(row, key, cell) for key in keys for row, cell in enumerate(columns.text(key))]
    commas = [one for one in cells if WITH_COMMA.fullmatch(one[2])]
    if not commas:
        return columns
    row, key, cell = min(commas)
    if points := [one for one in cells if WITH_POINT.fullmatch(one[2])]:
        row, key, cell = max(min(commas), min(points))
        columns.bad(bad, row, key, f"seconds with a point or with a comma throughout, not {cell!r} among others")
    elif not columns.semicolons and all(THOUSANDS.fullmatch(cell) for *_, cell in commas):
        plain, decimal = cell.replace(",", ""), cell.replace(",", ".")
        columns.bad(bad, row, key, f"{plain} or {decimal} instead of {cell!r}, which may be either,")
    values = {key: [cell.replace(",", ".") for cell in columns.text(key)] for key in keys}
    return replace(columns, values={**columns.values, **values})


def _place(columns: Columns, row: int) -> str:
    return f"{'entry' if columns.entries else 'line'} {columns.show(row)[0]}"


def _second_of(cell: str, default: float) -> float | None:
    """As `seconds_of`; the default for "" and nan, and of an end for inf; None for what is no time from 0 on."""
    empty = ("", "nan", "inf") if default == math.inf else ("", "nan")  # as pandas writes it
    value = default if cell.lower() in empty else seconds_of(cell)
    return value if value is not None and value >= 0 else None


def _seconds(columns: Columns, key: str, bad: BadRows, default: float, hint: str) -> list[float]:
    """A column of seconds."""
    seconds = []
    for row, cell in enumerate(columns.text(key)):
        value = _second_of(cell, default)
        if value is None:
            columns.bad(bad, row, key, f"seconds, 0 or more{hint}")
        seconds.append(-1.0 if value is None else value)
    return seconds
