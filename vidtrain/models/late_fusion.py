"""Late fusion: a 2D CNN per frame, time joined at the end (document 003; Karpathy et al. 2014)."""

from __future__ import annotations

import torch
from torch import nn

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.backbone2d import ImageBackbone, image_backbone
from vidtrain.models.layers.classifier import ClipClassifier, check_at_least, check_choice, check_clip

ENTRIES = {"late_fusion": Entry(Family.FUSION, "Karpathy et al. 2014", (16, 112))}

_POOLS = {"avg": nn.AdaptiveAvgPool3d, "max": nn.AdaptiveMaxPool3d}
_FUSIONS = ("pool", "fc")


def _frame_maps(backbone: ImageBackbone, x: torch.Tensor) -> torch.Tensor:
    """(B, 3, T, H, W) -> (B, D, T, H', W'), all frames through the CNN as one batch."""
    maps = backbone(x.transpose(1, 2).flatten(0, 1))
    return maps.unflatten(0, (x.shape[0], -1)).transpose(1, 2)


class LateFusionPool(ClipClassifier):
    """Pools the frames' maps over time and space. The order of the frames does not matter; any T, H and W fit."""

    def __init__(self, *, backbone: ImageBackbone, num_classes: int, pool: str, dropout: float) -> None:
        super().__init__(num_features=backbone.out_channels, num_classes=num_classes, dropout=dropout)
        self.backbone = backbone
        self.pool = _POOLS[pool](1)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, D)."""
        check_clip(x, "late_fusion")
        return self.pool(_frame_maps(self.backbone, x)).flatten(1)


class LateFusionFC(ClipClassifier):
    """Flattens the frames' maps, T x D x H' x W', into an MLP with one hidden layer. T, H and W are fixed."""

    def __init__(
        self,
        *,
        backbone: ImageBackbone,
        num_classes: int,
        num_frames: int,
        size: int,
        hidden: int,
        dropout: float,
    ) -> None:
        super().__init__(num_features=hidden, num_classes=num_classes, dropout=dropout)
        height, width = backbone.map_size(size)
        self.backbone = backbone
        self.num_frames = num_frames
        self.size = size
        self.fc = nn.Linear(num_frames * backbone.out_channels * height * width, hidden)
        self.relu = nn.ReLU(inplace=True)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, hidden)."""
        check_clip(x, "late_fusion with fusion=fc", num_frames=self.num_frames, size=self.size)
        maps = _frame_maps(self.backbone, x).transpose(1, 2)  # (B, T, D, H', W'), 003's order
        return self.relu(self.fc(maps.flatten(1)))


def late_fusion(
    *,
    num_classes: int,
    num_frames: int,
    size: int,
    backbone: str = "tiny",
    fusion: str = "pool",
    pool: str = "avg",
    hidden: int = 256,
    dropout: float = 0.0,
) -> ClipClassifier:
    """A 2D CNN per frame, then `fusion`.

    fusion: "pool" (over time and space, then linear) or "fc" (flatten, MLP).
    pool: "avg" or "max", for fusion="pool". hidden: width of the MLP, for fusion="fc".
    num_frames, size: the clip, T x size x size; fusion="fc" accepts no other, fusion="pool" any.
    backbone: see layers/backbone2d.py. dropout: before the head.
    """
    check_choice("fusion", fusion, _FUSIONS)
    check_choice("pool", pool, _POOLS)
    check_at_least("num_frames", num_frames, 1)
    check_at_least("size", size, 1)
    check_at_least("hidden", hidden, 1)
    net = image_backbone(backbone)
    if fusion == "pool":
        return LateFusionPool(backbone=net, num_classes=num_classes, pool=pool, dropout=dropout)
    return LateFusionFC(
        backbone=net,
        num_classes=num_classes,
        num_frames=num_frames,
        size=size,
        hidden=hidden,
        dropout=dropout,
    )
