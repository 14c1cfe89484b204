"""Tables of segments, as CSV, TSV or text: with a header that names columns, of BORIS, Charades, EPIC-KITCHENS, ELAN;
frame by frame as DeepEthogram writes them; and THUMOS' lists without one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from vidtrain.data.formats._files.annotation_record import POINTS, Annotations, Toggles, has_decimal_commas
from vidtrain.data.formats._files.column_names import (
    DURATION,
    END,
    END_FRAME,
    LABEL,
    START,
    START_FRAME,
    SUBSET,
    VIDEO,
    plain_name,
)
from vidtrain.data.formats._files.delimited import SEPARATORS, cut_csv, find_separator
from vidtrain.data.formats._files.text_files import read_lines, read_text
from vidtrain.errors import DataError, one_of

_ACTION: Final = re.compile(r"(\S+) (\d+(?:\.\d+)?) (\d+(?:\.\d+)?)")
_ELAN_TIMES: Final = (re.compile(r"\d+:\d\d:\d\d[.,]\d+"), re.compile(r"\d+\.\d+"))  # hh:mm:ss.ms, ss.msec
_BACKGROUND: Final = "background"
_PREAMBLE: Final = 40  # lines that BORIS may write before the header of its tabular events
_FRAME_WISE: Final = "0 and 1 in every row, one per frame"


@dataclass(frozen=True)
class TableColumns:
    """Names of columns that the user gave, None for those to find. unit: auto, seconds, frames or milliseconds."""

    video: str | None = None
    label: str | None = None
    start: str | None = None
    end: str | None = None
    unit: str = "auto"


def read_annotation_table(into: Annotations, columns: TableColumns) -> None:
    """Read a table into annotations.

    Raises:
        DataError: no columns for what a segment needs.
    """
    path, lines = into.file, read_lines(into.file)
    if not lines:
        raise DataError(f"{path}: empty; expected segments, or a line with the names of columns")
    first = next((n for n, (_, line) in enumerate(lines[:_PREAMBLE]) if {"behavior", "time"} <= _words(line)), 0)
    lines = lines[first:]
    kind = "tab" if path.suffix.lower() == ".tsv" else find_separator([lines[0][1]])
    if kind == "space":
        _read_thumos(into, lines)
        return
    header, *fields = cut_csv(path, lines, SEPARATORS[kind])
    names, places = [plain_name(cell) for cell in header], [number for number, _ in lines]
    if kind == "tab" and _elan_times(header):
        _read_elan(into, [header, *fields], places)
        return
    rows: list[tuple[int, Sequence[str]]] = []
    for (number, line), cells in zip(lines[1:], fields, strict=True):
        if len(cells) == len(names):
            rows.append((number, cells))
        else:
            into.wrong(number, line, f"{len(names)} fields, as in the header")
    at = _Positions(path, names, columns)
    time = at.of(("time",))
    times = [cells[n].strip() for n in (at.start, at.end, at.duration, time) if n is not None for _, cells in rows]
    # a table is cut at semicolons where the comma is in its numbers
    into.decimal_comma = kind == "semicolon" or has_decimal_commas(times)
    if at.actions is not None:
        _read_charades(into, rows, at)
    elif time is not None and (status := at.status(rows)) is not None:
        _read_boris(into, rows, at, time, status)
    elif at.start is None and _is_frame_wise(rows):
        _read_frame_wise(into, header, rows)
    else:
        _read_rows(into, header, rows, at)


def names_times(line: str) -> bool:
    """Whether a line is a header with columns for when something begins and ends, as `read_annotation_table` finds
    them, or BORIS' for events."""
    names = {plain_name(cell.strip().strip('"')) for cell in re.split(r"[,;\t]", line)}
    ends = not names.isdisjoint((*END, *DURATION)) and not names.isdisjoint(START)
    return ends or not names.isdisjoint(START_FRAME) or {"behavior", "time"} <= names


def _words(line: str) -> set[str]:
    return {cell.strip().strip('"').lower() for cell in re.split(r"[,;\t]", line)}


class _Positions:
    """Which column is what."""

    def __init__(self, path: Path, names: list[str], columns: TableColumns) -> None:
        self._path, self._names, self.columns = path, names, columns
        self.video = self._given(columns.video, "file_column") if columns.video else self.of(VIDEO)
        self.label = self._given(columns.label, "label_column") if columns.label else self.of(LABEL)
        self.start = self._given(columns.start, "start_column") if columns.start else self.of(START)
        self.end = self._given(columns.end, "end_column") if columns.end else self.of(END)
        self.duration = None if self.end is not None else self.of(DURATION)
        self.frames = columns.unit == "frames"
        by_frames = self.of(START_FRAME), self.of(END_FRAME)
        known = self.start is not None and (self.end is not None or self.duration is not None)
        if not columns.start and None not in by_frames and (self.frames or (not known and columns.unit == "auto")):
            self.start, self.end = by_frames
            self.frames = True
        self.subset, self.actions = self.of(SUBSET), self.of(("actions",)) if self.start is None else None

    def of(self, known: Sequence[str]) -> int | None:
        """Raises DataError where several columns have the first of these names that there is."""
        found = next((name for name in known if name in self._names), None)
        return None if found is None else self._place(found)

    def _place(self, name: str) -> int:
        if (count := self._names.count(name)) > 1:
            raise DataError(f"{self._path}: {count} columns are called {name!r}: rename all but one")
        return self._names.index(name)

    def _given(self, name: str, key: str) -> int:
        if plain_name(name) not in self._names:
            raise DataError(f"{self._path}: no column {name!r} (data.{key}); it has {one_of(self._names)}")
        return self._place(plain_name(name))

    def status(self, rows: Sequence[tuple[int, Sequence[str]]]) -> int | None:
        """The column that says START and STOP."""
        for at in (self.of(("status",)), self.of(("behavior type",))):
            if at is not None and {cells[at].strip().upper() for _, cells in rows[:100]} & {"START", "STOP"}:
                return at
        return None

    def lacking(self) -> str:
        """What a segment needs and the table does not have."""
        has = f"its columns are {one_of(self._names, 20)}"
        if self.start is None:
            return f"no column for the start of segments ({has}); data.start_column names it"
        if self.end is None and self.duration is None:
            return f"no column for their end ({has}); data.end_column names it"
        return f"no column for the label ({has}); data.label_column names it"


def _video(into: Annotations, at: _Positions, cells: Sequence[str]) -> str:
    """The video of a row; that which the file is named after where no column says it."""
    if at.video is None:
        into.own_name = True
        return into.file.stem
    return cells[at.video].strip().rstrip(";")


def _read_rows(
    into: Annotations, header: Sequence[str], rows: Sequence[tuple[int, Sequence[str]]], at: _Positions
) -> None:
    """A segment per row; where ELAN gives each tier a column, one for each that is filled."""
    unit = 0.001 if at.columns.unit == "milliseconds" else 1.0
    tiers = [n for n, name in enumerate(header) if not re.match(r"(begin|end|duration|file|media)\b", plain_name(name))]
    if at.start is None or (at.end is None and at.duration is None) or (at.label is None and not _is_elan(header)):
        raise DataError(f"{into.file}: {at.lacking()}")
    kind = next((n for n, name in enumerate(header) if plain_name(name) == "behavior type"), None)
    if at.subset is not None:
        into.subset_column = header[at.subset].strip()
    for place, cells in rows:
        start, end = cells[at.start], cells[at.end if at.end is not None else at.duration or 0]
        if kind is not None and cells[kind].strip().upper() == "POINT":
            into.skipped[POINTS] += 1
            continue
        begin, stop = into.seconds(start), into.seconds(end)
        if begin is not None and stop is not None and at.end is None:
            stop += begin
        labels = [cells[n].strip() for n in ([at.label] if at.label is not None else tiers)]
        times = (begin and begin * unit, stop and stop * unit)
        subset = "" if at.subset is None else cells[at.subset].strip()
        for label in labels if at.label is not None else filter(None, labels):
            if not into.add(
                times, place, _video(into, at, cells), label, frames=at.frames, subset=subset, ordered=True
            ):
                into.wrong(place, ",".join(cells), "a video, a label, a start and an end after it", start, end)


def _is_elan(header: Sequence[str]) -> bool:
    return any(plain_name(name).startswith("begin time") for name in header)


def _read_charades(into: Annotations, rows: Sequence[tuple[int, Sequence[str]]], at: _Positions) -> None:
    """Charades: `actions` has all segments of a video, "c092 11.90 21.20;c147 0.00 12.60"."""
    assert at.actions is not None
    for place, cells in rows:
        parts = [part.strip() for part in cells[at.actions].split(";") if part.strip()]
        video = _video(into, at, cells)
        into.videos.setdefault(video, "")
        for part in parts:
            found = _ACTION.fullmatch(part)
            if found is None or not into.add((found[2], found[3]), place, video, found[1]):
                into.wrong(place, part, "actions 'c092 11.90 21.20;c147 0.00 12.60'")


def _read_boris(
    into: Annotations, rows: Sequence[tuple[int, Sequence[str]]], at: _Positions, time: int, status: int
) -> None:
    """BORIS' tabular events: a row for each start and each stop."""
    if at.label is None:
        raise DataError(f"{into.file}: {at.lacking()}")
    states, who = Toggles(into), [n for n in (at.of(("subject",)), at.of(("modifiers", "modifier"))) if n is not None]
    for place, cells in rows:
        kind, label = cells[status].strip().upper(), cells[at.label].strip()
        if kind == "POINT":
            into.skipped[POINTS] += 1
            continue
        key = _video(into, at, cells), label, "\0".join(cells[n] for n in who)
        if kind not in ("START", "STOP") or not states.note(cells[time], place, key, starts=kind == "START"):
            into.wrong(place, ",".join(cells), "START and STOP of a behavior in turn", cells[time])
    states.close()


def _is_frame_wise(rows: Sequence[tuple[int, Sequence[str]]]) -> bool:
    """Whether all but the first column are 0, 1 or -1."""
    some = [cell.strip() for _, cells in rows[:50] for cell in cells[1:]]
    return bool(some) and set(some) <= {"0", "1", "-1", "0.0", "1.0", "-1.0"}


def _read_frame_wise(into: Annotations, header: Sequence[str], rows: Sequence[tuple[int, Sequence[str]]]) -> None:
    """DeepEthogram: a row per frame, a column of 0 and 1 per behavior; -1 is a frame that nobody has labelled."""
    video = re.sub(r"_(labels|predictions)$", "", into.file.stem)
    first = 0 if header[0].strip() and {cells[0].strip() for _, cells in rows[:50]} <= {"0", "1", "-1"} else 1
    try:
        there = np.array([[float(cell) for cell in cells[first:]] for _, cells in rows]) == 1
    except ValueError:
        into.wrong(rows[0][0], ",".join(rows[0][1]), _FRAME_WISE)
        return
    if (empty := _between(into.file, [place for place, _ in rows])) is not None:  # later frames would be earlier ones
        into.wrong(*empty, _FRAME_WISE)
        return
    into.videos.setdefault(video, "")
    behaviors = [name.strip() for name in header[first:]]
    if twice := [name for name in behaviors if behaviors.count(name) > 1]:
        raise DataError(f"{into.file}: {behaviors.count(twice[0])} columns are called {twice[0]!r}: rename all but one")
    for column, name in zip(there.T, header[first:], strict=True):
        if name.strip().lower() != _BACKGROUND:
            edges = np.flatnonzero(np.diff(np.concatenate([[False], column, [False]]).astype(np.int8))).tolist()
            for start, stop in zip(edges[::2], edges[1::2], strict=True):
                into.add((start, stop), rows[start][0], video, name.strip(), frames=True)


def _between(file: Path, places: Sequence[int]) -> tuple[int, str] | None:
    """(number, text) of the first line between those of these numbers that has separators and nothing else."""
    if places[-1] - places[0] == len(places) - 1:
        return None
    lines, known = read_text(file).split("\n")[: places[-1]], {*places}
    others = (place for place in range(places[0], places[-1]) if place not in known)
    return next(((place, lines[place - 1]) for place in others if lines[place - 1].strip()), None)


def _read_elan(into: Annotations, fields: Sequence[Sequence[str]], places: Sequence[int]) -> None:
    """ELAN's tab-delimited export without a header: tier, times as clocks or seconds, the annotation's value last."""
    for place, cells in zip(places, fields, strict=True):
        begin, end, *_ = [*_elan_times(cells), "", ""]
        label = cells[-1].strip() or cells[0].strip()
        if not into.add((begin, end), place, into.file.stem, label, ordered=True):
            into.wrong(place, "\t".join(cells), "a tier, begin and later end (hh:mm:ss.ms, ss.msec), the annotation")


def _elan_times(cells: Sequence[str]) -> list[str]:
    """Begin, end and what follows, in the first format in which a line without a header has them; else none."""
    for format_ in _ELAN_TIMES:
        found = [cell.strip() for cell in cells if format_.fullmatch(cell.strip())]
        if len(found) > 1:
            return found
    return []


def _read_thumos(into: Annotations, lines: Sequence[tuple[int, str]]) -> None:
    """THUMOS14: CLASS_val.txt with a video, a start and an end on each line."""
    found = re.fullmatch(r"(.+)_(val|test|validation|train)", into.file.stem)
    if found is None:
        raise DataError(
            f"{into.file}: no header, and no list of THUMOS (CLASS_val.txt: video, start, end on each line)"
        )
    for place, line in lines:
        parts = line.split()
        if len(parts) != 3 or not into.add((parts[1], parts[2]), place, parts[0], found[1], subset=found[2]):
            into.wrong(place, line, "a video, a start and an end in seconds", *parts[1:])
