"""Being told to stop: by the scheduler of a cluster (SIGTERM, SIGUSR1) or by Ctrl-C; and what a dead worker means."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from vidtrain.errors import WorkerDeathError

_NAMES = ("SIGTERM", "SIGUSR1", "SIGINT")


class StopSignals:
    """While it is entered, the first signal asks for a stop at the next update, and a second Ctrl-C stops at once.

    Attributes:
        received: the signal's name once one has come.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._since = 0.0
        self._before: dict[int, Any] = {}
        self._owner = os.getpid()

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python allows no other to
            for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a forked worker, which ends when its parent does or by a SIGTERM of its own
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        now = time.monotonic()
        if number == signal.SIGINT and self.received is not None and now - self._since > 1.0:
            raise KeyboardInterrupt
        if self.received is None:  # a launcher may pass on what the terminal has sent already
            self.received, self._since = signal.Signals(number).name, now


def worker_death(error: BaseException) -> WorkerDeathError | None:
    """The line for torch's report that a process of a loader has ended; None when the error is something else."""
    found = re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: (\w[\w ]*))?", str(error))
    if not isinstance(error, RuntimeError) or found is None:
        return None
    ignore_children()  # torch's handler would raise again for the next worker, within what handles the first
    how = f"was ended by a signal ({found[2]})" if found[2] else "has ended unexpectedly"
    return WorkerDeathError(
        f"a decoding process (pid {found[1]}) {how}, most often because memory ran out: lower trainer.num_workers "
        "(0 decodes in the main process) or the batch size"
    )


def ignore_children() -> None:
    """From now on the death of a loader's worker shows where a batch of it is waited for, a few seconds later.

    torch's handler raises wherever the program is, in the middle of an update too.
    """
    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
