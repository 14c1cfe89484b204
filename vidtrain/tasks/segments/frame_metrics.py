"""How well segments say what happens when, frame by frame: what action segmentation reports. Pure numpy.

As Lea et al. 2017 ("Temporal Convolutional Networks") define them and the code of MS-TCN (Farha and Gall 2019) computes
them; all in [0, 1], where papers give per cent. Frame labels are int64 (n,): class numbers, -1 where nothing happens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from vidtrain.segments import Segment

Labels = npt.NDArray[np.int64]
Runs = list[tuple[int, int, int]]
"""(label, first frame, frame after the last) of each stretch of equal labels, those of nothing excluded."""

F1_OVERLAPS = (0.1, 0.25, 0.5)
NOTHING = -1


def frame_labels(segments: Sequence[Segment], class_names: Sequence[str], seconds: float, fps: float) -> Labels:
    """int64 (n,) of a video of this length, n = seconds * fps, 1 at least: the class in the middle of each frame.

    Where segments overlap the one with the highest score counts, and of equals the one that begins first.
    """
    at = (np.arange(max(1, round(seconds * fps))) + 0.5) / fps
    found = np.full(len(at), NOTHING, np.int64)
    for s in sorted(segments, key=lambda s: (s.score, -s.start)):
        found[(at >= s.start) & (at < s.end)] = class_names.index(s.label)
    return found


def frame_accuracy(truth: Iterable[Labels], found: Iterable[Labels]) -> float:
    """Share of the frames of all videos that have the right label, or rightly none; nan without a frame."""
    pairs = list(zip(truth, found, strict=True))
    frames = sum(len(own) for own, _ in pairs)
    return sum(int((own == other).sum()) for own, other in pairs) / frames if frames else float("nan")


def background_share(truth: Iterable[Labels]) -> float:
    """Share of the frames in which nothing happens: the accuracy of who never finds anything; nan without a frame."""
    labels = list(truth)
    return float((np.concatenate(labels) == NOTHING).mean()) if labels else float("nan")


def runs_of(labels: Labels) -> Runs:
    """Stretches of equal labels."""
    edges = np.concatenate([[0], np.flatnonzero(np.diff(labels)) + 1, [len(labels)]]).tolist()
    parts = ((int(labels[a]), a, b) for a, b in pairwise(edges) if b > a)
    return [part for part in parts if part[0] != NOTHING]


def segmental_f1(
    truth: Iterable[Labels], found: Iterable[Labels], overlaps: Sequence[float] = F1_OVERLAPS
) -> list[float]:
    """F1@k for each overlap, hits and misses of all videos together; nan where the truth has no segment.

    A segment that is found is right where the true one of its class that it overlaps most, by this much at least, was
    not found before it.
    """
    hits, total, wanted = np.zeros(len(overlaps)), 0, 0
    for own, other in zip(truth, found, strict=True):
        true, said = runs_of(own), runs_of(other)
        total, wanted = total + len(said), wanted + len(true)
        if not true:
            continue
        labels, starts, ends = np.array(true).T
        taken = np.zeros((len(overlaps), len(true)), bool)
        for label, start, end in said:
            shared = np.minimum(end, ends) - np.maximum(start, starts)
            ious = shared / (np.maximum(end, ends) - np.minimum(start, starts)) * (labels == label)
            best = int(ious.argmax())
            right = (ious[best] >= np.array(overlaps)) & ~taken[:, best]
            taken[:, best] |= right
            hits += right
    # 2 P R / (P + R) with P = hits / total and R = hits / wanted
    return (2 * hits / (total + wanted)).tolist() if wanted else [float("nan")] * len(overlaps)


def edit_score(truth: Iterable[Labels], found: Iterable[Labels]) -> float:
    """1 - the Levenshtein distance between the orders of the segments / the longer one's length, averaged over videos.

    1 for a video in which nothing happens and nothing is found; nan without videos.
    """
    scores = [
        _edit([run[0] for run in runs_of(own)], [run[0] for run in runs_of(other)])
        for own, other in zip(truth, found, strict=True)
    ]
    return float(np.mean(scores)) if scores else float("nan")


def _edit(one: Sequence[int], other: Sequence[int]) -> float:
    if not one and not other:
        return 1.0
    steps, labels = np.arange(len(other) + 1), np.array(other, np.int64)
    row = steps.copy()
    for number, label in enumerate(one, 1):
        changed = np.minimum(row[1:] + 1, row[:-1] + (labels != label))
        # an insertion costs one more than what stands to the left: the least of all of these
        row = np.minimum.accumulate(np.concatenate([[number], changed]) - steps) + steps
    return 1 - int(row[-1]) / max(len(one), len(other))
