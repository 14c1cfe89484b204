"""The wanted frames of a video one after the other, in one decoding pass, without holding them all.

`OpenVideo.read` decodes all frames that it is asked for into one array: of an hour of video that is gigabytes. Read in
pieces, PyAV would decode again from the last keyframe at each of them, and files whose frames have to be counted from
their start each time. So from PyAV the frames are taken as they leave the decoder.
"""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np

from vidtrain.data.readers.base import OpenVideo
from vidtrain.data.readers.pyav.convert import Converter
from vidtrain.data.readers.pyav.reader import PyAVVideo
from vidtrain.errors import VideoError
from vidtrain.types import Frames, Indices

_PIECE = 128
"""Frames read at once with the other readers."""


class OutOfOrderError(Exception):
    """A frame that was given already turned out to be wrong, and its like comes again: begin anew, with read."""


def stream(
    video: OpenVideo, wanted: Indices, size: tuple[int, int], *, pieces: bool = False
) -> Iterator[tuple[int, Frames]]:
    """(number, uint8 (H, W, 3)) of each wanted frame, in ascending order, bit for bit as `video.read` gives them.

    Args:
        wanted: int64 (N,), ascending, unique.
        size: (height, width), as for `OpenVideo.read`.
        pieces: read piece by piece, whatever the reader is.

    Raises:
        VideoError: a wanted frame does not decode. Frames that were given before may be spoiled, too.
        OutOfOrderError: only without `pieces`.
    """
    if isinstance(video, PyAVVideo) and not pieces:
        yield from _decoded(video, wanted, size)
        return
    for first in range(0, len(wanted), _PIECE):
        part = wanted[first : first + _PIECE]
        yield from zip(part.tolist(), video.read(part, size), strict=True)


def _decoded(video: PyAVVideo, wanted: Indices, size: tuple[int, int]) -> Iterator[tuple[int, Frames]]:
    converter, expected = Converter(video.orientation), iter(wanted.tolist())
    count, path = video.info.num_frames, video.file.path
    for number, frame in video.frames.get(wanted.tolist()):
        if number != next(expected, None):
            raise OutOfOrderError
        picture = np.empty((*size, 3), np.uint8)
        try:
            converter.write(frame, picture)
        except (av.error.FFmpegError, ValueError) as error:
            raise VideoError(path, f"frame {number} of {count} does not convert to RGB ({error})") from None
        yield number, picture
    missing = next(expected, None)
    if missing is not None:
        raise VideoError(path, f"frame {missing} of {count} does not decode")
