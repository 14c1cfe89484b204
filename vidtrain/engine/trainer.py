"""The training loop: plain PyTorch, one step on one screen. Everything it needs is handed to it."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from vidtrain.engine.checkpoint import restore_rng, rng_state, save_checkpoint
from vidtrain.engine.evaluator import Scores
from vidtrain.engine.inputs import ModelInput
from vidtrain.engine.objective import Objective
from vidtrain.engine.precision import Precision
from vidtrain.engine.schedule import learning_rate_factor
from vidtrain.engine.settings import ScheduleConfig, TrainerConfig
from vidtrain.errors import DataError, VidtrainError
from vidtrain.types import Batch

log = logging.getLogger("vidtrain")


class TrainingClips(Protocol):
    """Batches of an epoch, the same for the same (seed, epoch); `start` skips that many."""

    def __len__(self) -> int: ...

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]: ...


class Recorder(Protocol):
    """Where numbers and pictures of a run go."""

    def scalars(self, kind: str, update: int, epoch: float, values: dict[str, float]) -> None: ...

    def clips(self, update: int, views: Tensor) -> None: ...

    def validation(self, update: int, scores: Scores) -> None: ...


@dataclass
class Progress:
    """Where a training stands; saved with every checkpoint, so a resume continues within the epoch.

    epoch, batch: done so far. update: optimizer steps. sums: loss, hits and clips of this epoch up to `batch`.
    """

    epoch: int = 0
    batch: int = 0
    update: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    best: list[float] | None = None
    best_epoch: int = 0
    bad: dict[str, str] = field(default_factory=dict)
    clips: int = 0
    seconds: float = 0.0
    waited: float = 0.0


class Trainer:
    """Trains `model` and keeps last.pt and best.pt in `folder`.

    Args:
        describe: what every checkpoint says of itself: config, class_names, ...
        validate: scores the model; None when there is no validation split (best.pt is then the last epoch's).
        max_bad: training stops when more than this many videos turned out unreadable.
    """

    def __init__(
        self,
        model: nn.Module,
        clips: TrainingClips,
        optimizer: torch.optim.Optimizer,
        *,
        settings: TrainerConfig,
        schedule: ScheduleConfig,
        to_input: ModelInput,
        precision: Precision,
        objective: Objective,
        num_classes: int,
        recorder: Recorder,
        folder: Path,
        describe: dict[str, Any],
        validate: Callable[[nn.Module], Scores] | None,
        max_bad: float,
    ) -> None:
        self.model = model
        self.clips = clips
        self.optimizer = optimizer
        self.settings = settings
        self.schedule = schedule
        self.to_input = to_input
        self.precision = precision
        self.objective = objective
        self.num_classes = num_classes
        self.recorder = recorder
        self.folder = folder
        self.describe = describe
        self.validate = validate
        self.max_bad = max_bad
        self.progress = Progress()
        self._base_lrs = [group["lr"] for group in optimizer.param_groups]
        self._sums = torch.zeros(3, dtype=torch.float64, device=self._sums_device)
        self._saved_at = time.monotonic()

    @property
    def _sums_device(self) -> torch.device:
        # Apple's GPUs have no float64
        return torch.device("cpu") if self.precision.device.type == "mps" else self.precision.device

    # ---------------------------------------------------------------- the step

    def _step(self, batch: Batch) -> None:
        """One batch: forward, loss, backward; at the end of each group of `accumulate` batches, an update."""
        labels = batch.labels.to(self.precision.device, non_blocking=True)
        clips, targets = self.objective.mix(self.to_input(batch.views), labels, self.num_classes)
        with self.precision.autocast():
            logits = self.model(clips)
        loss = self.objective.loss(logits, targets)
        first = self.progress.batch - self.progress.batch % self.settings.accumulate
        group = min(self.settings.accumulate, len(self.clips) - first)  # the last group may be smaller
        self.precision.scaler.scale(loss / group).backward()

        hits = self.objective.hits(logits, targets).sum()
        self._sums[0] += loss.detach().to(self._sums.device).double() * len(batch)  # no value is read: the GPU runs on
        self._sums[1] += hits.to(self._sums.device)
        self._sums[2] += len(batch)

        self.progress.batch += 1
        if self.progress.batch - first == group:
            self._update()

    def _update(self) -> None:
        factor = learning_rate_factor(self.schedule, self._epochs_done(), self.settings.epochs)
        for param_group, lr in zip(self.optimizer.param_groups, self._base_lrs, strict=True):
            param_group["lr"] = lr * factor
        scaler = self.precision.scaler
        if self.settings.clip_grad is not None:
            scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_grad)
        scaler.step(self.optimizer)
        scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.update += 1

    def _epochs_done(self) -> float:
        per_epoch = math.ceil(len(self.clips) / self.settings.accumulate)
        return self.progress.update / per_epoch

    # ---------------------------------------------------------------- the loop

    def fit(self) -> None:
        """Train from where `progress` stands to the last epoch."""
        while self.progress.epoch < self.settings.epochs:
            train = self._train_epoch()
            self.progress.epoch += 1
            self.progress.batch = 0
            self._sums.zero_()
            self._end_epoch(train)

    def _train_epoch(self) -> dict[str, float]:
        self.model.train()
        progress, number = self.progress, self.progress.epoch
        bar = tqdm(
            total=len(self.clips),
            initial=progress.batch,
            desc=f"epoch {number + 1}/{self.settings.epochs}",
            unit="batch",
            leave=False,
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
        )
        batches = self.clips.epoch(number, progress.batch)
        began, clips_before, waited_before = time.perf_counter(), progress.clips, progress.waited
        since, update_before = self._sums.clone(), progress.update
        with bar:
            while (batch := self._next(batches)) is not None:
                if progress.update == 0 and progress.batch == 0:
                    self.recorder.clips(0, batch.views)
                self._count_bad(batch)
                self._step(batch)
                progress.clips += len(batch)
                bar.update()
                if progress.update >= update_before + self.settings.log_every:
                    seconds = time.perf_counter() - began
                    rates = (
                        (progress.clips - clips_before) / seconds,
                        (progress.waited - waited_before) / seconds,
                    )
                    bar.set_postfix_str(self._log(since, *rates), refresh=False)
                    since, update_before = self._sums.clone(), progress.update
                self._save_in_time()
        values = self._averages(self._sums)
        seconds = time.perf_counter() - began
        progress.seconds += seconds
        values["clips_per_second"] = (progress.clips - clips_before) / seconds
        values["data_wait_share"] = (progress.waited - waited_before) / seconds
        return values

    def _next(self, batches: Iterator[Batch]) -> Batch | None:
        began = time.perf_counter()
        batch = next(batches, None)
        self.progress.waited += time.perf_counter() - began
        return batch

    def _log(self, since: Tensor, clips_per_second: float, wait: float) -> str:
        values = self._averages(self._sums - since)
        values |= {
            "lr": self.optimizer.param_groups[0]["lr"],
            "clips_per_second": clips_per_second,
            "data_wait_share": wait,
        }
        self.recorder.scalars("train", self.progress.update, self._epochs_done(), values)
        return f"loss {values['loss']:.3f} acc {values['top1']:.3f} {clips_per_second:.0f} clips/s wait {wait:.0%}"

    def _averages(self, sums: Tensor) -> dict[str, float]:
        loss, hits, clips = sums.tolist()  # waits for the device
        if not math.isfinite(loss):
            raise VidtrainError(
                f"the loss became {loss} before update {self.progress.update} (epoch {self.progress.epoch + 1}, "
                f"precision {self.precision.name}): lower optimizer.lr, set trainer.clip_grad=1.0 or "
                f"trainer.precision=fp32; last.pt in {self.folder} is from before"
            )
        return {"loss": loss / max(clips, 1), "top1": hits / max(clips, 1)}

    def _count_bad(self, batch: Batch) -> None:
        for video in batch.bad:
            if video.path not in self.progress.bad:
                self.progress.bad[video.path] = video.reason
                log.warning("unreadable, another clip takes its place: %s: %s", video.path, video.reason)
        if len(self.progress.bad) > self.max_bad:
            raise DataError(
                f"{len(self.progress.bad)} videos cannot be read, more than data.max_bad_fraction allows "
                f"({self.max_bad:.0f}); the last: {batch.bad[-1].path}: {batch.bad[-1].reason}"
            )

    # ---------------------------------------------------------------- the end of an epoch

    def _end_epoch(self, train: dict[str, float]) -> None:
        progress, epoch = self.progress, self.progress.epoch
        line = f"epoch {epoch:>3}  train loss {train['loss']:.3f} top-1 {train['top1']:.3f}"
        self.recorder.scalars("train_epoch", progress.update, epoch, train)
        last = epoch == self.settings.epochs
        improved = last
        if self.validate is not None and (last or epoch % self.settings.val_every == 0):
            scores = self.validate(self.model)
            values = scores.summary()
            self.recorder.scalars("val", progress.update, epoch, values)
            self.recorder.validation(progress.update, scores)
            shown = "mAP" if scores.multi_label else "top-1"
            line += f"  val loss {values['loss']:.3f} {shown} {values[scores.primary]:.3f}"
            rank = [values[scores.primary], -values["loss"]]
            improved = progress.best is None or rank > progress.best
            if improved:
                progress.best, progress.best_epoch = rank, epoch
        elif self.validate is not None:
            improved = False
        else:
            progress.best_epoch = epoch
        log.info(
            "%s  %.0f clips/s  wait %.0f %%%s",
            line,
            train["clips_per_second"],
            100 * train["data_wait_share"],
            "  *" if improved and self.validate is not None else "",
        )
        if improved:
            save_checkpoint(self.folder / "best.pt", self._model_state())
        self.save()

    # ---------------------------------------------------------------- checkpoints

    def _model_state(self) -> dict[str, Any]:
        return {**self.describe, "model": self.model.state_dict(), "epoch": self.progress.epoch}

    def save(self) -> None:
        """Write last.pt: all that a resume needs to continue as if it had not stopped."""
        self.progress.sums = self._sums.tolist()
        save_checkpoint(
            self.folder / "last.pt",
            {
                **self._model_state(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.precision.scaler.state_dict(),
                "progress": asdict(self.progress),
                "rng": rng_state(self.precision.device),
            },
        )
        self._saved_at = time.monotonic()

    def _save_in_time(self) -> None:
        due = time.monotonic() - self._saved_at > 60 * self.settings.save_minutes
        if due and self.progress.batch % self.settings.accumulate == 0:  # no half-gathered gradient
            self._averages(self._sums)  # never over a good checkpoint with a broken one
            self.save()

    def resume(self, content: dict[str, Any]) -> None:
        """Continue from the content of a last.pt of the same configuration."""
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.precision.scaler.load_state_dict(content["scaler"])
        self.progress = Progress(**content["progress"])
        self._sums.copy_(torch.tensor(self.progress.sums, dtype=torch.float64))
        restore_rng(content["rng"], self.precision.device)
