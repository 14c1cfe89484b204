"""ConvLSTM: an LSTM whose states are maps and whose matrix products are convolutions (document 002, section 3.2; Shi
et al. 2015, "Convolutional LSTM Network: A Machine Learning Approach for Precipitation Nowcasting").

The variants of document 002, section 3.3 (convlstm_*.py) differ in their cells or in what is read from the states.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.classifier import check_at_least, check_clip
from vidtrain.models.layers.conv_rnn import ConvLSTMCell, readout, time_first
from vidtrain.models.layers.recurrent import RecurrentClassifier, State, TimePool, check_odd_kernel, widths
from vidtrain.ranges import takes

ENTRIES = {
    "convlstm": Entry(Family.RECURRENT, "Shi et al. 2015", (16, 112)),
    "convlstm_tiny": Entry(Family.RECURRENT, "Shi et al. 2015", (16, 64)),
}


def conv_stem(channels: Sequence[int]) -> nn.Sequential:
    """3x3 convolutions with BatchNorm and ReLU, each of which halves the frames."""
    layers: list[nn.Module] = []
    for wide, out in zip((3, *channels), channels, strict=False):
        conv = nn.Conv2d(wide, out, 3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        layers += [conv, nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


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


class ConvLSTM(RecurrentClassifier):
    """A stem on each frame, then layers of ConvLSTM cells; the last layer's states, averaged over space, over time."""

    def __init__(self, name: str, options: ConvLSTMOptions, cells: Sequence[ConvLSTMCell]) -> None:
        super().__init__(num_features=cells[-1].channels, num_classes=options.num_classes, dropout=options.dropout)
        self.name = name
        self.size = options.only_size
        self.stem = conv_stem(options.stem)
        self.layers = nn.ModuleList(cells)
        self.readout = readout(self.num_features, norm=options.norm)
        self.pool = TimePool(self.num_features, options.head)

    def stream_features(self, x: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """(B, 3, T, H, W) -> (B, D) and the state."""
        maps, steps, cells = self.states(x, state)
        means = maps.mean((2, 3)).unflatten(0, (steps, -1)).transpose(0, 1)
        out, pooled = self.pool(means, None if state is None else state[1])
        return out, (cells, pooled)

    def states(self, x: torch.Tensor, state: State | None) -> tuple[torch.Tensor, int, State]:
        """(B, 3, T, H, W) -> the last layer's states after the readout (T B, D, H', W'), T, and the cells' state."""
        check_clip(x, self.name, size=self.size)
        steps = x.shape[2]
        maps = self.stem(time_first(x))
        before = [None] * len(self.layers) if state is None else state[0]
        after = []
        for cell, known in zip(self.layers, before, strict=True):
            maps, new = cell(maps, steps, known)
            after.append(new)
        return self.readout(maps), steps, tuple(after)


@takes(ConvLSTMOptions)
def convlstm(**options: Any) -> ConvLSTM:
    """A ConvLSTM on a stem of convolutions."""
    shared = ConvLSTMOptions(**options)
    return ConvLSTM("convlstm", shared, shared.cells())
