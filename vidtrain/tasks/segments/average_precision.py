"""How well segments say what happens when: average precision by overlap in time (tIoU). Pure numpy.

There are two definitions, and their numbers differ:

* ActivityNet's evaluator (Caba Heilbron et al. 2015), by which today's papers also report THUMOS14: the detections of a
  class, best first, each take the segment of their video that they overlap most, at least by the threshold, and that no
  better one has taken. The precision is interpolated as in PASCAL VOC 2011.
* THUMOS14's evaluation kit (Jiang et al. 2014): the segments of a video, one after the other, each take the free
  detection that overlaps them most, by more than the threshold. Detections that touch a segment of the class
  "Ambiguous" are no mistakes. The precision is not interpolated: the sum of it at the right detections over the number
  of segments.

Detections of one score keep the order they are given in, in both. What is not finite is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from vidtrain.segments import Floats, Segment

ByVideo = Mapping[str, Sequence[Segment]]
"""Segments by the name of their video."""

THRESHOLDS = tuple(np.round(np.arange(0.5, 1.0, 0.05), 2).tolist())
"""Of ActivityNet: overlaps 0.5, 0.55, ..., 0.95, whose mean is its score."""

THUMOS_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
"""Of THUMOS14, as papers report it: the mean of these."""

AMBIGUOUS = "Ambiguous"
"""THUMOS14's class of segments in which nobody can say what happens."""


def overlaps(one: Segment, others: Sequence[Segment]) -> Floats:
    """float64 (n,) in [0, 1]: intersection over union in time."""
    starts, ends = np.array([s.start for s in others]), np.array([s.end for s in others])
    shared = np.maximum(0.0, np.minimum(ends, one.end) - np.maximum(starts, one.start))
    found: Floats = shared / np.maximum((ends - starts) + one.seconds - shared, 1e-12)
    return found


def _ranked(found: ByVideo, label: str) -> list[tuple[Segment, str]]:
    """The detections of a class with their videos, best first."""
    own = ((s, video) for video, all_ in found.items() for s in all_ if s.label == label)
    return sorted(own, key=lambda pair: -pair[0].score)


def check_finite(*groups: ByVideo) -> None:
    """Raise ValueError for a start, an end or a score that is not finite, and for an end before the start."""
    for video, s in ((video, s) for group in groups for video, all_ in group.items() for s in all_):
        if not np.isfinite([s.start, s.end, s.score]).all() or s.end < s.start:
            raise ValueError(f"{video}: a segment from {s.start} to {s.end} s with score {s.score}")


def average_precision(truth: ByVideo, found: ByVideo, label: str, thresholds: Sequence[float] = THRESHOLDS) -> Floats:
    """float64 (thresholds,): of one class, by ActivityNet's definition; nan where the truth has none of it."""
    check_finite(truth, found)
    wanted = {video: own for video, all_ in truth.items() if (own := [s for s in all_ if s.label == label])}
    total = sum(map(len, wanted.values()))
    if not total:
        return np.full(len(thresholds), np.nan)
    ranked = _ranked(found, label)
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


def thumos_average_precision(
    truth: ByVideo, found: ByVideo, label: str, thresholds: Sequence[float] = THUMOS_THRESHOLDS
) -> Floats:
    """float64 (thresholds,): of one class, by THUMOS14's definition; nan where the truth has none of it."""
    check_finite(truth, found)
    total = sum(s.label == label for all_ in truth.values() for s in all_)
    if not total:
        return np.full(len(thresholds), np.nan)
    ranked = _ranked(found, label)
    right, ignored = np.zeros((len(thresholds), len(ranked)), bool), np.zeros(len(ranked), bool)
    places: dict[str, list[int]] = {}
    for rank, (_, video) in enumerate(ranked):
        places.setdefault(video, []).append(rank)
    for video, ranks in places.items():
        own, free = [ranked[rank][0] for rank in ranks], np.ones((len(thresholds), len(ranks)), bool)
        for segment in (s for s in truth.get(video, ()) if s.label == label):
            overlap = np.where(free, overlaps(segment, own), -1.0)
            best = overlap.argmax(1)
            hits = np.flatnonzero(overlap.max(1) > np.array(thresholds))
            free[hits, best[hits]] = False
        right[:, ranks] = ~free
        for segment in (s for s in truth.get(video, ()) if s.label == AMBIGUOUS):
            ignored[ranks] |= overlaps(segment, own) > 0
    return np.array([_at_hits(row[row | ~ignored], total) for row in right])


def _at_hits(right: npt.NDArray[np.bool_], total: int) -> float:
    """The sum of the precision at each right detection, over all that there are to be found."""
    precision = right.cumsum() / np.arange(1, len(right) + 1)
    return float(precision[right].sum() / total)


def _interpolated(right: npt.NDArray[np.bool_], total: int) -> float:
    """The area below the precision that is reached at a recall or at a higher one."""
    hits = right.cumsum()
    recall = np.concatenate([[0], hits / total, [1]])
    precision = np.concatenate([[0], hits / np.arange(1, len(right) + 1), [0]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(((recall[at] - recall[at - 1]) * precision[at]).sum())


def mean_average_precision(
    truth: ByVideo,
    found: ByVideo,
    labels: Sequence[str],
    thresholds: Sequence[float] = THRESHOLDS,
    of: Callable[[ByVideo, ByVideo, str, Sequence[float]], Floats] = average_precision,
) -> Floats:
    """float64 (thresholds,): the mean over those of the labels that the truth has; nan where it has none.

    of: the definition, `average_precision` or `thumos_average_precision`.
    """
    columns = [of(truth, found, label, thresholds) for label in labels]
    known = [column for column in columns if not np.isnan(column).any()]
    return np.mean(known, 0) if known else np.full(len(thresholds), np.nan)
