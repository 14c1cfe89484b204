"""Dilated ConvLSTM (document 002, section 3.3, variant 3): the cells' convolutions skip positions, so that the gates
see further with as many weights."""

from __future__ import annotations

from collections.abc import Sequence

from vidtrain.models.convlstm import ConvLSTM, build_cells
from vidtrain.models.layers.classifier import check_at_least
from vidtrain.models.layers.conv_rnn import ConvLSTMCell


def convlstm_dilated(
    *,
    num_classes: int,
    stem: Sequence[int] = (32, 64),
    hidden: Sequence[int] = (64, 128),
    kernel: int = 3,
    stride: int = 2,
    norm: bool = True,
    dilation: int = 2,
    head: str = "mean",
    compile_step: bool = False,
    dropout: float = 0.0,
) -> ConvLSTM:
    """A ConvLSTM with dilated cells.

    dilation: of the convolutions of input and state alike; 1 is convlstm. Other options as for convlstm.
    """
    check_at_least("dilation", dilation, 1)
    cells = build_cells(
        ConvLSTMCell,
        stem=stem,
        hidden=hidden,
        kernel=kernel,
        stride=stride,
        norm=norm,
        compiled=compile_step,
        dilation=dilation,
    )
    return ConvLSTM(
        "convlstm_dilated",
        num_classes=num_classes,
        stem=stem,
        cells=cells,
        norm=norm,
        head=head,
        dropout=dropout,
    )
