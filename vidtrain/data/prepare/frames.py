"""The size of a copy, and the times of its frames."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
import numpy.typing as npt

from vidtrain.data.readers.base import OpenVideo
from vidtrain.data.readers.pyav.reader import PyAVVideo
from vidtrain.types import VideoInfo

_FINEST: Final = 1_000_000  # ticks per second that MP4, its readers and x264 take without trouble
_USUAL: Final = Fraction(1, 90_000)


@dataclass(frozen=True)
class Times:
    """When the frames are shown.

    ticks: int64 (N,), ascending, the first is 0.
    unit: seconds of a tick; of a single frame, the seconds that it is shown.
    """

    ticks: npt.NDArray[np.int64]
    unit: Fraction

    @property
    def fps(self) -> Fraction:
        """Their mean rate, with a denominator that encoders take."""
        count = len(self.ticks)
        mean = (count - 1) / (int(self.ticks[-1]) * self.unit) if count > 1 else 1 / self.unit
        return mean.limit_denominator(1001) or Fraction(1, 1001)


def copy_size(info: VideoInfo, short_side: int, *, even: bool) -> tuple[int, int]:
    """(height, width) of a copy: the short side as asked for, or its own where that is smaller.

    even: both even, as H.264 with 4:2:0 colour needs them: the nearest even ones not above the video's own, 2 at least.
    """
    short = min(info.height, info.width)
    own = info.height, info.width
    if short > short_side:
        exact = [Fraction(side * short_side, short) for side in own]
    else:
        exact = [Fraction(side) for side in own]
    if not even:
        height, width = (max(1, round(side)) for side in exact)
    else:
        height, width = (max(2, min(2 * round(s / 2), o // 2 * 2)) for s, o in zip(exact, own, strict=True))
    return height, width


def timestamps(video: OpenVideo) -> Times:
    """When a video's frames are shown, in the ticks of the file where these tell it, else in `_USUAL` ones."""
    info = video.info
    known = _packet_times(video) if isinstance(video, PyAVVideo) else None
    if known is not None:
        return known
    if info.times is not None:
        return Times(_kept_apart(info.times[:-1] / float(_USUAL)), _USUAL)
    return Times(np.arange(info.num_frames, dtype=np.int64), 1 / Fraction(info.fps).limit_denominator(1001))


def _packet_times(video: PyAVVideo) -> Times | None:
    table, unit, info = video.frames.table, video.file.stream.time_base, video.info
    if table is None or not unit or len(table.shown) == 1:
        return None
    ticks = table.pts[table.shown]
    ticks = ticks - ticks[0]
    if info.times is not None:
        believed = np.abs(ticks * float(unit) - info.times[:-1]).max() < float(_USUAL)
    else:
        believed = abs((len(ticks) - 1) / float(ticks[-1] * unit) / info.fps - 1) <= 1e-6 and (np.diff(ticks) > 0).all()
    if not believed:
        return None  # not the times that the reader goes by
    if unit.denominator > _FINEST:
        ticks, unit = _kept_apart(ticks * float(unit / _USUAL)), _USUAL
    return Times(ticks, unit)


def _kept_apart(ticks: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Whole ticks, each at least one behind the one before it, also where frames fall together."""
    exact = np.round(ticks).astype(np.int64)
    places = np.arange(len(ticks))
    return np.maximum.accumulate(exact - places) + places
