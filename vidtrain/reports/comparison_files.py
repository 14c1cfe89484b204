"""A comparison of runs as Markdown and CSV; as a page: page/comparison_page.py. Names are a stranger's."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from vidtrain.reports.comparison import FEW, ComparedSetting, Comparison, what_differs
from vidtrain.reports.table import markdown_table, markdown_text
from vidtrain.terminal import EXACT_NAMES


def to_markdown(comparisons: Sequence[Comparison]) -> str:
    parts = []
    for comparison in comparisons:
        parts += [markdown_text(comparison.heading), markdown_table(*run_second(*comparison.cells()))]
        parts += [markdown_text(note) for note in comparison.notes]
        if comparison.pairs:
            parts += [markdown_text(comparison.pairs_line()), markdown_table(*comparison.pair_cells())]
            head, rows = comparison.disagreement_cells(FEW)
            parts += [markdown_text(what_differs(comparison, len(rows))), markdown_table(head, rows)] if rows else []
    return "\n\n".join(parts)


def run_second(header: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """The name beside the rank: what is wider than a page is cut on its right."""
    return [header[0], header[-1], *header[1:-1]], [[row[0], row[-1], *row[1:-1]] for row in rows]


_COLUMNS: Final[Mapping[str, Callable[[ComparedSetting], Any]]] = {
    "run": lambda row: row.name,
    "value": lambda row: row.value,
    "low": lambda row: row.low,
    "high": lambda row: row.high,
    "std": lambda row: row.deviation,
    "runs": lambda row: row.runs,
    "params": lambda row: row.params,
    "gmac": lambda row: row.gmac,
    "clips_per_second": lambda row: row.rate,
    "minutes": lambda row: row.minutes,
    "views": lambda row: row.views,
    "scored": lambda row: row.scored,
    "listed": lambda row: row.listed,
}


def csv_rows(comparisons: Sequence[Comparison]) -> tuple[list[str], list[list[Any]]]:
    """Every setting with its exact numbers; "" where there is none. table: which of the comparisons it is in."""
    rows = [
        [number, rank, comparison.metric, *(_exact(column(row)) for column in _COLUMNS.values())]
        for number, comparison in enumerate(comparisons, 1)
        for rank, row in enumerate(comparison.rows, 1)
    ]
    return ["table", "rank", "metric", *_COLUMNS], rows


def csv_pairs(comparisons: Sequence[Comparison]) -> tuple[list[str], list[list[Any]]]:
    """Every pair with its exact numbers."""
    plain = ["difference", "low", "high", "only_first", "only_second", "test", "p", "adjusted"]
    others = list(dict.fromkeys(name for c in comparisons for pair in c.pairs for name in pair.others))
    rows = [
        [
            number,
            *(comparison.rows[position - 1].name for position in (pair.first, pair.second)),
            *(_exact(getattr(pair, name)) for name in plain),
            *(_exact(pair.others.get(name)) for name in others),
        ]
        for number, comparison in enumerate(comparisons, 1)
        for pair in comparison.pairs
    ]
    return ["table", "first", "second", *plain[:-1], "p_holm", *others], rows


def csv_disagreements(comparisons: Sequence[Comparison]) -> tuple[list[str], list[list[Any]]]:
    """Every video that one of a pair has right and the other wrong."""
    header = ["table", "first", "second", "path", "start", "end", "label", "right", "answer_first", "prob_first"]
    rows = [
        [
            number,
            *(comparison.rows[position - 1].name for position in one.pair),
            *(one.path, *map(_exact, one.seconds), one.label, "first" if one.right == one.pair[0] else "second"),
            *(cell for a, p in zip(one.answers, one.probs, strict=True) for cell in (a, f"{p:.6f}")),
            one.file,
        ]
        for number, comparison in enumerate(comparisons, 1)
        for one in comparison.disagreements
    ]
    return [*header, "answer_second", "prob_second", "file"], rows


def csv_text(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(header)
    lines.writerows(rows)
    return text.getvalue().encode("utf-8", EXACT_NAMES).decode("utf-8", "backslashreplace")


def _exact(value: Any) -> Any:
    return "" if value is None or (isinstance(value, float) and not math.isfinite(value)) else value
