"""Any 2D CNN inflated to 3D, as a classifier of clips (Carreira and Zisserman 2017)."""

from __future__ import annotations

import torch
from torch import nn

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.backbone2d import image_backbone
from vidtrain.models.layers.classifier import ClipClassifier, check_clip
from vidtrain.models.layers.inflated_layers import check_inflation
from vidtrain.models.layers.inflation import inflate_layers

ENTRIES = {"inflated": Entry(Family.CONV3D, "Carreira and Zisserman 2017", (16, 112))}


class InflatedNet(ClipClassifier):
    """A 2D CNN whose K x K kernels are time_kernel x K x K; its maps, averaged over time and space. Any T.

    backbone: see layers/backbone2d.py. time_kernel, taps, padding: see inflate(). dropout: before the head.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: str = "resnet18",
        time_kernel: int = 3,
        taps: str = "mean",
        padding: str = "replicate",
        dropout: float = 0.0,
    ) -> None:
        check_inflation(time_kernel, taps, padding)
        net = image_backbone(backbone)
        super().__init__(num_features=net.out_channels, num_classes=num_classes, dropout=dropout)
        self.clock = inflate_layers(net, time_kernel=time_kernel, taps=taps, padding=padding)
        self.taps = taps  # weights/inflate_from.py fills the kernels by it
        self.backbone = net
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, D)."""
        check_clip(x, "inflated")
        self.clock.frames = x.shape[2]
        maps = self.backbone(x.transpose(1, 2).flatten(0, 1))
        return self.pool(maps).flatten(1).unflatten(0, (-1, x.shape[2])).mean(1)


inflated = InflatedNet
