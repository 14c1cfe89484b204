"""Where a run is written, decided once, before Hydra makes the folder.

A new run gets runs/DATA/MODEL/DATE_TIME, where DATA is the name of the dataset; for data=folder, list, table, index,
features and segments, which are names of formats, it is the name of the folder data.root. With resume=auto the newest
unfinished run of the same configuration is continued in its own folder, so a job that is killed and started again by
the same command goes on.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vidtrain.commands.resuming import comparable, find_unfinished
from vidtrain.engine.devices.environment import process_count
from vidtrain.errors import ConfigError
from vidtrain.options.path_options import expand_home
from vidtrain.remote import refuse_store
from vidtrain.runs.names import CONFIG, METRICS_LOG, run_name
from vidtrain.runs.sole_writer import LOCK, is_held
from vidtrain.untrusted_data import read_json

RUNS = Path("runs")
"""Of all runs, in the working directory."""
FORMATS = ("folder", "list", "table", "index", "features", "segments")
"""Choices of data that say nothing about the data."""
_SAY_LITTLE = ("videos", "video", "clips", "data", "dataset", "datasets", "frames", "images", "raw", "train", "root")


_OWN_FOLDERS, _OWN_FILES = (".hydra", "tensorboard"), ("train.log", METRICS_LOG, CONFIG, LOCK)
"""What a run writes before the first numbers."""
_LONGEST_NAME = 150  # of what varies; file systems allow 255 bytes for the whole name
_chosen: dict[str, str] = {}
_fresh: dict[Path, list[Path]] = {}  # run folders that were not there -> themselves and those above that were not
"""Folders that were not there before this command."""


def register() -> None:
    """Make `${vidtrain_run_dir:}` and `${vidtrain_sweep_folder:}` known to OmegaConf, with nothing chosen yet."""
    _chosen.clear()
    _fresh.clear()
    OmegaConf.register_new_resolver("vidtrain_run_dir", _resolve, replace=True)
    OmegaConf.register_new_resolver("vidtrain_sweep_folder", sweep_folder, replace=True)


def sweep_folder(number: int, varied: str) -> str:
    """The name of a run's folder in a sweep, '0_optimizer.lr-0.1', which needs quotes neither in a shell nor in Hydra.

    Args:
        number: of the run, which makes the name unique.
        varied: what distinguishes the run, 'optimizer.lr=0.1'. Letters, digits and . _ - of it are kept, shortened to
            what file systems allow.
    """
    words = re.sub(r"[^A-Za-z0-9._-]+", "-", re.sub(r"(^|_)[+~]+", r"\1", varied))
    return f"{number}_{words[:_LONGEST_NAME].strip('-._')}".rstrip("_")


@dataclass(frozen=True)
class _Asked:
    """What decides about the folder. model, data: the choices of these groups. wanted: see `resuming.comparable`."""

    run_dir: str | None
    resume: str | None
    model: str
    data: str
    wanted: dict[str, Any]


def _resolve(*, _root_: DictConfig) -> str:
    choices = _root_.hydra.runtime.choices
    asked = _Asked(_root_.run_dir, _root_.resume, str(choices.model), str(choices.data), comparable(_root_))
    # Hydra asks several times for the same run and must get the same folder, also when the clock has moved on
    key = json.dumps([asked.wanted, asked.run_dir, asked.resume])
    if key not in _chosen:
        _chosen[key] = _agreed(asked)
    return _chosen[key]


def _agreed(asked: _Asked) -> str:
    """The same folder in all the processes that torchrun or srun has started."""
    if process_count() == 1:
        return _choose(asked)
    from vidtrain.engine.devices.distributed import join

    world = join()  # its limit is set when the options are checked
    return world.from_main(_choose(asked) if world.is_main else "")


def _choose(asked: _Asked) -> str:
    given = asked.run_dir if asked.run_dir is not None else None if asked.resume == "auto" else asked.resume
    if given is not None:
        refuse_store("resume" if asked.run_dir is None else "run_dir", str(given))
        folder = Path(expand_home(str(given)))
        if asked.run_dir is None and folder.name == "last.pt" and folder.is_file():
            folder = folder.parent  # resume=RUN/last.pt
        if not folder.exists():
            _fresh[folder.absolute()] = _missing(folder)
        _check_links(folder)
        return str(folder)
    if asked.resume == "auto":
        unfinished = find_unfinished(RUNS, asked.model, asked.wanted)
        if unfinished is not None:
            _check_links(unfinished)
            return str(unfinished)
    parent = RUNS / _data_folder(asked.data, asked.wanted) / asked.model
    for number in itertools.count(1):  # two runs started within a second, perhaps on two machines
        if _made(folder := parent / run_name(number)):
            return str(folder)
    raise AssertionError(parent)


def _check_links(folder: Path) -> None:
    """Refuse the folder of a run, a stranger's perhaps, in which a file that a training writes to lies elsewhere.

    Checkpoints are replaced by new files, so those may be links. Hydra writes its own before any command runs.
    """
    home, entries = folder.resolve(), list(folder.iterdir()) if folder.is_dir() else []
    entries += [below for entry in entries if entry.is_dir() and not entry.is_symlink() for below in entry.iterdir()]
    for entry in entries:
        if entry.suffix == ".pt":
            continue
        if entry.is_symlink() and not entry.resolve().is_relative_to(home):
            raise ConfigError(
                f"{entry}: is a link to {entry.readlink()}, and a training would write there: replace it by a file or "
                "folder of its own"
            )
        if not (entry.is_file() or entry.is_dir()):
            raise ConfigError(f"{entry}: is not a regular file, and a training would write to it: remove it")


def folder_name(path: str | Path) -> str:
    """The name of a folder in letters that need no quotes, with its parent's where it says little; '' for /."""
    path = Path(path).absolute()
    name = f"{path.parent.name}_{path.name}" if path.name.lower() in _SAY_LITTLE and path.parent.name else path.name
    return re.sub(r"[^\w.-]+", "_", name)


def _data_folder(choice: str, wanted: dict[str, Any]) -> str:
    """The name of the data in a run's folder. Folders of the same name in different places get a number."""
    root = (wanted.get("data") or {}).get("root")
    if choice not in FORMATS or root is None or not folder_name(str(root)):
        return choice
    names = (folder_name(str(root)) + (f"_{number}" if number > 1 else "") for number in itertools.count(1))
    return next(name for name in names if _root_of_runs(RUNS / name) in (None, Path(str(root)).absolute()))


def _root_of_runs(folder: Path) -> Path | None:
    """The data root of the runs in runs/DATA, None where there are none."""
    for file in folder.glob(f"*/*/{CONFIG}"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return Path(str(read_json(file)["data"]["root"])).absolute()
    return None


def _made(folder: Path) -> bool:
    """Whether this process has made the folder, and nobody before it."""
    above = _missing(folder.parent)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    _fresh[folder.absolute()] = made = [folder.absolute(), *above]
    atexit.register(_remove_if_empty, made)  # when it was but asked for, as by --cfg
    return True


def _missing(folder: Path) -> list[Path]:
    """The folder and those above it that are not there, from the inside out."""
    folder = folder.absolute()
    return list(itertools.takewhile(lambda path: not path.exists(), (folder, *folder.parents)))


def remove_refused(folder: Path) -> bool:
    """Remove the folder of a run in which nothing was trained, if this process has made it and nobody has put anything
    into it: a mistake leaves nothing behind. Returns whether it stays with something that a resume can go on from.
    """
    folder = folder.absolute()
    trained = any(folder.glob("*.pt")) or any(file.stat().st_size for file in folder.glob(METRICS_LOG))
    if folder not in _fresh or trained or is_held(folder):  # by another that has begun to continue it
        return folder in _fresh and any(folder.glob("last*.pt"))
    if folder.is_dir() and not {entry.name for entry in folder.iterdir()} <= {*_OWN_FOLDERS, *_OWN_FILES}:
        return False
    for handler in [h for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler)]:
        if folder in Path(handler.baseFilename).parents:
            logging.getLogger().removeHandler(handler)
            handler.close()
    for name in _OWN_FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in _OWN_FILES:
        with contextlib.suppress(OSError):
            (folder / name).unlink()
    _remove_if_empty(_fresh[folder])
    return False


def _remove_if_empty(made: list[Path]) -> None:
    """A run's folder, and those of its model, its data and all runs that were made for it, if these are empty, too."""
    with contextlib.suppress(OSError):
        for path in made:
            path.rmdir()
