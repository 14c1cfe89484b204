"""What a run writes while it trains: metrics.jsonl and TensorBoard."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import torch
from torch import Tensor

from vidtrain.plain import parse_json
from vidtrain.reports.settings import LoggerConfig
from vidtrain.sequences import Sequences

if TYPE_CHECKING:
    from vidtrain.engine.evaluator import Scores


log = logging.getLogger("vidtrain")


class RunLog:
    """Implements engine.trainer.Recorder for one run folder.

    metrics.jsonl: one object a line: kind (train, train_epoch, val), update, epoch, time, values. When a run is
    resumed at update u, the lines after u are dropped, since those updates are made again.

    Nothing that goes wrong here ends a training: it is warned of once, and what cannot be written is not.
    """

    def __init__(
        self, folder: Path, settings: LoggerConfig, class_names: tuple[str, ...], *, resumed_at: tuple[int, int] | None
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._class_names = class_names
        self._warned: set[str] = set()
        self._file: TextIO | None = None
        self._writer: Any = None
        with self._going_on("metrics.jsonl"):
            file = folder / "metrics.jsonl"
            if resumed_at is not None and file.is_file():
                _drop_after(file, *resumed_at)
            self._file = file.open("w" if resumed_at is None else "a", encoding="utf-8")
        if settings.tensorboard:
            with self._going_on("tensorboard/"):
                from torch.utils.tensorboard import SummaryWriter

                _let_the_disk_be_reported_once()
                # purge_step hides the points that a killed run had written after its last checkpoint
                purge = None if resumed_at is None else resumed_at[0] + 1
                self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)

    def scalars(self, kind: str, update: int, epoch: float, values: dict[str, float]) -> None:
        record = {
            "kind": kind,
            "update": update,
            "epoch": round(epoch, 4),
            "time": round(time.time(), 3),
            **values,
        }
        with self._going_on("metrics.jsonl"):
            if self._file is not None:
                self._file.write(json.dumps(record) + "\n")
                self._file.flush()  # what a full disk has not taken stays in its buffer, and comes with the next line
        with self._going_on("tensorboard/"):
            if self._writer is not None:
                for name, value in values.items():
                    self._writer.add_scalar(f"{kind}/{name}", value, update)

    def clips(self, update: int, views: Tensor | Sequences) -> None:
        """A figure of up to eight clips as the model gets them, a row each: uint8 (B, V, T, H, W, 3).

        Of sequences of features there is none.
        """
        if self._writer is None or not self._settings.images or isinstance(views, Sequences):
            return
        with self._going_on("tensorboard/"):
            rows = views.flatten(0, 1)[:8, ..., :3]
            rows = rows[:, torch.linspace(0, rows.shape[1] - 1, min(8, rows.shape[1])).long()]
            count, frames, height, width, _ = rows.shape
            image = rows.permute(0, 2, 1, 3, 4).reshape(count * height, frames * width, 3)
            self._writer.add_image("clips", image, update, dataformats="HWC")

    def validation(self, update: int, scores: Scores) -> None:
        """The confusion matrix as a figure, of a dataset with one class per video."""
        if self._writer is None or not self._settings.images or not len(scores.labels) or scores.multi_label:
            return
        with self._going_on("the figure of the confusion matrix"):
            from vidtrain.reports.confusion import confusion_image

            image = confusion_image(scores.confusion, self._class_names)
            with self._going_on("tensorboard/"):
                self._writer.add_image("confusion", image, update, dataformats="HWC")

    def close(self) -> None:
        with self._going_on("metrics.jsonl"):
            if self._file is not None:
                self._file.close()
        with self._going_on("tensorboard/"):
            if self._writer is not None:
                self._writer.close()

    @contextmanager
    def _going_on(self, what: str) -> Iterator[None]:
        """Warn of an error once. TensorBoard's writer repeats an error for ever: it is given up."""
        try:
            yield
        except Exception as error:
            if what == "tensorboard/":
                self._writer = None
            if what not in self._warned:
                self._warned.add(what)
                reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
                log.warning("%s in %s cannot be written (%s); the training goes on without", what, self._folder, reason)


class NoLog:
    """Of the processes that train together only one keeps a log."""

    def scalars(self, kind: str, update: int, epoch: float, values: dict[str, float]) -> None: ...

    def clips(self, update: int, views: Tensor) -> None: ...

    def validation(self, update: int, scores: Scores) -> None: ...


def _let_the_disk_be_reported_once() -> None:
    """TensorBoard writes from a thread of its own, which prints a traceback when the disk is full, and then raises the
    same error from the next call, where it is reported in one line."""
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if not isinstance(args.exc_value, OSError):
            before(args)

    threading.excepthook = hook


def _drop_after(file: Path, update: int, epoch: int) -> None:
    """Keep what was written up to `update`, and of whole epochs what belongs to the first `epoch` ones.

    Damaged lines are skipped; the file as it was is then kept beside it. The last line may be half written.
    """
    kept, damaged = [], 0
    lines = file.read_bytes().decode("utf-8", "replace").split("\n")
    for line in lines[:-1]:
        try:
            record = parse_json(line)
            within = record["update"] <= update and (record["kind"] == "train" or record["epoch"] <= epoch)
        except (ValueError, KeyError, TypeError):
            damaged += 1
            continue
        if within:
            kept.append(line + "\n")
    if damaged:
        aside = file.with_suffix(".damaged.jsonl")
        file.replace(aside)
        log.warning("%s: %d damaged lines are skipped; the file as it was is kept as %s", file, damaged, aside.name)
    temporary = file.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    temporary.replace(file)
