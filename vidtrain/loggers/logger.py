"""What a logger is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class LoggedRun:
    """The run that a logger is started for.

    folder: the run's, which exists. config: its whole configuration as plain values. resumed_at: (updates, whole
    epochs) that are done when the run is resumed from a checkpoint, None when it starts; whatever an earlier process
    logged after that is made again.
    """

    folder: Path
    class_names: Sequence[str] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    resumed_at: tuple[int, int] | None = None


class Logger:
    """A destination of numbers and figures. A subclass overrides what it has a use for.

    Its `__init__` takes the keys of its YAML file, conf/logger/NAME.yaml, and does nothing that may fail, but for
    options that it refuses (ConfigError, before the training begins); `start` opens what is written to. All of it
    happens in the main process alone. An exception from any other method ends no training: it is logged once, and from
    then on the logger is skipped. `close` is called at the end of every run, whatever ended it, also after a failure,
    perhaps without `start`.

    Attributes:
        output: what it writes into the run's folder, for messages: "metrics.jsonl".
        images: whether `image` and `video` do something; they are drawn only when one of the loggers shows them.
    """

    output: str = ""
    images: bool = False

    def start(self, run: LoggedRun) -> None:
        """Open what is written to."""

    def scalars(self, kind: str, update: int, epoch: float, values: dict[str, float]) -> None:
        """Numbers by name. kind: train (every trainer.log_every updates), train_epoch or val. epoch: with fraction."""

    def image(self, name: str, update: int, pixels: npt.NDArray[np.uint8]) -> None:
        """A figure, uint8 (H, W, 3). name: clips (training clips), confusion (of a validation), test/NAME."""

    def video(self, name: str, update: int, frames: npt.NDArray[np.uint8], fps: float) -> None:
        """A moving image, uint8 (T, H, W, 3). name: clips/video (training clips under their labels)."""

    def precision_recall(
        self, name: str, update: int, truth: npt.NDArray[np.bool_], scores: npt.NDArray[np.float32]
    ) -> None:
        """For a curve of precision over recall: whether each of n videos is of a class, (n,), and the probability that
        it was given, (n,). name: pr/CLASS."""

    def finish(self, update: int, values: Mapping[str, float]) -> None:
        """The final numbers of a run that was trained to its end, by names such as test/top1 and val/top1."""

    def files(self, files: Sequence[Path]) -> None:
        """Files of the test of a finished run, to be kept with it: result.json, predictions.csv, not_scored.csv."""

    def close(self) -> None:
        """Write what is left, and end every thread and process of the logger's own."""


def reason(error: Exception) -> str:
    """An exception in a few words."""
    return getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"


def cannot_write(output: str, folder: Path, error: Exception) -> str:
    return f"{output} in {folder} cannot be written ({reason(error)}); the training goes on without"


_NOT_COMPARED = ("logger", "hook", "data.root", "class_names", "resume", "run_dir")
"""Options that say nothing about what is learned."""


def flat_options(options: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """The numbers, words and switches of a configuration by their dotted keys; of what a section calls, its name."""
    found: dict[str, bool | int | float | str] = {}
    for name, value in options.items():
        key = f"{prefix}{name}"
        if key in _NOT_COMPARED:
            continue
        if isinstance(value, Mapping):
            found |= flat_options(value, f"{key}.")
        elif name == "_target_":
            found[prefix.rstrip(".")] = str(value).rpartition(".")[2]
        elif isinstance(value, (bool, int, float, str)):
            found[key] = value
    return found
