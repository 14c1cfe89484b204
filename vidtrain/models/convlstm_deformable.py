"""Deformable ConvLSTM (document 002, section 3.3, variant 1): the cells' convolutions read where the input says (Dai et
al. 2017, "Deformable Convolutional Networks")."""

from __future__ import annotations

from collections.abc import Sequence

from vidtrain.models.convlstm import ConvLSTM, build_cells
from vidtrain.models.layers.classifier import check_at_least
from vidtrain.models.layers.deformable import DeformableConvLSTMCell


def convlstm_deformable(
    *,
    num_classes: int,
    stem: Sequence[int] = (32, 64),
    hidden: Sequence[int] = (64, 128),
    kernel: int = 3,
    stride: int = 2,
    norm: bool = True,
    groups: int = 1,
    head: str = "mean",
    compile_step: bool = False,
    dropout: float = 0.0,
) -> ConvLSTM:
    """A ConvLSTM with deformable cells.

    groups: of channels, each with offsets of its own; must divide the stem's last width and every hidden width.
    Other options as for convlstm.
    """
    check_at_least("groups", groups, 1)
    cells = build_cells(
        DeformableConvLSTMCell,
        stem=stem,
        hidden=hidden,
        kernel=kernel,
        stride=stride,
        norm=norm,
        compiled=compile_step,
        groups=groups,
    )
    return ConvLSTM(
        "convlstm_deformable",
        num_classes=num_classes,
        stem=stem,
        cells=cells,
        norm=norm,
        head=head,
        dropout=dropout,
    )
