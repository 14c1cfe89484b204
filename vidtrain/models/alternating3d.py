"""A 3D CNN with kernels of space and of time in turn (document 001, section 3.2.3).

The document: the first layer has 3 x 3 x 3 kernels for local space-time information, the layers after it have
1 x 3 x 3 and 3 x 1 x 1 kernels in turn, for space and for time. It gives no sizes; widths, strides, batch norm and
the average over time and space at the end are ours.
"""

from __future__ import annotations

import torch
from torch import nn

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.classifier import ClipClassifier, check_at_least, check_clip
from vidtrain.models.layers.resnet3d import Triple, conv3d

ENTRIES = {"alternating3d": Entry(Family.FACTORISED, "document 001, section 3.2.3", (16, 64))}


def _layer(channels: int, out: int, kernel: Triple, stride: Triple) -> nn.Sequential:
    return nn.Sequential(conv3d(channels, out, kernel, stride=stride), nn.BatchNorm3d(out), nn.ReLU(inplace=True))


class Alternating3D(ClipClassifier):
    """layers[0] is 3 x 3 x 3, then 1 x 3 x 3 and 3 x 1 x 1 in turn. Any T, H and W.

    width: channels of the first layer. pairs: of a layer in space, which doubles the channels and halves height and
    width, and a layer in time, which halves the frames. dropout: before the head.
    """

    def __init__(self, *, num_classes: int, width: int = 32, pairs: int = 3, dropout: float = 0.0) -> None:
        check_at_least("width", width, 1)
        check_at_least("pairs", pairs, 1)
        super().__init__(num_features=width << pairs, num_classes=num_classes, dropout=dropout)
        layers = [_layer(3, width, (3, 3, 3), (1, 2, 2))]
        for pair in range(pairs):
            channels, out = width << pair, width << (pair + 1)
            layers += [_layer(channels, out, (1, 3, 3), (1, 2, 2)), _layer(out, out, (3, 1, 1), (2, 1, 1))]
        self.layers = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool3d(1)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, D)."""
        check_clip(x, "alternating3d")
        return self.pool(self.layers(x)).flatten(1)


alternating3d = Alternating3D
