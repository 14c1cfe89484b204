"""Where a clip is cut from its frames. Decided before decoding, so that frames are scaled while they are converted.

    source frame --swscale--> (H', W') as `resize` says --crop--> size x size --flip--> uint8 clip

One random draw a clip: all its frames are cut alike, or motion would be invented.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from vidtrain.data.clips.crop import Crop, exact_size, scaled_size
from vidtrain.data.settings import CropName, TransformConfig
from vidtrain.data.settings import EvalProtocol as Protocol
from vidtrain.errors import ConfigError, one_of
from vidtrain.types import VideoInfo

CROPS = (1, 3, 5, 10)
"""Test crops: centre; three along the longer side; centre and corners; those and their mirror images."""


@dataclass(frozen=True)
class TrainCrop:
    """Random short side, place and flip.

    crop=resized is random in size and shape, too ("RandomResizedCrop", Szegedy et al. 2015): its share of the frame's
    area is drawn from `area`, its width / height from `aspect`; resize is then not used.
    """

    transform: TransformConfig

    def __post_init__(self) -> None:
        options = self.transform
        check_fits(options)
        if isinstance(options.resize, str) and options.resize_max is not None:
            raise ConfigError(
                f"transform.resize_max goes with a short side, transform.resize={options.resize} is not one"
            )
        if options.resize_max is not None and options.resize_max < int(options.resize):
            raise ConfigError(
                f"transform.resize_max={options.resize_max} is less than transform.resize={options.resize}"
            )
        for key, values in (("area", options.area), ("aspect", options.aspect)):
            if len(values) != 2:
                raise ConfigError(f"transform.{key}={list(values)}: two numbers, from and to")
        if options.crop == CropName.resized and options.area[0] > options.area[1]:
            raise ConfigError(f"transform.area={list(options.area)}: two shares of the frame, 0 < first <= second <= 1")
        if options.aspect[0] > options.aspect[1]:
            raise ConfigError(
                f"transform.aspect={list(options.aspect)}: two ratios width / height, 0 < first <= second"
            )

    def draw(self, info: VideoInfo, rng: np.random.Generator) -> Crop:
        options = self.transform
        if options.crop == CropName.resized:
            return self._draw_region(info, rng)
        resize = options.resize
        if options.resize_max is not None:
            resize = int(rng.integers(int(resize), options.resize_max + 1))
        height, width = scaled_size(info, resize, squash=options.squash)
        top = int(rng.integers(height - options.size + 1))
        left = int(rng.integers(width - options.size + 1))
        return Crop((height, width), top, left, options.size, bool(rng.random() < options.flip))

    def _draw_region(self, info: VideoInfo, rng: np.random.Generator) -> Crop:
        """A region of random area and shape.

        One that is larger than the crop is scaled while the frames are converted, which costs nothing; of a smaller
        one only the region itself is scaled up, or the whole frame would have to be.
        """
        size, (height, width) = self.transform.size, self._region(info, rng)
        top = int(rng.integers(info.height - height + 1))
        left = int(rng.integers(info.width - width + 1))
        flip = bool(rng.random() < self.transform.flip)
        if height < size or width < size:
            return Crop((info.height, info.width), top, left, size, flip, (height, width))
        down, across = size / height, size / width
        read_size = max(size, round(info.height * down)), max(size, round(info.width * across))
        top = min(round(top * down), read_size[0] - size)
        left = min(round(left * across), read_size[1] - size)
        return Crop(read_size, top, left, size, flip)

    def _region(self, info: VideoInfo, rng: np.random.Generator) -> tuple[int, int]:
        """(height, width); after ten draws that do not fit, the largest of an allowed shape, as torchvision does."""
        (least, most), (narrow, wide) = self.transform.area, self.transform.aspect
        for _ in range(10):
            area = info.height * info.width * rng.uniform(least, most)
            ratio = np.exp(rng.uniform(*np.log([narrow, wide])))
            height, width = round(np.sqrt(area / ratio)), round(np.sqrt(area * ratio))
            if 0 < height <= info.height and 0 < width <= info.width:
                return height, width
        ratio = min(max(info.width / info.height, narrow), wide)
        height = min(info.height, round(info.width / ratio))
        return max(1, height), max(1, min(info.width, round(height * ratio)))


@dataclass(frozen=True)
class EvalCrops:
    """The crops of one clip in testing, see CROPS.

    protocol: whose; another one than vidtrain's scales, rounds and orders as its code base does, to the pixel.
    """

    transform: TransformConfig
    crops: int = 1
    protocol: Protocol = Protocol.vidtrain

    def __post_init__(self) -> None:
        check_fits(self.transform)
        if self.protocol is not Protocol.vidtrain:
            allowed = [crops for family, crops in _MIDDLES if family is self._family]
            if self.crops not in allowed:
                name = f"eval.protocol={self.protocol}"
                raise ConfigError(f"eval.crops={self.crops}: {name} has {one_of([str(n) for n in allowed])}")
        elif self.crops not in CROPS:
            raise ConfigError(
                f"eval.crops={self.crops}: allowed are 1 (centre), 3 (along the longer side), 5 (centre and corners) "
                "and 10 (those and their mirror images)"
            )

    def all(self, info: VideoInfo) -> list[Crop]:
        """The cuts of one video; all share read_size, so one decode serves them."""
        height, width = self._read_size(info)
        if self.protocol is not Protocol.vidtrain:
            return self._published(height, width)
        size = self.transform.size
        down, right = height - size, width - size
        places = [(down // 2, right // 2)]
        if self.crops == 3 and height > width:
            places = [(0, right // 2), *places, (down, right // 2)]
        elif self.crops == 3:
            places = [(down // 2, 0), *places, (down // 2, right)]
        elif self.crops >= 5:
            places += [(0, 0), (0, right), (down, 0), (down, right)]
        cuts = [Crop((height, width), top, left, size) for top, left in places]
        if self.crops == 10:
            cuts += [Crop(cut.read_size, cut.top, cut.left, cut.size, flip=True) for cut in cuts]
        return cuts

    @property
    def scale(self) -> int | str:
        """What the frames are scaled to, as TransformConfig.resize: some protocols scale the short side to the crop."""
        return self.transform.size if (self._family, self.crops) in _WHOLE_SIDE else self.transform.resize

    @property
    def _family(self) -> Protocol:
        return _SAME_CROPS.get(self.protocol, self.protocol)

    def _read_size(self, info: VideoInfo) -> tuple[int, int]:
        scale, squash = self.scale, self.transform.squash
        if self.protocol is Protocol.vidtrain or squash or isinstance(scale, str):
            return scaled_size(info, scale, squash=squash)
        short, long = sorted((info.height, info.width))
        # as each code base computes it: in floats a product can fall short of a whole number
        if self._family is Protocol.pyslowfast:  # in its decoder
            scaled = (2 * long * scale + short) // (2 * short)
        elif self._family is Protocol.mmaction2:
            scaled = int(long * (scale / short) + 0.5)
        elif self._family is Protocol.pytorchvideo:
            scaled = math.floor(long / short * scale)
        else:
            scaled = scale * long // short
        scaled = max(scaled, scale)
        return (scale, scaled) if info.height <= info.width else (scaled, scale)

    def _published(self, height: int, width: int) -> list[Crop]:
        family, middle = self._family, _MIDDLES[self._family, self.crops]
        size = self.transform.size
        down, right = height - size, width - size
        centre = middle(down), middle(right)
        if family in _TO_THE_EDGE:
            bottom, end = down, right
        else:
            bottom, end = 2 * centre[0], 2 * centre[1]
        places = [(0, 0), (0, end), (bottom, 0), (bottom, end), centre]
        if self.crops == 1:
            places = [centre]
        elif self.crops == 3:
            upright = height > width and family is not Protocol.tsm
            places = [(0, centre[1]), (bottom, centre[1])] if upright else [(centre[0], 0), (centre[0], end)]
            places.insert(1 if family in _TO_THE_EDGE else 2, centre)
        flips = (False, True) if self.crops == 10 else (False,)
        return [Crop((height, width), *place, size, flip) for place in places for flip in flips]


def _to_even(room: int) -> int:
    return round(room / 2)


def _rounded_up(room: int) -> int:
    return -(-room // 2)


def _rounded_down(room: int) -> int:
    return room // 2


def _quarters(room: int) -> int:
    return 2 * (room // 4)


_MIDDLES: Final[dict[tuple[Protocol, int], Callable[[int], int]]] = {
    (Protocol.pyslowfast, 1): _rounded_up,
    (Protocol.pyslowfast, 3): _rounded_up,
    (Protocol.pytorchvideo, 1): _to_even,
    (Protocol.pytorchvideo, 3): _rounded_up,
    (Protocol.torchvision, 1): _to_even,
    (Protocol.mmaction2, 1): _rounded_down,
    (Protocol.mmaction2, 3): _rounded_down,
    (Protocol.mmaction2, 10): _quarters,
    (Protocol.tsm, 1): _to_even,
    (Protocol.tsm, 3): _quarters,
    (Protocol.tsm, 5): _quarters,
    (Protocol.tsm, 10): _quarters,
    (Protocol.videomae, 3): _rounded_down,
    (Protocol.internvideo2, 1): _rounded_down,
    (Protocol.internvideo2, 3): _rounded_down,
}
"""The crops that each code base has, and how it rounds the offset of the middle one."""
_SAME_CROPS: Final = {
    Protocol.pyslowfast_offset: Protocol.pyslowfast,
    Protocol.pytorchvideo_0_1_5: Protocol.pytorchvideo,
    Protocol.mmaction2_uniform: Protocol.mmaction2,
}
_WHOLE_SIDE: Final = (
    (Protocol.pyslowfast, 3),
    (Protocol.mmaction2, 3),
    (Protocol.videomae, 3),
    (Protocol.internvideo2, 1),
    (Protocol.internvideo2, 3),
)
"""Their crop is as large as the short side, transform.size."""
_TO_THE_EDGE: Final = (Protocol.pyslowfast, Protocol.pytorchvideo, Protocol.videomae, Protocol.internvideo2)
"""The middle crop stands between the others, and the last one ends with the frame; elsewhere it comes after them, and
they lie two of its rounded offsets apart."""


def check_fits(transform: TransformConfig) -> None:
    """Raise ConfigError unless the crop fits the scaled frame."""
    size, resize = transform.size, transform.resize
    if min(exact_size(resize)) < size:
        raise ConfigError(
            f"transform.resize={resize} is less than transform.size={size}: the crop does not fit; "
            f"give transform.resize={size} or more"
        )
