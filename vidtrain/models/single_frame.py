"""Single-frame CNN: an image classifier applied to video (document 003; Karpathy et al. 2014, "Large-scale Video
Classification with Convolutional Neural Networks")."""

from __future__ import annotations

import torch
from torch import nn

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.backbone2d import image_backbone
from vidtrain.models.layers.classifier import ClipClassifier, check_clip

ENTRIES = {"single_frame": Entry(Family.FUSION, "Karpathy et al. 2014", (16, 112))}


class SingleFrame(ClipClassifier):
    """A 2D CNN per frame. In train() each clip gives one random frame; in eval() all frames are averaged.

    The head is linear and dropout is off in eval(), so the head of the averaged features is the average of the
    frames' logits.

    backbone: see layers/backbone2d.py. dropout: before the head.
    """

    def __init__(self, *, num_classes: int, backbone: str = "tiny", dropout: float = 0.0) -> None:
        net = image_backbone(backbone)
        super().__init__(num_features=net.out_channels, num_classes=num_classes, dropout=dropout)
        self.backbone = net
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, D)."""
        check_clip(x, "single_frame")
        batch, _, frames = x.shape[:3]
        if self.training:
            drawn = torch.randint(frames, (batch,), device=x.device)
            images = x[torch.arange(batch, device=x.device), :, drawn]
        else:
            images = x.transpose(1, 2).flatten(0, 1)
        features = self.pool(self.backbone(images)).flatten(1)
        return features.unflatten(0, (batch, -1)).mean(1)


single_frame = SingleFrame
