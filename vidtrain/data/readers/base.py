"""What every video reader offers: same file, same indices, same frames."""

from __future__ import annotations

from typing import Protocol

from vidtrain.types import Closing, Frames, Indices, VideoInfo


class OpenVideo(Closing, Protocol):
    """A video being read. Use it as a context manager, in the process that opened it, and close it at once.

    A class that is derived from it sets `info`, and has `read` and `close`.
    """

    info: VideoInfo
    """Frames shown, their rate and size: known before a frame is decoded, and the same for every reader."""

    def read(self, indices: Indices, size: tuple[int, int] | None = None) -> Frames:
        """The frames `indices` in the order asked for (any order, repeats allowed) as RGB uint8 (N, H, W, 3).

        Frames are what a player shows: rotation metadata applied, pixels as stored (non-square ones are not
        stretched). Reading clips one after the other from one open video is allowed, in any order.

        Args:
            indices: int64 (N,), each in [0, info.num_frames).
            size: (height, width) of the frame as shown, scaled to while converting, bilinear; None keeps its own.

        Raises:
            VideoError: a wanted frame does not decode. No frame stands in for another.
            IndexError: an index is outside the video.
        """
        ...


class VideoReader(Protocol):
    """Opens videos. Holds settings only, so that it can be pickled to a loader's worker."""

    def open(self, path: str) -> OpenVideo:
        """Open a file, or raise VideoError with the reason in the user's words."""
        ...
