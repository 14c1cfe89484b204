"""The record of a sweep, sweep.json in its folder, and what the folder of each run says of how far it is.

The folders are the only truth: what has finished is known by its result.json, what was cut by its last.pt. The record
says which runs there are, so that none is lost and none is made twice, whenever and however the processes end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vidtrain.commands.resuming import may_change_on_resume
from vidtrain.commands.sweep import FAILURE, RECORD
from vidtrain.commands.sweeps.search_space import MOST_RUNS, OF_THE_SWEEP, Space
from vidtrain.engine.hooks import PRUNE
from vidtrain.errors import CheckpointError, ConfigError, one_of
from vidtrain.ranges import Choice
from vidtrain.reports.results import read_result
from vidtrain.reports.table import counted
from vidtrain.runs.atomic import write_json
from vidtrain.runs.sole_writer import LOCK, is_held
from vidtrain.untrusted_data import read_json

_FORMAT: Final = 1
_ELSEWHERE: Final = "take another hydra.sweep.dir"
_FILES: Final = (RECORD, "sweep.csv", "sweep.md", "sweep.png", "table.txt", "study.db", "multirun.yaml", LOCK)
"""What is written beside the folders of the runs."""


class RunState(Choice):
    """How far a run of a sweep is, by what is in its folder."""

    new = "new"
    cut = "cut"
    held = "held"
    finished = "finished"
    pruned = "pruned"
    failed = "failed"


OVER: Final = (RunState.finished, RunState.pruned, RunState.failed)


@dataclass
class SweepRun:
    """One run of a sweep.

    folder: its name in the sweep's folder. varied: option, with Hydra's +, -> value, as an override has it.
    """

    number: int
    folder: str
    varied: dict[str, str]


@dataclass
class SweepRecord:
    """What sweep.json holds.

    fixed: the options that all runs share. space: option -> the values that it is varied over, as they were given.
    """

    folder: Path
    sweeper: str
    fixed: dict[str, str]
    space: dict[str, str]
    objectives: list[tuple[str, str]]
    runs: list[SweepRun] = field(default_factory=list)

    def save(self) -> None:
        content = {
            "format": _FORMAT,
            "sweeper": self.sweeper,
            "fixed": self.fixed,
            "space": self.space,
            "objectives": self.objectives,
            "runs": [{"number": run.number, "folder": run.folder, "varied": run.varied} for run in self.runs],
        }
        write_json(self.folder / RECORD, content)

    def add(self, run: SweepRun) -> None:
        """Write down that there is this run, before it begins."""
        self.check_folders([run])
        self.runs.append(run)
        self.save()

    def check_folders(self, more: Sequence[SweepRun]) -> None:
        """Raises ConfigError: of the runs with these ones, one has no folder of its own in that of the sweep."""
        taken = {run.folder for run in self.runs}
        for run in more:
            if not _is_name(run.folder) or run.folder in taken:
                raise ConfigError(
                    f"hydra.sweep.subdir={run.folder}: expected a name of its own for each run, without folders above "
                    "it and not that of a file of the sweep, such as '${hydra.job.num}'"
                )
            taken.add(run.folder)

    def state(self, run: SweepRun) -> RunState:
        return state_of(self.folder / run.folder)

    def left_by(self, runs: Sequence[SweepRun]) -> str:
        """What is there of runs that were told to end, in words behind a sentence; "" for no run."""
        states = Counter(self.state(run) for run in runs)
        over = sum(states[state] for state in OVER)
        parts = [
            (states[RunState.cut], "saved, to be continued"),
            (states[RunState.new] + states[RunState.held], "with nothing saved, to start again"),
            (over, "ended"),
        ]
        said = [f"{counted(count, 'run')} {what}" for count, what in parts if count]
        return f" ({', '.join(said)})" if said else ""

    def find(self, varied: Mapping[str, str]) -> SweepRun | None:
        return next((run for run in self.runs if run.varied == varied), None)


def compared_options(space: Space) -> dict[str, str]:
    """The options that all runs of a sweep share, but those that say how it is carried out."""
    return {key: value for key, value in space.fixed.items() if not key.lstrip("+~").startswith(OF_THE_SWEEP)}


def read_record(folder: Path) -> SweepRecord | None:
    """None: there is none.

    Raises:
        ConfigError: it is damaged, or not what a sweep writes.
    """
    file = folder / RECORD
    if not file.is_file():
        return None
    try:
        return _record(folder, read_json(file))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file}: is not the record of a sweep ({error}); {_ELSEWHERE}") from None


def _record(folder: Path, content: Any) -> SweepRecord:
    if content["format"] != _FORMAT:
        raise ValueError(f"format {str(content['format'])[:20]}")
    if len(content["runs"]) > MOST_RUNS:
        raise ValueError(f"more than {MOST_RUNS} runs")
    runs = [SweepRun(number, entry["folder"], _texts(entry["varied"])) for number, entry in enumerate(content["runs"])]
    names = [run.folder for run in runs]
    if not all(map(_is_name, names)) or len(set(names)) < len(names):
        raise ValueError("a folder's name")
    objectives = [(str(name), str(direction)) for name, direction in content["objectives"]]
    return SweepRecord(
        folder, str(content["sweeper"]), _texts(content["fixed"]), _texts(content["space"]), objectives, runs
    )


def _is_name(folder: Any) -> bool:
    if type(folder) is not str or folder in ("", ".", "..", *_FILES):
        return False
    return Path(folder).name == folder and folder not in (f".{name}.part" for name in _FILES)


def _texts(value: Any) -> dict[str, str]:
    if type(value) is not dict or not all(type(text) is str for text in value.values()):
        raise ValueError("expected names with texts")
    return value


def refuse_other_sweep(record: SweepRecord, sweeper: str, space: Space) -> None:
    """A sweep is continued by its own command; what changes no result may be another, and of a grid the values.

    Raises:
        CheckpointError: it was another one.
        ConfigError: a run in it is none of this sweep.
    """
    mine, stored = compared_options(space), record.fixed
    keys = [key for key in dict.fromkeys([*stored, *mine]) if stored.get(key) != mine.get(key)]
    changed = [key for key in keys if not may_change_on_resume(key.lstrip("+~"))]
    said = [f"{key.lstrip('+')} was {stored.get(key, 'not given')}, is {mine.get(key, 'not given')}" for key in changed]
    axes = {axis.key: axis.text for axis in space.axes}
    if record.sweeper != sweeper:
        said.append(f"hydra/sweeper was {record.sweeper}, is {sweeper}")
    elif record.space.keys() != axes.keys() or (sweeper != "grid" and record.space != axes):
        shown = [", ".join(f"{key}={text}" for key, text in one.items()) for one in (record.space, axes)]
        said.append(f"what is varied was {shown[0]}, is {shown[1]}")
    if said:
        raise CheckpointError(
            f"{record.folder} is another sweep: {one_of(said, 10)}; give the same command, or another folder"
        )
    for run in record.runs:
        known = run.varied.keys() == axes.keys()
        if not known or (sweeper != "grid" and not all(axis.takes(run.varied[axis.key]) for axis in space.axes)):
            raise ConfigError(
                f"{record.folder / RECORD}: run {run.number} has values that are not varied over; {_ELSEWHERE}"
            )


def state_of(folder: Path) -> RunState:
    """How far the run in this folder is. A run that another process is at is held."""
    if (folder / FAILURE).exists():
        return RunState.failed
    result = read_result(folder)
    if result is not None:
        return RunState.pruned if result.get("pruned") is True else RunState.finished
    if is_held(folder):
        return RunState.held
    return RunState.cut if any(folder.glob("last*.pt")) else RunState.new


def forget_failure(folder: Path) -> None:
    """Of a run that is to be tried again, with the request to end it of a process that is no more."""
    for name in (FAILURE, PRUNE):
        (folder / name).unlink(missing_ok=True)


def unfinished_sweep(sweeps: Path, sweeper: str, space: Space, wanted: int | None) -> Path | None:
    """The newest folder in `sweeps` with a sweep of this command that has runs to make.

    wanted: how many runs there are to be, None: every one of the grid.
    """
    folders = sorted((file.parent for file in sweeps.glob(f"*/{RECORD}")), key=lambda folder: folder.name, reverse=True)
    for folder in folders:
        try:
            record = read_record(folder)
            if record is not None:
                refuse_other_sweep(record, sweeper, space)
                return None if _complete(record, space, wanted) else folder
        except (ConfigError, CheckpointError):
            continue
    return None


def _complete(record: SweepRecord, space: Space, wanted: int | None) -> bool:
    known = [run.varied for run in record.runs]
    there = all(varied in known for varied in space.grid()) if wanted is None else len(known) >= wanted
    return there and all(record.state(run) in (RunState.finished, RunState.pruned) for run in record.runs)


def shown(varied: Mapping[str, str], most: int = 100) -> str:
    """'optimizer.lr=0.1 model=c3d', for messages."""
    text = " ".join(f"{key.lstrip('+')}={value}" for key, value in varied.items())
    return text if len(text) <= most else f"{text[: most - 3]}..."
