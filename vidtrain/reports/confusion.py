"""The confusion matrix as a figure, and the pairs of classes that are confused most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vidtrain.reports.figures import figure_label, new_figure, pixels_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NAMES = 40
"""With more classes the names cannot be read, and the pattern is drawn beside the pairs that are confused most."""
_MOST_CELLS = 1000
"""With more classes neighbours share a cell: a figure has no more pixels."""
_MOST_PAIRS = 25
_MOST_EQUAL = 100_000
"""Pairs with one and the same count that are ordered: of 10,000 classes there may be millions."""


@dataclass(frozen=True)
class ConfusedPair:
    """Videos of one class that were taken for another. true, predicted: class numbers. of: videos of the true class."""

    true: int
    predicted: int
    count: int
    of: int


def confused_pairs(confusion: npt.ArrayLike, most: int) -> list[ConfusedPair]:
    """The `most` largest counts off the diagonal, the largest first; of equal counts the larger share of its class.

    confusion: (K, K) integers, rows true.
    """
    counts = np.array(confusion)
    totals = counts.sum(1, dtype=np.int64)
    np.fill_diagonal(counts, 0)
    flat = counts.ravel()
    least = np.partition(flat, -most)[-most] if most < len(flat) else 0
    rows, columns = np.divmod(np.flatnonzero(flat >= max(1, int(least)))[:_MOST_EQUAL], len(counts))
    found = counts[rows, columns]
    order = np.lexsort((columns, rows, -found / totals[rows], -found))[:most]
    return [ConfusedPair(int(rows[n]), int(columns[n]), int(found[n]), int(totals[rows[n]])) for n in order]


def confusion_figure(confusion: npt.ArrayLike, class_names: Sequence[str]) -> Figure:
    """The matrix; of more than MOST_NAMES classes its pattern, and bars of the most confused pairs beside it.

    confusion: integers (K, K), rows true; each row is shown as shares of its total.
    """
    classes = len(class_names)
    counts = np.asarray(confusion)
    pairs = confused_pairs(counts, _MOST_PAIRS) if classes > MOST_NAMES else []
    side = min(12.0, 2.5 + 0.35 * min(classes, MOST_NAMES))
    if not pairs:
        figure = new_figure(figsize=(side, side))
        _draw_matrix(figure.add_subplot(), counts, class_names)
        return figure
    figure = new_figure(figsize=(16, 8))
    left, right = figure.subplots(1, 2)
    _draw_matrix(left, counts, class_names)
    names = [f"{figure_label(class_names[p.true])} as {figure_label(class_names[p.predicted])}" for p in pairs]
    right.barh(names if len(set(names)) == len(names) else range(len(names)), [p.count for p in pairs], color="#4477aa")
    right.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    right.bar_label(right.containers[0], [f"{p.count} of {p.of}" for p in pairs], fontsize=8, padding=3)
    right.invert_yaxis()
    right.margins(x=0.15)
    right.set_xlabel("videos")
    right.set_title("most confused: true as predicted", fontsize=10, loc="left")
    return figure


def _draw_matrix(axes: Axes, counts: npt.NDArray[Any], class_names: Sequence[str]) -> None:
    from matplotlib.colors import Normalize, PowerNorm

    classes = len(class_names)
    counts = pooled(counts, _MOST_CELLS)
    shares = row_shares(counts)
    # of many classes few videos are confused in any one cell, which the plain scale would leave white
    norm = Normalize(0, 1) if classes <= MOST_NAMES else PowerNorm(0.5, 0, 1)
    axes.imshow(shares, cmap="Blues", norm=norm, extent=(-0.5, classes - 0.5, classes - 0.5, -0.5))
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if classes <= MOST_NAMES:
        names = [figure_label(name) for name in class_names]
        axes.set_xticks(range(classes), names, rotation=90, fontsize=8, parse_math=False)
        axes.set_yticks(range(classes), names, fontsize=8, parse_math=False)
    if classes <= 15:
        for row, column in np.argwhere(counts).tolist():
            colour = "white" if shares[row, column] > 0.5 else "black"
            text = str(int(counts[row, column]))
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)


def confusion_image(confusion: npt.ArrayLike, class_names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """The same as pixels, uint8 (H, W, 3)."""
    return pixels_of(confusion_figure(confusion, class_names))


def row_shares(counts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Each row of (K, K) as shares of its total, in [0, 1]; 0 where it has none."""
    return np.asarray(counts / np.maximum(counts.sum(1, keepdims=True, dtype=np.float64), 1))


def pooled(counts: npt.NDArray[Any], most: int) -> npt.NDArray[np.int64]:
    """At most `most` rows and columns of (K, K), each the sum of neighbours."""
    block = -(-len(counts) // most)
    starts = np.arange(0, len(counts), block)
    rows = np.stack([counts[start : start + block].sum(0, dtype=np.int64) for start in starts])
    return np.asarray(np.add.reduceat(rows, starts, axis=1))
