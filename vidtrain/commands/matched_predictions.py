"""What settings have answered: the videos of their tests, matched by path and label, and what of them was right.

Runs that differ only in seed, fold or split are one setting."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any, Final, Generic, Protocol, TypeVar

import numpy as np

from vidtrain.commands.resuming import may_change_on_resume
from vidtrain.commands.sweep import REPEATS
from vidtrain.commands.tested_runs import ClassifiedRun, TestedRun, short_names
from vidtrain.reports.results import ScoredVideo
from vidtrain.tasks.classification.resampling import (
    Floats,
    Statistic,
    class_mean_of,
    mean_average_precision_of,
    mean_of,
    of_all,
)

TITLES: Final = {"top1": "top-1", "top5": "top-5", "mean_class": "mean class accuracy", "map": "mAP"}
"""Metric -> title of all that settings can be compared by."""
_ALSO_SETTINGS: Final = ("eval", "trainer.patience", "trainer.max_skipped")  # though a run may go on with others

Key = tuple[str, float | None, float | None, tuple[str, ...], int]
"""A video of a test: path as the list has it, start, end, labels, and a number for rows that are equal in all this."""


class AnsweredTest:
    """The videos with a label of one test, in the order of predictions.csv. rows: of each its row there. unlabelled:
    those without, by ScoredVideo.key."""

    def __init__(self, run: ClassifiedRun) -> None:
        self.run = run
        seen: Counter[tuple[Any, ...]] = Counter()
        self.videos: dict[Key, ScoredVideo] = {}
        self.rows: dict[Key, int] = {}
        self.unlabelled: Counter[tuple[Any, ...]] = Counter()
        for row, video in enumerate(run.test.predictions()):
            if not video.labels and not run.test.multi_label:
                self.unlabelled[video.key] += 1
                continue
            name = (*video.key, video.labels)
            key = (*name, seen[name])
            seen[name] += 1
            self.videos[key], self.rows[key] = video, row

    def right(self, metric: str) -> dict[Key, float]:
        """1 for each video with a label among its first five answers (top5) or as its first (all others), else 0."""
        first = 5 if metric == "top5" else 1
        return {
            key: float(any(name in video.labels for name, _ in video.top[:first])) for key, video in self.videos.items()
        }

    def statistic(self, metric: str, keys: Sequence[Key]) -> Statistic:
        """The metric of these videos of the test."""
        if metric == "map":
            rows = [self.rows[key] for key in keys]
            truth = [self.videos[key] for key in keys]
            return mean_average_precision_of(
                self.run.test.probabilities()[rows], self.run.test.labels(truth).astype(bool)
            )
        right = self.right(metric)
        return statistic_of(metric, np.array([right[key] for key in keys]), keys)


def statistic_of(metric: str, values: Floats, keys: Sequence[Key]) -> Statistic:
    """A metric, not map, that is a mean of numbers of these videos, or a mean over classes of such means."""
    if metric != "mean_class":
        return mean_of(values)
    classes = {labels: number for number, labels in enumerate(dict.fromkeys(key[3] for key in keys))}
    return class_mean_of(values, np.array([classes[key[3]] for key in keys], dtype=np.int64))


class RunTest(Protocol):
    """A test of any task."""

    @property
    def run(self) -> TestedRun[Any]: ...


_T = TypeVar("_T", bound=RunTest)


@dataclass(frozen=True)
class NamedTests(Generic[_T]):
    """A setting: tests of runs that differ only in REPEATS; most often one."""

    name: str
    tests: Sequence[_T]

    def mean(self, key: str) -> float | None:
        """Of a number of the runs' result.json."""
        values = [value for test in self.tests if (value := test.run.number(key)) is not None]
        return fmean(values) if values else None


class Setting(NamedTests[AnsweredTest]):
    """One whose tests have an answer for every video."""

    @cached_property
    def keys(self) -> list[Key]:
        """Of all its videos."""
        return list(dict.fromkeys(key for test in self.tests for key in test.videos))

    @property
    def answers_once(self) -> bool:
        """Whether each video was tested by one run: there is but one run, or they are folds."""
        return sum(len(test.videos) for test in self.tests) == len(self.keys)

    def credits(self, metric: str, keys: Sequence[Key]) -> Floats:
        """float64 (n,): of each video the share of its tests that have it right."""
        found: dict[Key, list[float]] = defaultdict(list)
        for test in self.tests:
            for key, value in test.right(metric).items():
                found[key].append(value)
        return np.array([fmean(found[key]) for key in keys])

    def values(self, metric: str, keys: Sequence[Key]) -> dict[frozenset[Key], list[float]]:
        """The metric of each run by what it was tested on: folds have a test set each, seeds share one."""
        wanted = frozenset(keys)
        found: dict[frozenset[Key], list[float]] = defaultdict(list)
        for test in self.tests:
            own = [key for key in test.videos if key in wanted]
            if own:
                found[frozenset(own)].append(of_all(test.statistic(metric, own), len(own)))
        return dict(found)

    def first(self, key: Key) -> ScoredVideo:
        """What the first of its runs that was tested on a video says of it."""
        return next(test.videos[key] for test in self.tests if key in test.videos)


def settings_of(tests: Sequence[_T]) -> list[NamedTests[_T]]:
    """In the order of their first runs."""
    groups: dict[tuple[str, int], list[_T]] = defaultdict(list)
    same: Counter[tuple[str, str]] = Counter()
    for test in tests:
        setting, repeat = _what_is_repeated(test.run), json.dumps([option(test.run.config, key) for key in REPEATS])
        # the same seed again is no other draw: a run that was made again, after a change of the labels perhaps
        groups[setting, same[setting, repeat]].append(test)
        same[setting, repeat] += 1
    members = list(groups.values())
    return [NamedTests(name, own) for name, own in zip(_names(members), members, strict=True)]


def option(config: Mapping[str, Any], key: str) -> Any:
    """What an option was in the configuration of a run; None where it is not there."""
    section, _, name = key.partition(".")
    found = config.get(section)
    return found.get(name) if isinstance(found, dict) else None


def _what_is_repeated(run: TestedRun[Any]) -> str:
    """The configuration without what repeats it and what changes nothing; a run without one is not repeated."""
    if not run.config:
        return str(run.folder.resolve())
    tested = [run.test.content["split"], run.test.content["protocol"]]
    return json.dumps([_kept(run.config), tested], sort_keys=True)


def _kept(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in section.items():
        key = f"{prefix}{name}"
        changes_nothing = may_change_on_resume(key) and not key.startswith(_ALSO_SETTINGS)
        if key not in REPEATS and not changes_nothing:
            found[name] = _kept(value, f"{key}.") if isinstance(value, dict) else value
    return found


def _names(groups: Sequence[Sequence[RunTest]]) -> list[str]:
    """What distinguishes the settings of a sweep, or their folders."""
    first = [members[0].run for members in groups]
    varied = [
        " ".join(
            f"{key}={value}"
            for key, value in run.varied.items()
            if key not in REPEATS and len({other.varied.get(key) for other in first}) > 1
        )
        for run in first
    ]
    if all(varied) and len(set(varied)) == len(varied) and all(run.is_own for run in first):
        return varied
    names = short_names([[test.run for test in members] for members in groups])
    return [f"{name} ({names[:n].count(name) + 1})" if name in names[:n] else name for n, name in enumerate(names)]
