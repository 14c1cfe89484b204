"""Bytes that come in their own time, as FFmpeg reads them: forwards only, `read` waits until there are some."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

_LOOK: Final = 0.1  # seconds between two looks for more


class Pipe:
    """stdin ("-") or a named pipe. What is read ends when the writer closes it, or with `stopped`."""

    def __init__(self, path: str, stopped: Callable[[], bool]) -> None:
        self._stopped = stopped
        self._own = path != "-"
        if self._own:  # without O_NONBLOCK, opening waits for a writer, and no signal ends that
            self._handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        else:
            self._handle = sys.stdin.fileno()

    def read(self, size: int) -> bytes:
        while not self._stopped():
            if os.name != "posix" or select.select([self._handle], [], [], _LOOK)[0]:
                try:
                    return os.read(self._handle, size)
                except BlockingIOError:
                    continue
        return b""

    def close(self) -> None:
        if self._own and self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


class FollowedFile:
    """A file that somebody else still writes. It has ended when it has not grown for `idle` seconds, or was cut."""

    def __init__(self, path: str, idle: float, stopped: Callable[[], bool]) -> None:
        self._file = Path(path).open("rb", buffering=0)  # noqa: SIM115 - closed by close
        self._idle = idle
        self._stopped = stopped

    def read(self, size: int) -> bytes:
        since = time.monotonic()
        while not (data := self._file.read(size) or b""):
            waited = time.monotonic() - since
            if self._stopped() or waited >= self._idle or self._is_cut():
                break
            time.sleep(min(_LOOK, self._idle - waited))
        return data

    def _is_cut(self) -> bool:
        return os.fstat(self._file.fileno()).st_size < self._file.tell()

    def close(self) -> None:
        self._file.close()
