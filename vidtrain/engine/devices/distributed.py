"""The processes that train together, one a GPU. Without any, all of this costs nothing."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from vidtrain.engine.devices.environment import local_process_count, process_count
from vidtrain.engine.devices.heartbeats import MARGIN, SPEAK, WAIT_LIMIT, Watch
from vidtrain.errors import ConfigError, VidtrainError
from vidtrain.ranges import LONGEST

log = logging.getLogger("vidtrain")

_T = TypeVar("_T")

_watch: Watch | None = None  # of this process, once it has joined


@dataclass(frozen=True)
class World:
    """This process among those that train together.

    rank: from 0, the main process, to size - 1. local_rank: among the local_size of this machine. competing: how many
    run on the same processors. group: what they exchange by; None: the group that all have joined.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    competing: int = 1
    watch: Watch | None = field(default=None, compare=False, repr=False)
    group: Any = field(default=None, compare=False, repr=False)

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
            dist.all_reduce(total, group=self.group)
        return total

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag, true where it is so in any process."""
        if self.size == 1:
            return flags
        found = torch.tensor(flags, dtype=torch.int32)
        with self.together():
            dist.all_reduce(found, op=dist.ReduceOp.MAX, group=self.group)
        return tuple(bool(flag) for flag in found.tolist())

    def gather(self, value: _T) -> list[_T]:
        """What each process has, in the order of their ranks; on every one of them."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        with self.together():
            dist.all_gather_object(found, value, group=self.group)
        return found

    def from_main(self, value: _T) -> _T:
        """What the main process has."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        with self.together():
            dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Write the main process's values into those of the others."""
        if self.size > 1:
            with self.together():
                for tensor in tensors:
                    dist.broadcast(tensor, src=0, group=self.group)

    def together(self) -> AbstractContextManager[None]:
        """Around what all processes do together, as an update: who is waited for is said, a loss is one line."""
        return nullcontext() if self.watch is None else self.watch.waiting()

    def aside(self) -> World:
        """The same processes by a group of their own, on the CPU: for a thread, beside what the main ones exchange.

        To be called by all.
        """
        if self.size == 1:
            return self
        limit = timedelta(seconds=(self.watch.limit if self.watch else WAIT_LIMIT) or LONGEST)
        return replace(self, watch=None, group=dist.new_group(backend="gloo", timeout=limit))

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
    size = process_count()
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
    world = World(dist.get_rank(), size, local_rank, watch=_watch)
    own = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()
    local_size, competing = neighbours(world.gather((socket.gethostname(), own)), world.rank)
    return replace(world, local_size=local_process_count() or local_size, competing=competing)


def neighbours(known: Sequence[tuple[str, frozenset[int]]], rank: int) -> tuple[int, int]:
    """(processes on the machine of `rank`, those of them that run on the same processors), itself counted.

    Args:
        known: of each process its machine and the processors that it may use; srun may give each task its own.
    """
    host, own = known[rank]
    here = [processors for name, processors in known if name == host]
    return len(here), sum(processors == own or not own.isdisjoint(processors) for processors in here)


def _meet(size: int, limit: float) -> None:
    backends = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    who = f"process {os.environ['RANK']} of {size}"
    speaker = threading.Timer(SPEAK, log.warning, ["%s waits at %s for the others to start", who, where])
    speaker.daemon = True
    speaker.start()
    timeout = timedelta(seconds=limit or LONGEST)
    try:
        store, rank, _ = next(dist.rendezvous("env://", timeout=timeout))
        store = dist.PrefixStore(meeting(store, rank, size, limit or LONGEST), store)
        dist.init_process_group(backends, store=store, rank=rank, world_size=size, timeout=timeout)
    except RuntimeError as error:  # of the store, or of gloo
        raise VidtrainError(
            f"{who} has not met the others at {where} (MASTER_ADDR, MASTER_PORT): {str(error).splitlines()[0][:200]}"
        ) from None
    finally:
        speaker.cancel()


def meeting(store: dist.Store, rank: int, size: int, limit: float) -> str:
    """A word that all processes of this start have, and no process of an earlier one had. To be called by all.

    torchrun keeps one store for all its restarts, where the addresses of processes that are gone would be taken for
    those of the new ones; its count of restarts is each agent's own. So every process asks the main one by a word of
    its own, which nobody has used before; questions that are left from before are answered, too, but not acknowledged.

    Args:
        limit: seconds that the main process waits for the others.

    Raises:
        DistStoreError: they have not come.
    """
    own = uuid.uuid4().hex
    if rank:
        store.set(f"vidtrain/question/{rank}", own)
        word: str = store.get(f"vidtrain/answer/{own}").decode()  # waits for it
        store.set(f"vidtrain/{word}/{rank}", "")
        return word
    ends = time.monotonic() + limit
    while absent := [other for other in range(1, size) if not store.check([f"vidtrain/{own}/{other}"])]:
        for other in absent:
            if store.check([question := f"vidtrain/question/{other}"]):
                store.set(f"vidtrain/answer/{store.get(question).decode()}", own)
        if time.monotonic() > ends:
            raise dist.DistStoreError(f"timeout after {limit:.0f} s: process {absent[0]} has not come")
        time.sleep(0.02)
    return own


def _limit_backends(seconds: float) -> None:
    """gloo raises after so many seconds. NCCL would abort the process with pages of traces: `Watch` is faster."""
    group = dist.distributed_c10d._get_default_group()
    for device, more in (("cpu", 0.0), ("cuda", 4 * MARGIN)):
        if device == "cpu" or torch.cuda.is_available():
            group._get_backend(torch.device(device))._set_default_timeout(timedelta(seconds=seconds + more))
