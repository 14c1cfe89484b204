"""vidtrain's sweepers, as plugins of Hydra: what `vidtrain train -m` does with the values that are varied."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from vidtrain.commands import sweep
from vidtrain.commands.sweeps.objectives import chosen_objectives
from vidtrain.commands.sweeps.optuna_study import Study, check_search
from vidtrain.commands.sweeps.output_files import write_files
from vidtrain.commands.sweeps.record import (
    SweepRecord,
    SweepRun,
    compared_options,
    read_record,
    refuse_other_sweep,
    unfinished_sweep,
)
from vidtrain.commands.sweeps.run_sources import GridSource, OptunaSource
from vidtrain.commands.sweeps.scheduler import POLL, Scheduler, Source
from vidtrain.commands.sweeps.search_space import read_space
from vidtrain.commands.sweeps.workers import LaunchedTogether, LauncherWorkers, ProcessWorkers, RunWorkers, gpu_slots
from vidtrain.engine.signals import StopSignals, exit_code
from vidtrain.errors import ConfigError, StoppedError
from vidtrain.options.path_options import expand_home
from vidtrain.options.schema import SweepConfig, SweepSampler, check_numbers
from vidtrain.reports.table import counted
from vidtrain.runs.atomic import make_folder
from vidtrain.runs.sole_writer import sole_writer

log = logging.getLogger("vidtrain")

_USUAL_TRIALS: Final = 20
_SWEEPS: Final = Path("runs") / "sweeps"
_GRACE: Final = 120.0  # seconds in which the runs save when the sweep is told to stop


class _Sweeper(Sweeper):
    """What both have in common: the folder, its record, the workers, what is written at the end."""

    kind = ""

    def __init__(self, params: Mapping[str, Any] | None = None, **_: Any) -> None:
        self._params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._loader, self._config = hydra_context.config_loader, config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        check_numbers(self._config)
        self.options: SweepConfig = OmegaConf.to_object(self._config.sweep)  # type: ignore[assignment]
        self.space = read_space(arguments, {**self._params, **self.options.space}, self._loader)
        self.objectives = chosen_objectives(self.options.objectives, self.options.directions)
        self.check()
        folder, resumed = self._folder()
        existing = read_record(folder)
        planned = self._plan(folder, existing, resumed)  # here already, so that a mistake leaves no folder
        make_folder(folder)
        with sole_writer(folder, "hydra.sweep.dir"):
            now = read_record(folder)
            if now != existing:  # by a sweep that had the folder until now
                planned = self._plan(folder, now, resumed)
            if now is not None:
                log.info("sweep continued: %s", folder)
            OmegaConf.save(self._config, folder / "multirun.yaml")
            self.record.runs += planned
            self.record.save()
            began = time.monotonic()
            try:
                self.execute()
            finally:
                write_files(self.record)
            minutes = (time.monotonic() - began) / 60
            log.info("sweep of %s: %.1f minutes", counted(len(self.record.runs), "run"), minutes)

    # ---------------------------------------------------------------- what a sweeper adds

    def check(self) -> None:
        """Raises ConfigError: the options cannot be carried out."""

    def planned(self) -> list[SweepRun]:
        """Runs that are known before the sweep begins, without those of the record."""
        return []

    def wanted(self) -> int | None:
        """How many runs there are to be; None: every one of the grid."""
        return None

    def execute(self) -> None:
        raise NotImplementedError

    # ---------------------------------------------------------------- inside

    def _plan(self, folder: Path, existing: SweepRecord | None, resumed: bool) -> list[SweepRun]:
        """Set the record, the one that is there or a new one; returns the runs that it is to have beside its own."""
        if existing is not None and not resumed:
            raise ConfigError(f"{folder} holds a sweep: sweep.resume={folder} continues it; or take another folder")
        if existing is not None:
            refuse_other_sweep(existing, self.kind, self.space)
        record = existing or SweepRecord(folder, self.kind, compared_options(self.space), {}, self.objectives)
        space = {axis.key: axis.text for axis in self.space.axes}
        self.record = replace(record, space=space, objectives=self.objectives)
        planned = self.planned()
        self.record.check_folders(planned)
        return planned

    def _folder(self) -> tuple[Path, bool]:
        """(the folder of the sweep, whether one that is there is continued)."""
        given = Path(str(self._config.hydra.sweep.dir))
        overrides: Any = OmegaConf.to_container(self._config.hydra.overrides.hydra)  # ${hydra.job.num} is not known yet
        explicit = any(re.match(r"[+]*hydra\.sweep\.dir=", text) for text in overrides)
        resume = self.options.resume or ("auto" if self.space.fixed.get("resume") == "auto" else None)
        if resume is None:
            return given, False
        if resume == "auto":
            found = None if explicit else unfinished_sweep(_SWEEPS, self.kind, self.space, self.wanted())
        else:
            found = Path(expand_home(resume))
            if explicit and found.absolute() != given.absolute():
                raise ConfigError(f"sweep.resume={resume}, but hydra.sweep.dir={given}: give one of them")
            if read_record(found) is None:
                raise ConfigError(f"sweep.resume={resume}: no sweep there (no {sweep.RECORD})")
        if found is None:
            return given, True
        of_hydra = self._config.hydra.sweep  # not the root alone: with Hydra 1.4 its node is read-only by itself
        with read_write(of_hydra):
            of_hydra.dir = str(found)  # for Hydra's callbacks
        return found, True

    def _named(self, number: int, varied: dict[str, str]) -> SweepRun:
        """A new run, whose configuration is composed to find what is wrong with it, and what its folder is called."""
        composed = self._loader.load_sweep_config(self._config, self.space.overrides(varied))
        with open_dict(composed):
            composed.hydra.job.num, composed.hydra.job.id = number, str(number)
        return SweepRun(number, str(composed.hydra.sweep.subdir), varied)

    def _overrides(self, run: SweepRun) -> list[str]:
        """Of the command of a run, whether it starts or goes on."""
        own = [text for text in self.space.overrides(run.varied) if not text.lstrip("+").startswith("resume=")]
        return [*own, "resume=auto", f"sweep.trial={run.number}"]  # multirun.HydraFormatter knows them

    def _scheduler(self, source: Source, workers: RunWorkers, *, together: bool = False) -> Scheduler:
        retries = self.options.retries
        return Scheduler(self.record, source, workers, self._overrides, retries=retries, together=together)

    def _schedule(self, source: Source, workers: RunWorkers) -> None:
        scheduler = self._scheduler(source, workers)
        began = time.monotonic()
        with StopSignals() as stop:
            try:
                while scheduler.step() and stop.received is None:
                    time.sleep(POLL)
            except BaseException:
                workers.stop(at_once=True)
                raise
            if stop.received is not None:
                self._stop(stop.received, workers, scheduler)
        slots = getattr(workers, "slots", 1)
        passed = max(time.monotonic() - began, 1e-9)
        if slots > 1:
            log.info("%d workers were busy %.0f %% of the time", slots, 100 * scheduler.busy / passed / slots)

    def _stop(self, received: str, workers: RunWorkers, scheduler: Scheduler) -> None:
        told = scheduler.running
        log.info("%s received: waiting for %s to save and end", received, counted(len(told), "run"))
        workers.stop(at_once=False)
        left, until = {run.number for run in told}, time.monotonic() + _GRACE
        try:
            while left and time.monotonic() < until:
                left -= {ended.number for ended in workers.ended()}
                time.sleep(POLL / 4)
        finally:
            workers.stop(at_once=True)
        raise StoppedError(
            f"{received} received: {self.record.folder} is not finished{self.record.left_by(told)}; the same command "
            f"with sweep.resume={self.record.folder} continues",
            exit_code(received),
        )

    def _workers(self, jobs: int | None) -> RunWorkers:
        """Processes of this machine, or jobs of the launcher that the user has chosen."""
        if not self._in_process():
            return LauncherWorkers(self.launcher.launch, self.record.folder, jobs or 1)
        trainer = self._config.trainer
        gpus = [] if str(trainer.device) == "cpu" else gpu_slots(trainer.devices)
        return ProcessWorkers(self._flags(), jobs or max(1, len(gpus)), gpus)

    def _in_process(self) -> bool:
        """Whether no launcher was chosen: Hydra's own makes one run after the other."""
        return type(self.launcher).__name__ == "BasicLauncher"

    def _flags(self) -> list[str]:
        """Of the command: the user's own configs."""
        found = [
            source.path
            for source in self._config.hydra.runtime.config_sources
            if source.provider == "command-line" and source.schema == "file"
        ]
        return [part for path in found for part in ("--config-dir", path)]


class GridSweeper(_Sweeper):
    """Every combination of the values."""

    kind = "grid"

    def check(self) -> None:
        self.space.check_grid()

    def planned(self) -> list[SweepRun]:
        known = self.record.runs
        new = [varied for varied in self.space.grid() if self.record.find(varied) is None]
        return [self._named(number, varied) for number, varied in enumerate(new, len(known))]

    def execute(self) -> None:
        if self.options.jobs is not None and self._in_process():
            self._schedule(GridSource(), self._workers(self.options.jobs))
            return
        workers = LaunchedTogether(self.launcher.launch, self.record.folder)
        scheduler = self._scheduler(GridSource(together=True), workers, together=True)
        while scheduler.step():  # signals come to the runs, or to the launcher
            time.sleep(POLL)


class OptunaSweeper(_Sweeper):
    """What is drawn by one of Optuna's samplers, each run a process."""

    kind = "optuna"

    def check(self) -> None:
        check_search(self.space, self.options, self.objectives)

    def wanted(self) -> int | None:
        if self.options.trials is None:
            return None if self.options.sampler is SweepSampler.grid else _USUAL_TRIALS
        return self.options.trials

    def planned(self) -> list[SweepRun]:
        """None: they are drawn one by one. That each is to have a folder of its own is seen of two examples."""
        if not self.record.runs and self.space.size() > 1 and self.wanted() != 1:
            examples = ({axis.key: axis.ends[end] for axis in self.space.axes} for end in (0, 1))
            self.record.check_folders([self._named(number, varied) for number, varied in enumerate(examples)])
        return []

    def execute(self) -> None:
        study = Study(self.space, self.options, self.objectives)
        source = OptunaSource(self.record, study, self._named, self.wanted())
        self._schedule(source, self._workers(self.options.jobs))
        source.close()


def register() -> None:
    """Make the sweepers known to Hydra, which takes plugins from the package hydra_plugins only.

    They have a name in it instead of lying there, where every program of Hydra's in this environment would import them.
    """
    plugins = Plugins.instance()  # imports all that do lie there
    here = sys.modules[__name__]
    try:
        package = import_module("hydra_plugins")
    except ImportError:  # no plugin is installed
        package = sys.modules["hydra_plugins"] = ModuleType("hydra_plugins")
    package.vidtrain = sys.modules["hydra_plugins.vidtrain"] = here  # type: ignore[attr-defined]
    for kind in (GridSweeper, OptunaSweeper):
        kind.__module__ = "hydra_plugins.vidtrain"
        plugins.register(kind)
