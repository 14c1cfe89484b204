"""Videos that are in memory already: frames as arrays or tensors, under names that stand for their paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidtrain.data.readers.base import OpenVideo, VideoReader
from vidtrain.data.readers.pyav.reader import slots_of
from vidtrain.data.readers.pyav.to_rgb import scaled
from vidtrain.errors import DataError, VideoError
from vidtrain.types import Frames, Indices, VideoInfo


def as_frames(name: str, frames: Any) -> Frames:
    """An array or a tensor as uint8 (T, H, W, 3) in the main memory, without a copy where it is so already.

    Raises:
        VideoError: it has another shape or type, or no frame. name: of the video.
    """
    array = np.asarray(frames.detach().cpu() if hasattr(frames, "detach") else frames)
    if array.dtype == np.uint8 and array.ndim == 4 and array.shape[3] == 3 and array.size:
        return array
    hint = ""
    if array.ndim == 4 and array.shape[1] == 3 != array.shape[3]:
        hint = ": move the colours to the end, for a tensor by x.permute(0, 2, 3, 1)"
    elif array.ndim == 5:
        hint = ": give several videos as a list of them"
    elif array.dtype != np.uint8:
        hint = ": give the values 0 to 255 as they were decoded, not normalised ones"
    raise VideoError(name, f"expected uint8 (frames, height, width, 3), got {array.dtype} {array.shape}{hint}")


@dataclass(frozen=True)
class ArrayReader:
    """Opens arrays by their names.

    arrays: name -> uint8 (T, H, W, 3). fps: frames per second of all of them. otherwise: opens all else.
    """

    arrays: Mapping[str, Frames]
    fps: float
    otherwise: VideoReader | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.fps) and self.fps > 0):
            raise DataError(f"fps={self.fps}: must be above 0")

    def open(self, path: str) -> OpenVideo:
        """Raises VideoError as `otherwise` does, or for a name that is not there."""
        if path in self.arrays:
            return ArrayVideo(path, self.arrays[path], self.fps)
        if self.otherwise is None:
            raise VideoError(path, "no array has this name")
        return self.otherwise.open(path)


class ArrayVideo(OpenVideo):
    """An array being read, see `vidtrain.data.readers.base.OpenVideo`."""

    def __init__(self, name: str, frames: Frames, fps: float) -> None:
        self._name = name
        self._frames = frames
        count, height, width, _ = frames.shape
        self.info = VideoInfo(num_frames=count, fps=fps, height=height, width=width)

    def read(self, indices: Indices, size: tuple[int, int] | None = None) -> Frames:
        """A copy of the frames `indices`, uint8 (N, H, W, 3), scaled as the frames of files are."""
        slots = slots_of(self._name, indices, self.info.num_frames)  # or a negative index would count from the end
        wanted = sorted(slots)
        found = self._frames[wanted] if size is None else scaled(self._frames[wanted], size)
        return found[np.searchsorted(wanted, indices)]

    def close(self) -> None:
        """Nothing is open."""
