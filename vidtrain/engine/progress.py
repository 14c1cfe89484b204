"""What a training goes by: its clips, its log, where it stands, and which updates it has skipped."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from vidtrain.engine.devices.distributed import World
from vidtrain.tasks.task import Scores, Task
from vidtrain.terminal import rate_text
from vidtrain.types import Batch

log = logging.getLogger("vidtrain")


class EpochLoader(Protocol):
    """Batches of an epoch, the same for the same (seed, epoch); `start` skips that many."""

    def __len__(self) -> int: ...

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]: ...

    def path(self, row: int) -> str:
        """The file of a clip, by the number that batches have for it."""
        ...


@runtime_checkable
class Staged(Protocol):
    """A model whose parts are trained one after the other."""

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Called before each epoch, from 0, and again after a resume."""
        ...


class Recorder(Protocol):
    """Where numbers and images of a run go."""

    def scalars(self, kind: str, update: int, epoch: float, values: dict[str, float]) -> None: ...

    def clips(self, update: int, views: Tensor, targets: Tensor) -> None: ...

    def figure(self, name: str, update: int, draw: Callable[[], npt.NDArray[np.uint8]]) -> None: ...

    def precision_recall(
        self, name: str, update: int, truth: npt.NDArray[np.bool_], scores: npt.NDArray[np.float32]
    ) -> None: ...

    def finish(self, update: int, values: Mapping[str, float]) -> None: ...

    def files(self, files: Sequence[Path]) -> None: ...

    def close(self) -> None: ...


@dataclass
class Progress:
    """Where a training stands; saved with every checkpoint, so a resume continues within the epoch.

    epoch, batch: done so far. update: optimizer steps. sums: TrainingStep.sums of this epoch up to `batch`.
    skipped: updates skipped because of a gradient that was not finite; in_a_row: those of them at the end.
    """

    epoch: int = 0
    batch: int = 0
    update: int = 0
    sums: list[float] = field(default_factory=list)
    best: list[float] | None = None
    best_epoch: int = 0
    bad: dict[str, str] = field(default_factory=dict)
    clips: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    skipped: int = 0
    in_a_row: int = 0
    micro_batch: int | None = None
    stopped_early: bool = False

    @classmethod
    def resumed(cls, saved: dict[str, Any], ranks: Sequence[dict[str, Any]], world: World) -> Progress:
        """From a checkpoint: `saved` by the main process, and each of the processes that saved its sums and bad videos.

        Where their number was another one, the main process goes on with the sums of all.
        """
        progress = cls(**saved)
        if len(ranks) == world.size:
            progress.sums, progress.bad = ranks[world.rank]["sums"], ranks[world.rank]["bad"]
            return progress._checked()
        columns = zip(*(rank["sums"] for rank in ranks), strict=True)
        progress.sums = [sum(column) for column in columns] if world.is_main else [0.0 for _ in ranks[0]["sums"]]
        progress.bad = {path: reason for rank in ranks for path, reason in rank["bad"].items()}
        return progress._checked()

    def _checked(self) -> Progress:
        """Raises ValueError for what no training has saved, which would show only when it is used, hours later."""
        counts = (self.epoch, self.batch, self.update, self.best_epoch, self.clips, self.skipped, self.in_a_row)
        times = (self.seconds, self.waited)
        numbers = (*self.sums, *(self.best or ()), *times)
        fine = (
            all(type(count) is int and 0 <= count < 1 << 53 for count in counts),
            self.micro_batch is None or (type(self.micro_batch) is int and self.micro_batch > 0),
            len(self.sums) > 1 and all(type(number) in (int, float) for number in numbers),
            all(type(path) is str and type(reason) is str for path, reason in self.bad.items()),
        )
        if not all(fine):
            raise ValueError("what it says of its progress is none")
        return self

    def is_best(self, scores: Scores, *, last: bool, gone: bool) -> bool:
        """Whether the model that was just validated is the best so far; it is then remembered as that.

        Args:
            last: of the validations.
            gone: the weights of the best one are lost.
        """
        rank = scores.rank()
        improved = all(map(math.isfinite, rank)) and (self.best is None or gone or rank > self.best)
        if improved:
            self.best, self.best_epoch = rank, self.epoch
        elif (
            self.best is None and last and not scores.predictions.not_finite
        ):  # no video to rank by: as without a validation
            improved, self.best_epoch = True, self.epoch
        return improved

    def saved_in(self, folder: Path, update: int) -> str:
        """What a resume of the run in `folder` would find. update: the last that is saved, 0 when there is none."""
        if not update:
            return "nothing is saved, because no update was finished; the same command starts again"
        return f"saved after update {update} in {folder}; the same command with resume=auto continues"

    def count_skipped(self, found: Sequence[tuple[Tensor, list[int]]], path: Callable[[int], str]) -> None:
        """Count and log the updates that were skipped, of the last `len(found)`. Waits for the device.

        found: see TrainingStep.skipped. path: the file of a row.
        """
        if not found:
            return
        flags = torch.stack([flag for flag, _ in found]).tolist()
        first = self.update - len(found) + 1
        for number, (skip, (_, rows)) in enumerate(zip(flags, found, strict=True), first):
            self.in_a_row = self.in_a_row + 1 if skip else 0
            if skip:
                self.skipped += 1
                paths = ", ".join(path(row) for row in rows[:3])
                more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
                log.warning("update %d skipped: its gradient is not finite; clips: %s%s", number, paths, more)


class Rates:
    """Clips per second, and the share of the time in which data were waited for, since this was made."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._began, self._clips, self._waited = time.perf_counter(), progress.clips, progress.waited

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began

    def values(self, seconds: float) -> dict[str, float]:
        """Over `seconds`, as they are logged."""
        return {
            "clips_per_second": (self._progress.clips - self._clips) / seconds,
            "data_wait_share": (self._progress.waited - self._waited) / seconds,
        }


def progress_bar(title: str, batches: int, done: int, *, shown: bool) -> Any:
    """tqdm's, on a terminal only; it disappears when it is closed."""
    quiet = not shown or not sys.stderr.isatty()
    return tqdm(total=batches, initial=done, desc=title, unit="batch", leave=False, disable=quiet, dynamic_ncols=True)


def shown(task: Task, values: Mapping[str, float], names: Sequence[str]) -> str:
    """'loss 1.234', and the values of these names, by their titles."""
    return " ".join(f"{task.titles.get(name, name)} {values[name]:.3f}" for name in ("loss", *names))


def record_epoch(
    task: Task, recorder: Recorder, progress: Progress, train: dict[str, float], scores: Scores | None, improved: bool
) -> None:
    """Log an epoch that has ended. train: its averages and rates. scores: of its validation, if there was one."""
    line = f"epoch {progress.epoch:>3}  train {shown(task, train, task.measures)}"
    recorder.scalars("train_epoch", progress.update, progress.epoch, train)
    if scores is not None:
        values = scores.summary()
        recorder.scalars("val", progress.update, progress.epoch, values)
        for name, draw in scores.figures().items():
            recorder.figure(name, progress.update, draw)
        line += f"  val {shown(task, values, [scores.primary])}"
    line += f"  {rate_text(train['clips_per_second'])} clips/s  data wait {100 * train['data_wait_share']:.0f} %"
    log.info("%s%s", line, "  best" if improved and scores is not None else "")
