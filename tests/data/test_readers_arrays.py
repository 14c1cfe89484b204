"""Arrays as videos: the contract of every reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.videos import scene, write_video
from vidtrain.data.readers.arrays import ArrayReader, as_frames
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.errors import DataError, VideoError

FRAMES = scene(9)


def test_any_order_and_repeats_at_any_size(tmp_path: Path) -> None:
    indices = np.array([5, 1, 1, 8, 0])
    file = write_video(tmp_path / "rgb.mkv", FRAMES)
    reader = ArrayReader({"mine": FRAMES}, 12.5, PyAVReader())
    with reader.open("mine") as video, reader.open(str(file)) as other:
        assert (video.info.num_frames, video.info.fps, video.info.height, video.info.width) == (9, 12.5, 48, 64)
        assert np.array_equal(video.read(indices), FRAMES[indices])
        small = video.read(indices, (24, 40))
        assert small.shape == (5, 24, 40, 3)
        assert np.abs(small.astype(int) - other.read(indices, (24, 40))).max() <= 1
        for wrong in (-1, 9):
            with pytest.raises(IndexError, match=f"mine: frame {wrong}"):
                video.read(np.array([wrong]))


def test_what_is_read_may_be_changed() -> None:
    frames = FRAMES.copy()
    ArrayReader({"mine": frames}, 30).open("mine").read(np.arange(9))[:] = 0
    assert np.array_equal(frames, FRAMES)


def test_names_and_rates() -> None:
    with pytest.raises(VideoError, match="other: no array has this name"):
        ArrayReader({"mine": FRAMES}, 30).open("other")
    for fps in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(DataError, match=r"fps=.*: must be above 0"):
            ArrayReader({"mine": FRAMES}, fps)


def test_tensors_are_taken_without_a_copy() -> None:
    frames = torch.from_numpy(FRAMES.copy())
    found = as_frames("mine", frames)
    frames[0] = 7
    assert (found[0] == 7).all()
