"""How well segments say what happens when: average precision by overlap in time, and accuracy per frame. Pure numpy.

Average precision is that of ActivityNet's evaluator (Caba Heilbron et al. 2015): the detections of a class, best first,
each with the segment of its video that it overlaps most and that no better one has taken; precision interpolated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from vidtrain.segments import Floats, Segment

ByVideo = Mapping[str, Sequence[Segment]]
"""Segments by the name of their video."""

THRESHOLDS = tuple(np.round(np.arange(0.5, 1.0, 0.05), 2).tolist())
"""Of ActivityNet: overlaps 0.5, 0.55, ..., 0.95, whose mean is its score."""


def overlaps(one: Segment, others: Sequence[Segment]) -> Floats:
    """float64 (n,) in [0, 1]: intersection over union in time."""
    starts, ends = np.array([s.start for s in others]), np.array([s.end for s in others])
    shared = np.maximum(0.0, np.minimum(ends, one.end) - np.maximum(starts, one.start))
    found: Floats = shared / np.maximum((ends - starts) + one.seconds - shared, 1e-12)
    return found


def average_precision(truth: ByVideo, found: ByVideo, label: str, thresholds: Sequence[float] = THRESHOLDS) -> Floats:
    """float64 (thresholds,): of one class; nan where the truth has none of it."""
    wanted = {video: own for video, all_ in truth.items() if (own := [s for s in all_ if s.label == label])}
    total = sum(map(len, wanted.values()))
    if not total:
        return np.full(len(thresholds), np.nan)
    ranked = sorted(
        ((s, video) for video, all_ in found.items() for s in all_ if s.label == label), key=lambda pair: -pair[0].score
    )
    right = np.zeros((len(thresholds), len(ranked)), bool)
    taken = {video: np.zeros((len(thresholds), len(own)), bool) for video, own in wanted.items()}
    for rank, (segment, video) in enumerate(ranked):
        if video not in wanted:
            continue
        overlap = overlaps(segment, wanted[video])
        for best in np.argsort(-overlap, kind="stable").tolist():
            hits = (overlap[best] >= np.array(thresholds)) & ~taken[video][:, best] & ~right[:, rank]
            right[:, rank] |= hits
            taken[video][:, best] |= hits
    return np.array([_interpolated(row, total) for row in right])


def _interpolated(right: npt.NDArray[np.bool_], total: int) -> float:
    """The area below the precision that is reached at a recall or at a higher one."""
    hits = right.cumsum()
    recall = np.concatenate([[0], hits / total, [1]])
    precision = np.concatenate([[0], hits / np.arange(1, len(right) + 1), [0]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(((recall[at] - recall[at - 1]) * precision[at]).sum())


def mean_average_precision(
    truth: ByVideo, found: ByVideo, labels: Sequence[str], thresholds: Sequence[float] = THRESHOLDS
) -> Floats:
    """float64 (thresholds,): the mean over the classes that the truth has."""
    columns = np.stack([average_precision(truth, found, label, thresholds) for label in labels])
    mean: Floats = np.nanmean(columns, 0)
    return mean


def frame_accuracy(truth: Sequence[Segment], found: Sequence[Segment], seconds: float, fps: float) -> float:
    """Share of the frames of a video that have the right label, or rightly none; segments must not overlap."""
    at = (np.arange(max(1, round(seconds * fps))) + 0.5) / fps
    return float(np.mean([_label_at(truth, t) == _label_at(found, t) for t in at.tolist()]))


def _label_at(segments: Sequence[Segment], seconds: float) -> str | None:
    return next((s.label for s in segments if s.start <= seconds < s.end), None)
