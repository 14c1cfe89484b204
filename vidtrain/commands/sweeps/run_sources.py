"""Where the runs of a sweep come from: a grid, whose runs are in the record from the beginning, or Optuna."""

from __future__ import annotations

import logging
from collections.abc import Callable

from vidtrain.commands.sweeps.objectives import describe, has_all, validations, values_of
from vidtrain.commands.sweeps.optuna_study import Study
from vidtrain.commands.sweeps.record import RunState, SweepRecord, SweepRun
from vidtrain.engine.hooks import PRUNE
from vidtrain.errors import ConfigError
from vidtrain.options.schema import SweepSampler

log = logging.getLogger("vidtrain")


class GridSource:
    """Proposes nothing: all runs are in the record.

    together: all end at once, long after their own logs have said so: only failures are named.
    """

    def __init__(self, *, together: bool = False) -> None:
        self._together = together

    def propose(self) -> SweepRun | None:
        return None

    def watch(self, run: SweepRun) -> None:
        pass

    def over(self, run: SweepRun, state: RunState) -> None:
        if not self._together or state is RunState.failed:
            log.info("run %d: %s", run.number, state)


class OptunaSource:
    """Proposes what a study draws, and tells it what came of the runs, also of those of earlier processes.

    Raises ConfigError, also when a run is over, where the first finished run has no such metric as an objective names.

    named: a new run by its number and values. wanted: how many runs there are to be, None: as many as the space has.
    """

    def __init__(
        self,
        record: SweepRecord,
        study: Study,
        named: Callable[[int, dict[str, str]], SweepRun],
        wanted: int | None,
    ) -> None:
        self._record, self._study, self._named, self._wanted = record, study, named, wanted
        self._scored = False  # whether a run had all objectives
        self._names = [name for name, _ in record.objectives]
        self._grid = iter(study.space.grid()) if study.options.sampler is SweepSampler.grid else None
        for run in record.runs:
            study.restore(run.number, run.varied)
            self._report(run)
            state = record.state(run)
            if state in (RunState.finished, RunState.pruned):
                self._tell(run, state)
        study.resumed()

    def propose(self) -> SweepRun | None:
        number = len(self._record.runs)
        if self._wanted is not None and number >= self._wanted:
            return None
        varied = self._drawn(number)
        if varied is None:
            if self._wanted is not None:
                log.info("all %d combinations of what is varied have been tried", number)
                self._wanted = number
            return None
        run = self._named(number, varied)
        self._record.add(run)
        return run

    def _drawn(self, number: int) -> dict[str, str] | None:
        if self._grid is None:
            return self._study.ask(number)
        varied = next((varied for varied in self._grid if varied not in self._study.known), None)
        if varied is not None:
            self._study.restore(number, varied)
        return varied

    def watch(self, run: SweepRun) -> None:
        if self._report(run) and self._study.wants_no_more(run.number):
            prune = self._record.folder / run.folder / PRUNE
            if not prune.exists():
                prune.touch()
                log.info("run %d is pruned", run.number)

    def _report(self, run: SweepRun) -> bool:
        """Report the validations to the study; returns whether one is new."""
        if len(self._names) > 1:
            return False
        known = self._study.reported(run.number)
        new = {e: v for e, v in validations(self._record.folder / run.folder).items() if e not in known}
        for epoch, values in sorted(new.items()):
            if self._names[0] in values:
                self._study.report(run.number, epoch, values[self._names[0]])
        return bool(new)

    def over(self, run: SweepRun, state: RunState) -> None:
        self._report(run)
        said = self._tell(run, state)
        log.info("run %d: %s%s", run.number, state, said)
        self._write()

    def _tell(self, run: SweepRun, state: RunState) -> str:
        values = None
        if state is RunState.finished:
            try:
                values = values_of(self._record.folder / run.folder, self._names)
                self._scored = True
            except ConfigError as error:
                if not self._scored and not has_all(self._record.folder / run.folder, self._names):
                    self._write()
                    raise  # nor will another run have it: a search would learn nothing
                self._study.tell(run.number, None, pruned=False)
                return f"; {error}"
        self._study.tell(run.number, values, pruned=state is RunState.pruned)
        return "" if values is None else f": {describe(values, self._record.objectives)}"

    def _write(self) -> None:
        self._study.write(self._record.folder, {run.number: run.folder for run in self._record.runs})

    def close(self) -> None:
        self._write()
