"""What every video reader offers: same file, same indices, same frames."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

from vidtrain.types import Frames, Indices, VideoInfo


class OpenVideo(Protocol):
    """A video being read. Use it as a context manager, in the process that opened it, and close it at once."""

    @property
    def info(self) -> VideoInfo: ...

    def read(self, indices: Indices, size: tuple[int, int] | None = None) -> Frames:
        """The frames `indices` in the order asked for (any order, repeats allowed) as RGB uint8 (N, H, W, 3).

        Args:
            indices: int64 (N,), each in [0, info.num_frames).
            size: (height, width) to scale to while converting, bilinear; None keeps the video's own.

        Raises:
            VideoError: a wanted frame does not decode.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> OpenVideo: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class VideoReader(Protocol):
    """Opens videos. Holds settings only, so that it can be pickled to a loader's worker."""

    def open(self, path: str) -> OpenVideo:
        """Open a file, or raise VideoError with the reason in the user's words."""
        ...
