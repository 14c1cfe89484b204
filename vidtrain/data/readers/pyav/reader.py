"""The default reader: FFmpeg through PyAV, decoding as little as the wanted frames need.

Per clip: seek back to the keyframe at or before the first wanted frame, decode from there and tell the decoder for
each packet whether its picture may be skipped (it may when nothing refers to it and it is not wanted), stop at the last
wanted frame. Wanted frames are scaled and converted to RGB in one swscale call. One decode thread: a loader's
workers are the parallelism. The pixels are exactly those of a decode of the whole file from its start.

Where the packets do not tell which frames are shown (see `packets`), the file is decoded once from the start to count
them, and again to read.

Which frames count as broken: those that do not come out of the decoder, those that it marks as corrupt
(`VideoFrame.is_corrupt`: pictures patched up from their neighbours, or decoded without what they refer to), and those
that follow such a one before the next keyframe and may refer to it (see `decoding`). Reading one raises VideoError.

Non-square pixels stay as they are stored: nothing is stretched. Display matrices (rotated and mirrored phone
videos) are applied; an orientation note inside an H.264 stream itself is not, nor is a crop that the container asks for
(`clap`, PixelCrop), which no library applies and FFmpeg's command does from 7.1 on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import av
import numpy as np

from vidtrain.data.readers.pyav.decoding import ShownFrames, find_frames
from vidtrain.data.readers.pyav.opening import OpenFile
from vidtrain.data.readers.pyav.to_rgb import Converter, Orientation
from vidtrain.errors import VideoError
from vidtrain.ranges import LONGEST, Range
from vidtrain.types import Closing, Frames, Indices, VideoInfo


@dataclass(frozen=True)
class PyAVReader:
    """Opens videos with PyAV.

    timeout: seconds that FFmpeg may search for one packet before the file counts as broken; None means no limit. In a
        sound file that takes milliseconds.
    """

    timeout: Annotated[float | None, Range(above=0, most=LONGEST)] = 4.0

    def open(self, path: str) -> PyAVVideo:
        """Open a file and find the frames it shows.

        Raises:
            VideoError: no such file, not a video, no video stream, cut off, encrypted, no frame in it.
        """
        return PyAVVideo(path, timeout=self.timeout)


class PyAVVideo(Closing):
    """A video being read, as `vidtrain.data.readers.base.OpenVideo` has it; derived from nothing above this folder."""

    def __init__(self, path: str, *, timeout: float | None = PyAVReader.timeout, inspect: bool = False) -> None:
        self._path = path
        self._file = OpenFile(path, timeout)
        try:
            self._frames: ShownFrames = find_frames(self._file, inspect=inspect)
            self.orientation = self._find_orientation()
            self.info = self._describe()
        except BaseException:
            self._file.close()
            raise
        self._converter = Converter(self.orientation)

    @property
    def file(self) -> OpenFile:
        """The container and its stream."""
        return self._file

    @property
    def frames(self) -> ShownFrames:
        """What is known of the frames shown beyond `info`."""
        return self._frames

    def read(self, indices: Indices, size: tuple[int, int] | None = None) -> Frames:
        """The frames `indices` as RGB uint8 (N, H, W, 3), see `OpenVideo.read`.

        Memory: the result, and no frame that is not in it.
        """
        slots = slots_of(self._path, indices, self.info.num_frames)
        out = np.empty((len(indices), *(size or (self.info.height, self.info.width)), 3), np.uint8)
        missing = set(slots)
        for number, frame in self._frames.get(sorted(slots)):
            missing.discard(number)
            first, *others = slots[number]
            try:
                self._converter.write(frame, out[first])
            except (av.error.FFmpegError, ValueError) as error:
                reason = f"frame {number} of {self.info.num_frames} does not convert to RGB ({error})"
                raise VideoError(self._path, reason) from None
            out[others] = out[first]
        if missing:
            raise VideoError(self._path, f"frame {min(missing)} of {self.info.num_frames} does not decode")
        return out

    def close(self) -> None:
        self._frames.close()
        self._file.close()

    def _find_orientation(self) -> Orientation:
        if not self._file.seen.may_be_turned:
            return Orientation()
        for _, frame in self._frames.get([0]):
            return Orientation.of(frame)
        raise VideoError(self._path, f"frame 0 of {self._frames.count} does not decode")

    def _describe(self) -> VideoInfo:
        height, width = self.orientation.shape(*self._frames.size)
        timing = self._frames.timing
        return VideoInfo(self._frames.count, timing.fps, height, width, timing.times, timing.note)


def slots_of(path: str, indices: Indices, count: int) -> dict[int, list[int]]:
    """From each wanted frame to the places in the result that it fills.

    Raises:
        IndexError: there is no frame of that number, which is the caller's mistake and not the file's.
    """
    slots: dict[int, list[int]] = {}
    for slot, number in enumerate(np.asarray(indices).tolist()):
        if not 0 <= number < count:
            raise IndexError(f"{path}: frame {number} was asked for, the video shows 0 to {count - 1}")
        slots.setdefault(number, []).append(slot)
    return slots
