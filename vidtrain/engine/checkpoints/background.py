"""Writing checkpoints beside the training: of what is to be saved a copy is taken, and a thread writes that."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

log = logging.getLogger("vidtrain")

_Content = TypeVar("_Content")


def copied(content: _Content) -> _Content:
    """A copy in the CPU's memory of plain values and tensors, which later updates do not change.

    Tensors that share memory share it in the copy, and keep their strides: of tensors on the CPU, the file is the same
    byte for byte. Waits for the device.
    """
    made: dict[int, Any] = {}
    storages: dict[int, torch.UntypedStorage] = {}
    for tensor in _tensors(content):
        storage = tensor.untyped_storage()
        if storage._cdata not in storages:
            storages[storage._cdata] = storage.clone() if storage.device.type == "cpu" else storage.cpu()
        place = tensor.storage_offset(), tensor.size(), tensor.stride()
        made[id(tensor)] = torch.empty(0, dtype=tensor.dtype).set_(storages[storage._cdata], *place)
    return copy.deepcopy(content, made)  # which takes what is known already, by its id


def _tensors(content: Any) -> Iterator[torch.Tensor]:
    if type(content) is torch.Tensor and content.layout is torch.strided:
        yield content
    elif isinstance(content, dict):
        for value in content.values():
            yield from _tensors(value)
    elif isinstance(content, (list, tuple)):
        for value in content:
            yield from _tensors(value)


class Background:
    """Does one thing after the other in threads, in the order in which they were given.

    After one has failed no later one is begun: last.pt must not tell of a best.pt that is not there.
    """

    def __init__(self) -> None:
        self._threads: dict[str, threading.Thread] = {}  # of each name the last
        self._last: threading.Thread | None = None
        self._failed: Exception | None = None
        self._raised = False

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Begin `work` once all that was given before has ended. Raises what `wait` does."""
        self.wait(name)
        before = self._last

        def run() -> None:
            if before is not None:
                before.join()
            if self._failed is None:
                try:
                    work()
                except Exception as error:  # is raised in the thread that trains
                    self._failed = error

        # a daemon: a second Ctrl-C ends the program in the middle of a file, which is not there then
        self._last = self._threads[name] = threading.Thread(target=run, name=f"save {name}", daemon=True)
        self._last.start()

    def check(self) -> None:
        """Raise, once, what has gone wrong in a thread."""
        if self._failed is not None and not self._raised:
            self._raised = True
            raise self._failed

    def wait(self, name: str | None = None) -> None:
        """Until the last work of this name, or all, has ended. Raises, once, what has gone wrong."""
        thread = self._last if name is None else self._threads.get(name)
        if thread is not None:
            thread.join()
        self.check()

    def join(self, limit: float | None) -> None:
        """Until all has ended, `limit` seconds at most; an error is logged, since another one is on its way."""
        if self._last is not None:
            self._last.join(limit)
        if self._failed is not None and not self._raised:
            self._raised = True
            log.warning("%s", self._failed)
