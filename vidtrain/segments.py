"""Windows that slide over a video, and segments with a label. Pure numpy; what both are made from and drawn from.

A window is a clip that a classifier has seen: it begins with its first frame and ends with its last one. What it says
holds for its centre, so each window speaks for the stretch up to half-way to its neighbours' centres, its cell, and the
first and last one for the ends of the video:

    window 0   |----------c----------|
    window 1         |----------c----------|
    window 2               |----------c----------|
    cells      |===0=========|==1==|===2=========|

Windows that could not be read leave a gap: what stands before it ends with its own window, and what comes after begins
with its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_STEPS = 1 << 36  # of a probability, in sums; 2 ** 27 windows of one fit


@dataclass(frozen=True, eq=False)
class Windows:
    """What a classifier says of n windows of a video, their starts ascending.

    starts, ends: float64 (n,), seconds: of the first frame, and of what follows the last one. probs: float32 (n, K).
    numbers: int64 (n,), of each window among those of the video; one that is not there could not be read.
    """

    starts: Floats
    ends: Floats
    probs: npt.NDArray[np.float32]
    numbers: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def centres(self) -> Floats:
        """float64 (n,), seconds."""
        return (self.starts + self.ends) / 2

    def runs(self) -> Iterator[slice]:
        """Those that follow each other without one missing between."""
        cuts = [0, *(np.flatnonzero(np.diff(self.numbers) != 1) + 1).tolist(), len(self)]
        yield from (slice(a, b) for a, b in pairwise(cuts) if b > a)

    def cells(self) -> Floats:
        """float64 (n, 2): the stretch of seconds that each window speaks for; they do not overlap."""
        found = np.stack([self.starts, self.ends], 1)
        centres = self.centres
        for run in self.runs():
            middles = (centres[run][:-1] + centres[run][1:]) / 2
            found[run][1:, 0] = middles
            found[run][:-1, 1] = middles
            if run.start and found[run.start - 1, 1] > found[run.start, 0]:  # a gap shorter than a window
                found[run.start - 1, 1] = found[run.start, 0] = (centres[run.start - 1] + centres[run.start]) / 2
        return found

    def smoothed(self, seconds: float) -> npt.NDArray[np.float32]:
        """float32 (n, K): of each window the mean over those whose centres are within seconds / 2, gaps not crossed.

        It depends on these alone, to the bit: the sums are of whole numbers, which are exact whatever stands before.
        """
        found = self.probs.copy()
        for run in self.runs():
            centres, probs = self.centres[run], np.rint(self.probs[run] * np.float64(_STEPS)).astype(np.int64)
            total = np.concatenate([np.zeros((1, probs.shape[1]), np.int64), probs.cumsum(0)])
            first = np.searchsorted(centres, centres - seconds / 2 - 1e-9)
            stop = np.searchsorted(centres, centres + seconds / 2 + 1e-9, side="right")
            found[run] = (total[stop] - total[first]) / (_STEPS * (stop - first)[:, None])
        return found


@dataclass(frozen=True)
class Segment:
    """start, end: seconds. score: the mean probability of the class within it, in [0, 1]."""

    start: float
    end: float
    label: str
    score: float

    @property
    def seconds(self) -> float:
        return self.end - self.start

    def overlap(self, other: Segment) -> float:
        """Intersection over union in time (tIoU), in [0, 1], whatever the labels."""
        shared = max(0.0, min(self.end, other.end) - max(self.start, other.start))
        return shared / max(self.seconds + other.seconds - shared, 1e-12)


@dataclass(frozen=True, eq=False)
class Annotated:
    """What happens in a video when, beside the windows that it is seen through: the target of an untrimmed video.

    seconds: its length. windows: float64 (L, 2), from when to when each goes. truth: float64 (n, 3): start, end, class
    number of each segment.
    """

    seconds: float
    windows: Floats
    truth: Floats

    def table(self) -> Floats:
        """float64 (1 + L + n, 3), from which `of` makes it again: rows of length, windows and segments, by the third
        number: -2, -1, a class."""
        length = np.array([[0.0, self.seconds, -2.0]])
        windows = np.concatenate([self.windows, np.full((len(self.windows), 1), -1.0)], 1)
        return np.concatenate([length, windows, self.truth.reshape(-1, 3)])

    @classmethod
    def of(cls, table: Floats) -> Annotated:
        """From `table`."""
        kind = table[:, 2]
        return cls(float(table[kind == -2, 1][0]), table[kind == -1, :2], table[kind >= 0])

    @property
    def grid(self) -> Floats:
        """float64 (L,), seconds: the centres of the windows."""
        return self.windows.mean(1)
