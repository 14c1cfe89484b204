"""How sure the numbers of a test are: intervals over its videos, or over groups of them.

Over videos a share of right answers has Wilson's interval, as a validation has, which is sound for a handful of videos
too. Every other number has the percentile interval of a bootstrap, expanded for few units (Hesterberg 2015, "What
teachers should know about the bootstrap", section 4.3), of the mid-distribution (Ma, Genton and Parzen 2011): some
take few values, and plain percentiles are wide or narrow as they happen to fall between two of them. Of 1,000 simulated
tests of 200 videos 94 to 96 % have the truth in it (tests/tasks/test_intervals.py).

Groups are few and unlike each other. Over them it is Student's interval of the log-odds, with the standard error of the
jackknife that leaves out one group at a time. In simulations of 6 to 40 groups of equal and of very unequal sizes, and
accuracies of 0.6 to 0.97, it has the truth in it 94 to 98 times of 100; bootstrap percentiles, expanded or not, and BCa
fall to 90 and less, since of a high accuracy they reach as far up as down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vidtrain.tasks.classification.metrics import Scored, any_hit, topk_hits

LEVEL: Final = 0.95
TAIL: Final = (1 - LEVEL) / 2
RESAMPLES: Final = 1000
LEAST: Final = 5
"""Videos or groups: fewer say nothing about how others would come out."""
_SEED: Final = 0
_AT_ONCE: Final = 1 << 22  # weights of videos held at a time
_MOST_RANKED: Final = 1 << 20  # pairs of a video and a class whose ranking is resampled: seconds

Weights = npt.NDArray[np.float64]
"""(R, n): how often each video is drawn, in each of R resamples."""
Resampled = Callable[[Weights], npt.NDArray[np.float64]]
"""A metric of each resample, (R,)."""


def intervals(scored: Scored, groups: Tensor | None) -> dict[str, Any] | None:
    """The 95 % intervals of a test as result.json holds them; None for fewer than LEAST videos or groups.

    groups: int64 (n,), numbers of what the videos belong to; None: each is by itself. The same videos in the same order
    give the same interval, however many processes have scored them.
    """
    videos = len(scored.probs)
    unit = np.arange(videos) if groups is None else np.unique(groups.numpy(), return_inverse=True)[1]
    units = int(unit.max()) + 1 if videos else 0
    if units < LEAST:
        return None
    metrics = _resampled(scored)
    shares = {} if groups is not None else {key: hits for key, hits in _hits(scored).items() if _plain(hits)}
    found: dict[str, list[npt.NDArray[np.float64]]] = {key: [] for key in metrics if key not in shares}
    draws = _draws(unit, units) if groups is None else _left_out(unit % RESAMPLES)
    for weights in draws if found else ():
        for key, values in found.items():
            values.append(metrics[key](weights))
    of_all = np.ones((1, videos))
    ends, resamples = {}, 0
    for key, metric in metrics.items():
        if key in shares:
            ends[key] = share_interval(shares[key].double().mean().item(), units)
            continue
        others = np.concatenate(found[key])
        resamples = len(others)
        ends[key] = interval(others, units) if groups is None else group_interval(float(metric(of_all)[0]), others)
    if "mean_class" in ends:
        ends["balanced_accuracy"] = ends["mean_class"]
    over = "videos" if groups is None else "groups"
    return {"level": LEVEL, "resamples": resamples, "over": over, "count": units, "values": ends}


def interval(resamples: npt.NDArray[np.float64], units: int) -> list[float]:
    """[low, high] of a number in [0, 1], from its resamples (R,) over `units` videos or groups.

    Where all resamples are 0, or all 1, the interval is that of Clopper and Pearson: n right answers of n do not mean
    that the next one is sure to be right.
    """
    values, counts = np.unique(np.round(resamples[~np.isnan(resamples)], 12), return_counts=True)
    if not len(values):
        return [0.0, 1.0]
    if len(values) == 1 and values[0] in (0, 1):
        return _of_one_answer(values[0] == 1, units)
    wide = NormalDist().cdf(-math.sqrt(units / (units - 1)) * student(1 - TAIL, units - 1))
    place = (np.cumsum(counts) - counts / 2) / counts.sum()
    low, high = np.interp([wide, 1 - wide], place, values)
    return [float(low), float(high)]


def share_interval(share: float, count: int) -> list[float]:
    """[low, high] at LEVEL of a share of right answers among `count` videos, 1 or more: Wilson's; of all, or none, that
    of Clopper and Pearson."""
    if not 0 < share < 1:
        return _of_one_answer(share >= 1, count)
    z = NormalDist().inv_cdf(1 - TAIL)
    middle, scale = share + z * z / (2 * count), 1 + z * z / count
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return [(middle - half) / scale, (middle + half) / scale]


def group_interval(value: float, without: npt.NDArray[np.float64]) -> list[float]:
    """[low, high] of a number in [0, 1]: Student's interval of its log-odds. At 0 and 1, which have none, it is that of
    Clopper and Pearson over the groups.

    value: of all videos. without: (G,), the same number without each of the groups.
    """
    groups = len(without)
    if not 0 < value < 1:
        return _of_one_answer(value >= 1, groups)
    error = math.sqrt((groups - 1) * float(without.var()))  # of the jackknife
    half = student(1 - TAIL, groups - 1) * error / (value * (1 - value))
    middle = math.log(value / (1 - value))
    return [1 / (1 + math.exp(min(700.0, -end))) for end in (middle - half, middle + half)]


def _of_one_answer(right: bool, units: int) -> list[float]:
    """All of them are right, or none is (Clopper and Pearson)."""
    room = 1 - TAIL ** (1 / units)
    return [1 - room, 1.0] if right else [0.0, room]


def student(share: float, freedom: int) -> float:
    """The quantile of Student's t, to 0.01 from four degrees of freedom on (Abramowitz and Stegun 26.7.5)."""
    x = NormalDist().inv_cdf(share)
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
    )
    return x + sum(term / freedom**power for power, term in enumerate(terms, 1))


def _draws(unit: npt.NDArray[np.int64], units: int) -> Iterator[Weights]:
    """RESAMPLES draws of the units with replacement, a part of them at a time."""
    rng = np.random.default_rng(_SEED)
    size = max(1, _AT_ONCE // len(unit))
    for first in range(0, RESAMPLES, size):
        count = min(size, RESAMPLES - first)
        drawn = rng.integers(units, size=(count, units)) + units * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * units).reshape(count, units)[:, unit].astype(np.float64)


def _left_out(unit: npt.NDArray[np.int64]) -> Iterator[Weights]:
    """Each unit is left out once, a part of them at a time."""
    units, size = int(unit.max()) + 1, max(1, _AT_ONCE // len(unit))
    for first in range(0, units, size):
        yield (unit != np.arange(first, min(first + size, units))[:, None]).astype(np.float64)


def _resampled(scored: Scored) -> dict[str, Resampled]:
    """By key of metrics.METRICS those that have an interval here."""
    probs, labels = scored.probs, scored.labels
    found = {key: _share(hits) for key, hits in _hits(scored).items()}
    if labels.ndim == 2:
        if probs.numel() <= _MOST_RANKED:
            found["map"] = _mean_average_precision(probs, labels)
        return found
    best = probs.argmax(1)
    right, classes = (best == labels).numpy(), probs.shape[1]
    support, predicted = _sums(labels, classes), _sums(best, classes)

    def recall(weights: Weights) -> npt.NDArray[np.float64]:
        return _mean(support(weights * right), support(weights))

    def f1(weights: Weights) -> npt.NDArray[np.float64]:
        return _mean(2 * support(weights * right), support(weights) + predicted(weights))

    return {**found, "mean_class": recall, "macro_f1": f1}


def _hits(scored: Scored) -> dict[str, Tensor]:
    """Of the metrics that are means over the videos: what each video (n,) counts, 0 to 1."""
    probs, labels = scored.probs, scored.labels
    if labels.ndim == 2:
        return {"clip_top1": scored.clip_hits, "top1": any_hit(probs, labels)}
    found = {"clip_top1": scored.clip_hits, "top1": topk_hits(probs, labels, 1)}
    return {**found, "top5": topk_hits(probs, labels, 5)} if probs.shape[1] > 5 else found


def _plain(hits: Tensor) -> bool:
    """Every video is right or wrong; of several views a part may be right."""
    return bool(((hits == 0) | (hits == 1)).all())


def _share(hits: Tensor) -> Resampled:
    values = hits.double().numpy()
    return lambda weights: weights @ values / weights.sum(1)


def _sums(classes: Tensor, count: int) -> Resampled:
    """Of weights (R, n) the sum over the videos of each class, (R, K)."""
    order = np.argsort(classes.numpy(), kind="stable")
    ends = np.searchsorted(classes.numpy()[order], np.arange(count), "right")

    def sums(weights: Weights) -> npt.NDArray[np.float64]:
        running = np.cumsum(weights[:, order], 1)
        return np.diff(np.concatenate([np.zeros((len(weights), 1)), running], 1)[:, ends], axis=1, prepend=0.0)

    return sums


def _mean(part: npt.NDArray[np.float64], whole: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The mean of part / whole (R, K) over the classes that have a whole."""
    shares = np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
    return shares.sum(1) / np.maximum((whole > 0).sum(1), 1)


def _mean_average_precision(probs: Tensor, labels: Tensor) -> Resampled:
    """Equal scores share a rank, as in per_class.one_against_rest."""
    ranked = []
    for scores, true in zip(probs.T.numpy(), labels.T.numpy() > 0, strict=True):
        order = np.argsort(-scores, kind="stable")
        # how many videos score as high as each of those that have the class, or higher
        upto = np.searchsorted(-scores[order], -scores[order][true[order]], "right")
        ranked.append((order, true[order], upto))

    def precision(weights: Weights) -> npt.NDArray[np.float64]:
        parts, wholes = np.zeros((len(ranked), len(weights))), np.zeros((len(ranked), len(weights)))
        for k, (order, true, upto) in enumerate(ranked):
            if not len(upto):
                continue
            drawn = weights[:, order]
            own, every = np.cumsum(drawn[:, true], 1), np.cumsum(drawn, 1)[:, upto - 1]
            at = np.searchsorted(np.flatnonzero(true), upto, "left") - 1  # the last of them within `upto`
            share = np.divide(own[:, at], every, out=np.zeros_like(every), where=every > 0)
            parts[k], wholes[k] = (drawn[:, true] * share).sum(1), own[:, -1]
        return _mean(parts.T, wholes.T)

    return precision
