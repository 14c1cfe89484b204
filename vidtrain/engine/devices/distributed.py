"""The processes that train together, one a GPU. Without any, all of this costs nothing."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from vidtrain.engine.devices.waiting import MARGIN, SPEAK, WAIT_LIMIT, Watch
from vidtrain.errors import ConfigError, VidtrainError
from vidtrain.ranges import LONGEST

log = logging.getLogger("vidtrain")

_T = TypeVar("_T")

_watch: Watch | None = None  # of this process, once it has joined


@dataclass(frozen=True)
class World:
    """This process among those that train together.

    rank: from 0, the main process, to size - 1. local_rank: among those of this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    watch: Watch | None = field(default=None, compare=False, repr=False)

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
        with self.together():
            dist.all_reduce(total)
        return total

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag, true where it is so in any process."""
        if self.size == 1:
            return flags
        found = torch.tensor(flags, dtype=torch.int32)
        with self.together():
            dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return tuple(bool(flag) for flag in found.tolist())

    def gather(self, value: _T) -> list[_T]:
        """What each process has, in the order of their ranks; on every one of them."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        with self.together():
            dist.all_gather_object(found, value)
        return found

    def from_main(self, value: _T) -> _T:
        """What the main process has."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        with self.together():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Write the main process's values into those of the others."""
        if self.size > 1:
            with self.together():
                for tensor in tensors:
                    dist.broadcast(tensor, src=0)

    def together(self) -> AbstractContextManager[None]:
        """Around what all processes do together, as an update: who is waited for is said, a loss is one line."""
        return nullcontext() if self.watch is None else self.watch.waiting()

    @contextmanager
    def sharing(self, kind: type[Exception]) -> Iterator[None]:
        """An error of this kind that one process raises inside, all raise at its end. To be entered by all."""
        own: Exception | None = None
        try:
            yield
        except kind as error:
            if self.size == 1:
                raise
            own = error
        found = next((error for error in self.gather(own) if error is not None), None)
        if found is not None:
            raise found

    @contextmanager
    def reporting_errors(self) -> Iterator[None]:
        """Around a command: the others learn why this process ends, and of a line that several have one prints it."""
        try:
            yield
        except Exception as error:
            if self.watch is not None:
                self.watch.end(error)
            raise

    def leave(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def local(tensor: Tensor) -> Tensor:
    """What this process keeps of a tensor that is spread over several (FSDP), in the same memory."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def join(limit: float = WAIT_LIMIT) -> World:
    """Join the processes that torchrun, Slurm's srun or `trainer.devices` has started; alone where none has.

    Args:
        limit: seconds that one waits for another before it ends, trainer.rank_timeout; 0: never. Each call sets it.

    Raises:
        ConfigError: the environment says only a part of what is needed.
        VidtrainError: the others have not come within the limit.
    """
    global _watch
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
        _meet(size, limit)
    if _watch is None:
        store = dist.distributed_c10d._get_default_store()
        _watch = Watch(store.clone(), dist.get_rank(), size)
    _watch.limit = limit
    _limit_backends(limit or LONGEST)
    return World(dist.get_rank(), size, local_rank, _watch)


def _meet(size: int, limit: float) -> None:
    backends = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    who = f"process {os.environ['RANK']} of {size}"
    speaker = threading.Timer(SPEAK, log.warning, ["%s waits at %s for the others to start", who, where])
    speaker.daemon = True
    speaker.start()
    try:
        dist.init_process_group(backends, timeout=timedelta(seconds=limit or LONGEST))
    except dist.DistError as error:
        raise VidtrainError(
            f"{who} has not met the others at {where} (MASTER_ADDR, MASTER_PORT): {str(error).splitlines()[0][:200]}"
        ) from None
    finally:
        speaker.cancel()


def _limit_backends(seconds: float) -> None:
    """gloo raises after so many seconds. NCCL would abort the process with pages of traces: `Watch` is faster."""
    group = dist.distributed_c10d._get_default_group()
    for device, more in (("cpu", 0.0), ("cuda", 4 * MARGIN)):
        if device == "cpu" or torch.cuda.is_available():
            group._get_backend(torch.device(device))._set_default_timeout(timedelta(seconds=seconds + more))


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
