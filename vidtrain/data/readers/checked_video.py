"""A video that another library decodes, once the PyAV reader has found its frames and what the library gets wrong."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from vidtrain.data.readers.base import OpenVideo
from vidtrain.data.readers.pyav.reader import PyAVVideo, slots_of
from vidtrain.errors import VideoError
from vidtrain.types import Frames, Indices


class CheckedVideo(OpenVideo):
    """A video being read by `library`, see `vidtrain.data.readers.base.OpenVideo`."""

    library: str

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            path.encode()
        except UnicodeEncodeError:
            reason = f"{self.library} opens no file whose name is not UTF-8: rename it, or use decoder=pyav"
            raise VideoError(path, reason) from None
        with PyAVVideo(path, inspect=True) as probe:
            self.info, self._stream = probe.info, probe.file.stream.index
            reason = self._why_not(probe)
        if reason:
            raise VideoError(path, f"{reason}: use decoder=pyav")
        self._opened: tuple[tuple[int, int], Any] | None = None

    def read(self, indices: Indices, size: tuple[int, int] | None = None) -> Frames:
        """The frames `indices` as RGB uint8 (N, H, W, 3), see `OpenVideo.read`."""
        slots_of(self._path, indices, self.info.num_frames)  # checks them
        size = size or (self.info.height, self.info.width)
        if len(indices) == 0:
            return np.empty((0, *size, 3), np.uint8)
        wanted, place = np.unique(indices, return_inverse=True)
        frames = self._batch(wanted, size)
        return frames if len(wanted) == len(indices) and (np.diff(place) > 0).all() else frames[place]

    def close(self) -> None:
        self._opened = None

    def _sized(self, size: tuple[int, int]) -> Any:
        """The library's decoder, which scales to `size` where it can; opened again when the size changes."""
        if self._opened is None or self._opened[0] != size:
            decoder = self._open(size)
            if len(decoder) != self.info.num_frames:
                counts = f"{self.library} counts {len(decoder)} frames, {self.info.num_frames} are shown"
                raise VideoError(self._path, f"{counts}: use decoder=pyav")
            self._opened = size, decoder
        return self._opened[1]

    @abstractmethod
    def _why_not(self, probe: PyAVVideo) -> str:
        """What is wrong with the file for the library, '' when nothing is."""

    @abstractmethod
    def _open(self, size: tuple[int, int]) -> Any:
        """The library's decoder; its len() is the number of frames."""

    @abstractmethod
    def _batch(self, wanted: Indices, size: tuple[int, int]) -> Frames:
        """Unique ascending frames."""
