"""The table at the end of a sweep, read from what each run wrote, and the record of those that failed."""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from vidtrain.errors import ConfigError, VidtrainError
from vidtrain.options.path_options import unquoted
from vidtrain.reports.results import read_result
from vidtrain.reports.table import table
from vidtrain.runs.atomic import write_text
from vidtrain.runs.names import RESULT
from vidtrain.untrusted_data import is_number, read_json, read_texts

log = logging.getLogger("vidtrain")

REPEATS = ("data.fold", "data.split", "data.split_seed", "trainer.seed")
"""What is varied to repeat a setting, not to change it."""

failed: list[str] = []
"""One line for each run of the sweep that failed, wherever it was executed; decides the exit code."""
FAILURE = "error.json"
"""Of a run of a sweep: it has failed, and why."""
RECORD = "sweep.json"
"""In the folder of a sweep: which runs it has, see commands/sweeps/record.py."""
_made: list[Path] = []  # the folder of the sweep and those above it that were not there, from the inside out


def record_failure(error: Exception, with_traceback: bool = False) -> None:
    """Say and write down that this run of the sweep failed; the others go on."""
    from hydra.core.hydra_config import HydraConfig

    name = HydraConfig.get().job.override_dirname
    log.error("run %s failed: %s", name, error, exc_info=error if with_traceback else None)
    run = Path(HydraConfig.get().runtime.output_dir)
    write_failure(run, name, str(error), mistake=isinstance(error, ConfigError))


def write_failure(run: Path, name: str, reason: str, *, mistake: bool = False) -> None:
    """Write down in the folder of a run that it failed. mistake: of its options, see `fails_again`."""
    content = {"run": name, "error": reason, **({"mistake": True} if mistake else {})}
    try:
        (run / FAILURE).write_text(json.dumps(content), encoding="utf-8")
    except OSError:  # a full disk, most often what the run failed of
        failed.append(f"{name}: {reason}")


def fails_again(run: Path) -> bool:
    """Whether a run has failed of its options, which another try does not change."""
    try:
        content: Any = read_json(run / FAILURE)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("mistake") is True


def remove_refused() -> None:
    """Remove the folder of a sweep of which Hydra has composed no run: it holds only what Hydra writes at the start."""
    with suppress(OSError, IndexError):
        if [file.name for file in _made[0].iterdir()] == ["multirun.yaml"]:
            (_made[0] / "multirun.yaml").unlink()
        for folder in _made:
            folder.rmdir()
    _made.clear()


def forget_failure() -> None:
    """Of an earlier try of the run that begins here."""
    from hydra.core.hydra_config import HydraConfig

    with suppress(OSError):
        (Path(HydraConfig.get().runtime.output_dir) / FAILURE).unlink()


class SweepEnd(Callback):
    """At the end of a sweep, wherever its runs were executed: prints the table, and counts the runs that failed.

    Both are read from what the runs wrote.
    """

    def __init__(self, with_table: bool = False) -> None:
        self._with_table = with_table
        self._before: set[tuple[Path, int]] = set()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(str(config.hydra.sweep.dir)).absolute()
        _made[:] = takewhile(lambda path: not path.exists(), (folder, *folder.parents))
        self._before = _failures(folder)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(str(config.hydra.sweep.dir))
        if self._with_table and folder.is_dir() and (text := sweep_table(folder)):  # there is none of a refused sweep
            print(text)
            tested = sum(bool((read_result(run) or {}).get("test")) for run in folder.iterdir())
            shown = f"; which differences are shown: vidtrain compare {folder}" if tested > 1 else ""
            try:
                write_text(folder / "table.txt", text + "\n")
                print(f"\nalso in {folder / 'table.txt'}{shown}")
            except (OSError, VidtrainError) as error:  # of a callback Hydra would print a warning, and go on after it
                log.warning("%s is not written: %s", folder / "table.txt", error)
        for failure, _ in sorted(_failures(folder) - self._before):
            try:
                content = read_json(failure)
                failed.append(f"{content['run']}: {content['error']}")
            except (OSError, ValueError, KeyError, TypeError):  # cut off by a full disk: it has failed all the same
                failed.append(f"{failure.parent.name}: see {failure}")


def _failures(folder: Path) -> set[tuple[Path, int]]:
    """What failed runs below the folder of the sweep wrote, and when."""
    found = set()
    for file in folder.rglob(FAILURE):
        with suppress(OSError):  # gone meanwhile
            found.add((file, file.stat().st_mtime_ns))
    return found


def sweep_table(folder: Path) -> str:
    """A row per run below `folder`: what was varied, then the results. '' when there is none.

    Where runs repeat a setting (REPEATS), a second table has a row per setting: means and standard deviations.
    """
    runs = []
    for run in sorted(folder.iterdir(), key=job_number):
        if varied := varied_options(run):
            runs.append((varied, _result(run)))
    if not runs:
        return ""
    rows = [(varied, result["summary"]) for varied, result in runs]
    keys = list(dict.fromkeys(k for varied, _ in rows for k in varied))
    keys = [k for k in keys if len({varied.get(k) for varied, _ in rows}) > 1] or keys[:1]
    columns = list(dict.fromkeys(name for _, result in rows for name in result))
    header = [*keys, *columns]
    body = [[varied.get(k, "") for k in keys] + [result.get(c, "") for c in columns] for varied, result in rows]
    means = _means(runs, keys) if len(runs) > 1 else ""
    return "\n\n".join(filter(None, [table(header, body), means]))


def _means(runs: Sequence[tuple[dict[str, str], dict[str, Any]]], keys: Sequence[str]) -> str:
    """The table of means: a row per setting, over the runs that repeat it; '' where none do."""
    repeats = [key for key in keys if key in REPEATS]
    if not repeats:
        return ""
    settings = [key for key in keys if key not in repeats]
    groups: dict[tuple[str, ...], list[tuple[dict[str, str], dict[str, Any]]]] = defaultdict(list)
    for varied, result in runs:
        groups[tuple(varied.get(key, "") for key in settings)].append((varied, result))
    averaged = [row for row in _averaged(runs) if any(_number(result, *row[1:]) is not None for _, result in runs)]
    body = []
    for names, members in groups.items():
        cells = [*names, _finished(members, repeats)]
        for _, split, metric in averaged:
            values = [value for _, result in members if (value := _number(result, split, metric)) is not None]
            cells += [f"{mean(values):.3f}" if values else "", f"{stdev(values):.3f}" if len(values) > 1 else ""]
        body.append(cells)
    header = [*settings, "runs", *(text for name, _, _ in averaged for text in (name, "std"))]
    return f"mean and standard deviation over {', '.join(repeats)}:\n{table(header, body)}"


def _averaged(runs: Sequence[tuple[dict[str, str], dict[str, Any]]]) -> list[tuple[str, str, str]]:
    """(column, split and key in result.json) of what is averaged over the runs that repeat a setting."""
    titles = {key: title for _, result in runs for key, title in result.get("titles", {}).items() if key != "loss"}
    return [(f"{split} {title}", split, key) for split in ("test", "val") for key, title in titles.items()]


def _finished(members: Sequence[tuple[dict[str, str], dict[str, Any]]], repeats: Sequence[str]) -> str:
    """'5/5': the runs that have a result, of those of the setting, or of its folds where some were not run."""
    folds = members[0][0].get("data.folds", "")
    wanted = int(folds) if list(repeats) == ["data.fold"] and re.fullmatch("[0-9]{1,9}", folds) else 0
    return f"{sum('val' in result for _, result in members)}/{max(wanted, len(members))}"


def _number(result: dict[str, Any], split: str, metric: str) -> float | None:
    scores = result.get(split)
    value: Any = scores.get(metric) if isinstance(scores, dict) else None
    return float(value) if is_number(value) else None


def _result(run: Path) -> dict[str, Any]:
    """What result.json holds, or the like for a run that has none."""
    file = run / RESULT
    if (run / FAILURE).exists():  # cut off by a full disk it says so, too
        return {"summary": {"test top-1": "failed"}}
    if file.exists():
        try:
            content: Any = read_json(file)
        except (OSError, ValueError) as error:
            content = error
        parts = (content.get("summary"), content.get("titles", {})) if isinstance(content, dict) else (None,)
        if all(isinstance(part, dict) for part in parts):
            marked = {"test top-1": "pruned"} if content.get("pruned") is True else {}
            return {**content, "summary": {**marked, **content["summary"]}}
        log.warning("%s: cannot be read (%s)", file, content if isinstance(content, Exception) else "no results")
    return {"summary": {"test top-1": "unfinished"}}


def varied_options(run: Path) -> dict[str, str]:
    """Option -> value of a run's command line, as Hydra keeps it; {} where it keeps none, or something else.

    Without those that say how it is carried out, not what it is.
    """
    overrides = run / ".hydra" / "overrides.yaml"
    if not overrides.exists():
        return {}
    try:
        pairs = [o.lstrip("+").partition("=")[::2] for o in read_texts(overrides)]
    except (OSError, ValueError) as error:
        log.warning("%s: is not what Hydra writes (%s), and is ignored", overrides, error)
        return {}
    return {key: unquoted(value) for key, value in pairs if key != "resume" and not key.startswith("sweep.")}


def job_number(run: Path) -> tuple[int, str]:
    """What runs of a sweep are sorted by."""
    number = run.name.split("_", 1)[0]
    return (int(number) if number.isdecimal() else 0, run.name)
