"""Late fusion: a 2D CNN per frame, time joined at the end (document 003; Karpathy et al. 2014)."""

from __future__ import annotations

import torch
from torch import nn

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.backbone2d import image_backbone
from vidtrain.models.layers.classifier import ClipClassifier, check_at_least, check_choice, check_clip

ENTRIES = {"late_fusion": Entry(Family.FUSION, "Karpathy et al. 2014", (16, 112))}

_POOLS = {"avg": nn.AdaptiveAvgPool3d, "max": nn.AdaptiveMaxPool3d}
_FUSIONS = ("pool", "fc")


class LateFusion(ClipClassifier):
    """A 2D CNN per frame, then `fusion`.

    fusion: "pool" (over time and space, then linear: the order of the frames does not matter) or "fc" (the maps,
        T x D x H' x W', flattened into an MLP with one hidden layer).
    pool: "avg" or "max", for fusion="pool". hidden: width of the MLP, for fusion="fc".
    num_frames, size: the clip, T x size x size; fusion="fc" accepts no other, fusion="pool" any.
    backbone: see layers/backbone2d.py. dropout: before the head.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        num_frames: int,
        size: int,
        backbone: str = "tiny",
        fusion: str = "pool",
        pool: str = "avg",
        hidden: int = 256,
        dropout: float = 0.0,
    ) -> None:
        check_choice("fusion", fusion, _FUSIONS)
        check_choice("pool", pool, _POOLS)
        check_at_least("num_frames", num_frames, 1)
        check_at_least("size", size, 1)
        check_at_least("hidden", hidden, 1)
        net = image_backbone(backbone)
        self.flat = fusion == "fc"
        features = hidden if self.flat else net.out_channels
        super().__init__(num_features=features, num_classes=num_classes, dropout=dropout)
        self.backbone = net
        if self.flat:
            height, width = net.map_size(size)
            self.num_frames, self.size = num_frames, size
            self.fc = nn.Linear(num_frames * net.out_channels * height * width, hidden)
            self.relu = nn.ReLU(inplace=True)
        else:
            self.pool = _POOLS[pool](1)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, D), or with fusion="fc" (B, hidden)."""
        if self.flat:
            check_clip(x, "late_fusion with fusion=fc", num_frames=self.num_frames, size=self.size)
        else:
            check_clip(x, "late_fusion")
        maps = self.backbone(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (x.shape[0], -1))  # all frames as one batch
        if self.flat:
            return self.relu(self.fc(maps.flatten(1)))  # (B, T, D, H', W'), 003's order
        return self.pool(maps.transpose(1, 2)).flatten(1)


late_fusion = LateFusion
