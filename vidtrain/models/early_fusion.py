"""Early fusion: the frames stacked into the channels of one 2D CNN (document 003; Karpathy et al. 2014)."""

from __future__ import annotations

import torch
from torch import nn

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.backbone2d import image_backbone
from vidtrain.models.layers.classifier import ClipClassifier, check_at_least, check_clip

ENTRIES = {"early_fusion": Entry(Family.FUSION, "Karpathy et al. 2014", (16, 112))}


class EarlyFusion(ClipClassifier):
    """A 2D CNN on 3 T channels: time is gone after the first convolution, whose kernel spans all T frames.

    num_frames: T; clips of another length are refused. backbone: see layers/backbone2d.py. dropout: before the head.
    Started from 2D weights, the first conv has them repeated T times and divided by T: a still clip then gives the 2D
    net's features.
    """

    def __init__(self, *, num_classes: int, num_frames: int, backbone: str = "tiny", dropout: float = 0.0) -> None:
        check_at_least("num_frames", num_frames, 1)
        net = image_backbone(backbone, in_channels=3 * num_frames)
        super().__init__(num_features=net.out_channels, num_classes=num_classes, dropout=dropout)
        self.num_frames = num_frames
        self.backbone = net
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, D). Channel i of the 2D net is colour i % 3 of frame i // 3, as in 003."""
        check_clip(x, "early_fusion", num_frames=self.num_frames)
        return self.pool(self.backbone(x.transpose(1, 2).flatten(1, 2))).flatten(1)


early_fusion = EarlyFusion
