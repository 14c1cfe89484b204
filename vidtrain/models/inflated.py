"""Any 2D CNN inflated to 3D, as a classifier of clips (Carreira and Zisserman 2017)."""

from __future__ import annotations

import torch
from torch import nn

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.backbone2d import ImageBackbone, image_backbone
from vidtrain.models.layers.classifier import ClipClassifier, check_clip
from vidtrain.models.layers.inflated_layers import check_inflation
from vidtrain.models.layers.inflation import inflate_layers

ENTRIES = {"inflated": Entry(Family.CONV3D, "Carreira and Zisserman 2017", (16, 112))}


class InflatedNet(ClipClassifier):
    """The inflated backbone's maps, averaged over time and space. The number of frames stays up to there; any T."""

    def __init__(
        self, *, backbone: ImageBackbone, time_kernel: int, taps: str, padding: str, num_classes: int, dropout: float
    ) -> None:
        super().__init__(num_features=backbone.out_channels, num_classes=num_classes, dropout=dropout)
        self.clock = inflate_layers(backbone, time_kernel=time_kernel, taps=taps, padding=padding)
        self.taps = taps
        self.backbone = backbone
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, D)."""
        check_clip(x, "inflated")
        self.clock.frames = x.shape[2]
        maps = self.backbone(x.transpose(1, 2).flatten(0, 1))
        return self.pool(maps).flatten(1).unflatten(0, (-1, x.shape[2])).mean(1)


def inflated(
    *,
    num_classes: int,
    backbone: str = "resnet18",
    time_kernel: int = 3,
    taps: str = "mean",
    padding: str = "replicate",
    dropout: float = 0.0,
) -> InflatedNet:
    """A 2D CNN whose K x K kernels are time_kernel x K x K.

    backbone: see layers/backbone2d.py. time_kernel, taps, padding: see inflate(). dropout: before the head.
    """
    check_inflation(time_kernel, taps, padding)
    return InflatedNet(
        backbone=image_backbone(backbone),
        time_kernel=time_kernel,
        taps=taps,
        padding=padding,
        num_classes=num_classes,
        dropout=dropout,
    )
