"""Where a clip is cut from its frames. Decided before decoding, so that frames are scaled while they are converted.

    source frame --swscale--> (H', W') with short side `resize` --crop--> size x size --flip--> uint8 clip

One random draw a clip: all its frames are cut alike, or motion would be invented.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidtrain.errors import ConfigError
from vidtrain.types import Frames, VideoInfo


def scaled_size(info: VideoInfo, short_side: int) -> tuple[int, int]:
    """(height, width) with the aspect kept and the shorter one equal to `short_side`."""
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

    def __post_init__(self) -> None:
        _check(self.size, self.resize)
        if self.resize_max is not None and self.resize_max < self.resize:
            raise ConfigError(f"transform.resize_max={self.resize_max} is less than transform.resize={self.resize}")
        if not 0 <= self.flip <= 1:
            raise ConfigError(f"transform.flip={self.flip}: a chance lies in 0 to 1")

    def draw(self, info: VideoInfo, rng: np.random.Generator) -> Cut:
        short = self.resize
        if self.resize_max is not None:
            short = int(rng.integers(self.resize, self.resize_max + 1))
        height, width = scaled_size(info, short)
        top = int(rng.integers(height - self.size + 1))
        left = int(rng.integers(width - self.size + 1))
        return Cut((height, width), top, left, self.size, bool(rng.random() < self.flip))


@dataclass(frozen=True)
class TestCuts:
    """The centre (crops=1), or both ends and the centre of the longer side (crops=3)."""

    size: int
    resize: int
    crops: int = 1

    def __post_init__(self) -> None:
        _check(self.size, self.resize)
        if self.crops not in (1, 3):
            raise ConfigError(f"eval.crops={self.crops}: allowed are 1 (centre) and 3 (along the longer side)")

    def all(self, info: VideoInfo) -> list[Cut]:
        """The cuts of one video; all share read_size, so one decode serves them."""
        height, width = scaled_size(info, self.resize)
        down, right = height - self.size, width - self.size
        places = [(down // 2, right // 2)]
        if self.crops == 3 and height > width:
            places = [(0, right // 2), *places, (down, right // 2)]
        elif self.crops == 3:
            places = [(down // 2, 0), *places, (down // 2, right)]
        return [Cut((height, width), top, left, self.size) for top, left in places]


def _check(size: int, resize: int) -> None:
    if size < 1:
        raise ConfigError(f"transform.size={size}: must be at least 1")
    if resize < size:
        raise ConfigError(
            f"transform.resize={resize} is less than transform.size={size}: the crop does not fit; "
            f"give transform.resize={size} or more"
        )
