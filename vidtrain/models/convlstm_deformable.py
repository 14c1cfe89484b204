"""Deformable ConvLSTM (document 002, section 3.3, variant 1): the cells' convolutions read where the input says (Dai et
al. 2017, "Deformable Convolutional Networks")."""

from __future__ import annotations

from typing import Any

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.convlstm import ConvLSTMOptions
from vidtrain.models.layers.classifier import check_at_least
from vidtrain.models.layers.conv_rnn import ConvRecurrent
from vidtrain.models.layers.deformable import DeformableConvLSTMCell
from vidtrain.ranges import takes

ENTRIES = {
    "convlstm_deformable": Entry(Family.RECURRENT, "document 002, section 3.3", (16, 112)),
    "convlstm_deformable_tiny": Entry(Family.RECURRENT, "document 002, section 3.3", (16, 64)),
}


@takes(ConvLSTMOptions)
def convlstm_deformable(*, groups: int = 1, **options: Any) -> ConvRecurrent:
    """A ConvLSTM with deformable cells.

    groups: of channels, each with offsets of its own; must divide the stem's last width and every hidden width.
    """
    check_at_least("groups", groups, 1)
    return ConvLSTMOptions(**options).net("convlstm_deformable", DeformableConvLSTMCell, groups=groups)
