"""The crop of a clip: one window for all its frames, or motion would be invented."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms.v2 import functional as F

from vidtrain.types import Frames, VideoInfo


def scaled_size(info: VideoInfo, short_side: int, *, squash: bool = False) -> tuple[int, int]:
    """(height, width) with the shorter one equal to `short_side`; a square with `squash`, else the aspect is kept."""
    if squash:
        return short_side, short_side
    if info.height <= info.width:
        return short_side, max(short_side, round(info.width * short_side / info.height))
    return max(short_side, round(info.height * short_side / info.width)), short_side


@dataclass(frozen=True)
class Crop:
    """How to cut one clip: scale to `read_size`, take size x size at (top, left), mirror when `flip`.

    region: (height, width) taken at (top, left) and scaled to size x size; None: it has that size already.
    """

    read_size: tuple[int, int]
    top: int
    left: int
    size: int
    flip: bool = False
    region: tuple[int, int] | None = None

    def apply(self, frames: Frames) -> Frames:
        """uint8 (T, H', W', 3) at read_size -> contiguous uint8 (T, size, size, 3)."""
        height, width = self.region or (self.size, self.size)
        cut = frames[:, self.top : self.top + height, self.left : self.left + width]
        if (height, width) != (self.size, self.size):
            images = torch.from_numpy(np.ascontiguousarray(cut)).permute(0, 3, 1, 2)
            cut = F.resize(images, [self.size, self.size], antialias=True).permute(0, 2, 3, 1).numpy()
        if not self.flip:
            return np.ascontiguousarray(cut)
        mirrored: Frames = torch.from_numpy(cut).flip(2).contiguous().numpy()  # in a seventh of numpy's time
        return mirrored
