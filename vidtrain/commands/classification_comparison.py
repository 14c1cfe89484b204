"""Settings that were tested on the same videos: which is better, by which test, and on which videos they differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from vidtrain.commands.matched_predictions import TITLES, Key, NamedTests, Setting, statistic_of
from vidtrain.errors import ConfigError
from vidtrain.reports.comparison import ComparedPair, ComparedSetting, Comparison, Disagreement
from vidtrain.reports.table import counted
from vidtrain.tasks.classification.resampling import Floats
from vidtrain.tasks.classification.significance import (
    Bootstrap,
    TTest,
    corrected_paired_t,
    half_interval,
    holm,
    mcnemar,
    resampled,
    welch,
)

REPEATED: Final = 2  # runs of a setting from which on it is known how much they differ


def compared(settings: Sequence[Setting], keys: Sequence[Key], metric: str, reference: Setting | None) -> Comparison:
    """Settings that were all tested on these videos."""
    if not keys:
        raise ConfigError(f"{settings[0].name}: no video of its test has a label")
    scored = [_Scored(setting, keys, metric) for setting in settings]
    statistics = [one.statistic for one in scored if one.statistic is not None]
    columns = iter(resampled(statistics, len(keys)).T if statistics else ())
    for one in scored:
        one.samples = next(columns) if one.statistic is not None else None
    scored.sort(key=lambda one: -one.value)
    rows = [one.as_row() for one in scored]
    first = next((n for n, one in enumerate(scored) if one.setting is reference), 0)
    pairs = [_pair(scored[first], first, other, n) for n, other in enumerate(scored) if n != first]
    adjusted = holm([pair.p for pair in pairs])
    pairs = [replace(pair, adjusted=p) for pair, p in zip(pairs, adjusted, strict=True)]
    disagreements = [one for pair in pairs for one in _disagreements(scored, pair, keys, metric)]
    content = settings[0].tests[0].run.test.content
    heading = f"{TITLES[metric]} on {len(keys)} videos of {content['split']}; {content['protocol']}"
    alike = [f"{one.first} and {one.second}" for one in pairs if (one.only_first, one.only_second) == (0, 0)]
    same = f"Ranks {', '.join(alike)} have the same videos right: no interval of how much they would differ on others."
    notes = [*_remarks(scored), *([same] if alike else [])]
    return Comparison(heading, TITLES[metric], rows, pairs, disagreements, notes)


class MeasuredSetting:
    """A setting whose runs each have a value of a metric.

    runs: the values by what each run was tested on. values: of all of them, value: their mean. overlap: test videos per
    training video of its folds, 0 where its runs are independent.
    """

    def __init__(self, setting: NamedTests[Any], runs: Mapping[Any, list[float]], each: float, count: int) -> None:
        """each: videos that a run was tested on, on average; count: that all runs were tested on."""
        self.setting, self.runs = setting, runs
        self.values = [value for values in runs.values() for value in values]
        self.value = float(np.mean(self.values))
        self.overlap = each / (count - each) if len(runs) > 1 and count > each else 0.0

    @property
    def is_repeated(self) -> bool:
        return len(self.values) >= REPEATED

    def interval(self) -> tuple[float, float]:
        """Of the mean over several runs; (nan, nan) of no width, or of a single run."""
        half = half_interval(self.values, self.overlap) if self.is_repeated else math.nan
        return _unless_alike(max(self.value - half, 0.0), min(self.value + half, 1.0))

    def row(self, views: int | None, scored: int, listed: int) -> ComparedSetting:
        """views: clips x crops that are averaged per video, None where tests differ in it, or have no such number."""
        mean = self.setting.mean
        return ComparedSetting(
            self.setting.name,
            self.value,
            *self.interval(),
            float(np.std(self.values, ddof=1)) if self.is_repeated else None,
            len(self.values),
            *(mean("params"), mean("gmac"), mean("clips_per_second"), mean("minutes")),
            views,
            scored,
            listed,
        )


class _Scored(MeasuredSetting):
    """A setting on the videos of a comparison.

    statistic: of its answers as one, None where there is none: mAP of several runs. samples: its resamples, (R,).
    """

    setting: Setting
    samples: Floats | None = None

    def __init__(self, setting: Setting, keys: Sequence[Key], metric: str) -> None:
        runs = setting.values(metric, keys)
        super().__init__(setting, runs, float(np.mean([len(part) for part in runs])), len(keys))
        self.metric, self.count = metric, len(keys)
        self.right = setting.credits("top1" if metric == "mean_class" else metric, keys) if metric != "map" else None
        self.statistic = None
        if self.right is not None:
            self.statistic = statistic_of(metric, self.right, keys)
        elif len(self.values) == 1:
            self.statistic = setting.tests[0].statistic(metric, keys)

    def as_row(self) -> ComparedSetting:
        tests = [test.run.test for test in self.setting.tests]
        each = {frozenset(test.videos): test.run.test.content for test in self.setting.tests}.values()  # fold or split
        views = {parts[-1]["views"] for test in tests if (parts := test.part("views"))}
        scored, listed = (sum(int(content[key]) for content in each) for key in ("scored", "listed"))
        return self.row(next(iter(views)) if len(views) == 1 else None, scored, listed)

    def interval(self) -> tuple[float, float]:
        """Of a single run: as its test has it, where that is of these videos."""
        if self.is_repeated:
            return super().interval()
        test = self.setting.tests[0].run.test
        found = (test.part("intervals") or {}).get("values", {}).get(self.metric)
        if found is not None and test.scored == self.count:
            return found[0], found[1]
        assert self.samples is not None
        interval = Bootstrap.of(self.value, self.samples)
        return _unless_alike(interval.low, interval.high)


def _unless_alike(low: float, high: float) -> tuple[float, float]:
    """The ends of an interval; (nan, nan) of no width: what never differs does not say how much it can."""
    return (low, high) if low < high else (math.nan, math.nan)


def _pair(first: _Scored, at: int, second: _Scored, other: int) -> ComparedPair:
    """The test that takes most into account: over runs where both have several, else over videos."""
    difference, others = first.value - second.value, {}
    low, high, p, name = math.nan, math.nan, 1.0, "no test: mAP of one run against several"
    if first.samples is not None and second.samples is not None:
        over_videos = Bootstrap.of(difference, first.samples - second.samples)
        low, high = _unless_alike(over_videos.low, over_videos.high)
        p, name = over_videos.p, "the paired bootstrap"
        others = {"bootstrap_low": low, "bootstrap_high": high, "bootstrap_p": p}
    only_first = only_second = None
    once = first.setting.answers_once and second.setting.answers_once
    if once and first.right is not None and second.right is not None:
        only_first, only_second = int((first.right > second.right).sum()), int((second.right > first.right).sum())
        counted = mcnemar(only_first, only_second)
        others |= {f"mcnemar_{key}": getattr(counted, key) for key in ("exact", "mid_p", "chi2")}
        if first.metric != "mean_class":
            p, name = counted.exact, "McNemar's test"
    repeated, how = over_runs(first, second)
    if repeated is not None:
        low, high, p, name = repeated.low, repeated.high, repeated.p, how
        others |= {f"t_{key}": getattr(repeated, key) for key in ("low", "high", "p", "freedom")}
    return ComparedPair(
        first=at + 1,
        second=other + 1,
        difference=difference,
        low=low,
        high=high,
        only_first=only_first,
        only_second=only_second,
        test=name,
        p=p,
        others=others,
    )


def over_runs(first: MeasuredSetting, second: MeasuredSetting) -> tuple[TTest | None, str]:
    """The test of two settings of several runs each, and its name; None where one has a single run, or where they
    were tested on different folds."""
    if not (first.is_repeated and second.is_repeated):
        return None, ""
    if len(first.runs) == len(second.runs) == 1:
        return welch(first.values, second.values), f"Welch's test of {len(first.values)} and {len(second.values)} runs"
    if first.runs.keys() != second.runs.keys():
        return None, ""
    differences = [float(np.mean(values) - np.mean(second.runs[part])) for part, values in first.runs.items()]
    return corrected_paired_t(differences, first.overlap), f"the paired t-test over {len(differences)} folds"


def _disagreements(
    scored: Sequence[_Scored], pair: ComparedPair, keys: Sequence[Key], metric: str
) -> list[Disagreement]:
    """The videos that one has right and the other wrong, the most certain mistakes first."""
    if pair.only_first is None:
        return []
    one, two = scored[pair.first - 1], scored[pair.second - 1]
    assert one.right is not None
    assert two.right is not None
    found = []
    for row in np.flatnonzero(one.right != two.right).tolist():
        answers = [each.setting.first(keys[row]) for each in (one, two)]
        best = [answer.top[0] for answer in answers]
        right = pair.first if one.right[row] > two.right[row] else pair.second
        video = answers[0]
        found.append(
            Disagreement(
                (pair.first, pair.second),
                *(video.path, video.file, (video.start, video.end), ";".join(video.labels), right),
                (best[0][0], best[1][0]),
                (best[0][1], best[1][1]),
            )
        )
    return sorted(found, key=lambda video: -video.mistake[1])


def _remarks(scored: Sequence[_Scored]) -> list[str]:
    remarks = []
    single = [one for one in scored if not one.is_repeated]
    if single and len(scored) > 1:
        remarks.append(
            "One run of a setting: its interval is over videos; what another seed would change is not in it, nor in p."
        )
    if len(single) < len(scored):
        remarks.append("Several runs of a setting: mean, and the interval of the mean by Student's t over the runs.")
    if any((one.setting.tests[0].run.test.part("intervals") or {}).get("over") == "groups" for one in single):
        remarks.append(
            "The intervals of single runs are over groups of videos; differences and p take videos as independent, and "
            "p is too small where those of a group resemble each other."
        )
    if any(one.is_repeated and len({*one.values}) == 1 for one in scored):
        remarks.append("Runs of a setting that score the same do not say how much others would differ: no interval.")
    unlabelled: Counter[Any] = Counter()
    for test in (test for one in scored for test in one.setting.tests):
        unlabelled |= test.unlabelled  # the same videos of every run count once
    if unlabelled:
        remarks.append(f"{counted(unlabelled.total(), 'video')} without a label excluded.")
    return remarks
