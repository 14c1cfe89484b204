"""From seconds to frames and back, by the frames' own times. Pure index maths.

Frame k appears at t[k] and is on screen until t[k + 1]. A stretch of seconds [first, last) has the frames that appear
within it, which are those that `ffmpeg -ss first -to last` keeps; one without any has the frame that is on screen at
its start. So rows that follow each other share no frame and lose none:

    t        0    0.1  0.2  0.3            0.6            0.9       4 frames at 10 per second, 3 at 3.3
    frame    0    1    2    3              4              5
    [0.15, 0.6)        2    3
    [0.4, 0.5)              3

A sample at a time between two frames takes the one on screen, or the next where that is due within half a frame, by
the shorter of the distances before and after it. Where frames are evenly spaced this is rounding half up.

Where a segment begins and ends, times that differ by less than a millisecond count as equal: containers and annotators
round.
"""

from __future__ import annotations

import base64
import math
import re
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from vidtrain.errors import ConfigError, DataError
from vidtrain.types import Indices, VideoInfo

Seconds = npt.NDArray[np.float64]

_PER_SECOND: Final = 1_000_000
_LEAST_HOP: Final = 0.001  # seconds
_MOST_FRAMES: Final = 1 << 26  # with times of their own; three days at 240 per second
_SECONDS: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+) ?s")
_EQUAL: Final = 0.94e-3  # seconds, never more than a quarter of a frame; NTSC times are 1 ms off whole seconds

_TIE: Final = 1e-5  # seconds within which a frame counts as due: what a copy's ticks of 1/90,000 s can be off by


def hop_seconds(hop: float | str | None) -> float | None:
    """The seconds of a hop such as "0.5s"; None for a hop in frames (16), and for none.

    Raises:
        ConfigError: frames below 1, seconds below 0.001, or neither of the two.
    """
    if hop is None or isinstance(hop, int):
        if hop is not None and hop < 1:
            raise ConfigError(f"hop={hop}: must be at least 1")
        return None
    found = _SECONDS.fullmatch(str(hop).strip())
    if found is None:
        raise ConfigError(f"hop={hop}: must be a whole number of frames, such as 16, or seconds, such as 0.5s")
    seconds = float(found[1])
    if not seconds >= _LEAST_HOP:
        raise ConfigError(f"hop={hop}: must be at least {_LEAST_HOP}s")
    return seconds


def packed(times: Seconds | None) -> str:
    """Times as short text for a line of JSON, to the microsecond; "" for None. `unpacked` gives them back."""
    if times is None:
        return ""
    steps = np.diff(np.round(times * _PER_SECOND).astype("<i8"))
    return base64.b64encode(zlib.compress(steps.tobytes())).decode("ascii")


def unpacked(text: str, frames: int) -> Seconds | None:
    """What `packed` was given, for a video of this many frames: (frames + 1,) seconds, or None.

    Raises:
        ValueError: other text; or that of another number of frames, which is not unpacked: 60 kB can hold gigabytes.
    """
    if not text:
        return None
    if not 0 < frames <= _MOST_FRAMES:
        raise ValueError(f"times of {frames} frames")
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(base64.b64decode(text, validate=True), 8 * frames + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(data) != 8 * frames or not unpacking.eof:
        raise ValueError(f"not the times of {frames} frames")
    steps = np.frombuffer(data, "<i8")
    if not 0 <= steps.min() <= steps.max() < 1 << 52:
        raise ValueError("times that do not increase, or of many years")
    return np.concatenate([[0], np.cumsum(steps)]) / _PER_SECOND


@dataclass(frozen=True, eq=False)
class Timeline:
    """When the frames of a video are shown.

    total: frames, 1 or more. fps: their mean rate. times: as in `VideoInfo`; None: frame k appears at k / fps.
    """

    total: int
    fps: float
    times: Seconds | None = None

    def __post_init__(self) -> None:
        if self.total < 1:
            raise DataError(f"a video has 1 frame or more, got {self.total}")

    @classmethod
    def of(cls, info: VideoInfo) -> Timeline:
        return cls(info.num_frames, info.fps, info.times)

    @property
    def end(self) -> float:
        """Seconds at which the last frame ends."""
        return self.total / self.fps if self.times is None else float(self.times[-1])

    def seconds(self, frames: Indices) -> Seconds:
        """When frames appear; `total` gives the end."""
        found: Seconds = frames / self.fps if self.times is None else self.times[frames]
        return found

    def at(self, seconds: Seconds) -> Indices:
        """The frames to show at these times, 0 or later; `total` for those after the end."""
        if self.times is None:
            found = np.floor(seconds * self.fps + 0.5).astype(np.int64)
        else:
            found = np.searchsorted(self._due, seconds + _TIE, side="right").astype(np.int64)
        return np.minimum(found, self.total)

    def within(self, first: float | None, last: float | None) -> tuple[int, int]:
        """(start, stop) of the frames from `first` to `last` seconds, stop excluded, at least one frame.

        Args:
            first: seconds from the start of the video; None is its start.
            last: seconds from the start of the video, not included; None is its end. Beyond the end means the end.

        Raises:
            DataError: the segment is empty, or begins after the end of the video.
        """
        begin, end = first or 0.0, math.inf if last is None else last
        if not (begin >= 0 and end > begin):
            raise DataError(f"a segment runs from 0 s or later to a later time, got {begin:g} s to {end:g} s")
        if begin > self.end - self._equal:
            raise DataError(f"the segment begins at {begin:g} s, the video ends at {self.end:g} s")
        start, stop = self._from(begin), self._from(end)
        if stop > start:
            return start, stop
        if start == self.total or float(self.seconds(np.array(start))) > begin + self._equal:
            start -= 1
        return start, start + 1

    @property
    def _equal(self) -> float:
        return min(_EQUAL, 0.25 / self.fps)

    @cached_property
    def _due(self) -> Seconds:
        """For frames 1 to total the time from which on `at` gives them."""
        assert self.times is not None
        gaps = np.diff(self.times)
        due: Seconds = self.times[1:] - np.minimum(gaps, np.append(gaps[1:], gaps[-1])) / 2
        return due

    def _from(self, seconds: float) -> int:
        """The first frame that appears at a time or later."""
        if math.isinf(seconds):
            return self.total
        if self.times is None:
            return min(self.total, max(0, math.ceil((seconds - self._equal) * self.fps)))
        return int(np.searchsorted(self.times[:-1], seconds - self._equal))
