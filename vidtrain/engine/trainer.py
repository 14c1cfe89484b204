"""The training loop: epochs, what is logged and saved when, and when it ends. The update itself is in `step`."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from itertools import islice
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from vidtrain.engine.checkpoint import Checkpoints, restore_rng, rng_state
from vidtrain.engine.distributed import World
from vidtrain.engine.evaluator import Scores
from vidtrain.engine.measure import profiler
from vidtrain.engine.parameters import first_not_finite
from vidtrain.engine.prefetch import on_device
from vidtrain.engine.progress import Progress, Recorder, Staged, TrainingClips, progress_bar
from vidtrain.engine.schedule import learning_rate_factor
from vidtrain.engine.settings import ScheduleConfig, TrainerConfig
from vidtrain.engine.signals import StopSignals
from vidtrain.engine.step import TrainingStep
from vidtrain.errors import (
    EXIT_INTERRUPTED,
    EXIT_UNFINISHED,
    CheckpointError,
    DataError,
    LoaderError,
    StoppedError,
    VidtrainError,
)
from vidtrain.types import Batch

log = logging.getLogger("vidtrain")

_STEADY = "lower optimizer.lr, set trainer.clip_grad=1.0 or trainer.precision=fp32"
_BEFORE_VALIDATION = 1.0  # minutes since the last save: a validation may take an hour, in which a job may end


class Trainer:
    """Trains the model of `step` and keeps checkpoints.

    Args:
        describe: what every checkpoint says of itself: config, class_names, ...
        validate: scores the model; None when there is no validation split (best.pt is then the last epoch's).
        max_bad: training stops when more than this many videos turned out unreadable.
        world: the processes that train together, each with its part of every batch.
    """

    def __init__(
        self,
        step: TrainingStep,
        clips: TrainingClips,
        *,
        settings: TrainerConfig,
        schedule: ScheduleConfig,
        recorder: Recorder,
        checkpoints: Checkpoints,
        describe: dict[str, Any],
        validate: Callable[[nn.Module], Scores] | None,
        max_bad: float,
        world: World | None = None,
    ) -> None:
        self.step = step
        self.model = step.model
        self.precision = step.precision
        self.clips = clips
        self.settings = settings
        self.schedule = schedule
        self.recorder = recorder
        self.checkpoints = checkpoints
        self.describe = describe
        self.validate = validate
        self.max_bad = max_bad
        self.world = world or World()
        self.progress = Progress()
        self.stop = StopSignals()
        self._saved_at, self._saved_update = time.monotonic(), 0
        self._profiled = False
        self._found_bad = False

    # ---------------------------------------------------------------- the loop

    def fit(self) -> None:
        """Train from where `progress` stands to the last epoch.

        Raises:
            StoppedError: a signal asked for it; last.pt holds everything up to the last update.
            LoaderError: a process that decodes has died or stands still; the same.
            VidtrainError: the weights are not finite any more, or no validation gave finite scores.
        """
        with self.stop:
            while self.progress.epoch < self.settings.epochs and not self.progress.stopped_early:
                if isinstance(self.model, Staged):
                    self.model.begin_epoch(self.progress.epoch, self.settings.epochs)
                train = self._train_epoch()
                if self.validate is not None and self._saved_update != self.progress.update:
                    self._stop_or_save(_BEFORE_VALIDATION)
                self.progress.epoch += 1
                self.progress.batch = 0
                self.step.sums.zero_()
                self._end_epoch(train)
                if any(self.world.any(self.stop.received is not None)):
                    self._stop()
        if not self.progress.best_epoch:
            raise VidtrainError(
                f"no validation gave finite scores, so there is no best.pt (precision {self.precision.name}): {_STEADY}"
                f"; {self.checkpoints.last} has the weights of epoch {self.progress.epoch}"
            )

    def _train_epoch(self) -> dict[str, float]:
        self.model.train()
        progress, number = self.progress, self.progress.epoch
        title = f"epoch {number + 1}/{self.settings.epochs}"
        bar = progress_bar(title, len(self.clips), progress.batch, shown=self.world.is_main)
        batches = on_device(self.clips.epoch(number, progress.batch), self.precision.device)
        began, clips_before, waited_before = time.perf_counter(), progress.clips, progress.waited
        since = self.step.sums.clone()
        with bar, self._profiler() as profiler:
            while group := self._next_group(batches):
                if progress.update == 0 and isinstance(group[0].views, Tensor):
                    self.recorder.clips(0, group[0].views)
                self._count_bad(group)
                self.step(group, self._lr_factor())
                progress.batch += len(group)
                progress.update += 1
                progress.clips += sum(map(len, group)) * self.world.size
                bar.update(len(group))
                if profiler is not None:
                    profiler.step()
                if progress.update % self.settings.log_every == 0:
                    seconds = time.perf_counter() - began
                    rates = ((progress.clips - clips_before) / seconds, (progress.waited - waited_before) / seconds)
                    bar.set_postfix_str(self._log(since, *rates), refresh=False)
                    since = self.step.sums.clone()
                self._stop_or_save()
        self._read_skipped()
        values = self._averages(self.step.sums)
        seconds = time.perf_counter() - began
        progress.seconds += seconds
        values["clips_per_second"] = (progress.clips - clips_before) / seconds
        values["data_wait_share"] = (progress.waited - waited_before) / seconds
        return values

    def _next_group(self, batches: Iterator[Batch]) -> list[Batch]:
        """The batches of one update; the last group of an epoch may be smaller, and none is left at its end."""
        began = time.perf_counter()
        try:
            group = list(islice(batches, self.settings.accumulate))
        except LoaderError as error:
            # a signal to the whole job also ends the loader's workers
            if self.stop.received is None:
                time.sleep(1.0)
            if self.stop.received is not None:
                self._save_and_stop()
            if self.world.size > 1:  # a save would wait for the others, who wait for this one
                raise
            if self.progress.update:
                self.save()
            raise LoaderError(f"{error}; {self._kept()}") from None
        self.progress.waited += time.perf_counter() - began
        return group

    def _lr_factor(self) -> float:
        per_epoch = math.ceil(len(self.clips) / self.settings.accumulate)
        return learning_rate_factor(self.schedule, self.progress.update / per_epoch, self.settings.epochs)

    def _profiler(self) -> Any:
        """torch's profiler over a few updates, when asked for: a trace that TensorBoard and Perfetto open."""
        if not self.settings.profile or not self.world.is_main or self._profiled:
            return nullcontext()
        self._profiled = True
        return profiler(self.settings.profile, self.checkpoints.folder / "profile")

    # ---------------------------------------------------------------- what is told

    def _log(self, since: Tensor, clips_per_second: float, wait: float) -> str:
        self._read_skipped()
        values = self._averages(self.step.sums - since)
        values |= {
            "lr": self.step.optimizer.param_groups[0]["lr"],
            "clips_per_second": clips_per_second,
            "data_wait_share": wait,
        }
        epoch = self.progress.update / math.ceil(len(self.clips) / self.settings.accumulate)
        self.recorder.scalars("train", self.progress.update, epoch, values)
        return f"loss {values['loss']:.3f} acc {values['top1']:.3f} {clips_per_second:.0f} clips/s wait {wait:.0%}"

    def _averages(self, sums: Tensor) -> dict[str, float]:
        loss, hits, clips = self.world.sum(sums).tolist()  # waits for the device
        return {"loss": loss / max(clips, 1), "top1": hits / max(clips, 1)}

    def _read_skipped(self) -> None:
        """Tell of the updates that were left out. Waits for the device, so not called at every update."""
        progress, found, self.step.skipped = self.progress, self.step.skipped, []
        progress.count_skipped(found, self.clips.path)
        if progress.in_a_row >= self.settings.max_skipped:
            raise VidtrainError(
                f"{progress.in_a_row} updates in a row had a gradient that is not finite (the last: {progress.update}, "
                f"epoch {progress.epoch + 1}, precision {self.precision.name}): {_STEADY}; {self.checkpoints.last} is "
                "from before"
            )

    def _count_bad(self, group: list[Batch]) -> None:
        known = self.progress.bad
        for video in (video for batch in group for video in batch.bad):
            if video.path not in known:
                known[video.path] = video.reason
                self._found_bad = True
                log.warning("unreadable, another clip takes its place: %s: %s", video.path, video.reason)

    def _check_bad(self) -> None:
        """Stop when all processes together have found too many. To be called by all: each then knows all of them."""
        self._found_bad = False
        known = self.progress.bad = {
            path: why for found in self.world.gather(self.progress.bad) for path, why in found.items()
        }
        if len(known) > self.max_bad:
            path, reason = list(known.items())[-1]
            raise DataError(
                f"{len(known)} videos cannot be read, more than data.max_bad_fraction allows "
                f"({self.max_bad:.0f}); the last: {path}: {reason}"
            )

    # ---------------------------------------------------------------- the end of an epoch

    def _end_epoch(self, train: dict[str, float]) -> None:
        progress, epoch = self.progress, self.progress.epoch
        line = f"epoch {epoch:>3}  train loss {train['loss']:.3f} top-1 {train['top1']:.3f}"
        self.recorder.scalars("train_epoch", progress.update, epoch, train)
        self._refuse_broken_weights()
        self._measure_norms()
        with self.step.averaged():
            if self.step.ema is not None:
                self._measure_norms()
            told, improved = self._validate(last=epoch == self.settings.epochs)
            rates = f"  {train['clips_per_second']:.0f} clips/s  wait {100 * train['data_wait_share']:.0f} %"
            log.info("%s%s%s%s", line, told, rates, "  *" if improved and told else "")
            if improved:
                self.checkpoints.save_best(self._model_state())
        patience = self.settings.patience
        if patience is not None and self.validate is not None and epoch - progress.best_epoch >= patience:
            log.info("no better since epoch %d: stopped (trainer.patience=%d)", progress.best_epoch, patience)
            progress.stopped_early = True
        self.save()

    def _validate(self, *, last: bool) -> tuple[str, bool]:
        """(what the log says of it, whether the model is the best so far)."""
        progress, epoch = self.progress, self.progress.epoch
        if self.validate is None:
            progress.best_epoch = epoch
            return "", last
        if not last and epoch % self.settings.val_every:
            return "", False
        scores = self.validate(self.model)
        values = scores.summary()
        self.recorder.scalars("val", progress.update, epoch, values)
        self.recorder.validation(progress.update, scores)
        # a video without a finite output is a wrong answer here, or a network that diverges would rank by what is left
        rank = [values[scores.primary] * scores.answered, -values["loss"]]
        improved = all(map(math.isfinite, rank)) and (progress.best is None or rank > progress.best)
        if improved:
            progress.best, progress.best_epoch = rank, epoch
        elif progress.best is None and last and not scores.not_finite:  # no video to rank by: as without a validation
            improved, progress.best_epoch = True, epoch
        shown = "mAP" if scores.multi_label else "top-1"
        return f"  val loss {values['loss']:.3f} {shown} {values[scores.primary]:.3f}", improved

    def _measure_norms(self) -> None:
        """Precise BatchNorm, when asked for; then all processes have the buffers of the main one."""
        if count := min(self.settings.precise_bn, len(self.clips)):
            self.step.measure_norms(islice(self.clips.epoch(self.progress.epoch - 1), count))
        self.world.broadcast(self.model.buffers())

    def _refuse_broken_weights(self) -> None:
        """Weights that are not finite are neither validated nor saved. Waits for the device; to be called by all."""
        name = next(filter(None, self.world.gather(first_not_finite(self.model))), None)
        if name is not None:
            raise VidtrainError(
                f"the weights are not finite after update {self.progress.update} ({name}, precision "
                f"{self.precision.name}): {_STEADY}; the checkpoints in {self.checkpoints.folder} are from before"
            )

    # ---------------------------------------------------------------- checkpoints

    def _model_state(self) -> dict[str, Any]:
        return {**self.describe, "model": self.checkpoints.weights(self.model), "epoch": self.progress.epoch}

    def save(self) -> None:
        """Write last.pt: all that a resume needs to continue as if it had not stopped."""
        self._read_skipped()
        self._refuse_broken_weights()
        self.progress.sums = self.step.sums.tolist()
        self.progress.micro_batch = self.step.micro_batch
        own = {"sums": self.progress.sums, "bad": self.progress.bad, "rng": rng_state(self.precision.device)}
        self.checkpoints.save_last(
            {
                **self.describe,
                "epoch": self.progress.epoch,
                "progress": asdict(self.progress),
                "compiled": self.model._compiled_call_impl is not None,
                "scaler": self.precision.scaler.state_dict(),
                "ranks": self.world.gather(own),
            },
            self.model,
            self.step.optimizer,
            self.step.ema,
        )
        self._saved_at, self._saved_update = time.monotonic(), self.progress.update

    def _stop_or_save(self, minutes: float = math.inf) -> None:
        """minutes: since the last save, after which it is time for another, if settings.save_minutes are not fewer."""
        due = time.monotonic() - self._saved_at > 60 * min(minutes, self.settings.save_minutes)
        stop, due, bad = self.world.any(self.stop.received is not None, due and self.world.is_main, self._found_bad)
        if bad:
            self._check_bad()
        if stop:
            self._save_and_stop()
        if due:
            self.save()

    def _save_and_stop(self) -> NoReturn:
        if self.progress.update:
            self.save()
        self._stop()

    def _stop(self) -> NoReturn:
        raise StoppedError(
            f"{self.stop.received or 'another process'} received: {self._kept()}",
            EXIT_INTERRUPTED if self.stop.received == "SIGINT" else EXIT_UNFINISHED,
        )

    def _kept(self) -> str:
        """What a resume would find."""
        if not self._saved_update:
            return "nothing is saved, because no update was finished; the same command starts again"
        return (
            f"saved after update {self._saved_update} in {self.checkpoints.folder}; the same command with resume=auto "
            "continues"
        )

    def resume(self, content: dict[str, Any]) -> None:
        """Continue from what `Checkpoints.load_last` returned, for a run of the same configuration.

        Raises:
            CheckpointError: it was written by a version that kept less, or with another strategy.
        """
        if "ranks" not in content:
            raise CheckpointError(f"{self.checkpoints.last}: written by an earlier vidtrain; start the run anew")
        self.checkpoints.restore(content, self.model, self.step.optimizer, self.step.ema)
        self.precision.scaler.load_state_dict(content["scaler"])
        ranks = content["ranks"]
        self.progress = Progress.resumed(content["progress"], ranks, self.world)
        self._saved_update = self.progress.update
        if len(ranks) == self.world.size:
            restore_rng(ranks[self.world.rank]["rng"], self.precision.device)
        else:
            log.warning(
                "saved by %d processes, continued by %d: dropout is drawn anew, the rest goes on as it was",
                len(ranks),
                self.world.size,
            )
        self.step.sums.copy_(torch.tensor(self.progress.sums, dtype=torch.float64))
        self.step.micro_batch = self.progress.micro_batch
