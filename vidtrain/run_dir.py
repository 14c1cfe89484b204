"""Where a run is written, decided once, before Hydra makes the folder.

A new run gets runs/DATA/MODEL/DATE_TIME. With resume=auto the newest unfinished run of the same configuration is
continued in its own folder, so a job that is killed and started again by the same command goes on.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

CONFIG_FILE = "config.json"
"""The resolved configuration of a run, written when it starts."""
FINISHED_FILE = "result.json"
"""Written last: its presence says that the run is complete."""
_NOT_COMPARED = ("resume", "run_dir", "hydra")


_chosen: dict[str, str] = {}


def register() -> None:
    """Make `${vidtrain_run_dir:}` known to OmegaConf, with nothing chosen yet."""
    _chosen.clear()
    OmegaConf.register_new_resolver("vidtrain_run_dir", _resolve, replace=True)


def comparable(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain values, without the keys that say only where or how often it runs."""
    whole = OmegaConf.to_container(cfg, resolve=False, enum_to_str=True)
    assert isinstance(whole, dict)
    plain = {str(k): v for k, v in whole.items() if k not in _NOT_COMPARED}
    return json.loads(json.dumps(plain, default=str))


def _resolve(*, _root_: DictConfig) -> str:
    # Hydra asks several times for the same run and must get the same folder, also when the clock has moved on
    key = json.dumps([comparable(_root_), _root_.run_dir, _root_.resume])
    if key not in _chosen:
        _chosen[key] = _choose(_root_)
    return _chosen[key]


def _choose(root: DictConfig) -> str:
    choices = root.hydra.runtime.choices
    if root.run_dir is not None:
        return str(root.run_dir)
    if root.resume not in (None, "auto"):
        return str(root.resume)
    parent = Path("runs") / str(choices.data) / str(choices.model)
    if root.resume == "auto":
        unfinished = find_unfinished(parent, comparable(root))
        if unfinished is not None:
            return str(unfinished)
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder, number = parent / stamp, 1
    while folder.exists():  # two runs started within a second
        number += 1
        folder = parent / f"{stamp}_{number}"
    return str(folder)


def find_unfinished(parent: Path, wanted: dict[str, Any]) -> Path | None:
    """The newest run below `parent` that was started with this configuration and has not finished."""
    for file in sorted(parent.glob(f"*/{CONFIG_FILE}"), reverse=True):
        if (file.parent / FINISHED_FILE).exists():
            continue
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # a run killed while it wrote its first file
            continue
        if stored == wanted:
            return file.parent
    return None
