"""ConvLSTM: an LSTM whose states are maps and whose matrix products are convolutions (document 002, section 3.2; Shi
et al. 2015, "Convolutional LSTM Network: A Machine Learning Approach for Precipitation Nowcasting").

The variants of document 002, section 3.3 (convlstm_*.py) differ in their cells or in what is read from the states.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from vidtrain.models.layers.classifier import check_at_least, check_clip
from vidtrain.models.layers.conv_rnn import ConvLSTMCell, readout, time_first
from vidtrain.models.layers.recurrent import RecurrentClassifier, State, TimePool, check_odd, widths


def conv_stem(channels: Sequence[int]) -> nn.Sequential:
    """3x3 convolutions with BatchNorm and ReLU, each of which halves the frames."""
    layers: list[nn.Module] = []
    for wide, out in zip((3, *channels), channels, strict=False):
        conv = nn.Conv2d(wide, out, 3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        layers += [conv, nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class ConvLSTM(RecurrentClassifier):
    """A stem on each frame, then layers of ConvLSTM cells; the last layer's states, averaged over space, over time.

    size: the only side of the frames that fits, None where any does.
    """

    def __init__(
        self,
        name: str,
        *,
        num_classes: int,
        stem: Sequence[int],
        cells: Sequence[ConvLSTMCell],
        norm: bool,
        head: str,
        dropout: float,
        size: int | None = None,
    ) -> None:
        super().__init__(num_features=cells[-1].channels, num_classes=num_classes, dropout=dropout)
        self.name = name
        self.size = size
        self.stem = conv_stem(stem)
        self.layers = nn.ModuleList(cells)
        self.readout = readout(self.num_features, norm=norm)
        self.pool = TimePool(self.num_features, head)

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


def build_cells(
    kind: type[ConvLSTMCell],
    *,
    stem: Sequence[int],
    hidden: Sequence[int],
    kernel: int,
    stride: int,
    peephole_size: int | None = None,
    **options: Any,
) -> list[ConvLSTMCell]:
    """One cell a layer, the first of which reads the stem; `options` are the cell's own.

    peephole_size: side of the frames, for cells with peepholes.
    """
    inner, outer = widths("stem", stem, empty=True), widths("hidden", hidden)
    check_odd("kernel", kernel)
    check_at_least("stride", stride, 1)
    cells = []
    side = None if peephole_size is None else -(-peephole_size // 2 ** len(inner))
    for number, (wide, out) in enumerate(itertools.pairwise([[3, *inner][-1], *outer])):
        step = stride if number else 1
        if side is not None:
            side = -(-side // step)
            options["peephole"] = (side, side)
        cells.append(kind(wide, out, kernel=kernel, stride=step, **options))
    return cells


def convlstm(
    *,
    num_classes: int,
    size: int,
    stem: Sequence[int] = (32, 64),
    hidden: Sequence[int] = (64, 128),
    kernel: int = 3,
    stride: int = 2,
    norm: bool = True,
    peephole: bool = False,
    head: str = "mean",
    compile_step: bool = False,
    dropout: float = 0.0,
) -> ConvLSTM:
    """A ConvLSTM on a stem of convolutions.

    size: of the frames; peephole=true accepts no other, as its weights belong to positions.
    stem: channels of the 3x3 convolutions before the first cell, each halves the frames; [] for none.
    hidden: channels of the states, one number a layer. kernel: of the cells, odd.
    stride: of the input convolution of every layer but the first. norm: BatchNorm on the input
        convolutions, and with ReLU on the last states.
    peephole: the gates also see the cell (Shi et al. 2015).
    head: what is read from the states, averaged over space: the last one, or the mean, max or attention over time.
    compile_step: torch.compile for the pointwise part of a step. dropout: before the head.
    """
    check_at_least("size", size, 1)
    cells = build_cells(
        ConvLSTMCell,
        stem=stem,
        hidden=hidden,
        kernel=kernel,
        stride=stride,
        norm=norm,
        compiled=compile_step,
        peephole_size=size if peephole else None,
    )
    return ConvLSTM(
        "convlstm",
        num_classes=num_classes,
        stem=stem,
        cells=cells,
        norm=norm,
        head=head,
        dropout=dropout,
        size=size if peephole else None,
    )
