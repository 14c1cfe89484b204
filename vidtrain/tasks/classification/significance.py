"""Whether one classifier is better than another: McNemar's test, the paired bootstrap, Student's t over runs.

Pure arithmetic on what runs have answered; docs/compare.md says which of them is used when.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

import numpy as np

from vidtrain.tasks.classification.resampling import LEVEL, RESAMPLES, Floats, Statistic, draws
from vidtrain.tasks.classification.student import t_p_value, t_quantile

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
    drawn = draws(count, resamples, seed)
    return np.concatenate([np.stack([one(weights) for one in statistics], axis=1) for weights in drawn])


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
