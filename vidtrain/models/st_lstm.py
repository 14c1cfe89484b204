"""ST-LSTM: a temporal LSTM encoder that says where to look in each frame (document 000, section 3.2).

h_t = LSTM(x_t, h_{t-1}), a_t = softmax(W_a h_t + b_a) over the positions of the map x_t, x^_t = a_t . x_t,
v_t = [x^_t; h_t]. The document leaves x^_t a map; here it is summed over the positions, as weights that sum to 1 ask
for.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.backbone2d import image_backbone
from vidtrain.models.layers.classifier import check_at_least, check_choice, check_clip
from vidtrain.models.layers.frame_features import OnFrames
from vidtrain.models.layers.recurrent import SequenceEncoder, State, TimePool

ENTRIES = {
    "st_lstm": Entry(Family.RECURRENT, "document 000, section 3.2", (16, 112)),
    "st_lstm_tiny": Entry(Family.RECURRENT, "document 000, section 3.2", (16, 64)),
}

INPUTS = ("flatten", "avg")


class STLSTM(OnFrames):
    """Document 000's spatio-temporal LSTM on the maps of a 2D CNN. Any T.

    size: of the frames; no other fits, as every position of the map has a row of W_a.
    backbone: see layers/backbone2d.py.
    frozen: the CNN is not trained; no gradient and no activations of it are kept.
    inputs: what the LSTM reads of a frame's map: all of it ("flatten") or its mean over space ("avg").
    hidden, layers: of the LSTM. head: "last" v_t, or the "mean", "max" or "attention" over time.
    dropout: before the head.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        size: int,
        backbone: str = "resnet18",
        frozen: bool = False,
        inputs: str = "flatten",
        hidden: int = 256,
        layers: int = 1,
        head: str = "mean",
        dropout: float = 0.0,
    ) -> None:
        check_at_least("size", size, 1)
        check_at_least("hidden", hidden, 1)
        check_choice("inputs", inputs, INPUTS)
        net = image_backbone(backbone)
        features = net.out_channels + hidden
        super().__init__(backbone=net, frozen=frozen, num_features=features, num_classes=num_classes, dropout=dropout)
        high, wide = net.map_size(size)
        places = high * wide
        self.size = size
        self.flat = inputs == "flatten"
        self.encoder = SequenceEncoder(
            net.out_channels * (places if self.flat else 1), cell="lstm", hidden=hidden, layers=layers
        )
        self.attention = nn.Linear(hidden, places)
        nn.init.zeros_(self.attention.weight)
        nn.init.zeros_(self.attention.bias)
        self.pool = TimePool(self.num_features, head)

    def attend(self, x: torch.Tensor, cells: Any = None) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """(B, 3, T, H, W) -> v (B, T, D), the weights a (B, T, H' W'), which sum to 1, and the cells' state."""
        check_clip(x, "st_lstm", size=self.size)
        maps = self.frame_maps(x).flatten(3)  # (B, T, C, H' W')
        h, cells = self.encoder.steps(maps.flatten(2) if self.flat else maps.mean(3), cells)
        weights = self.attention(h).softmax(2)
        looked_at = (maps @ weights.unsqueeze(3)).squeeze(3)
        return torch.cat([looked_at, h], 2), weights, cells

    def stream_features(self, x: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """(B, 3, T, H, W) -> (B, D) and the state."""
        cells, pooled = (None, None) if state is None else state
        steps, _, cells = self.attend(x, cells)
        out, pooled = self.pool(steps, pooled)
        return out, (cells, pooled)


st_lstm = STLSTM
