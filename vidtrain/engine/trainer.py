"""The training loop: epochs, what is logged and saved when, and when it ends. The update itself is in `step`."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from copy import deepcopy
from dataclasses import replace
from itertools import compress, islice
from typing import Any, NoReturn

from torch import Tensor, nn

from vidtrain.engine.checkpoints.checkpoint import load_checkpoint
from vidtrain.engine.devices.prefetch import on_device
from vidtrain.engine.hooks import Hook, running
from vidtrain.engine.parameters import first_not_finite, train_mode
from vidtrain.engine.progress import EpochLoader, Rates, Staged, progress_bar, record_epoch, shown
from vidtrain.engine.schedule import Plan
from vidtrain.engine.signals import StopSignals, WaitEnded, exit_code
from vidtrain.engine.step import TrainingStep
from vidtrain.engine.training_state import Outputs, Training
from vidtrain.errors import LoaderError, StoppedError, VidtrainError
from vidtrain.tasks.task import Scores
from vidtrain.terminal import rate_text, said_when_slow
from vidtrain.types import Batch

log = logging.getLogger("vidtrain")

_STEADY = "lower optimizer.lr, set trainer.clip_grad=1.0 or trainer.precision=fp32"
_LINE_EVERY = 60.0  # seconds, where no progress bar is shown
_BEFORE_VALIDATION = 1.0  # minutes since the last save: a validation may take an hour, in which a job may end


class Trainer(Training):
    """Trains the model of `step` with the processes of `checkpoints.world`, each with its part of every batch.

    Args:
        validate: scores the model; None when there is no validation split (best.pt is then the last epoch's).
        hooks: what happens beside the updates, by name; see engine/hooks.py.
    """

    def __init__(
        self,
        step: TrainingStep,
        clips: EpochLoader,
        plan: Plan,
        outputs: Outputs,
        *,
        validate: Callable[[nn.Module], Scores] | None,
        hooks: Mapping[str, Hook],
    ) -> None:
        super().__init__(step, clips, plan, outputs, validate)
        self.hooks: dict[str, Hook] = dict(hooks)
        self.stop = StopSignals()
        self._saved_at, self._saved_update = time.monotonic(), 0
        self._found = [False] * len(self.hooks)
        self._lost: LoaderError | None = None  # why there is no next batch

    # ---------------------------------------------------------------- the loop

    def fit(self) -> None:
        """Train from where `progress` stands to the last epoch.

        Raises:
            StoppedError: a signal asked for it, or a process that decodes has died or stands still (last.pt holds all
                up to the last update); or another process that trains has ended or stands still.
            VidtrainError: the weights are not finite any more, or no validation gave finite scores.
        """
        with self.stop, running(self.hooks, self), self.checkpoints.written():
            while self.progress.epoch < self.settings.epochs and not self.progress.stopped_early:
                if isinstance(self.model, Staged):
                    self.model.begin_epoch(self.progress.epoch, self.settings.epochs)
                train = self._train_epoch()
                if self.validate is not None and self._saved_update != self.progress.update:
                    self._stop_or_save(_BEFORE_VALIDATION)
                self._close_epoch(train)
                self._stop_or_save()
        if not self.progress.best_epoch:
            raise VidtrainError(
                f"no validation gave finite scores, so there is no best.pt (precision {self.precision.name}): {_STEADY}"
                f"; {self.checkpoints.last} has the weights of epoch {self.progress.epoch}"
            )

    def _train_epoch(self) -> dict[str, float]:
        train_mode(self.model)
        progress, number = self.progress, self.progress.epoch
        title = f"epoch {number + 1}/{self.settings.epochs}"
        bar = progress_bar(title, len(self.clips), progress.batch, shown=self.world.is_main)
        batches = on_device(self.clips.epoch(number, progress.batch), self.precision.device)
        rates, since, said = Rates(progress), self.step.sums.clone(), time.monotonic()
        with said_when_slow(f"{title}: decoding the first of {len(self.clips)} batches"):
            group = self._next_group(batches)
        self._stop_or_save()
        with bar:
            while group:
                with self.world.together():
                    self.step(group, self.plan.lr_factor(progress.update, len(self.clips)))
                progress.batch += len(group)
                progress.update += 1
                progress.clips += sum(map(len, group)) * self.world.size
                bar.update(len(group))
                self._found = [bool(hook.on_update(self, group)) for hook in self.hooks.values()]
                if progress.update % self.settings.log_every == 0:
                    numbers = self._log(since, rates.values(rates.seconds))
                    bar.set_postfix_str(numbers, refresh=False)
                    if bar.disable and time.monotonic() - said > _LINE_EVERY:  # a log of a job that nobody watches
                        log.info("%s: %d of %d batches  %s", title, progress.batch, len(self.clips), numbers)
                        said = time.monotonic()
                    since = self.step.sums.clone()
                if self.world.size == 1:
                    self._stop_or_save()
                group = self._next_group(batches)  # of several processes one may get none: they agree on it, and save
                self._stop_or_save()
        self._read_skipped()
        values = self.step.averages(self.world.sum(self.step.sums))
        seconds = rates.seconds
        progress.seconds += seconds
        return values | rates.values(seconds)

    def _next_group(self, batches: Iterator[Batch]) -> list[Batch]:
        """The batches of one update; none at the end of an epoch, or where the wait ends and `_stop_or_save` stops."""
        began = time.perf_counter()
        group: list[Batch] = []
        try:
            with suppress(WaitEnded), self.stop.ending_wait():
                group = list(islice(batches, self.settings.accumulate))
        except LoaderError as error:
            self.stop.wait()
            self._lost = error
        self.progress.waited += time.perf_counter() - began
        return group

    # ---------------------------------------------------------------- what is logged

    def _log(self, since: Tensor, rates: dict[str, float]) -> str:
        self._read_skipped()
        values = self.step.averages(self.world.sum(self.step.sums - since))
        values |= {"lr": self.step.optimizer.param_groups[0]["lr"], **rates}
        if self.step.grad_norm is not None and math.isfinite(norm := self.step.grad_norm.item()):
            values["grad_norm"] = norm
        update, task = self.progress.update, self.step.task
        self.recorder.scalars("train", update, self.plan.epoch(update, len(self.clips)), values)
        rate, wait = rates["clips_per_second"], rates["data_wait_share"]
        return f"{shown(task, values, task.measures)} {rate_text(rate)} clips/s wait {wait:.0%}"

    def _read_skipped(self) -> None:
        """Log the updates that were skipped. Waits for the device, so not called at every update."""
        progress, found, self.step.skipped = self.progress, self.step.skipped, []
        progress.count_skipped(found, self.clips.path)
        if progress.in_a_row >= self.settings.max_skipped:
            raise VidtrainError(
                f"{progress.in_a_row} updates in a row had a gradient that is not finite (the last: {progress.update}, "
                f"epoch {progress.epoch + 1}, precision {self.precision.name}): {_STEADY}; {self.checkpoints.last} is "
                "from before"
            )

    # ---------------------------------------------------------------- the end of an epoch

    def _close_epoch(self, train: dict[str, float]) -> None:
        """Measure, validate, save. When a worker dies in it, a resume does all of it again from the last update on."""
        progress, sums = replace(self.progress), self.step.sums.clone()
        states = {name: deepcopy(hook.state_dict()) for name, hook in self.hooks.items()}
        self.progress.epoch, self.progress.batch = progress.epoch + 1, 0
        self.step.sums.zero_()
        try:
            self._end_epoch(train)
        except LoaderError as error:  # of any of the processes
            self.progress = progress
            self.step.sums.copy_(sums)
            for name, state in states.items():
                if state:
                    self.hooks[name].load_state_dict(state)
            self.stop.wait()
            self._stop(f"{error}; ")

    def _end_epoch(self, train: dict[str, float]) -> None:
        progress, epoch = self.progress, self.progress.epoch
        self._refuse_broken_weights()
        self._before_validation()
        with self.step.averaged():
            if self.step.ema is not None:
                self._before_validation()
            scores, improved = self._validate(last=epoch == self.settings.epochs)
            if improved:
                self.checkpoints.save_best(self._model_state())
            if scores is not None:
                for hook in self.hooks.values():
                    hook.on_validation(self, scores)
        record_epoch(self.step.task, self.recorder, progress, train, scores, improved)  # after best.pt is on the disk
        for hook in self.hooks.values():
            hook.on_epoch_end(self)
        self.save()

    def _validate(self, *, last: bool) -> tuple[Scores | None, bool]:
        """(what was found, if it was time for it; whether the model is the best so far)."""
        progress, epoch = self.progress, self.progress.epoch
        if self.validate is None:
            progress.best_epoch = epoch
            return None, last
        if not last and epoch % self.settings.val_every:
            return None, False
        with said_when_slow("first validation") if progress.best is None else nullcontext():
            scores = self.validate(self.model)
        gone = progress.best is not None and self.checkpoints.best_is_gone()
        if gone:
            log.warning("%s is gone: epoch %d takes the place of the best", self.checkpoints.best, epoch)
        return scores, progress.is_best(scores, last=last, gone=gone)

    def _before_validation(self) -> None:
        """The hooks finish what is to be validated and kept; then all processes have the buffers of the main one."""
        for hook in self.hooks.values():
            hook.before_validation(self)
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
        return {"model": self.checkpoints.weights(self.model), "epoch": self.progress.epoch}

    def save(self) -> None:
        """Write last.pt: all that a resume needs to continue as if it had not stopped."""
        self._read_skipped()
        self._refuse_broken_weights()
        self.checkpoints.save_last(self.state(), self.model, self.step.optimizer, self.step.ema)
        self._saved_at, self._saved_update = time.monotonic(), self.progress.update

    def _stop_or_save(self, minutes: float = math.inf) -> None:
        """minutes: since the last save, after which it is time for another, if settings.save_minutes are not fewer."""
        self.checkpoints.check()
        due = time.monotonic() - self._saved_at > 60 * min(minutes, self.settings.save_minutes)
        due &= self._saved_update != self.progress.update
        stop = self.stop.received is not None or self._lost is not None
        stop, due, *found = self.world.any(stop, due and self.world.is_main, *self._found)
        self._found = [False] * len(found)
        for hook in compress(self.hooks.values(), found):
            hook.on_found(self)
        if stop:
            self._stop()
        if due:
            self.save()

    def _stop(self, reason: str = "") -> NoReturn:
        """Save and end, all processes together; the first that knows why says it for all. reason: if not a signal."""
        if self.progress.update and self._saved_update != self.progress.update:
            self.save()
        self.checkpoints.wait()
        known = self.world.gather((self.stop.received, reason or (f"{self._lost}; " if self._lost else "")))
        name, why = (next(filter(None, words), "") for words in zip(*known, strict=True))
        kept = self.progress.saved_in(self.checkpoints.folder, self._saved_update)
        raise StoppedError((f"{name} received: " if name else why) + kept, exit_code(name))

    def keep_best(self) -> dict[str, Any]:
        """The content of best.pt; the last weights take its place where it is gone or damaged. Called by all processes.

        Raises:
            CheckpointError: it cannot be written.
        """
        content = self.checkpoints.load_best() if self.world.is_main else None
        if any(self.world.any(self.world.is_main and content is None)):
            with self.step.averaged():
                if self.step.ema is not None:
                    self._before_validation()
                self.checkpoints.save_best(self._model_state())
            self.progress.best_epoch = self.progress.epoch
            self.checkpoints.wait()
            self.world.any(True)  # the others read it when it is there
        return load_checkpoint(self.checkpoints.best) if content is None else content

    def resume(self, content: dict[str, Any]) -> None:
        """Continue from what `Checkpoints.load_last` returned, for a run of the same configuration.

        Raises:
            CheckpointError: it was written by a version that kept less, or with another strategy.
        """
        self.restore(content)
        self._saved_update = self.progress.update
