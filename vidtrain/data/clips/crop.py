"""The crop of a clip: one window for all its frames, or motion would be invented."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms.v2 import functional as F

from vidtrain.errors import ConfigError
from vidtrain.types import Frames, VideoInfo


def exact_size(resize: int | str) -> tuple[int, int]:
    """(height, width) of a `transform.resize` such as "128x171"; of a short side, the square with that side.

    Raises:
        ConfigError: a text that is no such size.
    """
    if isinstance(resize, int):
        return resize, resize
    found = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", resize)
    if found is None:
        raise ConfigError(f"transform.resize={resize}: expected a short side such as 128, or HEIGHTxWIDTH: 128x171")
    return int(found[1]), int(found[2])


def scaled_size(info: VideoInfo, resize: int | str, *, squash: bool = False) -> tuple[int, int]:
    """(height, width) of a frame before the crop.

    resize: the shorter of them, the aspect is kept or, with `squash`, becomes a square; or both: "128x171".
    """
    if isinstance(resize, str):
        return exact_size(resize)
    short_side = resize
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
