"""Which values come next, by Optuna. Its study is made again from the runs' folders whenever a sweep is continued.

Nothing of Optuna's is read back from a file: its CMA-ES would unpickle what it finds there. STUDY is a copy for its own
tools (optuna-dashboard, optuna.visualization).
"""

from __future__ import annotations

import logging
import random
import sqlite3
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vidtrain.commands.sweeps.search_space import Axis, Space
from vidtrain.errors import ConfigError, VidtrainError
from vidtrain.options.schema import SweepConfig, SweepPruner, SweepSampler

if TYPE_CHECKING:
    import optuna

log = logging.getLogger("vidtrain")

STUDY: Final = "study.db"
_TRIES: Final = 20  # draws of what was drawn before, until one that was not is drawn evenly instead
_PATIENCE: Final = 0.5  # seconds, often several times, for another program that has locked STUDY: runs wait meanwhile
_LARGEST_SPACE: Final = 100_000  # of which all values are listed for that


def import_optuna() -> Any:
    """Optuna, silent about what is said by the sweep."""
    try:
        import optuna
    except ImportError as error:
        raise VidtrainError(
            f"hydra/sweeper=optuna: Optuna is not there: pip install 'vidtrain[optuna]' ({error})"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def check_search(space: Space, options: SweepConfig, objectives: Sequence[tuple[str, str]]) -> None:
    """Raises ConfigError: these options do not go together."""
    if not space.axes:
        raise ConfigError(
            "hydra/sweeper=optuna: nothing is varied: give optimizer.lr='tag(log, interval(0.001, 0.1))', "
            "model=c3d,s3d or the like"
        )
    if options.sampler is SweepSampler.grid and options.trials is None:
        space.check_grid()
    if options.pruner is not SweepPruner.none and len(objectives) > 1:
        raise ConfigError("sweep.pruner: with several objectives no run is pruned: sweep.pruner=none")
    if options.sampler is SweepSampler.cmaes:
        if len(objectives) > 1:
            raise ConfigError("sweep.sampler=cmaes: has one objective: sweep.sampler=tpe")
        if not any(axis.is_range for axis in space.axes):
            raise ConfigError("sweep.sampler=cmaes: needs numbers, such as interval(0.001, 0.1): sweep.sampler=tpe")
        try:
            import_module("cmaes")
        except ImportError:
            raise VidtrainError("sweep.sampler=cmaes: pip install 'vidtrain[optuna]' brings cmaes") from None


@dataclass
class Study:
    """Asked for the values of one run after the other, and told what became of them."""

    space: Space
    options: SweepConfig
    objectives: Sequence[tuple[str, str]]
    known: list[dict[str, str]] = field(default_factory=list)
    _trials: dict[int, optuna.trial.Trial] = field(default_factory=dict)
    _reported: dict[int, set[int]] = field(default_factory=dict)
    _over: list[int] = field(default_factory=list)
    _copy: Any = None
    _copied: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._optuna = import_optuna()
        self._distributions = {axis.key: self._distribution(axis) for axis in self.space.axes}
        self._study = self._optuna.create_study(
            directions=[direction for _, direction in self.objectives], pruner=self._pruner()
        )
        self._earlier: list[Any] = []  # complete ones of earlier processes

    def restore(self, number: int, varied: Mapping[str, str]) -> None:
        """A run of the record, by its number; to be told of if it is over, else it goes on."""
        self._study.enqueue_trial({key: self._inner(key, text) for key, text in varied.items()})
        self._begin(number, dict(varied))

    def ask(self, number: int) -> dict[str, str] | None:
        """The values of a new run; None when all that there are have been tried.

        What is drawn is a function of the seed, the number and what the study has been told until then, so that a sweep
        goes on as it would have without a break.
        """
        if len(self.known) >= self.space.size():
            return None
        for attempt in count():
            if attempt == _TRIES and self.space.size() <= _LARGEST_SPACE:
                break
            self._study.sampler = self._sampler(number, attempt)
            trial = self._study.ask(self._distributions)
            varied = {axis.key: self._text(axis, trial.params[axis.key]) for axis in self.space.axes}
            if varied not in self.known:
                self._keep(number, trial, varied)
                return varied
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        untried = [varied for varied in self.space.grid() if varied not in self.known]
        varied = random.Random(f"{self.options.seed} {number}").choice(untried)
        self.restore(number, varied)
        return varied

    def report(self, number: int, epoch: int, value: float) -> None:
        """The objective in a validation of a run."""
        if epoch not in self._reported[number]:
            self._reported[number].add(epoch)
            self._trials[number].report(value, epoch)

    def wants_no_more(self, number: int) -> bool:
        """Whether a run is to be pruned, by its last report."""
        return bool(self._reported[number]) and bool(self._trials[number].should_prune())

    def tell(self, number: int, values: Sequence[float] | None, *, pruned: bool) -> None:
        """How a run has ended. values: its objectives, None of one that has failed."""
        self._over.append(number)
        states, trial = self._optuna.trial.TrialState, self._trials[number]
        if pruned:
            self._study.tell(trial, state=states.PRUNED)
        elif values is None:
            self._study.tell(trial, state=states.FAIL)
        else:
            self._study.tell(trial, list(values))

    def resumed(self) -> None:
        """All runs of earlier processes have been restored and told of."""
        self._earlier = [t for t in self._study.trials if t.state == self._optuna.trial.TrialState.COMPLETE]

    def reported(self, number: int) -> set[int]:
        """The epochs of a run that have been reported."""
        return self._reported[number]

    def write(self, folder: Path, names: Mapping[int, str]) -> None:
        """Add what is over to the copy for Optuna's tools. names: of the runs' folders."""
        try:
            if self._copy is None:
                from sqlalchemy.pool import NullPool

                (folder / STUDY).unlink(missing_ok=True)
                # by a connection of ours: of a URL, a folder called 50%_off?v2 would be another one
                opened = {"creator": partial(sqlite3.connect, folder / STUDY, timeout=_PATIENCE), "poolclass": NullPool}
                self._copy = self._optuna.create_study(
                    storage=self._optuna.storages.RDBStorage("sqlite://", engine_kwargs=opened),
                    study_name=folder.name or "sweep",
                    directions=[direction for _, direction in self.objectives],
                )
                self._copy.set_metric_names([name for name, _ in self.objectives])
            frozen = {trial.number: trial for trial in self._study.trials}
            for number in [number for number in self._over if number not in self._copied]:
                one = frozen[self._trials[number].number]
                one.user_attrs, one.system_attrs = {"folder": names.get(number, "")}, {}
                self._copy.add_trial(one)
                self._copied.add(number)
        except Exception as error:  # a disk that is full, a file system without locks: it is but a copy
            cause = error.__cause__ or error  # database is locked
            log.warning("%s: is not written (%s)", folder / STUDY, str(cause).split("\n", 1)[0])

    # ---------------------------------------------------------------- inside

    def _begin(self, number: int, varied: dict[str, str]) -> None:
        self._keep(number, self._study.ask(self._distributions), varied)

    def _keep(self, number: int, trial: optuna.trial.Trial, varied: dict[str, str]) -> None:
        self._trials[number], self._reported[number] = trial, set()
        self.known.append(varied)

    def _sampler(self, number: int, attempt: int) -> Any:
        """attempt: draws for this run that had been tried before; many of them are followed by one of no preference."""
        samplers = self._optuna.samplers
        seed = random.Random(f"{self.options.seed} {number} {attempt}").getrandbits(32)
        first = self.options.startup_trials
        if attempt >= _TRIES:
            return samplers.RandomSampler(seed=seed)
        if self.options.sampler is SweepSampler.cmaes:
            # a covariance of an earlier process is not there; that process's runs say where to begin
            start = {"source_trials": self._earlier} if len(self._earlier) > 1 else {"n_startup_trials": first}
            return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False, **start)
        if self.options.sampler is SweepSampler.tpe:
            return samplers.TPESampler(seed=seed, n_startup_trials=first)
        return samplers.RandomSampler(seed=seed)

    def _pruner(self) -> Any:
        pruners, first, after = self._optuna.pruners, self.options.startup_trials, self.options.prune_after
        return {
            SweepPruner.none: pruners.NopPruner,
            SweepPruner.median: lambda: pruners.MedianPruner(n_startup_trials=first, n_warmup_steps=after),
            SweepPruner.halving: lambda: pruners.SuccessiveHalvingPruner(min_resource=max(1, after)),
            SweepPruner.hyperband: lambda: pruners.HyperbandPruner(min_resource=max(1, after)),
        }[self.options.pruner]()

    def _distribution(self, axis: Axis) -> Any:
        kinds = self._optuna.distributions
        if not axis.is_range:
            return kinds.CategoricalDistribution(axis.values)
        if axis.integer:
            return kinds.IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1))
        return kinds.FloatDistribution(axis.low, axis.high, log=axis.log, step=None if axis.log else axis.step)

    def _text(self, axis: Axis, value: Any) -> str:
        """As an override has it."""
        if axis.integer:
            return str(value)
        if axis.is_range and axis.values is not None:  # a range: Optuna adds the step up, 0.1 + 0.2
            return min(axis.values, key=lambda text: abs(float(text) - float(value)))
        return str(value)

    def _inner(self, key: str, text: str) -> Any:
        """As Optuna has it."""
        axis = next(axis for axis in self.space.axes if axis.key == key)
        if not axis.is_range:
            return text
        return int(text) if axis.integer else float(text)
