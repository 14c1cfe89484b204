"""Folders as trainings and tests leave them, with the answers that a test needs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vidtrain.runs.atomic import write_json
from vidtrain.tasks.classification.scores import ClassScores
from vidtrain.tasks.classification.task import Classification
from vidtrain.tasks.task import Predictions
from vidtrain.types import ListedVideos

NAMES = ("walk", "run", "fall")
PROTOCOL = "16x2 clips at 112 px, 10x1 views"


def write_test(
    folder: Path,
    probs: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    videos: Sequence[int] | None = None,
    names: Sequence[str] = NAMES,
    **content: Any,
) -> Path:
    """The folder of a test, written by the parts of a real one.

    Args:
        probs: (n, K). labels: (n,), -1 where unknown, or (n, K) of 0 and 1.
        videos: (n,), their numbers: NUMBER.mp4; None: 0 to n - 1.
        content: parts of result.json that are others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    columns = {"probs": torch.tensor(np.asarray(probs)).float(), "labels": torch.tensor(np.asarray(labels))}
    if columns["labels"].ndim == 2:
        columns["labels"] = columns["labels"].float()
    count = len(columns["probs"])
    columns["clip_hits"] = torch.ones(count).double()
    numbers = list(range(count)) if videos is None else list(videos)
    listed = ListedVideos([f"/data/{number}.mp4" for number in numbers], "/data")
    predictions = Predictions(columns, torch.arange(count))
    task = Classification(names, columns["labels"].ndim == 2)
    with task.file(folder / "predictions.csv", listed) as file:
        file.add(predictions)
    np.save(folder / "probabilities.npy", columns["probs"].numpy())
    scores = ClassScores.of(predictions, names)
    result = {"format": 2, "split": "test", "protocol": PROTOCOL, "not_finite": [], "missing": 0, "unreadable": 0}
    result |= {"scored": count, "listed": count, **scores.summary(), **scores.report(), **content}
    absent = {key: None for key, value in result.items() if isinstance(value, float) and math.isnan(value)}
    write_json(folder / "result.json", {**result, **absent})
    return folder


def write_run(
    folder: Path, probs: npt.ArrayLike, labels: npt.ArrayLike, overrides: Mapping[str, Any] | None = None, **test: Any
) -> Path:
    """The folder of a run. overrides: its command line, also in its configuration. test: see `write_test`."""
    write_test(folder / "test", probs, labels, **test)
    config: dict[str, Any] = {"trainer": {"seed": 0}, "data": {"fold": 0}, "model": {}, "eval": {"clips": 10}}
    for key, value in (overrides or {}).items():
        section, _, name = key.partition(".")
        if name:
            config.setdefault(section, {})[name] = value
        else:
            config[section] = {"_target_": value}
    write_json(folder / "config.json", config)
    (folder / ".hydra").mkdir()
    lines = json.dumps([f"{key}={value}" for key, value in (overrides or {}).items()])  # JSON is YAML
    (folder / ".hydra" / "overrides.yaml").write_text(lines)
    result = {"summary": {}, "test": {}, "val": None, "primary": "top1", "checkpoint": "best.pt"}
    write_json(
        folder / "result.json", {**result, "params": 1_500_000, "gmac": 2.5, "minutes": 3, "clips_per_second": 40.0}
    )
    return folder


def answering(answers: Sequence[int], classes: int = 3, sure: float = 0.8) -> npt.NDArray[np.float64]:
    """Probabilities (n, K) of a network that gives these answers."""
    probs = np.full((len(answers), classes), (1 - sure) / (classes - 1))
    probs[np.arange(len(answers)), answers] = sure
    return probs
