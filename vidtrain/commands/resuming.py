"""Whether a run may be continued: what of its configuration is compared, and which run resume=auto finds."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vidtrain.errors import CheckpointError, one_of
from vidtrain.options.path_options import expand_homes
from vidtrain.reports.results import read_result
from vidtrain.runs.names import CONFIG
from vidtrain.untrusted_data import read_json, read_mapping

log = logging.getLogger("vidtrain")

_NOT_COMPARED = ("resume", "resume_changed", "run_dir", "hydra", "sweep")
# what changes neither weights nor the choice of the best; everything else does, or may
_MAY_CHANGE_ON_RESUME = (
    *("logger", "eval", "debug", "report", "trainer.num_workers", "trainer.data_timeout", "trainer.rank_timeout"),
    *("trainer.log_every", "trainer.save_minutes", "trainer.async_save", "trainer.keep_last", "trainer.test"),
    *("trainer.profile", "trainer.on_oom", "trainer.max_skipped", "trainer.patience", "data.max_bad_fraction"),
    "data.memory_gb",
)


def comparable(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain values, without the keys that say only where or how often it runs."""
    whole = OmegaConf.to_container(cfg, resolve=False, enum_to_str=True)
    assert isinstance(whole, dict)
    plain: dict[str, Any] = {str(k): v for k, v in whole.items() if k not in _NOT_COMPARED}
    for key, path in expand_homes(plain, "train").items():
        section = plain
        for name in key.split(".")[:-1]:
            section = section[name]
        section[key.rpartition(".")[2]] = path
    return json.loads(json.dumps(plain, default=str))


def may_change_on_resume(key: str) -> bool:
    """True for a key that a run may be continued with another value of and still end in the same weights."""
    return any(key == name or key.startswith(f"{name}.") for name in _MAY_CHANGE_ON_RESUME) and key != "eval.val_clips"


def differences(stored: Any, wanted: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """(key, stored value, wanted value) of all that differs between two plain configurations; None: not there."""
    if not (isinstance(stored, dict) and isinstance(wanted, dict)):
        return [] if stored == wanted else [(key, stored, wanted)]
    found = []
    for name in dict.fromkeys([*stored, *wanted]):
        found += differences(stored.get(name), wanted.get(name), f"{key}.{name}" if key else name)
    return found


def find_unfinished(runs: Path, model: str, wanted: dict[str, Any]) -> Path | None:
    """The newest run runs/*/MODEL/* that was started with this configuration and has not finished."""
    for file in sorted(runs.glob(f"*/{model}/*/{CONFIG}"), key=lambda file: file.parent.name, reverse=True):
        if read_result(file.parent) is not None:
            continue
        try:
            stored = read_json(file)
        except (OSError, ValueError):  # a run killed while it wrote its first file
            if any(file.parent.glob("last*.pt")):
                log.warning("%s: cannot be read: resume=auto skips its run; resume=%s names it", file, file.parent)
            continue
        if all(may_change_on_resume(key) for key, _, _ in differences(stored, wanted)):
            return file.parent
    return None


def refuse_other_configuration(compared: dict[str, Any], folder: Path, *, changed: bool) -> None:
    """A run that is continued with another configuration would be neither the one nor the other.

    Args:
        compared: the configuration, see `comparable`.
        changed: resume_changed, it may be another one.

    Raises:
        CheckpointError: a key that decides about the weights differs, or what it was cannot be read, and resume_changed
            is not set.
    """
    file = folder / CONFIG
    try:
        stored = read_mapping(file)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "damaged"
        if not changed:
            raise CheckpointError(
                f"{file}: cannot be read ({reason}), so it is not known whether these are the options that the run was "
                "started with; resume_changed=true continues it with these"
            ) from None
        log.warning("%s: cannot be read (%s): continued with the options given now", file, reason)
        return
    found = differences(stored, compared)
    changes = [f"{key} was {str(was)[:200]}, is {str(now)[:200]}" for key, was, now in found]
    breaking = [text for text, (key, _, _) in zip(changes, found, strict=True) if not may_change_on_resume(key)]
    if breaking and not changed:
        raise CheckpointError(
            f"{folder} was started with another configuration: {one_of(breaking, 10)}; give the same values, or "
            "resume_changed=true to go on with the new ones"
        )
    if changes:
        log.info("continued with another configuration: %s", "; ".join(changes))
