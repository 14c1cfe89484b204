"""Making copies in tests, and videos whose frames say their number, whatever a codec does to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.videos import Pictures
from vidtrain.data.manifest.manifest import Manifest, VideoData
from vidtrain.data.prepare.prepare import Prepared, prepare
from vidtrain.data.readers.any_path import AnyReader
from vidtrain.data.readers.base import VideoReader
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.data.settings import PrepareConfig

READER = AnyReader(PyAVReader())
X264 = {"crf": "18"}  # with B-frames and a keyframe at the start only, as x264 does by default
BITS = 8


def painted(count: int, height: int = 64, width: int = 96) -> Pictures:
    """Frames with their number written into them as BITS black or white bars: no codec makes one look like another."""
    bits = np.arange(count)[:, None] >> np.arange(BITS) & 1
    bars = np.repeat(bits, -(-width // BITS), axis=1)[:, :width] * 200 + 27
    return np.broadcast_to(bars[:, None, :, None], (count, height, width, 3)).astype(np.uint8)


def numbers(frames: Pictures) -> list[int]:
    """The numbers that are written into frames, of whatever size."""
    width = frames.shape[2]
    centres = ((np.arange(BITS) + 0.5) * -(-width // BITS)).astype(int)
    return [int((row > 127) @ (1 << np.arange(BITS))) for row in frames.mean((1, 3))[:, centres]]


def as_data(paths: Iterable[Path | str], split: str = "train") -> VideoData:
    """A dataset of one split; the videos belong to class 0 and 1 in turn."""
    listed = [str(path) for path in paths]
    return VideoData(("a", "b"), {split: Manifest.of(listed, [n % 2 for n in range(len(listed))])})


def run(
    data: VideoData, output: Path, workers: int | None = 2, reader: VideoReader = READER, **settings: object
) -> Prepared:
    return prepare(data, output, replace(PrepareConfig(), **settings), reader, workers=workers)  # type: ignore[arg-type]


def only_copy(output: Path) -> Path:
    (copy,) = (path for path in output.rglob("*") if path.suffix in (".mp4", ".jpack"))
    return copy


def made_folder(folder: Path) -> Path:
    """The folder, made."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder
