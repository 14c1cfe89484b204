"""The channels of Inception-v1 (Szegedy et al. 2015, "Going Deeper with Convolutions"), which I3D and S3D share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

FULL_WIDTH = 64
"""Channels of the first convolution of the published nets."""


class InceptionWidths(NamedTuple):
    """Channels of one Inception block: four branches, of which two reduce before they convolve, one pools."""

    b0: int
    b1_mid: int
    b1: int
    b2_mid: int
    b2: int
    b3: int

    @property
    def out(self) -> int:
        """Channels of the four branches together."""
        return self.b0 + self.b1 + self.b2 + self.b3


_BLOCKS = {
    "3b": InceptionWidths(64, 96, 128, 16, 32, 32),
    "3c": InceptionWidths(128, 128, 192, 32, 96, 64),
    "4b": InceptionWidths(192, 96, 208, 16, 48, 64),
    "4c": InceptionWidths(160, 112, 224, 24, 64, 64),
    "4d": InceptionWidths(128, 128, 256, 24, 64, 64),
    "4e": InceptionWidths(112, 144, 288, 32, 64, 64),
    "4f": InceptionWidths(256, 160, 320, 32, 128, 128),
    "5b": InceptionWidths(256, 160, 320, 32, 128, 128),
    "5c": InceptionWidths(384, 192, 384, 48, 128, 128),
}
BLOCK_NAMES = tuple(_BLOCKS)


def scaled(channels: int, width: int) -> int:
    """`channels` of the published net in a net whose first convolution has `width`."""
    return max(1, round(channels * width / FULL_WIDTH))


def inception_blocks(width: int) -> Iterator[tuple[str, int, InceptionWidths]]:
    """(name, input channels, block) from 3b to 5c."""
    channels = scaled(192, width)
    for name, block in _BLOCKS.items():
        own = InceptionWidths(*(scaled(c, width) for c in block))
        yield name, channels, own
        channels = own.out
