"""Settings of task=segments beside each other. Their tests keep the segments that were found, not the truth of every
video, so one is set against another over runs, not over videos."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from vidtrain.commands.classification_comparison import REPEATED, over_runs
from vidtrain.commands.matched_predictions import NamedTests, option
from vidtrain.commands.sweep import REPEATS
from vidtrain.commands.tested_runs import SegmentsRun
from vidtrain.reports.comparison import ComparedPair, ComparedSetting, Comparison
from vidtrain.tasks.classification.significance import half_interval, holm
from vidtrain.tasks.segments.scores import TITLES

PRIMARY = "map_50"
_SINGLE = "A single run with task=segments has neither interval nor test: several seeds do, -m trainer.seed=0,1,2."


@dataclass(frozen=True)
class SegmentsTest:
    """A test with task=segments. videos: what stands for the videos that it is of, equal where these are."""

    run: SegmentsRun

    @cached_property
    def videos(self) -> tuple[Hashable, ...]:
        content = self.run.test.content
        truth = tuple((row["name"], row["segments"]) for row in content["segment_classes"])
        return content["split"], content["listed"], content["scored"], truth


class _Measured:
    """A setting with its values by what each run was tested on. overlap: as of `over_runs`."""

    def __init__(self, setting: NamedTests[SegmentsTest], metric: str) -> None:
        self.setting = setting
        self.runs: dict[Any, list[float]] = defaultdict(list)
        scored: dict[Any, int] = {}
        for test in setting.tests:
            part = test.videos, str([option(test.run.config, key) for key in REPEATS if key.startswith("data.")])
            self.runs[part].append(test.run.test.numbers.get(metric, math.nan))
            scored[part] = test.run.test.scored
        self.values = [value for values in self.runs.values() for value in values]
        self.value = float(np.mean(self.values))
        self.scored, own = sum(scored.values()), sum(scored.values()) / len(scored)
        self.overlap = own / (self.scored - own) if len(scored) > 1 and self.scored > own else 0.0

    def row(self) -> ComparedSetting:
        mean, several = self.setting.mean, len(self.values) >= REPEATED
        half = half_interval(self.values, self.overlap) if several else math.nan
        listed = {test.videos: int(test.run.test.content["listed"]) for test in self.setting.tests}
        return ComparedSetting(
            self.setting.name,
            self.value,
            max(self.value - half, 0.0) if half else math.nan,
            min(self.value + half, 1.0) if half else math.nan,
            float(np.std(self.values, ddof=1)) if several else None,
            len(self.values),
            *(mean("params"), mean("gmac"), mean("clips_per_second"), mean("minutes")),
            None,
            self.scored,
            sum(listed.values()),
        )


def compared_segments(
    settings: Sequence[NamedTests[SegmentsTest]], metric: str, reference: NamedTests[SegmentsTest] | None
) -> Comparison:
    """Settings that were all tested on the same videos."""
    measured = sorted((_Measured(setting, metric) for setting in settings), key=lambda one: -one.value)
    repeated = next((n for n, one in enumerate(measured) if len(one.values) >= REPEATED), 0)
    first = next((n for n, one in enumerate(measured) if one.setting is reference), repeated)
    pairs = [_pair(measured[first], first, one, n) for n, one in enumerate(measured) if n != first]
    known = [pair for pair in pairs if pair is not None]
    adjusted = holm([pair.p for pair in known])
    content = settings[0].tests[0].run.test.content
    heading = f"{TITLES[metric]} on {measured[0].scored} videos of {content['split']}; {content['protocol']}"
    single = any(len(one.values) < REPEATED for one in measured)
    return Comparison(
        heading,
        TITLES[metric],
        [one.row() for one in measured],
        [replace(pair, adjusted=p) for pair, p in zip(known, adjusted, strict=True)],
        [],
        [_SINGLE] if single else [],
    )


def _pair(first: _Measured, at: int, second: _Measured, other: int) -> ComparedPair | None:
    found, name = over_runs(first, second)
    if found is None:
        return None
    others = {f"t_{key}": getattr(found, key) for key in ("low", "high", "p", "freedom")}
    return ComparedPair(
        *(at + 1, other + 1, first.value - second.value, found.low, found.high, None, None, name, found.p),
        others=others,
    )
