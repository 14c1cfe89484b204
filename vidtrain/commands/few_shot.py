"""Few-shot tests: the same training on k videos of each class, several times with other videos."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from statistics import fmean
from typing import Any

from vidtrain.data.features.subsets import few_of_each, with_validation
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.errors import ConfigError
from vidtrain.options.invocation import Invocation
from vidtrain.options.schema import TrainConfig
from vidtrain.reports.results import primary
from vidtrain.reports.table import table
from vidtrain.runs.atomic import write_csv
from vidtrain.tasks.classification.significance import half_interval

log = logging.getLogger("vidtrain")

FILE = "few_shot.csv"
_HELD_OUT = 0.2  # of the training videos, where there is no validation split

Train = Callable[[Invocation[TrainConfig], Callable[[VideoData], VideoData]], dict[str, Any]]
"""A training with what becomes of its data -> its result."""


def check_few_shot(options: TrainConfig, data: VideoData, processes: int) -> None:
    """Refuse, before the training, what could not follow it."""
    if not options.probe.shots:
        return
    shots = f"probe.shots={options.probe.shots}"
    if data.features is None:
        raise ConfigError(f"{shots}: it trains many times, on extracted features: vidtrain extract, then data=features")
    if "test" not in data.splits or not options.trainer.test:
        raise ConfigError(f"{shots}: it reports scores of the test split, which is not there or trainer.test=false")
    if processes > 1:
        raise ConfigError(f"{shots}: one process is enough for it: trainer.devices=1")
    for count in options.probe.shots:
        few_of_each(_with_val(data, options).splits["train"], count, 0, data.class_names)


def few_shot(call: Invocation[TrainConfig], options: TrainConfig, train: Train) -> list[dict[str, Any]]:
    """Train for every number of videos and every seed below few_shot/, print a table, write few_shot.csv.

    options: as they were before the training on all videos. Returns a mapping for each number of videos.
    """
    runs, lines = options.probe.seeds, []
    found: list[dict[str, Any]] = []
    for count in options.probe.shots:
        scores = []
        for number in range(runs):
            seed = options.trainer.seed + number
            own = deepcopy(options)
            own.trainer.seed, own.probe.shots, own.resume = seed, [], None
            own.eval.figures = False  # of dozens of trainings, each of which takes a second
            folder = call.folder / "few_shot" / f"{count}_{seed}"
            folder.mkdir(parents=True, exist_ok=True)

            def few(data: VideoData, count: int = count, seed: int = seed) -> VideoData:
                data = _with_val(data, options)
                train = few_of_each(data.splits["train"], count, seed, data.class_names)
                return replace(data, splits={**data.splits, "train": train})

            with _quiet():
                result = train(replace(call, options=own, folder=folder), few)
            score = primary(result)
            assert score is not None, "there is a test split"
            scores.append(score)
            lines.append([count, seed, f"{score:.6f}"])
        mean, half = fmean(scores), half_interval(scores)
        found.append({"shots": count, "mean": mean, "interval": [mean - half, mean + half], "seeds": runs})
    key = result["primary"]
    write_csv(call.folder / FILE, ["shots", "seed", key], lines)
    rows = [[str(r["shots"]), f"{r['mean']:.3f}", f"{r['interval'][1] - r['mean']:.3f}", str(runs)] for r in found]
    print(table(["videos per class", f"test {result['titles'][key]}", "+- (95 %)", "seeds"], rows))
    return found


def _with_val(data: VideoData, options: TrainConfig) -> VideoData:
    """All runs are validated on the same videos, of which none is drawn."""
    return data if "val" in data.splits else with_validation(data, _HELD_OUT, options.trainer.seed)[0]


@contextmanager
def _quiet() -> Iterator[None]:
    before = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(before)
