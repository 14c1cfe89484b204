"""ConvLSTM: an LSTM whose states are maps and whose matrix products are convolutions (document 002, section 3.2; Shi
et al. 2015, "Convolutional LSTM Network: A Machine Learning Approach for Precipitation Nowcasting").

The variants of document 002, section 3.3 (convlstm_*.py) differ in their cells or in what is read from the states.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.classifier import check_at_least
from vidtrain.models.layers.conv_rnn import ConvLSTMCell, ConvRecurrent
from vidtrain.models.layers.recurrent import check_odd_kernel, widths
from vidtrain.ranges import takes

ENTRIES = {
    "convlstm": Entry(Family.RECURRENT, "Shi et al. 2015", (16, 112)),
    "convlstm_tiny": Entry(Family.RECURRENT, "Shi et al. 2015", (16, 64)),
}


@dataclass(frozen=True, kw_only=True)
class ConvLSTMOptions:
    """Options of every ConvLSTM."""

    num_classes: int
    size: int | None = None
    """Pixels of a frame's side. Only peepholes have to know it, as their weights belong to positions; no other fits."""
    stem: Sequence[int] = (32, 64)
    """Channels of the 3x3 convolutions before the first cell, each halves the frames; [] for none."""
    hidden: Sequence[int] = (64, 128)
    """Channels of the states, one number per layer."""
    kernel: int = 3
    """Of the cells, odd."""
    stride: int = 2
    """Of the input convolution of every layer but the first."""
    norm: bool = True
    """BatchNorm on the input convolutions, and with ReLU on the last states."""
    peephole: bool = False
    """The gates also see the cell (Shi et al. 2015)."""
    head: str = "mean"
    """What is read from the states, averaged over space: the last one, or the mean, max or attention over time."""
    compile_step: bool = False
    """torch.compile for the pointwise part of a step."""
    dropout: float = 0.0
    """Before the head."""

    @property
    def only_size(self) -> int | None:
        """The only side of the frames that fits; None where any does."""
        return self.size if self.peephole else None

    def net(
        self, name: str, kind: type[ConvLSTMCell] = ConvLSTMCell, reads: type[ConvRecurrent] = ConvRecurrent, **own: Any
    ) -> ConvRecurrent:
        """The network; `own` are the options of this kind of cell. reads: what is read from its states."""
        return reads(
            name,
            self.cells(kind, **own),
            stem=self.stem,
            size=self.only_size,
            num_classes=self.num_classes,
            norm=self.norm,
            head=self.head,
            dropout=self.dropout,
        )

    def cells(self, kind: type[ConvLSTMCell] = ConvLSTMCell, **own: Any) -> list[ConvLSTMCell]:
        """One cell a layer, the first of which reads the stem; `own` are the options of this kind of cell."""
        inner, outer = widths("stem", self.stem, empty=True), widths("hidden", self.hidden)
        check_odd_kernel(self.kernel)
        check_at_least("stride", self.stride, 1)
        side = 0
        if self.peephole:
            check_at_least("size", self.size or 0, 1, "with peephole=true")
            side = -(-(self.size or 0) // 2 ** len(inner))
        cells = []
        for number, (wide, out) in enumerate(itertools.pairwise([[3, *inner][-1], *outer])):
            step = self.stride if number else 1
            side = -(-side // step)
            cells.append(
                kind(
                    wide,
                    out,
                    kernel=self.kernel,
                    stride=step,
                    norm=self.norm,
                    compiled=self.compile_step,
                    peephole=(side, side) if self.peephole else None,
                    **own,
                )
            )
        return cells


@takes(ConvLSTMOptions)
def convlstm(**options: Any) -> ConvRecurrent:
    """A ConvLSTM on a stem of convolutions."""
    return ConvLSTMOptions(**options).net("convlstm")
