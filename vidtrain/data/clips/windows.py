"""Training windows of untrimmed videos: clips drawn by their centre, which says what is to be answered.

    time      0 ------------------------------------------------------------> end
    rows      [ nothing  )[ walk   )[ walk, run )[ run )[ nothing            )
    a window         |----------c----------|                        its centre is drawn within a row: walk

So windows that reach over a border are seen in training as a classifier sees them that slides over the video.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vidtrain.data.clips.dataset import ClipParts, NoTimeLeftError, TrainClips
from vidtrain.data.clips.sampling import check_slides, random_clip
from vidtrain.data.manifest.manifest import Manifest
from vidtrain.data.manifest.untrimmed import stretches
from vidtrain.data.readers.timeline import Timeline
from vidtrain.types import Indices, VideoInfo


class TrainWindows(TrainClips):
    """A row is a stretch of a video with the classes of its time, none in the background; see `stretches`.

    In proportion to its length a row is drawn; sampler.background sets what share of all windows has no class.

    Args:
        manifest: of untrimmed videos.
        parts, more: as those of TrainClips.
    """

    def __init__(self, manifest: Manifest, parts: ClipParts, **more: Any) -> None:
        check_slides(parts.sampler)
        rows, seconds = stretches(manifest)
        super().__init__(rows, parts, **more)
        assert rows.tags is not None
        nothing, share = np.diff(rows.tags.offsets) == 0, parts.sampler.background
        self._seconds, self._nothing, self.weights = seconds, nothing, seconds.copy()
        if share is not None and nothing.any() and not nothing.all():
            self.weights[nothing] *= share / seconds[nothing].sum()
            self.weights[~nothing] *= (1 - share) / seconds[~nothing].sum()

    def instead(self, row: int, rng: np.random.Generator) -> int:
        """An earlier row of the same video, in proportion to its length; one with no class for one with none, where
        there is one. What is annotated to its end has none after it, and keeps its share of the windows so."""
        starts = self.manifest.starts
        assert starts is not None
        first = row
        while first and starts[first] > 0:  # the rows of a video follow each other, from its second 0
            first -= 1
        before = np.arange(first, row)
        if not len(before):
            return super().instead(row, rng)
        alike = before[self._nothing[before] == self._nothing[row]]
        rows = alike if len(alike) else before
        return int(rng.choice(rows, p=self._seconds[rows] / self._seconds[rows].sum()))

    def places(self, info: VideoInfo, row: int, rng: np.random.Generator) -> Indices:
        """int64 (clips_per_video, T): clips whose centres are drawn within the row; at the ends of the video as near as
        a clip can be."""
        assert self.manifest.starts is not None
        assert self.manifest.ends is not None
        line, spec = Timeline.of(info), self.sampler
        start, end = float(self.manifest.starts[row]), min(float(self.manifest.ends[row]), line.end)
        if start >= line.end - 0.5 / info.fps:  # the last segment ends where the video does, and nothing comes after it
            path = self.manifest.paths[row]
            raise NoTimeLeftError(path, f"a segment ends at {start:g} s, the video at {line.end:g} s")
        half = spec.span(info.fps) / info.fps / 2
        found = []
        for centre in rng.uniform(start, end, spec.clips_per_video).tolist():
            first = min(max(centre - half, 0.0), max(line.end - 2 * half, 0.0))
            within = {"first": first, "last": min(first + 2 * half, line.end)}
            found.append(random_clip(line, spec, rng, **within))
        return np.concatenate(found)
