"""Being told to stop: by the scheduler of a cluster (SIGTERM, SIGUSR1) or by Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from vidtrain.errors import EXIT_INTERRUPTED, EXIT_UNFINISHED, StoppedError

_NAMES = ("SIGTERM", "SIGUSR1", "SIGINT")


class WaitEnded(BaseException):
    """A signal came in a wait that is ended by one."""


def exit_code(signal_name: str) -> int:
    """Of a program that was told to stop by this signal."""
    return EXIT_INTERRUPTED if signal_name == "SIGINT" else EXIT_UNFINISHED


class EndedBySignal(KeyboardInterrupt):
    """A signal that ends a program was received; `exit_code` is the shell's for it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP end this process as Ctrl-C does: what is finished is kept, what is begun goes.

    A second one ends it at once. One that is ignored, as under nohup, stays so.

    Raises:
        EndedBySignal: one was received.
    """
    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != owner:  # a forked worker
            os.kill(os.getpid(), number)
            return
        raise EndedBySignal(number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():  # Python allows no other to
        numbers = []
    for number in numbers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


class StopSignals:
    """While it is entered, the first signal asks for a stop at the next update, and a second Ctrl-C stops at once.

    Args:
        at_once: where nothing can be left half done, the first signal raises StoppedError with this message.

    Attributes:
        received: the signal's name once one has come.
    """

    def __init__(self, at_once: str | None = None) -> None:
        self.received: str | None = None
        self._at_once = at_once
        self._since = 0.0
        self._waiting = False
        self._before: dict[int, Any] = {}
        self._owner = os.getpid()

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python allows no other to
            for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    @contextmanager
    def ending_wait(self) -> Iterator[None]:
        """Inside, a signal ends what is waited for: WaitEnded is raised. Nothing may be done that a stop would tear."""
        self._waiting = True
        try:
            if self.received is not None:
                raise WaitEnded
            yield
        finally:
            self._waiting = False

    def wait(self, seconds: float = 1.0) -> None:
        """A signal to the whole job also ends the loader's workers, which may show before the signal does."""
        ends = time.monotonic() + seconds
        while self.received is None and time.monotonic() < ends:
            time.sleep(0.02)

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
            name = signal.Signals(number).name
            self.received, self._since = name, now
            if self._at_once is not None:
                raise StoppedError(f"{name} received: {self._at_once}", exit_code(name))
            if self._waiting:
                raise WaitEnded
