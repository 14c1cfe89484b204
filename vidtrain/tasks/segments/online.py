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
from vidtrain.tasks.segments.decode import find_segments
from vidtrain.tasks.settings import SegmentsConfig

_MOST: Final = 4096  # windows
_EACH: Final = 32  # windows between two looks


class OnlineSegments:
    """Args:
    most: windows that are held.
    """

    def __init__(
        self, class_names: Sequence[str], config: SegmentsConfig, *, multi_label: bool = False, most: int = _MOST
    ) -> None:
        self._names, self._config, self._multi_label, self._most = class_names, config, multi_label, most
        self._times: list[tuple[float, float]] = []
        self._probs: list[npt.NDArray[np.float32]] = []
        self._numbers: list[int] = []
        self._decided = -np.inf  # seconds: segments that begin before have been given
        self._cut = -np.inf  # seconds: where one that goes on has been cut
        self._fresh = 0

    def add(self, start: float, end: float, probs: npt.NDArray[np.float32], number: int) -> list[Segment]:
        """A window, as of `Windows`, and what has become certain with it."""
        self._times.append((start, end))
        self._probs.append(probs)
        self._numbers.append(number)
        self._fresh += 1
        if self._fresh < _EACH and len(self._times) < self._most:
            return []
        self._fresh = 0
        return self._certain()

    def end(self) -> list[Segment]:
        """The rest."""
        found = self._new(self._found())
        self._let_go(len(self._times))
        return found

    def _found(self) -> list[Segment]:
        if not self._times:
            return []
        starts, ends = np.array(self._times, np.float64).T
        windows = Windows(starts, ends, np.stack(self._probs), np.array(self._numbers, np.int64))
        return find_segments(windows, self._names, self._config, multi_label=self._multi_label)

    def _certain(self) -> list[Segment]:
        lengths = [end - start for start, end in self._times]
        smoothing = max(lengths) if self._config.smoothing is None else self._config.smoothing
        # what comes moves no border before this, and what ends before it is joined to nothing
        settled = self._times[-1][0] - smoothing - 2 * max(lengths) - self._config.merge_seconds
        every = self._found()
        # and one that is too short now may yet be joined to one that makes it long enough
        decided = min([settled - self._config.min_seconds, *(s.start for s in every if s.end > settled)])
        margin = 2 * (smoothing + 2 * max(lengths) + self._config.merge_seconds + self._config.min_seconds)
        kept = next((n for n, (_, end) in enumerate(self._times) if end > decided - margin), 0)
        if len(self._times) - kept < self._most:
            found = [segment for segment in self._new(every) if segment.start < decided]
            self._decided = max(self._decided, decided)
            # a merge may hang on a chain of others before it: more than the margin is kept, and costs little
            kept = min(kept, max(0, len(self._times) - self._most // 8))
        else:  # one without end, or a merge over hours
            found, kept = self._new(every), len(self._times) - 1
            self._decided = self._cut = self._times[-1][1]
        self._let_go(kept)
        return found

    def _new(self, segments: Sequence[Segment]) -> list[Segment]:
        """What of these has not been given; of one that was cut the rest."""
        if self._cut == self._decided:
            segments = [replace(s, start=max(s.start, self._cut)) for s in segments if s.end > self._cut]
        return [s for s in segments if s.start >= self._decided]

    def _let_go(self, count: int) -> None:
        for column in (self._times, self._probs, self._numbers):
            del column[:count]
