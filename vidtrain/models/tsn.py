"""TSN: a 2D ResNet on each of the clip's frames, the segments, and the average of their logits (Wang et al. 2016,
"Temporal Segment Networks"). tsn_r50: 24.328M parameters at 400 classes, 32.70 GMAC at 8 x 224 x 224."""

from __future__ import annotations

import torch
from torch import nn

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.classifier import ClipClassifier, check_at_least, check_clip
from vidtrain.models.layers.frame_mobilenet import FrameMobileNet
from vidtrain.models.layers.frame_resnet import MOBILENET, FrameResNet, Shift
from vidtrain.models.layers.nonlocal_block import NonLocal

ENTRIES = {
    "tsn_r50": Entry(Family.FRAMES, "Wang et al. 2016", (8, 224), 70.6, "8x8, 10x3, mit-han-lab"),
    "tsn_tiny": Entry(Family.FRAMES, "Wang et al. 2016", (16, 64)),
}


class TSN(ClipClassifier):
    """Keys are those of mit-han-lab's TSN and TSM checkpoints, without the `.net` of their shift. Any T, H and W.

    The head is linear, so the head of the averaged features is the average of the frames' logits. In training one
    dropout mask holds for all frames of a clip.
    """

    head_name = "new_fc"

    def __init__(
        self,
        name: str,
        *,
        num_classes: int,
        backbone: str,
        in_channels: int,
        dropout: float,
        shift: Shift | None = None,
        nonlocals: NonLocal | None = None,
    ) -> None:
        """With `shift` a TSM; on a ResNet, or on MobileNetV2, which takes no `nonlocals`. name: for messages."""
        check_at_least("in_channels", in_channels, 1)
        net: FrameResNet | FrameMobileNet
        if backbone == MOBILENET:
            net = FrameMobileNet(in_channels=in_channels, shift=shift)
        else:
            net = FrameResNet(backbone, in_channels=in_channels, shift=shift, nonlocals=nonlocals)
        super().__init__(num_features=net.out_channels, num_classes=num_classes, dropout=dropout)
        self.name = name
        self.in_channels = in_channels
        self.base_model = net
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, T, H, W) -> (B, D)."""
        check_clip(x, self.name, channels=self.in_channels)
        frames = x.shape[2]
        maps = self.base_model(x.transpose(1, 2).flatten(0, 1), frames)
        return self.pool(maps).flatten(1).unflatten(0, (-1, frames)).mean(1)


def tsn_r50(*, num_classes: int, backbone: str = "resnet50", in_channels: int = 3, dropout: float = 0.5) -> TSN:
    """TSN on ResNet-50.

    backbone: a ResNet, ResNeXt or wide ResNet of torchvision by name, mobilenet_v2, or `tiny`.
    in_channels: 3 for RGB; 10 for the published flow nets (x and y of 5 flow fields a segment).
    dropout: before the head.
    """
    return TSN("tsn", num_classes=num_classes, backbone=backbone, in_channels=in_channels, dropout=dropout)
