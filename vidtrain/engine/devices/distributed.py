"""The processes that train together, one a GPU. Without any, all of this costs nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from vidtrain.errors import ConfigError, VidtrainError

_T = TypeVar("_T")

_TIMEOUT = timedelta(minutes=30)  # a validation on one slow disk; a process that has died is noticed at once


@dataclass(frozen=True)
class World:
    """This process among those that train together.

    rank: from 0, the main process, to size - 1. local_rank: among those of this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def part(self, items: int) -> range:
        """Which of `items` things are this process's: every one belongs to exactly one."""
        return range(self.rank, items, self.size)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes; on every one of them."""
        if self.size == 1:
            return values
        total = values.clone()
        with _answering():
            dist.all_reduce(total)
        return total

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag, true where it is so in any process."""
        if self.size == 1:
            return flags
        found = torch.tensor(flags, dtype=torch.int32)
        with _answering():
            dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return tuple(bool(flag) for flag in found.tolist())

    def gather(self, value: _T) -> list[_T]:
        """What each process has, in the order of their ranks; on every one of them."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        with _answering():
            dist.all_gather_object(found, value)
        return found

    def from_main(self, value: _T) -> _T:
        """What the main process has."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        with _answering():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Write the main process's values into those of the others."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def leave(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def local(tensor: Tensor) -> Tensor:
    """What this process keeps of a tensor that is spread over several (FSDP), in the same memory."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


@contextmanager
def _answering() -> Iterator[None]:
    """Inside, a process that has died, or is silent for longer than _TIMEOUT, is an error of one line."""
    try:
        yield
    except RuntimeError as error:
        if re.search(r"closed by peer|reset by peer|broken pipe|timed out|timeout", str(error), re.IGNORECASE) is None:
            raise
        raise VidtrainError(
            f"another process of this training has ended or does not answer ({str(error).splitlines()[0][:200]}); see "
            "what it printed; the same command with resume=auto continues from the last save"
        ) from error


def join() -> World:
    """Join the processes that torchrun, Slurm's srun or `trainer.devices` has started; alone where none has.

    Raises:
        ConfigError: the environment says only a part of what is needed.
    """
    _environment_of_slurm()
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE={size}, but {', '.join(missing)} not set: start with torchrun, srun or trainer.devices"
        )
    local_rank = int(os.environ["LOCAL_RANK"])
    if not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(local_rank % torch.cuda.device_count())
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_TIMEOUT)
    return World(dist.get_rank(), size, local_rank)


def _environment_of_slurm() -> None:
    """What torchrun would have set, from what srun sets for each of its tasks."""
    slurm = os.environ
    if "WORLD_SIZE" in slurm or int(slurm.get("SLURM_NTASKS", "1")) < 2 or "SLURM_PROCID" not in slurm:
        return
    if slurm.get("SLURM_STEP_NUM_TASKS", slurm["SLURM_NTASKS"]) == "1":  # in a batch script, not started by srun
        return
    slurm["WORLD_SIZE"] = slurm.get("SLURM_STEP_NUM_TASKS", slurm["SLURM_NTASKS"])
    slurm["RANK"], slurm["LOCAL_RANK"] = slurm["SLURM_PROCID"], slurm.get("SLURM_LOCALID", "0")
    slurm.setdefault("MASTER_ADDR", first_host(slurm.get("SLURM_STEP_NODELIST", slurm.get("SLURM_NODELIST", ""))))
    job = int(re.sub(r"\D", "", slurm.get("SLURM_JOB_ID", "0")) or 0)
    slurm.setdefault("MASTER_PORT", str(20000 + job % 20000))


def first_host(nodes: str) -> str:
    """The first of Slurm's list of nodes: 'gpu[003-007,9],big1' -> 'gpu003'."""
    found = re.match(r"([^,\[]+)(?:\[([^\],-]+)[^\]]*\]([^,]*))?", nodes)
    return "".join(part or "" for part in found.groups()) if found else "localhost"
