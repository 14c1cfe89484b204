"""Which labels are probably wrong, by confident learning (Northcutt, Jiang and Chuang 2021, arXiv:1911.00068).

The probabilities must be out of sample, of a network that was not trained on the video: one that was repeats the wrong
label. Scores, thresholds and issues are those of cleanlab 2.9, to which the tests hold them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vidtrain.ranges import Choice

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_LEAST_THRESHOLD: Final = 2e-6
_ROUNDING: Final = 1e-6  # a probability that is below its threshold by no more reaches it
_ROWS: Final = 65_536  # videos at once: the probabilities of a large dataset stay on the disk
_LOWEST: Final = 0.8  # weight of the lowest score in the mean over the classes of a video


class ScoreName(Choice):
    normalized_margin = "normalized_margin"
    self_confidence = "self_confidence"


@dataclass(frozen=True)
class LabelQuality:
    """Of n videos.

    scores: float64 (n,), 0 to 1, low where the label is probably wrong.
    suggested: int64 (n,), the most probable class; of a multi-label dataset bool (n, K), the labels with those classes
        exchanged that are issues.
    issues: bool (n,), whether confident learning takes the label for a wrong one.
    """

    scores: Floats
    suggested: Integers | Flags
    issues: Flags


def label_quality(probs: npt.NDArray[np.floating], labels: Integers, score: ScoreName) -> LabelQuality:
    """Of videos with one label each.

    Args:
        probs: (n, K), rows that sum to 1, K >= 2. labels: int64 (n,), 0 to K - 1.
        score: self_confidence is the probability of the label; normalized_margin, (p_label - p_other + 1) / 2, compares
            it with that of the best other class: a video that is surely of another class comes before one that the
            network does not recognise at all.
    """
    thresholds = confident_thresholds(probs, labels)
    scores, best = np.empty(len(labels)), np.empty(len(labels), np.int64)
    issues = np.empty(len(labels), np.bool_)
    for start in range(0, len(labels), _ROWS):
        part = slice(start, start + _ROWS)
        rows, own = np.asarray(probs[part], np.float64), labels[part]
        scores[part], best[part] = _score(rows, own, score), rows.argmax(1)
        confident = _confident_class(rows, thresholds)
        issues[part] = (confident >= 0) & (confident != own) & (best[part] != own)
    return LabelQuality(scores, best, issues)


def multi_label_quality(probs: npt.NDArray[np.floating], labels: Flags, score: ScoreName) -> LabelQuality:
    """Of videos with any number of labels: each class is a question of its own, "is it there or not?".

    The score of a video is that of its classes, the lowest with a weight of 0.8, the next with 0.8 of the rest and so
    on: the exponential moving average by which cleanlab joins them (Thyagarajan et al. 2022, arXiv:2211.13895).

    Args:
        probs: (n, K), each from 0 to 1. labels: bool (n, K). score: as of `label_quality`, between there and not there.
    """
    own, wrong = np.empty(labels.shape), np.empty(labels.shape, np.bool_)
    for number, column in enumerate(labels.T):
        there = np.asarray(probs[:, number], np.float64)
        quality = label_quality(np.stack([1 - there, there], axis=1), column.astype(np.int64), score)
        own[:, number], wrong[:, number] = quality.scores, quality.issues
    own = -np.sort(-own, axis=1)
    joined = own[:, 0].copy()
    for column in own.T[1:]:
        joined = _LOWEST * column + (1 - _LOWEST) * joined
    return LabelQuality(joined, labels ^ wrong, np.asarray(wrong.any(axis=1)))


def confident_thresholds(probs: npt.NDArray[np.floating], labels: Integers) -> Floats:
    """float64 (K,): the mean probability of each class over the videos with its label; 2, which no probability reaches,
    for a class without a video."""
    classes = probs.shape[1]
    sums = np.zeros(classes)
    for start in range(0, len(labels), _ROWS):
        own = labels[start : start + _ROWS]
        picked = np.asarray(probs[start : start + _ROWS], np.float64)[np.arange(len(own)), own]
        sums += np.bincount(own, picked, minlength=classes)
    counts = np.bincount(labels, minlength=classes)
    return np.where(counts > 0, np.maximum(sums / np.maximum(counts, 1), _LEAST_THRESHOLD), 2.0)


def _confident_class(rows: Floats, thresholds: Floats) -> Integers:
    """int64 (n,): the class whose threshold a video's probability reaches, -1 where there is none; of several
    the most probable of all classes."""
    reached = rows >= thresholds - _ROUNDING
    several = reached.sum(1) > 1
    return np.where(several, rows.argmax(1), np.where(reached.any(1), reached.argmax(1), -1))


def _score(rows: Floats, labels: Integers, score: ScoreName) -> Floats:
    positions = np.arange(len(rows))
    own = rows[positions, labels]
    if score is ScoreName.self_confidence:
        return own
    others = rows.copy()
    others[positions, labels] = -np.inf
    return (own - others.max(1) + 1) / 2
