"""Thumbnails of scored videos: the very clips that a report speaks of."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from vidtrain.data.readers.any_path import AnyReader
from vidtrain.data.readers.base import OpenVideo, VideoReader
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.data.readers.timeline import Timeline
from vidtrain.errors import DataError
from vidtrain.reports.animation import animated_webp
from vidtrain.reports.page.content import Clip
from vidtrain.reports.results import ScoredVideo

_FRAMES: Final = 10
_FPS: Final = 8.0
_SHORT, _LONG = 96, 192  # pixels of a side, at most
_MOST_BYTES: Final = 60_000  # of one thumbnail: a report has about forty


@dataclass
class Thumbnails:
    """Opens videos until its time is over, each once; a stranger's configuration says nothing about how.

    seconds: for all of it. more: what gives more of them, for the note in the place of those that are late.
    """

    seconds: float
    more: str
    reader: VideoReader = field(default_factory=lambda: AnyReader(PyAVReader()))

    def __post_init__(self) -> None:
        self._end = time.monotonic() + self.seconds
        self._known: dict[tuple[str, float | None, float | None], Clip] = {}
        self.durations: dict[str, float] = {}

    @property
    def late(self) -> bool:
        return time.monotonic() > self._end

    def of(self, video: ScoredVideo) -> Clip:
        """Frames spread evenly over the video, or over its segment."""
        key = video.file, video.start, video.end
        if key not in self._known:
            self._known[key] = self._made(video)
        return self._known[key]

    def probe(self, videos: Sequence[ScoredVideo], most: int) -> list[float]:
        """Durations in seconds of at most `most` videos, spread evenly over the list, that can be read in time."""
        chosen = [videos[n] for n in np.linspace(0, len(videos) - 1, min(most, len(videos))).round().astype(int)]
        found = []
        for video in chosen:
            if self.late:
                break
            if video.file not in self.durations:
                try:
                    with self.reader.open(video.file) as opened:
                        self.durations[video.file] = opened.info.seconds
                except (DataError, OSError):
                    continue
            whole = self.durations[video.file]
            start, end = video.start or 0.0, whole if video.end is None else min(video.end, whole)
            found.append(end - start)
        return [seconds for seconds in found if seconds > 0]  # what a list says of a segment may be anything

    def _made(self, video: ScoredVideo) -> Clip:
        if self.late:
            return Clip(video, note=f"not decoded: {self.seconds:g} s for thumbnails were over; {self.more}")
        try:
            with self.reader.open(video.file) as opened:
                self.durations[video.file] = opened.info.seconds
                frames = _frames(opened, video)
        except (DataError, OSError) as error:
            return Clip(video, note=getattr(error, "reason", None) or str(error))
        for quality in (55, 25):
            animated = animated_webp(frames, _FPS, quality)
            if len(animated) <= _MOST_BYTES:
                return Clip(video, animated, animated_webp(frames[len(frames) // 2 :][:1], _FPS))
        return Clip(video, animated_webp(frames[len(frames) // 2 :][:1], _FPS))


def _frames(opened: OpenVideo, video: ScoredVideo) -> np.ndarray:
    info = opened.info
    first, last = Timeline.of(info).within(video.start, video.end)
    indices = np.linspace(first, max(last - 1, first), min(_FRAMES, max(last - first, 1))).round().astype(np.int64)
    height, width = info.scaled(_SHORT)
    if (side := max(height, width)) > _LONG:
        height, width = (max(2, side_ * _LONG // side) for side_ in (height, width))
    return opened.read(indices, (height, width))
