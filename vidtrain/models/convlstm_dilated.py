"""Dilated ConvLSTM (document 002, section 3.3, variant 3): the cells' convolutions skip positions, so that the gates
see further with as many weights."""

from __future__ import annotations

from typing import Any

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.convlstm import ConvLSTMOptions
from vidtrain.models.layers.classifier import check_at_least
from vidtrain.models.layers.conv_rnn import ConvRecurrent
from vidtrain.ranges import takes

ENTRIES = {
    "convlstm_dilated": Entry(Family.RECURRENT, "document 002, section 3.3", (16, 112)),
    "convlstm_dilated_tiny": Entry(Family.RECURRENT, "document 002, section 3.3", (16, 64)),
}


@takes(ConvLSTMOptions)
def convlstm_dilated(*, dilation: int = 2, **options: Any) -> ConvRecurrent:
    """A ConvLSTM with dilated cells.

    dilation: of the convolutions of input and state alike; 1 is convlstm.
    """
    check_at_least("dilation", dilation, 1)
    return ConvLSTMOptions(**options).net("convlstm_dilated", dilation=dilation)
