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
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from torch import Tensor

from vidtrain.tasks.classification.metrics import Scored, any_hit, topk_hits
from vidtrain.tasks.classification.resampling import (
    LEVEL,
    RESAMPLES,
    Floats,
    Statistic,
    class_mean_of,
    class_sums,
    draws,
    left_out,
    mean_average_precision_of,
    mean_of,
    mean_ratio,
    of_all,
)
from vidtrain.tasks.classification.student import t_quantile

TAIL: Final = (1 - LEVEL) / 2
LEAST: Final = 5
"""Videos or groups: fewer say nothing about how others would come out."""
_MOST_RANKED: Final = 1 << 20  # pairs of a video and a class whose ranking is resampled: seconds


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
    found: dict[str, list[Floats]] = {key: [] for key in metrics if key not in shares}
    drawn = draws(videos, RESAMPLES) if groups is None else left_out(unit % RESAMPLES)
    for weights in drawn if found else ():
        for key, values in found.items():
            values.append(metrics[key](weights))
    ends, resamples = {}, 0
    for key, metric in metrics.items():
        if key in shares:
            ends[key] = share_interval(shares[key].double().mean().item(), units)
            continue
        others = np.nan_to_num(np.concatenate(found[key]))  # of no video of any class
        resamples = len(others)
        ends[key] = interval(others, units) if groups is None else group_interval(of_all(metric, videos), others)
    if "mean_class" in ends:
        ends["balanced_accuracy"] = ends["mean_class"]
    over = "videos" if groups is None else "groups"
    return {"level": LEVEL, "resamples": resamples, "over": over, "count": units, "values": ends}


def interval(resamples: Floats, units: int) -> list[float]:
    """[low, high] of a number in [0, 1], from its resamples (R,) over `units` videos or groups.

    Where all resamples are 0, or all 1, the interval is that of Clopper and Pearson: n right answers of n do not mean
    that the next one is sure to be right.
    """
    values, counts = np.unique(np.round(resamples, 12), return_counts=True)
    if len(values) == 1 and values[0] in (0, 1):
        return _of_one_answer(values[0] == 1, units)
    wide = NormalDist().cdf(-math.sqrt(units / (units - 1)) * t_quantile(LEVEL, units - 1))
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


def group_interval(value: float, without: Floats) -> list[float]:
    """[low, high] of a number in [0, 1]: Student's interval of its log-odds. At 0 and 1, which have none, it is that of
    Clopper and Pearson over the groups.

    value: of all videos. without: (G,), the same number without each of the groups.
    """
    groups = len(without)
    if not 0 < value < 1:
        return _of_one_answer(value >= 1, groups)
    error = math.sqrt((groups - 1) * float(without.var()))  # of the jackknife
    half = t_quantile(LEVEL, groups - 1) * error / (value * (1 - value))
    middle = math.log(value / (1 - value))
    return [1 / (1 + math.exp(min(700.0, -end))) for end in (middle - half, middle + half)]


def _of_one_answer(right: bool, units: int) -> list[float]:
    """All of them are right, or none is (Clopper and Pearson)."""
    room = 1 - TAIL ** (1 / units)
    return [1 - room, 1.0] if right else [0.0, room]


def _resampled(scored: Scored) -> dict[str, Statistic]:
    """By key of metrics.METRICS those that have an interval here."""
    probs, labels = scored.probs, scored.labels
    found = {key: mean_of(hits.double().numpy()) for key, hits in _hits(scored).items()}
    if labels.ndim == 2:
        if probs.numel() <= _MOST_RANKED:
            found["map"] = mean_average_precision_of(probs.numpy(), labels.numpy() > 0)
        return found
    best = probs.argmax(1)
    right, classes = (best == labels).double().numpy(), probs.shape[1]
    support, predicted = class_sums(labels.numpy(), classes), class_sums(best.numpy(), classes)

    def f1(weights: Floats) -> Floats:
        return mean_ratio(2 * support(weights * right), support(weights) + predicted(weights))

    return {**found, "mean_class": class_mean_of(right, labels.numpy()), "macro_f1": f1}


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
