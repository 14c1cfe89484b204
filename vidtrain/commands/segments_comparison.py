"""Settings of task=segments beside each other. Their tests keep the segments that were found, not the truth of every
video, so one is set against another over runs, not over videos."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from vidtrain.commands.classification_comparison import MeasuredSetting, over_runs
from vidtrain.commands.matched_predictions import NamedTests, option
from vidtrain.commands.sweep import REPEATS
from vidtrain.commands.tested_runs import SegmentsRun
from vidtrain.reports.comparison import ComparedPair, ComparedSetting, Comparison
from vidtrain.tasks.classification.significance import holm
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


def _measured(setting: NamedTests[SegmentsTest], metric: str) -> tuple[MeasuredSetting, ComparedSetting]:
    """A setting, and its row."""
    runs: dict[Any, list[float]] = defaultdict(list)
    scored: dict[Any, int] = {}
    for test in setting.tests:
        part = test.videos, str([option(test.run.config, key) for key in REPEATS if key.startswith("data.")])
        runs[part].append(test.run.test.numbers.get(metric, math.nan))
        scored[part] = test.run.test.scored
    count = sum(scored.values())
    found = MeasuredSetting(setting, runs, count / len(scored), count)
    listed = {test.videos: int(test.run.test.content["listed"]) for test in setting.tests}
    return found, found.row(None, count, sum(listed.values()))


def compared_segments(
    settings: Sequence[NamedTests[SegmentsTest]], metric: str, reference: NamedTests[SegmentsTest] | None
) -> Comparison:
    """Settings that were all tested on the same videos."""
    found = sorted((_measured(setting, metric) for setting in settings), key=lambda one: -one[0].value)
    measured, rows = [one for one, _ in found], [row for _, row in found]
    repeated = next((n for n, one in enumerate(measured) if one.is_repeated), 0)
    first = next((n for n, one in enumerate(measured) if one.setting is reference), repeated)
    pairs = [_pair(measured[first], first, one, n) for n, one in enumerate(measured) if n != first]
    known = [pair for pair in pairs if pair is not None]
    adjusted = holm([pair.p for pair in known])
    content = settings[0].tests[0].run.test.content
    heading = f"{TITLES[metric]} on {rows[0].scored} videos of {content['split']}; {content['protocol']}"
    single = not all(one.is_repeated for one in measured)
    return Comparison(
        heading,
        TITLES[metric],
        rows,
        [replace(pair, adjusted=p) for pair, p in zip(known, adjusted, strict=True)],
        [],
        [_SINGLE] if single else [],
    )


def _pair(first: MeasuredSetting, at: int, second: MeasuredSetting, other: int) -> ComparedPair | None:
    found, name = over_runs(first, second)
    if found is None:
        return None
    others = {f"t_{key}": getattr(found, key) for key in ("low", "high", "p", "freedom")}
    return ComparedPair(
        *(at + 1, other + 1, first.value - second.value, found.low, found.high, None, None, name, found.p),
        others=others,
    )
