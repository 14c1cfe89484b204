"""CNN + LSTM: a 2D CNN on each frame and a recurrent network over the features of the frames (document 004; document
001, section 3.1.3; Donahue et al. 2015, "Long-term Recurrent Convolutional Networks").

v_t = CNN(frame t), i, f, o = sigmoid(W_x v_t + W_h h_{t-1} + b), c~ = tanh(...), c_t = f . c_{t-1} + i . c~,
h_t = o . tanh(c_t), as nn.LSTM computes it; the clip's features are h_T.
"""

from __future__ import annotations

import torch
from torch import nn

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.backbone2d import image_backbone
from vidtrain.models.layers.classifier import check_at_least, check_choice, check_clip
from vidtrain.models.layers.frame_features import OnFrames
from vidtrain.models.layers.recurrent import SequenceEncoder, State, TimePool

ENTRIES = {
    "cnn_lstm": Entry(Family.RECURRENT, "Donahue et al. 2015", (16, 112)),
    "cnn_lstm_tiny": Entry(Family.RECURRENT, "Donahue et al. 2015", (16, 64)),
}

FUSIONS = ("none", "concat", "weights")
POOLS = ("avg", "flatten")


class Fusion(nn.Module):
    """Joins the spatial features s, the mean of the frames' own, and the temporal ones h (document 004, section 3.4).

    none: h. concat: [s; h]. weights: a_1 P s + a_2 h with a = softmax(w) and a linear map P to the length of h.
    """

    def __init__(self, mode: str, spatial: int, temporal: int) -> None:
        super().__init__()
        check_choice("fusion", mode, FUSIONS)
        self.mode = mode
        self.features = temporal + (spatial if mode == "concat" else 0)
        if mode == "weights":
            self.projection = nn.Linear(spatial, temporal)
            self.weights = nn.Parameter(torch.zeros(2))

    def forward(self, spatial: torch.Tensor, temporal: torch.Tensor) -> torch.Tensor:
        """(B, S), (B, H) -> (B, features)."""
        if self.mode == "none":
            return temporal
        if self.mode == "concat":
            return torch.cat([spatial, temporal], 1)
        first, second = self.weights.softmax(0)
        return first * self.projection(spatial) + second * temporal


class CNNLSTM(OnFrames):
    """Document 004's net: ResNet-18, an LSTM of 2 layers of 256, the last step, a linear layer. Any T; any H and W
    with pooling=avg. Frames go through the CNN as one batch.

    size: of the frames, which pooling=flatten fixes.
    backbone: see layers/backbone2d.py.
    frozen: the CNN is not trained; no gradient and no activations of it are kept.
    pooling: of a frame's map: "avg", or "flatten", which keeps where something is.
    projection: length of a linear layer between the CNN and the cells (512 in document 004's code), None for none.
    cell: "lstm", "gru" or "rnn". hidden, layers: of them. bidirectional: another reading from the end backwards;
        such a model cannot stream.
    head: "last" step, or the "mean", "max" or "attention" over time.
    fusion: of temporal and spatial features: "none", "concat" or "weights" (document 004, section 3.4).
    dropout: before the head.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        size: int,
        backbone: str = "resnet18",
        frozen: bool = False,
        pooling: str = "avg",
        projection: int | None = None,
        cell: str = "lstm",
        hidden: int = 256,
        layers: int = 2,
        bidirectional: bool = False,
        head: str = "last",
        fusion: str = "none",
        dropout: float = 0.0,
    ) -> None:
        check_at_least("size", size, 1)
        check_choice("pooling", pooling, POOLS)
        if projection is not None:
            check_at_least("projection", projection, 1)
        net = image_backbone(backbone)
        flat = pooling == "flatten"
        high, wide = net.map_size(size) if flat else (1, 1)
        inputs = net.out_channels * high * wide
        features = inputs if projection is None else projection
        encoder = SequenceEncoder(
            features, cell=cell, hidden=hidden, layers=layers, bidirectional=bidirectional, head=head
        )
        join = Fusion(fusion, features, encoder.features)
        super().__init__(
            backbone=net, frozen=frozen, num_features=join.features, num_classes=num_classes, dropout=dropout
        )
        self.size = size if flat else None
        self.pool = nn.Identity() if flat else nn.AdaptiveAvgPool2d(1)
        self.projection = nn.Identity() if projection is None else nn.Linear(inputs, projection)
        self.encoder = encoder
        self.spatial = TimePool(features, "mean")
        self.fusion = join

    def frame_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, T, D)."""
        check_clip(x, "cnn_lstm", size=self.size)
        maps = self.frame_maps(x)
        vectors = self.pool(maps.flatten(0, 1)).flatten(1).unflatten(0, maps.shape[:2])
        out: torch.Tensor = self.projection(vectors)
        return out

    def stream_features(self, x: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """(B, 3, T, H, W) -> (B, D) and the state."""
        rnn, mean = (None, None) if state is None else state
        vectors = self.frame_features(x)
        temporal, rnn = self.encoder(vectors, rnn)
        spatial, mean = self.spatial(vectors, mean)
        return self.fusion(spatial, temporal), (rnn, mean)

    def stream(self, x: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        self.encoder.check_can_stream()
        return super().stream(x, state)


cnn_lstm = CNNLSTM
