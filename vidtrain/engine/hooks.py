"""What happens beside the updates of a training: the protocol of hooks, and those that vidtrain brings."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch

from vidtrain.engine.batch_norm import measure_statistics
from vidtrain.engine.preprocess import ModelRunner
from vidtrain.engine.settings import TrainerConfig
from vidtrain.engine.training_state import Training
from vidtrain.errors import DataError, LoaderError
from vidtrain.tasks.task import Scores
from vidtrain.types import Batch

log = logging.getLogger("vidtrain")


VALIDATIONS: Final = "validations.jsonl"
"""Of a run of a sweep: what its validations found. One that was killed may have an epoch twice, with equal values."""
PRUNE: Final = "prune"
"""Of a run of a sweep: the sweep wants no more of it."""
_LOOKS_EVERY: Final = 0.5  # seconds


class Pruned(Exception):  # noqa: N818, it is no error
    """The sweep that this training is a run of wants no more of it: what was best so far is kept."""


class Hook:
    """Something that happens beside the updates. A subclass overrides the methods that it has a use for.

    Each is given the trainer, whose step, model, clips, progress, recorder, checkpoints and world it may use.

    Order: at each event vidtrain's own hooks come first (`standard_hooks`), then those of hook=[a,b] as they are
    listed; on_stop goes from the last to the first.

    Several processes: every process has its hooks and calls every method at the same point, so a hook may exchange
    values by trainer.world, if it does so in all of them. What is written is written where trainer.world.is_main.

    Errors: an exception ends the training, with last.pt as it was last saved; a VidtrainError as one line. To end it in
    order after the epoch, set trainer.progress.stopped_early, in all processes.

    State: a hook that remembers something over its updates returns it from `state_dict`: plain values and tensors.
    Every checkpoint holds it, for each process its own. A resumed training is given it by `load_state_dict` before
    on_start: that of its own process, or where their number has changed, the main one's.
    """

    def on_start(self, trainer: Training) -> None:
        """Before the first update of this process: of a new training, or of one that is resumed."""

    def on_update(self, trainer: Training, group: Sequence[Batch]) -> bool | None:
        """After each update, which trainer.progress counts already. group: its batches, as they came to the device.

        Nothing waits for the device here, and nothing should: it is called thousands of times per epoch. Returns True
        where this process has found something that all must know; on_found is then called.
        """

    def on_found(self, trainer: Training) -> None:
        """In all processes, after an update for which on_update returned True in one of them."""

    def before_validation(self, trainer: Training) -> None:
        """When the updates of an epoch are done, and again with the average in the model where trainer.ema keeps one.

        What it changes in the model's buffers is validated and kept; all processes then have the main one's. Called
        at the end of every epoch, also of one without a validation.
        """

    def on_validation(self, trainer: Training, scores: Scores) -> None:
        """After a validation, with the weights that were validated in the model, and best.pt written if it is the
        best."""

    def on_epoch_end(self, trainer: Training) -> None:
        """After the epoch is validated and logged, before last.pt is written. trainer.progress.epoch counts it."""

    def on_stop(self, trainer: Training) -> None:
        """At the end, whatever ended it, also where on_start has failed: not to be used to exchange values."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Called only with what `state_dict` has returned."""


@contextmanager
def running(hooks: Mapping[str, Hook], trainer: Training) -> Iterator[None]:
    """on_start of all before what is inside, on_stop of all after it."""
    stops = ExitStack()
    try:
        for hook in hooks.values():
            stops.callback(hook.on_stop, trainer)
            hook.on_start(trainer)
        yield
    except BaseException:
        try:
            stops.close()
        except Exception:  # not the reason why the training ends
            log.exception("on_stop of a hook failed as well")
        raise
    stops.close()


# ---------------------------------------------------------------- vidtrain's own


def standard_hooks(settings: TrainerConfig, max_bad: float) -> dict[str, Hook]:
    """Those that the options ask for, each under the name of its option.

    max_bad: training stops when more than this many videos turned out unreadable.
    """
    hooks: dict[str, Hook] = {"data.max_bad_fraction": BadVideos(max_bad), "logger.images": ClipsFigure()}
    if settings.precise_bn:
        hooks["trainer.precise_bn"] = PreciseBN(settings.precise_bn)
    if settings.patience is not None:
        hooks["trainer.patience"] = EarlyStopping(settings.patience)
    if settings.profile:
        hooks["trainer.profile"] = Profiler(settings.profile)
    return hooks


class BadVideos(Hook):
    """Notes and reports unreadable videos in progress.bad, and stops the training when there are more than `most`."""

    def __init__(self, most: float) -> None:
        self.most = most

    def on_update(self, trainer: Training, group: Sequence[Batch]) -> bool:
        bad = trainer.progress.bad
        known = len(bad)
        for video in (video for batch in group for video in batch.bad):
            if video.path not in bad:
                bad[video.path] = video.reason
                log.warning("unreadable video replaced: %s: %s", video.path, video.reason)
        return len(bad) > known

    def on_found(self, trainer: Training) -> None:
        progress = trainer.progress
        progress.bad = {path: why for found in trainer.world.gather(progress.bad) for path, why in found.items()}
        if len(progress.bad) > self.most:
            path, reason = list(progress.bad.items())[-1]
            raise DataError(
                f"{len(progress.bad)} videos cannot be read, more than data.max_bad_fraction allows ({self.most:.0f}); "
                f"the last: {path}: {reason}"
            )


class ClipsFigure(Hook):
    """A figure of the first clips of a training, as the model gets them."""

    def on_update(self, trainer: Training, group: Sequence[Batch]) -> None:
        if trainer.progress.update == 1 and "rgb" in group[0].inputs:
            trainer.recorder.clips(0, group[0].inputs["rgb"], group[0].targets)


class PreciseBN(Hook):
    """BatchNorm's statistics measured again over `batches` of the epoch, for the weights that are in the model."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def before_validation(self, trainer: Training) -> None:
        step, network = trainer.step, trainer.step.network
        own = ModelRunner(network.model, network.preprocess, network.precision)  # each process has its own batches

        def call(batch: Batch) -> None:
            own(own.ready(batch.inputs))

        count = min(self.batches, len(trainer.clips))
        with trainer.world.sharing(LoaderError):
            measure_statistics(step.model, islice(trainer.clips.epoch(trainer.progress.epoch - 1), count), call)


class EarlyStopping(Hook):
    """Stops when no validation has been better for this many epochs."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_epoch_end(self, trainer: Training) -> None:
        progress = trainer.progress
        if trainer.validate is not None and progress.epoch - progress.best_epoch >= self.epochs:
            log.info("no better since epoch %d: stopped (trainer.patience=%d)", progress.best_epoch, self.epochs)
            progress.stopped_early = True


class SweptRun(Hook):
    """Of a run of a sweep: writes what each validation found to `folder`, and ends the run where the sweep asks for it.

    The sweep and its runs may be processes of different machines, so they speak by files: VALIDATIONS, a JSON object
    per line, and PRUNE, which is there or not.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._looked = -_LOOKS_EVERY

    def on_validation(self, trainer: Training, scores: Scores) -> None:
        if trainer.world.is_main:
            values, scored = scores.summary(), len(scores.predictions)
            found = {"primary": values[scores.primary], **values, "scored": scored}
            line = json.dumps({"epoch": trainer.progress.epoch, **found})
            with (self.folder / VALIDATIONS).open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")

    def on_update(self, trainer: Training, group: Sequence[Batch]) -> bool:
        now = time.monotonic()
        if not trainer.world.is_main or now - self._looked < _LOOKS_EVERY:
            return False
        self._looked = now
        return trainer.progress.best_epoch > 0 and (self.folder / PRUNE).exists()

    def on_found(self, trainer: Training) -> None:
        raise Pruned


class Profiler(Hook):
    """torch's profiler over a few updates of the first epoch, in the main process: a trace in the folder profile/."""

    def __init__(self, updates: int) -> None:
        self.updates = updates
        self._profile: torch.profiler.profile | None = None
        self._running = ExitStack()

    def on_start(self, trainer: Training) -> None:
        if trainer.world.is_main:
            self._profile = self._running.enter_context(profile(self.updates, trainer.checkpoints.folder / "profile"))

    def on_update(self, trainer: Training, group: Sequence[Batch]) -> None:
        if self._profile is not None:
            self._profile.step()

    def before_validation(self, trainer: Training) -> None:
        self._end()

    def on_stop(self, trainer: Training) -> None:
        self._end()

    def _end(self) -> None:
        self._profile = None
        self._running.close()


def profile(updates: int, folder: Path) -> torch.profiler.profile:
    """torch's profiler over a few updates, after four that warm up; writes a trace into `folder`."""
    return torch.profiler.profile(
        schedule=torch.profiler.schedule(wait=2, warmup=2, active=updates, repeat=1),
        on_trace_ready=torch.profiler.tensorboard_trace_handler(str(folder)),
        profile_memory=True,
    )
