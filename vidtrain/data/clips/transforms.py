"""Where a clip is cut from its frames. Decided before decoding, so that frames are scaled while they are converted.

    source frame --swscale--> (H', W') as `resize` says --crop--> size x size --flip--> uint8 clip

One random draw a clip: all its frames are cut alike, or motion would be invented.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidtrain.data.clips.crop import Crop, exact_size, scaled_size
from vidtrain.errors import ConfigError
from vidtrain.types import VideoInfo

CROPS = (1, 3, 5, 10)
"""Test crops: centre; three along the longer side; centre and corners; those and their mirror images."""


@dataclass(frozen=True)
class TrainCrop:
    """Random short side, place and flip.

    area, aspect: with these the crop is random in size and shape, too ("RandomResizedCrop", Szegedy et al. 2015): its
    share of the frame's area is drawn from `area`, its width / height from `aspect`; resize is then not used.
    """

    size: int
    resize: int | str
    resize_max: int | None = None
    flip: float = 0.5
    squash: bool = False
    area: tuple[float, float] | None = None
    aspect: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        _check(self.size, self.resize)
        if isinstance(self.resize, str) and self.resize_max is not None:
            raise ConfigError(f"transform.resize_max goes with a short side, transform.resize={self.resize} is not one")
        if self.resize_max is not None and self.resize_max < int(self.resize):
            raise ConfigError(f"transform.resize_max={self.resize_max} is less than transform.resize={self.resize}")
        check_chance("flip", self.flip)
        if self.area is not None and not 0 < self.area[0] <= self.area[1] <= 1:
            raise ConfigError(f"transform.area={list(self.area)}: two shares of the frame, 0 < first <= second <= 1")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ConfigError(f"transform.aspect={list(self.aspect)}: two ratios width / height, 0 < first <= second")

    def draw(self, info: VideoInfo, rng: np.random.Generator) -> Crop:
        if self.area is not None:
            return self._draw_region(info, rng)
        resize = self.resize
        if self.resize_max is not None:
            resize = int(rng.integers(int(resize), self.resize_max + 1))
        height, width = scaled_size(info, resize, squash=self.squash)
        top = int(rng.integers(height - self.size + 1))
        left = int(rng.integers(width - self.size + 1))
        return Crop((height, width), top, left, self.size, bool(rng.random() < self.flip))

    def _draw_region(self, info: VideoInfo, rng: np.random.Generator) -> Crop:
        """A region of random area and shape.

        One that is larger than the crop is scaled while the frames are converted, which costs nothing; of a smaller
        one only the region itself is scaled up, or the whole frame would have to be.
        """
        height, width = self._region(info, rng)
        top = int(rng.integers(info.height - height + 1))
        left = int(rng.integers(info.width - width + 1))
        flip = bool(rng.random() < self.flip)
        if height < self.size or width < self.size:
            return Crop((info.height, info.width), top, left, self.size, flip, (height, width))
        down, across = self.size / height, self.size / width
        read_size = max(self.size, round(info.height * down)), max(self.size, round(info.width * across))
        top = min(round(top * down), read_size[0] - self.size)
        left = min(round(left * across), read_size[1] - self.size)
        return Crop(read_size, top, left, self.size, flip)

    def _region(self, info: VideoInfo, rng: np.random.Generator) -> tuple[int, int]:
        """(height, width); after ten draws that do not fit, the largest of an allowed shape, as torchvision does."""
        assert self.area is not None
        for _ in range(10):
            area = info.height * info.width * rng.uniform(*self.area)
            ratio = np.exp(rng.uniform(*np.log(self.aspect)))
            height, width = round(np.sqrt(area / ratio)), round(np.sqrt(area * ratio))
            if 0 < height <= info.height and 0 < width <= info.width:
                return height, width
        ratio = min(max(info.width / info.height, self.aspect[0]), self.aspect[1])
        height = min(info.height, round(info.width / ratio))
        return max(1, height), max(1, min(info.width, round(height * ratio)))


@dataclass(frozen=True)
class EvalCrops:
    """The crops of one clip in testing, see CROPS."""

    size: int
    resize: int | str
    crops: int = 1
    squash: bool = False

    def __post_init__(self) -> None:
        _check(self.size, self.resize)
        if self.crops not in CROPS:
            raise ConfigError(
                f"eval.crops={self.crops}: allowed are 1 (centre), 3 (along the longer side), 5 (centre and corners) "
                "and 10 (those and their mirror images)"
            )

    def all(self, info: VideoInfo) -> list[Crop]:
        """The cuts of one video; all share read_size, so one decode serves them."""
        height, width = scaled_size(info, self.resize, squash=self.squash)
        down, right = height - self.size, width - self.size
        places = [(down // 2, right // 2)]
        if self.crops == 3 and height > width:
            places = [(0, right // 2), *places, (down, right // 2)]
        elif self.crops == 3:
            places = [(down // 2, 0), *places, (down // 2, right)]
        elif self.crops >= 5:
            places += [(0, 0), (0, right), (down, 0), (down, right)]
        cuts = [Crop((height, width), top, left, self.size) for top, left in places]
        if self.crops == 10:
            cuts += [Crop(cut.read_size, cut.top, cut.left, cut.size, flip=True) for cut in cuts]
        return cuts


def check_chance(key: str, value: float, most: float = 1.0) -> None:
    """Raise ConfigError unless `transform.key` lies in 0 to `most`."""
    if not 0 <= value <= most:
        raise ConfigError(f"transform.{key}={value}: must lie in 0 to {most:g}")


def _check(size: int, resize: int | str) -> None:
    if size < 1:
        raise ConfigError(f"transform.size={size}: must be at least 1")
    if min(exact_size(resize)) < size:
        raise ConfigError(
            f"transform.resize={resize} is less than transform.size={size}: the crop does not fit; "
            f"give transform.resize={size} or more"
        )
