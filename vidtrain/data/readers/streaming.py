"""The wanted frames of a video one after the other, in one decoding pass, without holding them all.

`OpenVideo.read` decodes all frames that it is asked for into one array: of an hour of video that is gigabytes. Read in
pieces, PyAV would decode again from the last keyframe at each of them, and files whose frames have to be counted from
their start each time. So from PyAV the frames are taken as they leave the decoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import av
import numpy as np

from vidtrain.data.readers.base import OpenVideo
from vidtrain.data.readers.pyav.reader import PyAVVideo
from vidtrain.data.readers.pyav.to_rgb import Converter
from vidtrain.errors import VideoError
from vidtrain.types import Frames, Indices

_PIECE = 128
"""Frames read at once with the other readers."""
_AT_ONCE = 64 << 20
"""Bytes of frames that `walk` reads at once."""


class OutOfOrderError(Exception):
    """A frame that was given already turned out to be wrong, and its like comes again: start again, with read."""


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
        image = np.empty((*size, 3), np.uint8)
        try:
            converter.write(frame, image)
        except (av.error.FFmpegError, ValueError) as error:
            raise VideoError(path, f"frame {number} of {count} does not convert to RGB ({error})") from None
        yield number, image
    missing = next(expected, None)
    if missing is not None:
        raise VideoError(path, f"frame {missing} of {count} does not decode")


def walk(path: str, video: OpenVideo, size: tuple[int, int]) -> Iterator[Frames]:
    """Every frame in order as RGB uint8 (H, W, 3) of `size`. Memory: 64 MB of frames at most.

    Raises:
        VideoError: a frame does not decode; perhaps only after the last one, of a frame that was given before.
    """
    if isinstance(video, PyAVVideo) and video.frames.table is None:
        # any part of a file whose packets do not tell the frames is decoded from the start: so in one go
        try:
            for _, image in _decoded(video, np.arange(video.info.num_frames), size):
                yield image
        except OutOfOrderError:
            raise VideoError(path, "a frame does not decode") from None
        return
    most = max(1, _AT_ONCE // (3 * size[0] * size[1]))
    for first, end in pairwise(_stretches(video, most)):
        yield from video.read(np.arange(first, end), size)


def _stretches(video: OpenVideo, most: int) -> list[int]:
    """Where to part the frames so that each part begins at a keyframe, as far as there are any: 0 ... num_frames.

    A part that begins elsewhere costs decoding from the keyframe before it once more.
    """
    count = video.info.num_frames
    table = video.frames.table if isinstance(video, PyAVVideo) else None
    keys = np.arange(count) if table is None else np.flatnonzero(table.start[table.shown] == table.shown)
    at = [0]
    while at[-1] < count:
        within = keys[(keys > at[-1]) & (keys <= at[-1] + most)]
        near_end = at[-1] + most >= count
        at.append(count if near_end else int(within[-1]) if len(within) else at[-1] + most)
    return at
