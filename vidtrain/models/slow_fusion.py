"""Slow fusion: a 3D CNN, space and time built up layer by layer (document 003; Karpathy et al. 2014)."""

from __future__ import annotations

import torch
from torch import nn

from vidtrain.errors import ConfigError
from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.classifier import ClipClassifier, check_at_least, check_choice, check_clip
from vidtrain.models.layers.resnet3d import conv3d

ENTRIES = {"slow_fusion": Entry(Family.FUSION, "Karpathy et al. 2014", (16, 112))}


def _lecture(width: int) -> nn.Sequential:
    """003's table: Conv3D(3x3x3, 3->12), Pool3D(4x4x4), Conv3D(3x3x3, 12->24), each conv with its ReLU."""
    return nn.Sequential(
        nn.Conv3d(3, width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool3d(4),
        nn.Conv3d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
    )


def _tiny(width: int) -> nn.Sequential:
    """The 3D counterpart of the 2D backbone `tiny`: four conv-BN-ReLU stages that halve space, three of them time."""
    layers: list[nn.Module] = []
    channels = 3
    for stage in range(4):
        out = width << stage
        stride = (1, 2, 2) if stage == 0 else (2, 2, 2)  # the first looks at motion at the full frame rate
        layers += [conv3d(channels, out, (3, 3, 3), stride=stride), nn.BatchNorm3d(out), nn.ReLU(inplace=True)]
        channels = out
    return nn.Sequential(*layers)


_NETS = {"tiny": (_tiny, 16, 8, 1), "lecture": (_lecture, 12, 2, 4)}
"""Name -> (layers, default width, features per width, least T, H and W)."""


class SlowFusion(ClipClassifier):
    """A small 3D CNN, then the average over time and space. Any T, H and W from the net's least size on.

    net: "tiny" (four conv-BN-ReLU stages) or "lecture" (exactly 003's 3D net).
    width: channels of the first conv, which the others are multiples of; None is 16 for tiny, 12 for lecture.
    dropout: before the head.
    """

    def __init__(self, *, num_classes: int, net: str = "tiny", width: int | None = None, dropout: float = 0.0) -> None:
        check_choice("net", net, _NETS)
        if width is not None:
            check_at_least("width", width, 1)
        layers, default_width, growth, least = _NETS[net]
        width = default_width if width is None else width
        super().__init__(num_features=growth * width, num_classes=num_classes, dropout=dropout)
        self.net = layers(width)
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.least = least

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, D)."""
        check_clip(x, "slow_fusion")
        if min(x.shape[2:]) < self.least:
            raise ConfigError(
                f"slow_fusion with net=lecture: got clips of {x.shape[2]} x {x.shape[3]} x {x.shape[4]}, needs "
                f"{self.least} frames and {self.least} x {self.least} pixels or more"
            )
        return self.pool(self.net(x)).flatten(1)


slow_fusion = SlowFusion
