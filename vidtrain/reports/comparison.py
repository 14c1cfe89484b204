"""Runs beside each other: what a comparison holds, and its tables as text. comparison_files.py: other formats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from vidtrain.reports.figures import figure_label
from vidtrain.reports.table import table
from vidtrain.terminal import printable, rate_text

FEW: Final = 10
"""Videos that are shown in a text."""


@dataclass(frozen=True)
class ComparedSetting:
    """A row: a run, or several that differ only in seed, fold or split.

    value: of the metric, the mean over runs. low, high: its 95 % interval. deviation: between runs, None of one. rate:
    training clips per second. views: clips x crops averaged per video. params, gmac (10^9 multiply-adds of a clip),
    rate, minutes: means over runs, None where no run says so.
    """

    name: str
    value: float
    low: float
    high: float
    deviation: float | None
    runs: int
    params: float | None
    gmac: float | None
    rate: float | None
    minutes: float | None
    views: int | None
    scored: int
    listed: int


@dataclass(frozen=True)
class ComparedPair:
    """The first minus the second, by their positions in the table.

    low, high: the difference's 95 % interval. only_first, only_second: videos that one alone has right, None where a
    video has several answers or labels. test: which one `p` is of. adjusted: p after Holm's correction for all pairs.
    others: further numbers for programs, by column.
    """

    first: int
    second: int
    difference: float
    low: float
    high: float
    only_first: int | None
    only_second: int | None
    test: str
    p: float
    adjusted: float = math.nan
    others: Mapping[str, float] = field(default_factory=dict)

    @property
    def different(self) -> bool:
        return self.adjusted < 0.05


@dataclass(frozen=True)
class Disagreement:
    """A video that one setting has right and the other wrong. right: the position of the one that has it right.

    answers, probs: of the first and of the second of the pair.
    """

    pair: tuple[int, int]
    path: str
    file: str
    seconds: tuple[float | None, float | None]
    label: str
    right: int
    answers: tuple[str, str]
    probs: tuple[float, float]

    @property
    def mistake(self) -> tuple[str, float]:
        """The answer of the one that has it wrong, and its probability."""
        wrong = int(self.right == self.pair[0])
        return self.answers[wrong], self.probs[wrong]


@dataclass(frozen=True)
class Comparison:
    """Settings that were tested on the same videos, the best first. metric: its title. pairs: none of a single row."""

    heading: str
    metric: str
    rows: Sequence[ComparedSetting]
    pairs: Sequence[ComparedPair]
    disagreements: Sequence[Disagreement]
    notes: Sequence[str] = ()

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows for people; a column that says nothing is empty in each."""
        several = any(row.runs > 1 for row in self.rows)
        header = ["rank", self.metric, "95 % interval", "std", "runs", "params", "GMAC", "clips/s", "minutes", "views"]
        body = [
            [
                str(rank),
                f"{row.value:.3f}",
                f"{row.low:.3f}-{row.high:.3f}" if math.isfinite(row.low) else "",
                _shown(row.deviation, ".3f"),
                str(row.runs) if several else "",
                "" if row.params is None else f"{row.params / 1e6:.3f} M",
                _shown(row.gmac, ".3g"),
                "" if row.rate is None else rate_text(row.rate),
                _shown(row.minutes, ".1f"),
                "" if row.views is None else str(row.views),
                f"{row.scored}/{row.listed}",
                row.name,
            ]
            for rank, row in enumerate(self.rows, 1)
        ]
        return [*header, "scored", "run"], body

    def pair_cells(self) -> tuple[list[str], list[list[str]]]:
        """test is empty where `pairs_line` says it of all."""
        several, same = len(self.pairs) > 1, len({pair.test for pair in self.pairs}) == 1
        p = "p (Holm)" if several else "p"
        header = ["ranks", "difference", "95 % interval", "only 1st:2nd", p, "different", "test"]
        body = [
            [
                f"{pair.first} - {pair.second}",
                f"{pair.difference:+.3f}",
                f"{pair.low:+.3f} to {pair.high:+.3f}" if math.isfinite(pair.low) else "",
                "" if pair.only_first is None else f"{pair.only_first}:{pair.only_second}",
                _p_value(pair.adjusted),
                "yes" if pair.different else "not shown",
                "" if same else pair.test,
            ]
            for pair in self.pairs
        ]
        return header, body

    def pairs_line(self) -> str:
        """What stands above the pairs."""
        tests = list(dict.fromkeys(pair.test for pair in self.pairs))
        by = f" by {tests[0]}" if len(tests) == 1 else ""
        holm = f", p corrected for {len(self.pairs)} tests by Holm" if len(self.pairs) > 1 else ""
        return f"Differences{by}{holm}:"

    def disagreement_cells(self, most: int) -> tuple[list[str], list[list[str]]]:
        """Of the first pair alone."""
        ours = [one for one in self.disagreements if one.pair == (self.pairs[0].first, self.pairs[0].second)]
        shown = [(one, *one.mistake) for one in ours[:most]]
        body = [[one.path, one.label, f"rank {one.right}", answer, f"{prob:.2f}"] for one, answer, prob in shown]
        return ["video", "label", "right", "other's answer", "prob"], body


def to_text(comparisons: Sequence[Comparison], *, width: int) -> str:
    """Tables for a terminal of so many columns; where it is too narrow, names of runs stand above their table."""
    return "\n\n".join(_text_of(comparison, width) for comparison in comparisons)


def _text_of(comparison: Comparison, width: int) -> str:
    header, body = comparison.cells()
    parts = [printable(comparison.heading)]
    text = table(header, body)
    if max(map(len, text.splitlines())) > width:
        parts.append("\n".join(printable(f"rank {row[0]}  {row[-1]}") for row in body))
        text = table(header[:-1], [row[:-1] for row in body])
    parts += [text, "\n".join(map(printable, comparison.notes))]
    if comparison.pairs:
        parts += [comparison.pairs_line(), table(*comparison.pair_cells())]
        head, rows = comparison.disagreement_cells(FEW)
        if rows:
            parts += [what_differs(comparison, len(rows)), table(head, [_cut(row, width) for row in rows])]
    return "\n\n".join(filter(None, parts))


def what_differs(comparison: Comparison, shown: int) -> str:
    """The line above the videos, of which so many are shown."""
    pair = comparison.pairs[0]
    count = sum(one.pair == (pair.first, pair.second) for one in comparison.disagreements)
    some = f"; {shown} of them, the most certain mistakes first" if shown < count else ""
    return f"{count} videos that either rank {pair.first} or rank {pair.second} has right, but not both{some}:"


def _cut(row: Sequence[str], width: int) -> list[str]:
    """A row of the videos in a terminal of so many columns: the ends of long paths, both ends of long names."""
    path, label, right, answer, prob = map(printable, row)
    each = max(12, (width - 22) // 4)
    path = path if len(path) <= 2 * each else f"...{path[3 - 2 * each :]}"
    return [path, figure_label(label, each), right, figure_label(answer, each), prob]


def _shown(value: float | None, spec: str) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:{spec}}"


def _p_value(p: float) -> str:
    if not math.isfinite(p):
        return ""
    return "<0.001" if p < 0.001 else f"{p:.3f}"
