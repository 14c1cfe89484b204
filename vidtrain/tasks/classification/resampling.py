"""The videos of a test drawn again with replacement, and what is measured of them: of each resample a number.

A draw is given by weights, float64 (R, n): how often each of n videos is drawn in each of R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""Weights (R, n) -> its value in each resample, (R,); nan: undefined."""

LEVEL: Final = 0.95
"""Of intervals: how often they are to hold the truth."""
RESAMPLES: Final = 1000
_AT_ONCE: Final = 1 << 22  # weights that are held at a time: 32 MB


def draws(videos: int, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[Floats]:
    """Weights of `resamples` draws in all, a part of them at a time; the same whatever the size of a part."""
    generator = np.random.default_rng(seed)
    for count in _parts(resamples, videos):
        drawn = generator.integers(videos, size=(count, videos)) + videos * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * videos).reshape(count, videos).astype(np.float64)


def left_out(unit: npt.NDArray[np.int64]) -> Iterator[Floats]:
    """Weights of all but one unit, for each of them, a part at a time. unit: (n,), the number that each video is of."""
    first = 0
    for count in _parts(int(unit.max()) + 1, len(unit)):
        yield (unit != np.arange(first, first + count)[:, None]).astype(np.float64)
        first += count


def _parts(rows: int, videos: int) -> Iterator[int]:
    size = max(1, _AT_ONCE // videos)
    for start in range(0, rows, size):
        yield min(size, rows - start)


def of_all(statistic: Statistic, count: int) -> float:
    """The value of a statistic of the videos themselves."""
    return float(statistic(np.ones((1, count)))[0])


def mean_of(values: Floats) -> Statistic:
    """The mean of a number per video, (n,): of 0 and 1 an accuracy, of differences of these one of accuracies."""
    return lambda weights: weights @ values / weights.sum(1)


def class_mean_of(values: Floats, classes: npt.NDArray[np.int64]) -> Statistic:
    """The mean over the classes that a resample holds of their means. classes: int64 (n,), the class of each video."""
    sums = class_sums(classes, int(classes.max()) + 1)
    return lambda weights: mean_ratio(sums(weights * values), sums(weights))


def class_sums(classes: npt.NDArray[np.int64], count: int) -> Statistic:
    """Of weights (R, n) the sum over the videos of each class, (R, K)."""
    order = np.argsort(classes, kind="stable")
    ends = np.searchsorted(classes[order], np.arange(count), "right")

    def sums(weights: Floats) -> Floats:
        running = np.cumsum(weights[:, order], 1)
        return np.diff(np.concatenate([np.zeros((len(weights), 1)), running], 1)[:, ends], axis=1, prepend=0.0)

    return sums


def mean_ratio(part: Floats, whole: Floats) -> Floats:
    """(R,): the mean of part / whole (R, K) over the classes that have a whole; nan where none has."""
    shares = np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
    known = (whole > 0).sum(1)
    return np.divide(shares.sum(1), known, out=np.full(len(whole), np.nan), where=known > 0)


def mean_average_precision_of(scores: npt.NDArray[Any], truth: npt.NDArray[np.bool_]) -> Statistic:
    """mAP of scores (n, K) for truth (n, K) over the classes that a resample holds, equal scores sharing a rank: what
    `metrics.mean_average_precision` is of the resampled videos."""
    ranked = []
    for column, true in zip(scores.T, truth.T, strict=True):
        order = np.argsort(-column, kind="stable")
        # how many videos score as high as each of those that have the class, or higher
        upto = np.searchsorted(-column[order], -column[order][true[order]], "right")
        ranked.append((order, true[order], upto))

    def precision(weights: Floats) -> Floats:
        parts, wholes = np.zeros((len(ranked), len(weights))), np.zeros((len(ranked), len(weights)))
        for k, (order, true, upto) in enumerate(ranked):
            if not len(upto):
                continue
            drawn = weights[:, order]
            own, every = np.cumsum(drawn[:, true], 1), np.cumsum(drawn, 1)[:, upto - 1]
            at = np.searchsorted(np.flatnonzero(true), upto, "left") - 1  # the last of them within `upto`
            share = np.divide(own[:, at], every, out=np.zeros_like(every), where=every > 0)
            parts[k], wholes[k] = (drawn[:, true] * share).sum(1), own[:, -1]
        return mean_ratio(parts.T, wholes.T)

    return precision
