"""What a network is trained for: all that the training loop, the test and the checkpoints ask of a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vidtrain.sequences import Sequences
from vidtrain.types import BadVideo, Batch

Forward = Callable[[Mapping[str, Any]], Any]
"""The network: inputs by name, ready on the device (engine/preprocess.py) -> its output, in the run's precision."""


@dataclass
class Predictions:
    """What a network made of n videos, each once.

    columns: by name, (n, ...) on the CPU, or n Sequences, see Task.columns; none where n is 0. videos: int64 (n,),
    rows of the manifest. bad: videos that could not be read. not_finite: rows, ascending, of videos for which the
    network's output was not finite. Neither are among the n. groups: int64 (n,), numbers of what the videos belong to,
    such as a recording; None where nobody has said, and each is by itself. names: what the list calls the videos; None
    in a validation.
    """

    columns: dict[str, Any]
    videos: Tensor
    bad: list[BadVideo] = field(default_factory=list)
    not_finite: list[int] = field(default_factory=list)
    groups: Tensor | None = None
    names: list[str] | None = None

    def __len__(self) -> int:
        return len(self.videos)

    @property
    def finite_share(self) -> float:
        """Share of the readable videos that the network has a finite output for, in [0, 1]; 0 when there is none."""
        return len(self) / max(len(self) + len(self.not_finite), 1)

    @classmethod
    def joined(cls, parts: Sequence[Predictions]) -> Predictions:
        """One after the other."""
        bad = [video for part in parts for video in part.bad]
        not_finite = sorted(row for part in parts for row in part.not_finite)
        full = [part for part in parts if len(part)]
        if not full:
            return cls({}, torch.empty(0, dtype=torch.int64), bad, not_finite)
        columns = {name: _joined([part.columns[name] for part in full]) for name in full[0].columns}
        return cls(columns, torch.cat([part.videos for part in full]), bad, not_finite)


def _joined(parts: Sequence[Any]) -> Any:
    return Sequences.joined(parts) if isinstance(parts[0], Sequences) else torch.cat(list(parts))


class Scores(Protocol):
    """What a split scored."""

    @property
    def predictions(self) -> Predictions:
        """That the numbers are computed from."""
        ...

    def summary(self) -> dict[str, float]:
        """Numbers by key, "loss" among them, as they are logged and stand in result.json."""
        ...

    @property
    def primary(self) -> str:
        """Its key of that name, see Task."""
        ...

    def rank(self) -> list[float]:
        """By this checkpoints are ranked: the larger list is the better one. Its first number is that of `primary`."""
        ...

    def report(self) -> dict[str, Any]:
        """What result.json holds beside the numbers of `summary`: plain values."""
        ...

    def remarks(self) -> list[str]:
        """What a user should know of these scores, one line each."""
        ...

    def figures(self) -> dict[str, Callable[[], npt.NDArray[np.uint8]]]:
        """Figures of a validation, by name, uint8 (H, W, 3), each drawn when a logger shows it."""
        ...


def arrays_of(scores: Scores) -> Mapping[str, Tensor]:
    """What a test writes as NAME.npy beside its predictions, float32 (n, ...) in the order of `scores.predictions`:
    what `scores.arrays()` returns. Scores may be without that method."""
    found: Callable[[], Mapping[str, Tensor]] | None = getattr(scores, "arrays", None)
    return {} if found is None else found()


class PredictionsWriter(Protocol):
    """A file that grows by the predictions that are added to it."""

    def add(self, predictions: Predictions) -> None:
        """Raises OSError where they cannot be written."""
        ...

    def close(self) -> None: ...


class Predicts(Protocol):
    """What videos are asked for: the part of a Task that needs no targets."""

    def predict(self, network: Forward, inputs: Mapping[str, Any]) -> Tensor:
        """What is kept of each of N views until its video is complete, (N, ...). inputs: ready, of N views."""
        ...

    def columns(self, views: Tensor, targets: Any, average: str) -> dict[str, Any]:
        """Of B videos, (B, ...) each, or Sequences where videos differ in it, what scores and files are made of; one
        with nan or inf in one of them is named to the user and not scored. views: predictions (B, V, ...) on the CPU.
        targets: of a Batch. average: eval.average, or "", how V views become one."""
        ...


class Task(Predicts, Protocol):
    """A task is built from its YAML, conf/task/NAME.yaml: `_target_` is called with the options there and with what the
    dataset knows of its targets, class_names: Sequence[str] and multi_label: bool; for training also class_shares:
    Sequence[float], of the clips that are drawn, where it has an option of that name.

    Of a Batch it uses the inputs and targets that it has a use for. What the network reads is the network's to say.

    Attributes:
        titles: key -> title in tables, of all that it measures, in the order of the tables.
        primary: key of the number of a test that a sweep may optimise, and that runs are compared by.
        measures: keys of what `loss` measures for each sample, which the log averages over the samples of training.
    """

    titles: Mapping[str, str]
    primary: str
    measures: Sequence[str]

    def loss(self, network: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """(the mean over the batch, float32 (), to be minimised; each of `measures`, (B,) without a gradient).

        network: to be called once, with the batch's inputs or what is made of them; see Forward. batch: its inputs are
        ready and its targets on the device.
        """
        ...

    def scores(self, predictions: Predictions) -> Scores:
        """The scores of a split, of which all videos have been answered; predictions may be of none."""
        ...

    def file(self, file: Path, paths: Sequence[str], top: int = 5) -> PredictionsWriter:
        """What a test writes. paths: of the manifest's rows; a ListedVideos where they come from a list. top: how much
        of each answer, at most.

        Raises:
            VidtrainError: the file cannot be written.
        """
        ...

    def lines(self, predictions: Predictions, top: int) -> list[str]:
        """Each answer on a line, for the terminal."""
        ...

    def describe(self) -> dict[str, Any]:
        """What a checkpoint must hold besides the configuration to build the task again: plain values."""
        ...

    def random_targets(self, count: int, generator: torch.Generator) -> Tensor:
        """Targets of `count` samples, as a loader gives them, to measure a step with."""
        ...
