"""Whether one classifier is better than another: McNemar's test, the paired bootstrap, Student's t over runs.

Pure arithmetic on what runs have answered; docs/compare.md says which of them is used when. Student's distribution is
computed here, since it is all that vidtrain would need SciPy for; tests hold it against SciPy to 1e-10.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""Weights (R, n), how often each of n videos is drawn in R resamples -> its value in each, (R,); nan: undefined."""

LEVEL: Final = 0.95
RESAMPLES: Final = 1000
_CHUNK: Final = 4_000_000  # weights at once: 32 MB
_TINY: Final = 1e-300


# ---------------------------------------------------------------- on the same videos


@dataclass(frozen=True)
class McNemar:
    """Two-sided p-values of McNemar's test (1947): of the videos that one of two classifiers has right alone, are the
    parts of both equal?

    exact: of the binomial distribution. mid_p: with half the probability of what was observed, which is less
    conservative (Fagerland, Lydersen and Laake 2013). chi2: by the chi-squared distribution with Edwards' correction.
    """

    exact: float
    mid_p: float
    chi2: float


def mcnemar(only_first: int, only_second: int) -> McNemar:
    """Of the numbers of videos that only the first, and only the second, of two classifiers has right."""
    count, least = only_first + only_second, min(only_first, only_second)
    if count == 0:
        return McNemar(1.0, 1.0, 1.0)
    logs = _log_binomials(count, least) - count * math.log(2)
    tail, point = float(np.exp(logs).sum()), math.exp(logs[-1])
    exact = min(1.0, 2 * tail)
    mid_p = 1 - point / 2 if only_first == only_second else 2 * tail - point
    statistic = (abs(only_first - only_second) - 1) ** 2 / count
    return McNemar(exact, min(1.0, mid_p), math.erfc(math.sqrt(statistic / 2)))


def _log_binomials(count: int, most: int) -> Floats:
    """float64 (most + 1,): log of "count over k" for k = 0 ... most."""
    k = np.arange(1, most + 1, dtype=np.float64)
    return np.concatenate([[0.0], np.cumsum(np.log((count + 1 - k) / k))])


@dataclass(frozen=True)
class Bootstrap:
    """value: of all videos. low, high: percentiles of the resamples, LEVEL of them between the two. p: two-sided, twice
    the share of the resamples on the other side of 0, the value itself counted with them, so never 0."""

    value: float
    low: float
    high: float
    p: float

    @classmethod
    def of(cls, value: float, resampled: Floats) -> Bootstrap:
        """resampled: (R,), nan where it is undefined."""
        found = resampled[np.isfinite(resampled)]
        if not len(found):
            return cls(value, math.nan, math.nan, math.nan)
        low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        beyond = min(int((found <= 0).sum()), int((found >= 0).sum()))
        return cls(value, float(low), float(high), min(1.0, 2 * (beyond + 1) / (len(found) + 1)))


def resampled(statistics: Sequence[Statistic], count: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """float64 (R, S): each of S statistics of `count` videos drawn with replacement, R times.

    All are of the same draws: what is on the same videos stays paired, and a difference of columns is one of pairs.
    """
    drawn = _weights(count, resamples, seed)
    return np.concatenate([np.stack([one(weights) for one in statistics], axis=1) for weights in drawn])


def of_all(statistic: Statistic, count: int) -> float:
    """The value of a statistic of the videos themselves."""
    return float(statistic(np.ones((1, count)))[0])


def _weights(count: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Weights (R, count), `resamples` rows in all; the same whatever the size of a chunk."""
    generator, rows = np.random.default_rng(seed), max(1, _CHUNK // count)
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = generator.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)


def mean_of(values: Floats) -> Statistic:
    """The mean of a number per video, (n,): of 0 and 1 an accuracy, of differences of these one of accuracies."""
    return lambda weights: weights @ values / weights.sum(1)


def class_mean_of(values: Floats, classes: npt.NDArray[np.int64]) -> Statistic:
    """The mean over the classes that a resample holds of their means. classes: int64 (n,), the class of each video."""
    members = (classes[:, None] == np.unique(classes)).astype(np.float64)

    def statistic(weights: Floats) -> Floats:
        sizes = weights @ members
        with np.errstate(invalid="ignore"):
            means = weights @ (members * values[:, None]) / sizes
        return np.nanmean(means, axis=1)

    return statistic


def mean_average_precision_of(scores: npt.NDArray[np.floating], truth: npt.NDArray[np.bool_]) -> Statistic:
    """mAP of scores (n, K) for truth (n, K) over the classes that a resample holds, equal scores sharing a rank: what
    `metrics.mean_average_precision` is of the resampled videos."""
    ranked = []
    for column, right in zip(scores.T, truth.T, strict=True):
        order = np.argsort(-column, kind="stable")
        ends = np.flatnonzero(np.append(np.diff(column[order]) != 0, True))
        ranked.append((order, ends, right[order].astype(np.float64)))

    def statistic(weights: Floats) -> Floats:
        total, classes = np.zeros(len(weights)), np.zeros(len(weights))
        for order, ends, right in ranked:
            drawn = weights[:, order]
            hits = (drawn * right).cumsum(1)[:, ends]
            all_ = drawn.cumsum(1)[:, ends]
            new = np.diff(hits, axis=1, prepend=0)
            positives, there = hits[:, -1], hits[:, -1] > 0
            sums = (new * hits / np.maximum(all_, 1)).sum(1)
            total += np.where(there, sums / np.maximum(positives, 1), 0)
            classes += there
        with np.errstate(invalid="ignore"):
            return total / classes

    return statistic


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted by Holm (1979), so that of several tests none below 5 % is found by chance in more than 5 % of cases."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


# ---------------------------------------------------------------- over runs


@dataclass(frozen=True)
class TTest:
    """A difference of means, the ends of its interval at LEVEL, the two-sided p-value, the degrees of freedom."""

    difference: float
    low: float
    high: float
    p: float
    freedom: float


def welch(first: Sequence[float], second: Sequence[float]) -> TTest | None:
    """Welch's test (1947) of the means of independent runs, two or more of each; None: no run differs from another."""
    parts = [variance(values) / len(values) for values in (first, second)]
    if not sum(parts):
        return None
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True)
    )
    return _t_test(fmean(first) - fmean(second), math.sqrt(sum(parts)), freedom)


def corrected_paired_t(differences: Sequence[float], test_to_train: float) -> TTest | None:
    """Paired t-test over folds or random splits, two or more, whose trainings share videos.

    The variance is that of Nadeau and Bengio (2003), 1/n + test_to_train times that of the differences: without the
    second term, the ratio of a split's test videos to its training videos, folds would count as independent and far
    too many differences as shown. None: all differences are the same.
    """
    spread = variance(differences)
    if not spread:
        return None
    error = math.sqrt((1 / len(differences) + test_to_train) * spread)
    return _t_test(fmean(differences), error, len(differences) - 1)


def half_interval(values: Sequence[float], test_to_train: float = 0.0) -> float:
    """Half the width of the interval at LEVEL of the mean of two or more values, by Student's t.

    test_to_train: of folds, see `corrected_paired_t`.
    """
    return t_quantile(LEVEL, len(values) - 1) * math.sqrt((1 / len(values) + test_to_train) * variance(values))


def _t_test(difference: float, error: float, freedom: float) -> TTest:
    half = t_quantile(LEVEL, freedom) * error
    return TTest(difference, difference - half, difference + half, t_p_value(difference / error, freedom), freedom)


def t_p_value(t: float, freedom: float) -> float:
    """How probable it is that Student's t with so many degrees of freedom, above 0, is as far from 0 as `t`."""
    total = freedom + t * t
    return _incomplete_beta(freedom / total, t * t / total, freedom / 2, 0.5)


def t_quantile(level: float, freedom: float) -> float:
    """The t that a share `level`, 0 to 1, of Student's distribution is nearer to 0 than."""
    low, high = 0.0, 1.0
    while t_p_value(high, freedom) > 1 - level:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_p_value(middle, freedom) > 1 - level else (low, middle)
    return (low + high) / 2


def _incomplete_beta(x: float, rest: float, a: float, b: float) -> float:
    """The regularised incomplete beta function, DLMF 8.17. rest: 1 - x, which near 1 is not known from x."""
    if x <= 0 or rest <= 0:
        return float(rest <= 0)
    if x > (a + 1) / (a + b + 2):  # where the fraction below converges slowly; DLMF 8.17.4
        return 1 - _incomplete_beta(rest, x, b, a)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    return math.exp(front) / (a * _beta_fraction(x, a, b))


def _beta_fraction(x: float, a: float, b: float) -> float:
    """1 + d1/(1 + d2/(1 + ...)), the continued fraction of DLMF 8.17.22, by the method of Lentz."""
    value = upper = 1.0
    lower = 0.0
    for step in range(1, 10_000):
        m, odd = divmod(step, 2)
        if odd:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        lower = 1 / _not_zero(1 + term * lower)
        upper = _not_zero(1 + term / upper)
        value *= upper * lower
        if abs(upper * lower - 1) < 1e-15:
            break
    return value


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
