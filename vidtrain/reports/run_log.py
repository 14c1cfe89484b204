"""What a run writes while it trains: metrics.jsonl and TensorBoard."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vidtrain.plain import parse_json
from vidtrain.reports.settings import LoggerConfig
from vidtrain.sequences import Sequences

if TYPE_CHECKING:
    from vidtrain.engine.evaluator import Scores


class RunLog:
    """Implements engine.trainer.Recorder for one run folder.

    metrics.jsonl: one object a line: kind (train, train_epoch, val), update, epoch, time, values. When a run is
    resumed at update u, the lines after u are dropped, since those updates are made again.
    """

    def __init__(
        self, folder: Path, settings: LoggerConfig, class_names: tuple[str, ...], *, resumed_at: tuple[int, int] | None
    ) -> None:
        self._settings = settings
        self._class_names = class_names
        file = folder / "metrics.jsonl"
        if resumed_at is not None and file.is_file():
            _drop_after(file, *resumed_at)
        self._file = file.open("w" if resumed_at is None else "a", encoding="utf-8")
        self._writer = None
        if settings.tensorboard:
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
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{kind}/{name}", value, update)

    def clips(self, update: int, views: Tensor | Sequences) -> None:
        """A picture of up to eight clips as the model gets them, a row each: uint8 (B, V, T, H, W, 3).

        Of sequences of features there is none.
        """
        if self._writer is None or not self._settings.images or isinstance(views, Sequences):
            return
        rows = views.flatten(0, 1)[:8, ..., :3]
        rows = rows[:, torch.linspace(0, rows.shape[1] - 1, min(8, rows.shape[1])).long()]
        count, frames, height, width, _ = rows.shape
        picture = rows.permute(0, 2, 1, 3, 4).reshape(count * height, frames * width, 3)
        self._writer.add_image("clips", picture, update, dataformats="HWC")

    def validation(self, update: int, scores: Scores) -> None:
        """The confusion matrix as a picture, of a set with one class a video."""
        if self._writer is None or not self._settings.images or not len(scores.labels) or scores.multi_label:
            return
        from vidtrain.reports.confusion import confusion_figure

        self._writer.add_figure("confusion", confusion_figure(scores.confusion, self._class_names), update)

    def close(self) -> None:
        self._file.close()
        if self._writer is not None:
            self._writer.close()


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
    """Keep what was written up to `update`, and of whole epochs what belongs to the first `epoch` ones."""
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            record = parse_json(line)
        except ValueError:  # the line that was being written when the run was killed
            continue
        if record["update"] <= update and (record["kind"] == "train" or record["epoch"] <= epoch):
            kept.append(line + "\n")
    temporary = file.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    temporary.replace(file)
