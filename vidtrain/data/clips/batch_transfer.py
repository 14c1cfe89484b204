"""How a batch crosses from a decoding process to the main one.

Batches cross in shared memory, which costs no copy. Containers have 64 MB of it unless they are told otherwise: a batch
that finds no room crosses through a pipe instead.
"""

from __future__ import annotations

import io
import logging
import pickle
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch.utils.data import get_worker_info

from vidtrain.child_python_path import SHARED_MEMORY, shared_memory

log = logging.getLogger("vidtrain")

_Item = TypeVar("_Item")

_KEPT_FREE = 0.25  # share of it left to other programs, and to workers that ask in the same moment


class Piped(Generic[_Item]):
    """An item that crosses as bytes. room: free bytes of shared memory that were too few for it."""

    def __init__(self, item: _Item, room: int) -> None:
        buffer = io.BytesIO()
        _Copying(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(item)
        self._bytes = buffer.getvalue()
        self.room = room

    def __len__(self) -> int:
        return len(self._bytes)

    def unpacked(self) -> _Item:
        item: _Item = pickle.loads(self._bytes)  # written by this program's own worker
        return item

    def pin_memory(self) -> Any:
        """Called by torch's DataLoader with pin_memory=True."""
        warn_once(self)
        item: Any = self.unpacked()
        return item.pin_memory()


class _Copying(pickle.Pickler):
    """Writes tensors as arrays: torch's own way across processes needs shared memory for each."""

    def reducer_override(self, obj: Any) -> Any:
        return (_tensor, (obj.numpy(),)) if isinstance(obj, torch.Tensor) else NotImplemented


def _tensor(array: np.ndarray[Any, Any]) -> torch.Tensor:
    return torch.from_numpy(array)


class HandOver(Generic[_Item]):
    """`make`, a collate function, whose result is ready to cross: in shared memory, or `Piped` where that is full.

    Left to torch, a batch without room is lost in a thread of the worker, and the main process waits forever.
    """

    def __init__(self, make: Callable[[Any], _Item]) -> None:
        self._make = make

    def __call__(self, samples: Any) -> _Item | Piped[_Item]:
        item = self._make(samples)
        if get_worker_info() is None:
            return item
        found = _Tensors(io.BytesIO())
        found.dump(item)
        room, total = shared_memory()
        size = sum(tensor.untyped_storage().nbytes() for tensor in found.tensors if not tensor.is_shared())
        if total and size > room - _KEPT_FREE * total:
            return Piped(item, room)
        try:
            for tensor in found.tensors:
                tensor.share_memory_()
        except RuntimeError:  # another process was faster
            return Piped(item, room)
        return item


class _Tensors(pickle.Pickler):
    """Lists the tensors of an object, wherever in it they are."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.tensors: list[torch.Tensor] = []

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, torch.Tensor):
            return NotImplemented
        self.tensors.append(obj)
        return (int, ())


_said: list[bool] = []


def warn_once(item: Piped[Any]) -> None:
    """Warn of the first item that found no room in shared memory."""
    if not _said:
        _said.append(True)
        log.warning(
            "%s has %.0f MB free, too few for batches of %.0f MB from each worker: they cross through pipes, which is "
            "slower; give the container more (docker run --shm-size=8g, or --ipc=host), or use fewer workers or a "
            "smaller batch",
            SHARED_MEMORY,
            item.room / 1e6,
            len(item) / 1e6,
        )
