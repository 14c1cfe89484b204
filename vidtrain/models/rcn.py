"""RCN: a recurrent convolutional network (document 003, "Recurrent Convolutional Network"; Ballas et al. 2016,
"Delving Deeper into Convolutional Networks for Learning Video Representations").

The state of every layer is a map that depends on the layer's own state one step before and on the layer below at the
same step, by 2D convolutions. Each layer has weights of its own, which are shared over time.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.classifier import check_at_least, check_choice
from vidtrain.models.layers.conv_rnn import (
    ConvCell,
    ConvGRUCell,
    ConvLSTMCell,
    ConvRecurrent,
    ConvRNNCell,
    ResetBeforeGRUCell,
)
from vidtrain.models.layers.recurrent import check_odd_kernel, widths

ENTRIES = {
    "rcn": Entry(Family.RECURRENT, "Ballas et al. 2016", (16, 112)),
    "rcn_tiny": Entry(Family.RECURRENT, "Ballas et al. 2016", (16, 64)),
}

CELLS: dict[str, type[ConvCell]] = {
    "rnn": ConvRNNCell,
    "gru": ConvGRUCell,
    "gru_reset_before": ResetBeforeGRUCell,
    "lstm": ConvLSTMCell,
}


class RCN(ConvRecurrent):
    """Recurrent from the frames on; the last layer's states, averaged over space, are pooled over time. Any clip.

    channels: of the states, one number per layer.
    cell: "rnn" (document 003's tanh), "lstm", "gru", whose reset gate acts after the convolution of the state as in
        nn.GRU, or "gru_reset_before", where it acts on the state before that (Ballas et al. 2016).
    kernel: of the cells, odd. stride: of the input convolution of every layer.
    norm: BatchNorm on the input convolutions, and with ReLU on the last states.
    head: what is read from the states, averaged over space: the last one, or the mean, max or attention over time.
    compile_step: torch.compile for the pointwise part of a step (all but rnn). dropout: before the head.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        channels: Sequence[int] = (32, 64, 128, 256),
        cell: str = "gru",
        kernel: int = 3,
        stride: int = 2,
        norm: bool = True,
        head: str = "mean",
        compile_step: bool = False,
        dropout: float = 0.0,
    ) -> None:
        check_choice("cell", cell, CELLS)
        check_odd_kernel(kernel)
        check_at_least("stride", stride, 1)
        cells = [
            CELLS[cell](wide, out, kernel=kernel, stride=stride, norm=norm, compiled=compile_step)
            for wide, out in itertools.pairwise([3, *widths("channels", channels)])
        ]
        super().__init__("rcn", cells, num_classes=num_classes, norm=norm, head=head, dropout=dropout)


rcn = RCN
