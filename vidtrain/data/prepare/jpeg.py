"""A video as a pack of JPEGs, see `vidtrain.data.readers.jpeg_pack`."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from vidtrain.data.readers.jpeg_pack import write_pack
from vidtrain.data.readers.pyav.to_rgb import ImageArray
from vidtrain.types import VideoInfo


def encode_pack(file: Path, images: Iterable[ImageArray], info: VideoInfo, *, quality: int) -> None:
    """Write a pack of baseline JPEGs with 4:2:0 colour; Huffman tables are made to measure, which costs no reader.

    Args:
        file: what to write, under any name.
        images: info.num_frames RGB frames uint8 (H, W, 3).
        info: of the pack.
        quality: 1 to 95, as libjpeg counts it.
    """
    with file.open("wb") as out:
        write_pack(out, _jpegs(images, quality), info)


def _jpegs(images: Iterable[ImageArray], quality: int) -> Iterator[bytes]:
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling="4:2:0", optimize=True)
        yield buffer.getvalue()
