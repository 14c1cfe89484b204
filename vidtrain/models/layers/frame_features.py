"""Models that read what a 2D network says of each frame, all frames of a clip as one batch."""

from __future__ import annotations

from collections.abc import Callable

import torch

from vidtrain.models.layers.backbone2d import ImageBackbone
from vidtrain.models.layers.recurrent import RecurrentClassifier


class OnFrames(RecurrentClassifier):
    """frozen: the CNN has no gradient, keeps no activations, and its BatchNorm stays in eval mode."""

    def __init__(
        self, *, backbone: ImageBackbone, frozen: bool, num_features: int, num_classes: int, dropout: float
    ) -> None:
        super().__init__(num_features=num_features, num_classes=num_classes, dropout=dropout)
        self.backbone = backbone
        self.frozen = frozen
        if frozen:
            backbone.eval().requires_grad_(False)

    def frame_maps(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, T, D, H', W')."""
        return self.per_frame(x, self.backbone)

    def per_frame(self, x: torch.Tensor, read: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, T, ...): what `read`, a method of the backbone, gives for the frames."""
        frames = x.transpose(1, 2).flatten(0, 1)
        if self.frozen:
            with torch.no_grad():
                out = read(frames)
        else:
            out = read(frames)
        return out.unflatten(0, (x.shape[0], -1))

    def train(self, mode: bool = True) -> OnFrames:
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self
