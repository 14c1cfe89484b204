"""What `vidtrain data check` found, as text."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

from vidtrain.data.checks.check import KINDS, Problem
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.reports.table import counted, table
from vidtrain.terminal import printable

_EXAMPLES = 3
_WIDTH = 160


def problems_text(data: VideoData, problems: Sequence[Problem], root: str | None = None) -> str:
    """A table of problems by kind and split, with the first examples of each; '' when there are none.

    root: the folder that paths are shown below.
    """
    if not problems:
        return ""
    counts = Counter((problem.kind, problem.split) for problem in problems)
    kinds = [kind for kind in KINDS if any(counts[(kind, split)] for split in data.splits)]
    start = os.path.join(root, "") if root else ""  # noqa: PTH118 - with the separator at its end
    lines = [table(["problem", *data.splits], [[k, *(counts[(k, s)] for s in data.splits)] for k in kinds])]
    for kind in kinds:
        ours = [problem for problem in problems if problem.kind == kind]
        lines += [_cut(f"{kind}: {p.split}: {p.path.removeprefix(start)}: {p.detail}") for p in ours[:_EXAMPLES]]
        if len(ours) > _EXAMPLES:
            lines.append(f"{kind}: ... {len(ours) - _EXAMPLES} more")
    return "\n".join(lines)


def summary_line(data: VideoData, problems: Sequence[Problem], notes: int = 0) -> str:
    """How many rows are without problems. notes: lines about the dataset above it."""
    rows = sum(manifest.listed for manifest in data.splits.values())
    # missing rows have no number, so their names tell them apart
    serious = {(p.split, p.row, p.path) for p in problems if p.serious}
    others = {(p.split, p.row, p.path) for p in problems} - serious
    if not serious and not others:
        above = f"; {counted(notes, 'note')} above" if notes else ""
        return f"the files of all {rows} rows can be read{above}"
    parts = [f"{rows - len(serious) - len(others)} of {rows} rows are without problems"]
    parts += [f"serious problems: {len(serious)}"] if serious else []
    parts += [f"short, still, black or with odd timestamps: {len(others)}"] if others else []
    return "; ".join(parts)


def _cut(line: str) -> str:
    """At most _WIDTH characters, without the middle: a path's start and the reason's end say most."""
    line = printable(line)
    if len(line) <= _WIDTH:
        return line
    half = (_WIDTH - 5) // 2
    return f"{line[:half]} ... {line[-half:]}"
