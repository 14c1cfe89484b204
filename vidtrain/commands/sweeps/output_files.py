"""What a sweep leaves beside its runs: sweep.csv, sweep.md, sweep.png; and which run is the best."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from vidtrain.commands.sweep import FAILURE, REPEATS
from vidtrain.commands.sweeps.objectives import PRIMARY, best_of, describe, interval_of, validations, values_of
from vidtrain.commands.sweeps.record import RunState, SweepRecord, SweepRun, shown
from vidtrain.errors import ConfigError, VidtrainError
from vidtrain.options.path_options import unquoted
from vidtrain.reports.results import read_result
from vidtrain.reports.sweep_figure import SweptPoint, write_sweep_figure
from vidtrain.reports.table import counted, markdown_table, markdown_text
from vidtrain.runs.atomic import write_csv, write_text
from vidtrain.untrusted_data import read_json

log = logging.getLogger("vidtrain")

CSV: Final = "sweep.csv"
MARKDOWN: Final = "sweep.md"
FIGURE: Final = "sweep.png"


@dataclass(frozen=True)
class _Row:
    run: SweepRun
    state: RunState
    values: list[float]
    summary: Mapping[str, str]
    error: str = ""


def write_files(record: SweepRecord) -> None:
    """Log the best run and write the files. What cannot be written is logged: it ends no sweep."""
    rows = [_row(record, run) for run in record.runs]
    scored = {row.run.number: row.values for row in rows if row.state is RunState.finished and row.values}
    best = best_of(scored, record.objectives)
    if {key.lstrip("+") for key in _keys(record)} <= {*REPEATS}:  # the best fold or seed is no choice
        best = []
    said = [_said(record, rows, number) for number in best]
    for line in said:
        log.info("%s", line)
    for name, write in (
        (CSV, partial(_write_csv, record, rows)),
        (MARKDOWN, partial(_write_markdown, record, rows, said)),
        (FIGURE, partial(_write_figure, record, rows, best)),
    ):
        try:
            write()
        except (OSError, ValueError, VidtrainError) as error:
            log.warning("%s is not written: %s", record.folder / name, error)


def _row(record: SweepRecord, run: SweepRun) -> _Row:
    folder, state = record.folder / run.folder, record.state(run)
    names, summary = [name for name, _ in record.objectives], {}
    values: list[float] = []
    if state is RunState.finished:
        result = read_result(folder) or {}
        summary = {str(key): str(value) for key, value in result.get("summary", {}).items()}
        try:
            values = values_of(folder, names)
        except ConfigError as error:
            return _Row(run, state, [], summary, str(error))
    elif state is RunState.pruned and len(names) == 1 and (found := validations(folder)):
        last = found[max(found)]
        values = [last[names[0]]] if names[0] in last else []
    return _Row(run, state, values, summary, _reason(folder) if state is RunState.failed else "")


def _reason(folder: Path) -> str:
    try:
        content: Any = read_json(folder / FAILURE)
        return str(content["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return "failed"


def _said(record: SweepRecord, rows: Sequence[_Row], best: int) -> str:
    """Of a run that is the best: its numbers, and of one objective how sure they are and which others are as good."""
    row, one = rows[best], len(record.objectives) == 1
    folder, name = record.folder / row.run.folder, record.objectives[0][0]
    found = describe(row.values, _labelled(record))
    interval, equal = interval_of(folder, name) if one else None, ""
    if interval is not None:
        found += f", {interval}"
        others = [r for r in rows if r.state is RunState.finished and r.values and r is not row]
        if within := [r for r in others if interval.low <= r.values[0] <= interval.high]:
            second = min(within, key=lambda r: abs(r.values[0] - row.values[0]))
            more = f" and {len(within) - 1} more" if len(within) > 1 else ""
            lies = "lie" if more else "lies"
            equal = f"; run {second.run.number} ({second.values[0]:.4g}){more} {lies} within that"
            if all((read_result(record.folder / r.run.folder) or {}).get("test") for r in (row, second)):
                equal += f": vidtrain compare {record.folder} tests the differences"
    return (
        f"{'best' if one else 'beaten by none'}: run {row.run.number}, {shown(row.run.varied)}: {found} "
        f"({folder}){equal}"
    )


def _labelled(record: SweepRecord) -> list[tuple[str, str]]:
    """The objectives, with 'val top-1' for the one that a run chooses by itself."""
    folders = (record.folder / run.folder for run in record.runs)
    result = next((found for folder in folders if (found := read_result(folder)) is not None), None)
    own = PRIMARY if result is None else f"val {result['primary']}"
    return [(own if name == PRIMARY else name, direction) for name, direction in record.objectives]


def _keys(record: SweepRecord) -> list[str]:
    return list(dict.fromkeys(key for run in record.runs for key in run.varied))


def _header(record: SweepRecord, rows: Sequence[_Row]) -> tuple[list[str], list[str]]:
    """(all columns, those of the summaries)."""
    summary = list(dict.fromkeys(name for row in rows for name in row.summary))
    names = [name for name, _ in _labelled(record)]
    return ["run", "state", *(key.lstrip("+") for key in _keys(record)), *names, *summary, "folder", "error"], summary


def _cells(record: SweepRecord, row: _Row, summary: Sequence[str], digits: str) -> list[str]:
    values = [format(value, digits) for value in row.values] or [""] * len(record.objectives)
    varied = [unquoted(row.run.varied.get(key, "")) for key in _keys(record)]
    rest = [row.summary.get(name, "") for name in summary]
    return [str(row.run.number), row.state.value, *varied, *values, *rest, row.run.folder, row.error]


def _write_csv(record: SweepRecord, rows: Sequence[_Row]) -> None:
    header, summary = _header(record, rows)
    write_csv(record.folder / CSV, header, [_cells(record, row, summary, ".17g") for row in rows])


def _write_markdown(record: SweepRecord, rows: Sequence[_Row], said: Sequence[str]) -> None:
    header, summary = _header(record, rows)
    states = [row.state for row in rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in RunState if state in states)
    parts = [
        f"# {markdown_text(record.folder.name)}",
        f"{counted(len(rows), 'run')}: {counts}. "
        + markdown_text("; ".join(f"{direction} {name}" for name, direction in _labelled(record))),
        *map(markdown_text, said),
        markdown_table([markdown_text(name) for name in header], [_cells(record, row, summary, ".4g") for row in rows]),
        f"![the objective over what was varied]({FIGURE})",
    ]
    write_text(record.folder / MARKDOWN, "\n\n".join(parts) + "\n", errors="backslashreplace")


def _write_figure(record: SweepRecord, rows: Sequence[_Row], best: Sequence[int]) -> None:
    keys = _keys(record)
    points = [
        SweptPoint(
            row.run.number,
            [unquoted(row.run.varied.get(key, "")) for key in keys],
            row.values,
            best=row.run.number in best,
            pruned=row.state is RunState.pruned,
        )
        for row in rows
        if row.values
    ]
    if len(points) > 1 and keys:
        write_sweep_figure(record.folder / FIGURE, [key.lstrip("+") for key in keys], _labelled(record), points)
