"""The confusion matrix as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vidtrain.reports.figures import figure_label, new_figure, quiet_fonts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_NAMES = 40
"""With more classes the names cannot be read, and only the pattern is drawn."""
_MOST_CELLS = 1000
"""With more classes neighbours share a cell: a figure has no more pixels."""


def confusion_figure(confusion: Tensor, class_names: Sequence[str]) -> Figure:
    """A square figure. confusion: int64 (K, K), rows true; each row is shown as shares of its total."""
    classes = len(class_names)
    confusion = _pooled(confusion)
    shares = confusion.double() / confusion.sum(1, keepdim=True).clamp_min(1)
    side = min(12.0, 2.5 + 0.35 * min(classes, _MOST_NAMES))
    figure = new_figure(figsize=(side, side))
    axes = figure.add_subplot()
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1, extent=(-0.5, classes - 0.5, classes - 0.5, -0.5))
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if classes <= _MOST_NAMES:
        names = [figure_label(name) for name in class_names]
        axes.set_xticks(range(classes), names, rotation=90, fontsize=8, parse_math=False)
        axes.set_yticks(range(classes), names, fontsize=8, parse_math=False)
    if classes <= 15:
        for row in range(classes):
            for column in range(classes):
                count = int(confusion[row, column])
                if count:
                    colour = "white" if shares[row, column] > 0.5 else "black"
                    axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    return figure


def confusion_image(confusion: Tensor, class_names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """The same as pixels, uint8 (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(confusion_figure(confusion, class_names))
    with quiet_fonts():
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _pooled(confusion: Tensor) -> Tensor:
    """At most _MOST_CELLS rows and columns, each the sum of neighbours."""
    block = -(-len(confusion) // _MOST_CELLS)
    if block == 1:
        return confusion
    rows = torch.stack([part.sum(0) for part in confusion.split(block)])
    return torch.stack([part.sum(1) for part in rows.split(block, dim=1)], dim=1)
