"""The confusion matrix as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_NAMES = 40
"""With more classes the names cannot be read, and only the pattern is drawn."""


def confusion_figure(confusion: Tensor, class_names: Sequence[str]) -> Figure:
    """A square figure. confusion: int64 (K, K), rows true; each row is shown as shares of its total."""
    import logging

    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it reports its font cache
    from matplotlib.figure import Figure

    shares = confusion.double() / confusion.sum(1, keepdim=True).clamp_min(1)
    classes = len(class_names)
    side = min(12.0, 2.5 + 0.35 * min(classes, _MOST_NAMES))
    figure = Figure(figsize=(side, side), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if classes <= _MOST_NAMES:
        axes.set_xticks(range(classes), class_names, rotation=90, fontsize=8)
        axes.set_yticks(range(classes), class_names, fontsize=8)
    if classes <= 15:
        for row in range(classes):
            for column in range(classes):
                count = int(confusion[row, column])
                if count:
                    colour = "white" if shares[row, column] > 0.5 else "black"
                    axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    return figure
