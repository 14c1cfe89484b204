"""The tests that runs have left, of the folders that a user names: run folders, folders of `vidtrain eval`, sweeps, or
whatever holds these. All of it is a stranger's data."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, TypeAlias, TypeVar

from vidtrain.commands.sweep import FAILURE, job_number, varied_options
from vidtrain.errors import ConfigError, DataError
from vidtrain.options.path_options import expand_home
from vidtrain.reports.results import TestFolder, TestResult, read_result
from vidtrain.reports.segment_results import SegmentsResult, read_test
from vidtrain.runs.names import CONFIG, PREDICTIONS, RESULT
from vidtrain.untrusted_data import is_number, read_mapping

_DEPTH: Final = 4  # runs/DATA/MODEL/DATE_TIME
_MOST: Final = 10_000  # folders that are looked into


_R = TypeVar("_R", bound=TestFolder)


@dataclass(frozen=True)
class TestedRun(Generic[_R]):
    """A test and the run that it is of.

    folder: of the run; of the test where that is none of a run's. test: what the test has left. result: the run's own
    result.json, config: its config.json, varied: its options on the command line, each {} where there is none.
    """

    __test__ = False  # what pytest asks a class of this name

    folder: Path
    test: _R
    result: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    varied: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_own(self) -> bool:
        """Whether the test is the one that the training ended with, not one of `vidtrain eval`."""
        return self.test.folder.resolve() == (self.folder / "test").resolve()

    def number(self, key: str) -> float | None:
        """A number of the run's result.json."""
        value: Any = self.result.get(key)
        return float(value) if is_number(value) else None


ClassifiedRun: TypeAlias = TestedRun[TestResult]
SegmentsRun: TypeAlias = TestedRun[SegmentsResult]


def by_task(runs: Sequence[TestedRun[Any]]) -> tuple[list[ClassifiedRun], list[SegmentsRun]]:
    """Those of a classification, and those with task=segments."""
    return [r for r in runs if isinstance(r.test, TestResult)], [r for r in runs if isinstance(r.test, SegmentsResult)]


def tested_runs(paths: Sequence[str]) -> tuple[list[TestedRun[Any]], list[str]]:
    """All tests in these folders, in the order in which they are named, those of a sweep by their numbers; and a line
    for each run that has none.

    Raises:
        ConfigError: one of them is no folder, or holds no run.
        DataError: a test cannot be read.
    """
    found: dict[Path, TestedRun[Any]] = {}
    notes: list[str] = []
    for path in paths:
        folder = Path(expand_home(path))
        folder = folder.parent if folder.is_file() else folder  # best.pt of a run, say
        if not path or not folder.is_dir():
            raise ConfigError(
                f"{path or 'runs='}: no such folder: give run folders, eval's output folders or a sweep's"
            )
        left = [_MOST]
        runs = list(_runs_below(folder, _DEPTH, left))
        if not left[0]:
            raise ConfigError(f"{path}: holds more than {_MOST} folders: name the runs or the sweep")
        if not runs:
            raise ConfigError(f"{path}: holds no run of vidtrain: give run folders, eval's output folders or a sweep's")
        for run in runs:
            test = run if _is_test(run) else run / "test"
            if _is_test(test):
                found.setdefault(test.resolve(), _read(run, test))
            else:
                notes.append(f"{run}: {_why_none(run)}")
    return list(found.values()), list(dict.fromkeys(notes))


def short_names(groups: Sequence[Sequence[TestedRun[Any]]]) -> list[str]:
    """Of each group the folder that its runs have in common, below the one that all groups have in common."""
    folders = [os.path.commonpath([str(run.folder.absolute()) for run in runs]) for runs in groups]
    common = os.path.commonpath(folders)
    return [os.path.relpath(folder, common) if folder != common else Path(folder).name for folder in folders]


def _runs_below(folder: Path, depth: int, left: list[int]) -> Iterator[Path]:
    """left: how many folders may still be looked into; a list of one number."""
    if _is_test(folder) or any((folder / name).exists() for name in (CONFIG, RESULT, FAILURE)):
        yield folder
        return
    if (folder / ".hydra").is_dir():  # of a run that was ended before it began
        yield folder
        return
    for below in sorted((entry for entry in folder.iterdir() if entry.is_dir()), key=job_number) if depth else ():
        if not left[0]:
            return
        left[0] -= 1
        yield from _runs_below(below, depth - 1, left)


def _is_test(folder: Path) -> bool:
    return (folder / PREDICTIONS).is_file() and (folder / RESULT).is_file()


def _why_none(run: Path) -> str:
    if (run / FAILURE).exists():
        return "failed"
    if (read_result(run) or {}).get("pruned") is True:
        return "was pruned by its sweep"
    return "has not been tested" if (run / RESULT).is_file() else "has not finished"


def _read(run: Path, test: Path) -> TestedRun[Any]:
    """run: the folder of the run or of the test."""
    found = read_test(test)
    home = next((f for f in (run, *list(test.absolute().parents)[:2]) if (f / CONFIG).is_file()), None)
    if home is None:
        return TestedRun(run, found)
    # another test of the run, by `vidtrain eval`, goes by the name of its own folder
    own = home if test.resolve() == (home / "test").resolve() else run
    try:
        config = read_mapping(home / CONFIG)
    except OSError as error:
        raise DataError(f"{home / CONFIG}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{home / CONFIG}: is not the configuration of a run: {error}") from None
    return TestedRun(own, found, read_result(home) or {}, config, varied_options(home))
