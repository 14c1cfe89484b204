"""Segments of a stream, each when nothing to come can change it: those that `find_segments` finds of the whole stream.

What is held are the windows since the last segment that is certain. A segment longer than `most` windows is cut there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from vidtrain.segments import Segment, Windows
from vidtrain.tasks.segments.from_windows import find_segments, smoothing_of
from vidtrain.tasks.settings import SegmentsConfig

_MOST: Final = 4096  # windows
_EACH: Final = 32  # windows between two looks


class OnlineSegments:
    """Windows go in, one after the other, and segments come out.

    Attributes:
        held: how many windows are, `most` at most.
    """

    def __init__(
        self, class_names: Sequence[str], config: SegmentsConfig, *, multi_label: bool = False, most: int = _MOST
    ) -> None:
        self._names, self._config, self._multi_label, self._most = class_names, config, multi_label, most
        # one block of memory: thousands of small arrays, made between the large ones of a network, would hold those up
        self._times = np.empty((most, 2), np.float64)
        self._probs = np.empty((most, len(class_names)), np.float32)
        self._numbers = np.empty(most, np.int64)
        self.held = 0
        self._decided = -np.inf  # seconds: segments that begin before have been given
        self._cut = -np.inf  # seconds: where one that goes on has been cut
        self._fresh = 0

    def add(self, start: float, end: float, probs: npt.NDArray[np.float32], number: int) -> list[Segment]:
        """A window, as of `Windows`, and what has become certain with it."""
        if self._config.smoothing is None:
            self._config = replace(self._config, smoothing=smoothing_of(self._config, end - start))
        self._times[self.held], self._probs[self.held], self._numbers[self.held] = (start, end), probs, number
        self.held += 1
        self._fresh += 1
        if self._fresh < _EACH and self.held < self._most:
            return []
        self._fresh = 0
        return self._certain()

    def end(self) -> list[Segment]:
        """The rest."""
        found = self._new(self._found())
        self._let_go(self.held)
        return found

    def _found(self) -> list[Segment]:
        if not self.held:
            return []
        starts, ends = self._times[: self.held].T
        windows = Windows(starts, ends, self._probs[: self.held], self._numbers[: self.held])
        return find_segments(windows, self._names, self._config, multi_label=self._multi_label)

    def _certain(self) -> list[Segment]:
        times = self._times[: self.held]
        longest, smoothing = float((times[:, 1] - times[:, 0]).max()), self._config.smoothing or 0.0
        # what comes moves no border before this, and what ends before it is joined to nothing
        settled = float(times[-1, 0]) - smoothing - 2 * longest - self._config.merge_seconds
        every = self._found()
        # and one that is too short now may yet be joined to one that makes it long enough
        decided = min([settled - self._config.min_seconds, *(s.start for s in every if s.end > settled)])
        margin = 2 * (smoothing + 2 * longest + self._config.merge_seconds + self._config.min_seconds)
        kept = int(np.argmax(times[:, 1] > decided - margin))
        if self.held - kept < self._most:
            found = [segment for segment in self._new(every) if segment.start < decided]
            self._decided = max(self._decided, decided)
            # a merge may hang on a chain of others before it: more than the margin is kept, and costs little
            kept = min(kept, max(0, self.held - self._most // 8))
        else:  # one without end, or a merge over hours
            found, kept = self._new(every), self.held - 1
            self._decided = self._cut = float(times[-1, 1])
        self._let_go(kept)
        return found

    def _new(self, segments: Sequence[Segment]) -> list[Segment]:
        """What of these has not been given; of one that was cut the rest."""
        if self._cut == self._decided:
            segments = [replace(s, start=max(s.start, self._cut)) for s in segments if s.end > self._cut]
        return [s for s in segments if s.start >= self._decided]

    def _let_go(self, count: int) -> None:
        for column in (self._times, self._probs, self._numbers):
            column[: self.held - count] = column[count : self.held].copy()
        self.held -= count
