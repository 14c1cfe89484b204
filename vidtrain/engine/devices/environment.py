"""How many processes train together, as their launcher says it: torchrun in variables that PyTorch reads, Slurm's srun
in variables of its own, from which the former are set. No torch is imported: the start of a training asks, too.
"""

from __future__ import annotations

import os
import re

from vidtrain.errors import ConfigError

RESTARTS = "TORCHELASTIC_RESTART_COUNT"
"""How often an agent of torchrun has started its processes again after the loss of one, as it has counted."""
_STEPS = 61  # ports between two jobs, so that steps of one do not meet those of the next
_PORTS = range(20000, 40000)


def process_count() -> int:
    """Processes of this training on all machines; 1: this one is alone.

    Raises:
        ConfigError: a variable is no number.
    """
    _set_from_slurm()
    return _number("WORLD_SIZE", 1)


def local_process_count() -> int | None:
    """Those of `process_count` that run on this machine; None where the launcher has not said it."""
    return _number("LOCAL_WORLD_SIZE", 1) if "LOCAL_WORLD_SIZE" in os.environ else None


def _set_from_slurm() -> None:
    """Set what torchrun would have, from what srun sets for each task of a step.

    A batch script has SLURM_NTASKS and SLURM_PROCID, too, but no step: what it runs without srun is alone.
    """
    slurm = os.environ
    if "WORLD_SIZE" in slurm or "SLURM_PROCID" not in slurm or _number("SLURM_STEP_NUM_TASKS", 1) < 2:
        return
    slurm["WORLD_SIZE"] = slurm["SLURM_STEP_NUM_TASKS"]
    slurm["RANK"], slurm["LOCAL_RANK"] = slurm["SLURM_PROCID"], slurm.get("SLURM_LOCALID", "0")
    counts, node = tasks_per_node(slurm.get("SLURM_STEP_TASKS_PER_NODE", "")), _number("SLURM_NODEID", 0)
    if node < len(counts):
        slurm.setdefault("LOCAL_WORLD_SIZE", str(counts[node]))
    slurm.setdefault("MASTER_ADDR", first_host(slurm.get("SLURM_STEP_NODELIST", slurm.get("SLURM_JOB_NODELIST", ""))))
    job = int(re.sub(r"\D", "", slurm.get("SLURM_JOB_ID", "")) or 0)
    slurm.setdefault("MASTER_PORT", str(_PORTS[(job * _STEPS + _number("SLURM_STEP_ID", 0)) % len(_PORTS)]))


def first_host(nodes: str) -> str:
    """The first of Slurm's list of nodes: 'gpu[003-007,9],big1' -> 'gpu003'."""
    found = re.match(r"([^,\[]+)(?:\[([^\],-]+)[^\]]*\]([^,]*))?", nodes)
    return "".join(part or "" for part in found.groups()) if found else "localhost"


def tasks_per_node(counts: str) -> list[int]:
    """Slurm's counts, one per node: '8(x2),4' -> [8, 8, 4]; [] for what is none."""
    found = [re.fullmatch(r"(\d{1,6})(?:\(x(\d{1,6})\))?", part) for part in counts.split(",")]
    return [n for part in found if part for n in [int(part[1])] * int(part[2] or 1)] if all(found) else []


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not re.fullmatch(r"\d{1,9}", text):
        raise ConfigError(
            f"{name}={text[:40]} in the environment: expected a whole number; unset it, or start with "
            "torchrun, srun or trainer.devices"
        )
    return int(text)
