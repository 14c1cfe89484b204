"""Where a clip is cut from its frames. Decided before decoding, so that frames are scaled while they are converted.

    source frame --swscale--> (H', W') with short side `resize` --crop--> size x size --flip--> uint8 clip

One random draw a clip: all its frames are cut alike, or motion would be invented.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms.v2 import functional as F

from vidtrain.errors import ConfigError
from vidtrain.types import Frames, VideoInfo


def scaled_size(info: VideoInfo, short_side: int, *, squash: bool = False) -> tuple[int, int]:
    """(height, width) with the shorter one equal to `short_side`; a square with `squash`, else the aspect is kept."""
    if squash:
        return short_side, short_side
    if info.height <= info.width:
        return short_side, max(short_side, round(info.width * short_side / info.height))
    return max(short_side, round(info.height * short_side / info.width)), short_side


@dataclass(frozen=True)
class Cut:
    """How to cut one clip: scale to `read_size`, take size x size at (top, left), mirror when `flip`."""

    read_size: tuple[int, int]
    top: int
    left: int
    size: int
    flip: bool = False

    def apply(self, frames: Frames) -> Frames:
        """uint8 (T, H', W', 3) at read_size -> contiguous uint8 (T, size, size, 3)."""
        cut = frames[:, self.top : self.top + self.size, self.left : self.left + self.size]
        return np.ascontiguousarray(cut[:, :, ::-1] if self.flip else cut)


@dataclass(frozen=True)
class TrainCut:
    """Random short side, place and flip."""

    size: int
    resize: int
    resize_max: int | None = None
    flip: float = 0.5
    squash: bool = False

    def __post_init__(self) -> None:
        _check(self.size, self.resize)
        if self.resize_max is not None and self.resize_max < self.resize:
            raise ConfigError(f"transform.resize_max={self.resize_max} is less than transform.resize={self.resize}")
        _check_chance("flip", self.flip)

    def draw(self, info: VideoInfo, rng: np.random.Generator) -> Cut:
        short = self.resize
        if self.resize_max is not None:
            short = int(rng.integers(self.resize, self.resize_max + 1))
        height, width = scaled_size(info, short, squash=self.squash)
        top = int(rng.integers(height - self.size + 1))
        left = int(rng.integers(width - self.size + 1))
        return Cut((height, width), top, left, self.size, bool(rng.random() < self.flip))


@dataclass(frozen=True)
class Colours:
    """Random brightness, contrast, saturation, and now and then no colour at all.

    strength: the factors are drawn from 1 - strength to 1 + strength. grayscale: chance of a grey clip.
    """

    strength: float = 0.0
    grayscale: float = 0.0

    def __post_init__(self) -> None:
        _check_chance("colour", self.strength)
        _check_chance("grayscale", self.grayscale)

    def apply(self, clip: Frames, rng: np.random.Generator) -> Frames:
        """uint8 (T, H, W, 3) -> the same, all frames changed alike; draws nothing when both options are 0."""
        if not (self.strength or self.grayscale):
            return clip
        brightness, contrast, saturation = (1 + self.strength * rng.uniform(-1, 1, size=3)).tolist()
        if rng.random() < self.grayscale:
            saturation = 0.0
        images = torch.from_numpy(clip).permute(0, 3, 1, 2)
        images = F.adjust_brightness(images, brightness)
        images = F.adjust_contrast(images, contrast)
        images = F.adjust_saturation(images, saturation)
        return np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())


@dataclass(frozen=True)
class TestCuts:
    """The centre (crops=1), or both ends and the centre of the longer side (crops=3)."""

    size: int
    resize: int
    crops: int = 1
    squash: bool = False

    def __post_init__(self) -> None:
        _check(self.size, self.resize)
        if self.crops not in (1, 3):
            raise ConfigError(f"eval.crops={self.crops}: allowed are 1 (centre) and 3 (along the longer side)")

    def all(self, info: VideoInfo) -> list[Cut]:
        """The cuts of one video; all share read_size, so one decode serves them."""
        height, width = scaled_size(info, self.resize, squash=self.squash)
        down, right = height - self.size, width - self.size
        places = [(down // 2, right // 2)]
        if self.crops == 3 and height > width:
            places = [(0, right // 2), *places, (down, right // 2)]
        elif self.crops == 3:
            places = [(down // 2, 0), *places, (down // 2, right)]
        return [Cut((height, width), top, left, self.size) for top, left in places]


def _check_chance(key: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"transform.{key}={value}: must lie in 0 to 1")


def _check(size: int, resize: int) -> None:
    if size < 1:
        raise ConfigError(f"transform.size={size}: must be at least 1")
    if resize < size:
        raise ConfigError(
            f"transform.resize={resize} is less than transform.size={size}: the crop does not fit; "
            f"give transform.resize={size} or more"
        )
