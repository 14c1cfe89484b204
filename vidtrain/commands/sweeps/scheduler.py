"""Keeps the workers of a sweep busy: the next run starts as soon as one has ended, whatever the others are at."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from vidtrain.commands.sweep import fails_again, write_failure
from vidtrain.commands.sweeps.record import OVER, RunState, SweepRecord, SweepRun, forget_failure, shown
from vidtrain.commands.sweeps.workers import Ended, RunWorkers

log = logging.getLogger("vidtrain")

POLL: Final = 0.2
"""Seconds between two looks at what runs."""
_MOST_CUTS: Final = 5  # times that a run may be killed without another checkpoint before it counts as failed


class Source(Protocol):
    """Where new runs come from, and who wants to know what became of them."""

    def propose(self) -> SweepRun | None:
        """A run that is not in the record yet; None when there is none, at least now."""
        ...

    def watch(self, run: SweepRun) -> None:
        """Called again and again while a run is executed."""
        ...

    def over(self, run: SweepRun, state: RunState) -> None:
        """A run has ended for good."""
        ...


class Scheduler:
    """Executes the runs of a record that are not over, then those that `source` proposes.

    Args:
        overrides: of the command of a run.
        retries: times that a run which has failed is tried again, unless its options cannot be used.
        together: the workers run all at once when they are asked for those that have ended: when each begins, the
            launcher and the run itself say.
    """

    def __init__(
        self,
        record: SweepRecord,
        source: Source,
        workers: RunWorkers,
        overrides: Callable[[SweepRun], Sequence[str]],
        *,
        retries: int,
        together: bool = False,
    ) -> None:
        self.record, self._source, self._workers = record, source, workers
        self._overrides, self._retries, self._together = overrides, retries, together
        self._waiting = [run for run in record.runs if record.state(run) not in (RunState.finished, RunState.pruned)]
        self._running: dict[int, SweepRun] = {}
        self._failures: dict[int, int] = {}
        self._cuts: dict[int, tuple[int, float]] = {}  # how often, and when its last checkpoint was written
        self._began: dict[int, float] = {}
        self.busy = 0.0
        """Seconds that runs were executed, of all added up."""

    def step(self) -> bool:
        """Look once at everything; returns whether there is more to do."""
        for ended in self._workers.ended():
            self._has_ended(ended)
        for run in self._running.values():
            self._source.watch(run)
        while self._workers.free() and (new := self._next()) is not None:
            self._start(new)
        return bool(self._running or self._waiting)

    @property
    def running(self) -> list[SweepRun]:
        return list(self._running.values())

    def _next(self) -> SweepRun | None:
        """What was begun comes first, but not while a process of an earlier sweep is still at it."""
        for run in list(self._waiting):
            if self._may_start(run):
                self._waiting.remove(run)
                return run
        return self._source.propose()

    def _may_start(self, run: SweepRun) -> bool:
        state = self.record.state(run)
        if state is RunState.held:
            return False
        if state in (RunState.finished, RunState.pruned):  # by the process that was at it
            self._waiting.remove(run)
            self._source.over(run, state)
            return False
        return True

    def _start(self, run: SweepRun) -> None:
        folder = self.record.folder / run.folder
        cut = self.record.state(run) is RunState.cut
        forget_failure(folder)
        self._running[run.number], self._began[run.number] = run, time.monotonic()
        if not self._together:
            log.info("run %d %s: %s", run.number, "goes on" if cut else "starts", shown(run.varied))
        self._workers.start(run.number, folder, self._overrides(run))

    def _has_ended(self, ended: Ended) -> None:
        run = self._running.pop(ended.number)
        folder = self.record.folder / run.folder
        self.busy += time.monotonic() - self._began.pop(ended.number)
        state = self.record.state(run)
        if ended.cut and state not in OVER:
            if not self._is_hopeless(run, folder):
                log.info("run %d was cut (%s), and is continued", run.number, ended.reason)
                self._waiting.insert(0, run)
                return
            reason = f"{ended.reason}, {_MOST_CUTS} times without another checkpoint (out of memory?)"
            write_failure(folder, shown(run.varied), reason)
        elif ended.reason and not ended.cut:
            write_failure(folder, shown(run.varied), ended.reason, mistake=ended.mistake)
        elif state not in OVER:
            write_failure(folder, shown(run.varied), "ended without a result")
        state = self.record.state(run)
        if state is RunState.failed:
            self._failures[run.number] = self._failures.get(run.number, 0) + 1
            if self._failures[run.number] <= self._retries and not fails_again(folder):
                log.info(
                    "run %d has failed, and is tried again%s", run.number, f": {ended.reason}" * bool(ended.reason)
                )
                self._waiting.append(run)
                return
        self._source.over(run, state)

    def _is_hopeless(self, run: SweepRun, folder: Path) -> bool:
        saved = max((file.stat().st_mtime for file in folder.glob("last*.pt")), default=0.0)
        count, before = self._cuts.get(run.number, (0, saved))
        count = 1 if saved != before else count + 1  # of a clock that was set back it may be earlier
        self._cuts[run.number] = count, saved
        return count >= _MOST_CUTS
