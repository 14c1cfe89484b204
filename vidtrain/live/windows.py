"""The clips of a stream, each as soon as its last frame is there: those that `sliding_clips` finds of the whole video.

Frames that have come at the rate that the container says, within what it rounds times to, are taken to be evenly
spaced, as in `readers.timeline`; from the first that has not, clips measured in seconds go by the frames' own times.
A frame is then known to be the one to show at a time only when the next one has come, or one at that very time.

What is held are the frames of a window and of a hop. The last window ends where the stream ends.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import numpy as np

from vidtrain.data.clips.sampling import sliding_clips
from vidtrain.data.readers.timeline import Seconds, Timeline, hop_seconds
from vidtrain.data.settings import ClipSpec
from vidtrain.errors import DataError
from vidtrain.live.decoding_thread import Hold, LiveFrame
from vidtrain.types import Frames, Indices

_ROUNDED: Final = 1e-3  # seconds that containers round times to, as in pyav/frame_times.py
_TIE: Final = 1e-5  # seconds within which a frame counts as due, as in readers/timeline.py
_RATE: Final = 25.0  # frames per second, of a stream that says nothing; timed clips then go by the frames' own times
_MOST_BYTES: Final = 256 << 20


@dataclass(frozen=True, eq=False)
class LiveWindow:
    """frames: T of them, some perhaps more than once. number: among the windows of the stream. start, end: seconds of
    the stream, from its first frame to what follows its last one. since: from when on it waits for its turn, by
    time.monotonic: when the packet of its last frame came, or, where the end of a run decided it, that end."""

    frames: list[LiveFrame]
    number: int
    start: float
    end: float
    since: float

    def clip(self) -> Frames:
        """uint8 (T, size, size, 3)."""
        return np.stack([frame.image for frame in self.frames])

    @property
    def first(self) -> int:
        """The number of its first frame."""
        return self.frames[0].number

    @property
    def last(self) -> LiveFrame:
        return max(self.frames, key=lambda frame: frame.number)


class LiveWindows:
    """Args:
    spec: the clip; its mode must be "clip".
    hop: from a window to the next, see `sliding_clips`; None: its samples go on where those of the one before end.
    """

    def __init__(self, spec: ClipSpec, hop: int | str | None) -> None:
        self._spec = spec
        self._hop = hop
        self._hop_seconds = hop_seconds(hop)
        self._number = 0
        self._clear(None)

    def _clear(self, first: LiveFrame | None) -> None:
        """The frames that follow are a video of their own."""
        self._frames: deque[LiveFrame] = deque()
        self._base = 0  # number in the run of the first that is held
        self._origin = 0.0 if first is None else first.seconds
        self._rate = None if first is None else first.rate
        self._even = self._rate is not None
        self._next = 0  # the place of the next window among those of the run
        self._begin = -1  # of the last window that was given

    def add(self, frame: LiveFrame) -> list[LiveWindow]:
        """The windows that it completes; at the end of a run also the one that ends there."""
        found: list[LiveWindow] = []
        last = self._frames[-1] if self._frames else None
        if last is None or frame.run != last.run or frame.number != last.number + 1:
            if last is not None and frame.run != last.run:
                found = self._final(frame.arrived)
            self._clear(frame)
        place = self._stop
        self._frames.append(frame)
        if self._rate is not None and self._even:
            tolerance = min(_ROUNDED, 0.25 / self._rate)
            self._even = abs(frame.seconds - self._origin - place / self._rate) <= tolerance
        while (window := self._complete()) is not None:
            found.append(window)
        self._let_go()
        return found

    def end(self) -> list[LiveWindow]:
        """The stream is over: its last window, where it has not been given; of a short stream its only one."""
        now = time.monotonic()
        found = self._final(now)
        if not self._number and self._frames and self._hop is not None:
            times = None if self._even else np.array([*self._seconds, 2 * self._seconds[-1] - self._before_last])
            with suppress(DataError):  # short=error
                line = Timeline(self._stop, self._rate or _RATE, times)
                found = [self._window(sliding_clips(line, self._spec)[-1], now)]
        self._clear(None)
        return found

    # ---------------------------------------------------------------- frames of the run, by their numbers in it

    @property
    def _stop(self) -> int:
        return self._base + len(self._frames)

    @property
    def _seconds(self) -> list[float]:
        """Of the frames that are held, from the run's first frame on."""
        return [frame.seconds - self._origin for frame in self._frames]

    @property
    def _before_last(self) -> float:
        return self._frames[-2].seconds - self._origin if len(self._frames) > 1 else -1 / (self._rate or _RATE)

    @property
    def _timed(self) -> bool:
        return self._spec.fps is not None and not self._even

    @property
    def _span(self) -> int:
        """Frames of a window, where these do not depend on the times of single ones."""
        return self._spec.span(self._rate or _RATE)

    def _at(self, seconds: Seconds, *, ended: bool = False) -> Indices | None:
        """As Timeline.at; None where it depends on frames to come."""
        if self._even:
            return np.floor(seconds * (self._rate or _RATE) + 0.5).astype(np.int64)
        if seconds.max() > self._frames[-1].seconds - self._origin and not ended:
            return None  # most often, and soon said
        times = np.array(self._seconds)
        gaps = np.diff(times)
        due = times[1:] - np.minimum(gaps, np.append(gaps[1:], gaps[-1:])) / 2  # of the last one: at the earliest
        found: Indices = self._base + np.searchsorted(due, seconds + _TIE, side="right").astype(np.int64)
        if ended:  # as long as the one before it, the last frame is shown
            return np.where(seconds + _TIE < times[-1] + (times[-1] - self._before_last) / 2, found, self._stop)
        unsure = (found == self._stop - 1) & (seconds + _TIE < times[-1])
        return None if unsure.any() else found

    # ---------------------------------------------------------------- windows

    def _complete(self, over: float | None = None) -> LiveWindow | None:
        """The next window of the run, once it is known. over: since when the run is."""
        ended = over is not None
        while (begin := self._begin_of(self._next, ended=ended)) is not None and begin < self._stop:
            if begin == self._begin and self._hop is not None:  # of windows that begin with the same frame there is one
                self._next += 1
                continue
            samples = self._samples(begin, ended=ended)
            if samples is None or samples.max() >= self._stop:
                return None
            self._begin = begin
            self._next += 1
            return self._window(samples, over)
        return None

    def _begin_of(self, place: int, *, ended: bool = False) -> int | None:
        """The number of the frame that a window of the run begins with; None: it depends on frames to come."""
        spec = self._spec
        if isinstance(self._hop, int):
            return place * self._hop
        if self._hop_seconds is None and not self._timed:
            return int(np.floor(place * spec.num_frames * spec.step(self._rate or _RATE) + 0.5))
        distance = self._hop_seconds if self._hop_seconds is not None else spec.num_frames / (spec.fps or 1)
        found = self._at(np.array([place * distance]), ended=ended)
        return None if found is None else int(found[0])

    def _samples(self, begin: int, *, ended: bool = False) -> Indices | None:
        """int64 (T,); may lie beyond the last frame."""
        spec, rate = self._spec, self._rate or _RATE
        grid = np.arange(spec.num_frames)
        if self._hop is None:  # on the grid of the whole run, not on that of the window
            grid = grid + self._next * spec.num_frames
            if self._timed:
                return self._at(grid / (spec.fps or 1), ended=ended)
            return np.floor(grid * spec.step(rate) + 0.5).astype(np.int64)
        if not self._timed:
            return begin + spec.offsets(rate)
        assert spec.fps is not None
        start = self._frames[begin - self._base].seconds - self._origin
        return self._at(start + grid / spec.fps, ended=ended)

    def _window(self, samples: Indices, over: float | None) -> LiveWindow:
        frames = [self._frames[place - self._base] for place in samples.tolist()]
        start, end = self._shown(int(samples.min())), self._shown(int(samples.max()) + 1)
        last = self._frames[int(samples.max()) - self._base]
        window = LiveWindow(frames, self._number, start, end, last.arrived if over is None else over)
        self._number += 1
        return window

    def _shown(self, place: int) -> float:
        """Seconds of the stream at which a frame appears; of the next that is to come, after as long as the last."""
        if self._even:
            return self._origin + place / (self._rate or _RATE)
        if place < self._stop:
            return self._frames[place - self._base].seconds
        last = self._frames[-1].seconds
        return last + (last - self._origin - self._before_last)

    def _final(self, over: float) -> list[LiveWindow]:
        """What is still to be given of a run that has ended, at `over`: at last the window that ends where it ends."""
        if self._hop is None or not self._frames:
            return []
        found = []
        while (window := self._complete(over)) is not None:
            found.append(window)
        rooms = range(self._stop - 1, max(self._base, self._begin + 1) - 1, -1)
        begin = next((begin for begin in rooms if self._ends_inside(begin)), None)
        samples = None if begin is None else self._samples(begin, ended=True)
        return found if samples is None else [*found, self._window(samples, over)]

    def _ends_inside(self, begin: int) -> bool:
        """Whether a window's last sample is in a run that has ended."""
        samples = self._samples(begin, ended=True)
        return samples is not None and bool(samples.max() < self._stop)

    def _let_go(self) -> None:
        """Frames that are part of no window to come."""
        begin = None if self._hop_seconds is None else self._next * self._hop_seconds
        while len(self._frames) > 2 and self._is_done(begin):
            self._frames.popleft()
            self._base += 1

    def _is_done(self, begin: float | None) -> bool:
        """Of the first frame that is held: the next window begins later, and so does the one at the end."""
        second, last = self._frames[1].seconds - self._origin, self._frames[-1].seconds - self._origin
        if begin is None and self._base >= (self._begin_of(self._next) or 0):
            return False
        if begin is not None and second > begin - _TIE:
            return False
        if self._hop is None:
            return True
        if not self._timed:
            return self._base < self._stop - self._span
        assert self._spec.fps is not None
        return second < last - (self._spec.num_frames - 1) / self._spec.fps - 2 * (last - self._before_last)


def newest(windows: deque[LiveWindow], now: float, late: float) -> int:
    """Leave only the newest of windows that wait for their turn, where the oldest has waited for too long.

    Returns:
        How many are dropped.
    """
    if not windows or now - windows[0].since <= late:
        return 0
    dropped = len(windows) - 1
    kept = windows.pop()
    windows.clear()
    windows.append(kept)
    return dropped


def hold_of(spec: ClipSpec, hop: int | str, size: int) -> Hold:
    """What a reader that is late finds: a window and two hops, at most 256 MB of frames of size x size pixels."""
    seconds, most = hop_seconds(hop), max(64, _MOST_BYTES // (3 * size * size))
    frames = 2 + (0 if spec.fps is not None else spec.span(_RATE)) + (2 * hop if isinstance(hop, int) else 0)
    length = 0.0 if spec.fps is None else spec.num_frames / spec.fps
    return Hold(min(frames, most), length + 2 * (seconds or 0.0), most)
