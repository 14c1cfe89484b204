"""Who is waited for. Each of the processes that train together gives a sign of life every second, with the number of
the collective it is in, so that one that stands still, is busy or has ended can be named by those that wait for it.

All of it is said through the store by which the processes have met, beside the collectives: it costs an update nothing.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from vidtrain.errors import EXIT_UNFINISHED, StoppedError, VidtrainError

log = logging.getLogger("vidtrain")

_T = TypeVar("_T")

WAIT_LIMIT = 1800.0
"""Seconds that a process waits for another one: a validation on a slow disk, a dataset that is made on first use."""
MARGIN = 30.0
"""Seconds after the limit until a process that waits in a place which cannot raise (a GPU) ends itself."""
SPEAK = 30.0
"""Seconds of waiting after which it is said who is waited for."""
_BEAT = 1.0  # seconds between two signs of life
_SILENT = 3.0  # seconds without a sign of life after which a process is said to give none
_LOST = r"closed by peer|reset by peer|broken pipe|timed out|timeout|connection refused|failed to recv|connectfullmesh"
_KEPT = "the same command with resume=auto continues from the last save"


@dataclass
class _Sign:
    """The last sign of life of a process. number: of its collectives, inside: whether it is in that one."""

    number: int = 0
    inside: bool = False
    beat: int = -1
    where: str = ""
    seen: float = 0.0


class Watch:
    """The signs of life of all processes, as this one sees them.

    Args:
        store: what they have met by; `own_host`: whether this process or another one that trains holds it.
        limit: seconds of waiting after which a process ends; 0: never.
    """

    def __init__(self, store: Any, rank: int, size: int, limit: float = WAIT_LIMIT) -> None:
        self.limit = limit
        self._store = store
        self._rank = rank
        self._size = size
        self._number = 0
        self._inside = False
        self._asked = False
        self._answered = time.monotonic()  # when the store did
        self._signs = {other: _Sign(seen=self._answered) for other in range(size) if other != rank}
        # started by torchrun or trainer.devices, the store is the launcher's and not that of process 0
        self._held_by_main = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        with suppress(RuntimeError):  # of the file system: has no time limit
            store.set_timeout(timedelta(seconds=_SILENT))
        for work in (self._talk, self._look):
            threading.Thread(target=work, daemon=True).start()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what all processes do together. The loss of another one is raised as one line.

        Raises:
            StoppedError: another process has ended without a word, or stands still.
            VidtrainError: what another one has said before it ended.
        """
        self._number += 1
        self._inside = True
        try:
            yield
        except RuntimeError as error:
            if not _is_lost_process(error) or (lost := self._lost(error)) is None:
                raise
            raise lost from None
        finally:
            self._inside = False

    def end(self, error: Exception) -> None:
        """Say to the others that this process ends with `error`; marks one that another has printed."""
        mine = isinstance(error, VidtrainError)
        text = str(error) if mine else f"process {self._rank} has failed ({type(error).__name__}); see its traceback"
        code = error.exit_code if isinstance(error, StoppedError) else 2

        def say() -> bytes:
            self._store.set(f"vidtrain/end/{self._rank}", json.dumps([code, text]))
            return self._store.compare_set(f"vidtrain/said/{text}", "", str(self._rank))  # the first rank that came

        first = _answer(say)
        if isinstance(error, VidtrainError):
            error.already_printed = first is not None and first.decode() != str(self._rank)
        if self._held_by_main and self._rank == 0:
            time.sleep(2 * _BEAT)  # with this process the store ends, in which the others look for the reason

    # ---------------------------------------------------------------- who is waited for

    def missing(self) -> list[str]:
        """Those that this process waits for: 'process 3 (on gpu07, pid 1234, busy with something else)'."""
        now = time.monotonic()
        if now - self._answered > 2 * _SILENT:
            held = self._held_by_main and self._rank != 0
            return ["process 0 (no sign of life)"] if held else ["one that is not known: the launcher does not answer"]
        return [
            f"process {rank}{sign.where}, {'busy with something else' if alive else 'no sign of life'})"
            for rank, sign in self._signs.items()
            if not (alive := now - sign.seen <= _SILENT) or sign.number < self._number
        ]

    def _lost(self, error: Exception) -> VidtrainError | None:
        """What has become of the other that the collective has failed of; None when all others are there."""
        began = time.monotonic()
        if re.search("timed out|timeout", str(error), re.IGNORECASE) and (names := self.missing()):
            return self._stands_still(names)
        self._asked = True
        while time.monotonic() < began + _SILENT + 2 * _BEAT:
            if (said := _answer(self._said)) is not None:
                return said
            time.sleep(_BEAT / 5)
        now = time.monotonic()
        gone = [f"process {r}{s.where})" for r, s in self._signs.items() if now - s.seen > _SILENT]
        if now - self._answered > _SILENT and self._held_by_main:
            gone = ["process 0"]
        if gone:  # no word of the error: all that are left have the same line, and one of them prints it
            has = "has" if len(gone) == 1 else "have"
            return StoppedError(f"{_some(gone)} {has} ended without a word (out of memory?); {_KEPT}")
        if re.search(_LOST, str(error), re.IGNORECASE) is None:
            return None
        why = str(error).splitlines()[0][:200]
        return StoppedError(f"another process of this training has ended or does not answer ({why}); {_KEPT}")

    def _stands_still(self, names: list[str]) -> StoppedError:
        return StoppedError(
            f"waited {self.limit:.0f} s, the limit of trainer.rank_timeout, for {_some(names)}; {_KEPT}"
        )

    def _said(self) -> VidtrainError | None:
        """What another process has said before it ended."""
        for rank in self._signs:
            with suppress(RuntimeError, ValueError):
                if self._store.check([f"vidtrain/end/{rank}"]):
                    code, text = json.loads(self._store.get(f"vidtrain/end/{rank}"))
                    return VidtrainError(text) if code == 2 else StoppedError(text, code)
        return None

    # ---------------------------------------------------------------- the threads

    def _talk(self) -> None:
        """Give signs, and read those of the others while they matter. Talking may block: `_look` does not."""
        where = f" (on {socket.gethostname()}, pid {os.getpid()}"
        keys = [f"vidtrain/sign/{rank}" for rank in self._signs]
        beat, since, number = 0, time.monotonic(), 0
        while True:
            beat += 1
            if self._number != number or not self._inside:
                since, number = time.monotonic(), self._number
            with suppress(RuntimeError, ValueError):
                sign = json.dumps([self._number, self._inside, beat, where])
                self._store.set(f"vidtrain/sign/{self._rank}", sign)
                reads = self._asked or time.monotonic() - since > min(SPEAK, self.limit or SPEAK) - 3 * _SILENT
                there = [key for key in keys if self._store.check([key])] if reads else []
                for key, value in zip(there, self._store.multi_get(there) if there else (), strict=True):
                    self._note(self._signs[int(key.rpartition("/")[2])], json.loads(value))
                self._answered = time.monotonic()
            time.sleep(_BEAT)

    def _note(self, sign: _Sign, value: list[Any]) -> None:
        number, inside, beat, where = value
        if beat != sign.beat:
            sign.number, sign.inside, sign.beat, sign.where, sign.seen = number, inside, beat, where, time.monotonic()

    def _look(self) -> None:
        """Say who is waited for. Seconds are counted one by one: those in which it is stopped do not count."""
        waited, speak, number = 0.0, SPEAK, 0
        while True:
            time.sleep(_BEAT)
            if not self._inside or self._number != number:
                waited, speak, number = 0.0, SPEAK, self._number
                continue
            waited += _BEAT
            if waited >= speak and (names := self.missing()):
                speak *= 2
                if self._is_first_of_those_that_wait():
                    log.warning("waiting for %.0f s for %s", waited, _some(names))
            if self.limit and waited >= self.limit + MARGIN and (names := self.missing()):
                error = self._stands_still(names)
                self.end(error)
                if not error.already_printed:
                    print(f"vidtrain: {error}", file=sys.stderr, flush=True)
                os._exit(EXIT_UNFINISHED)

    def _is_first_of_those_that_wait(self) -> bool:
        now = time.monotonic()
        before = [sign for rank, sign in self._signs.items() if rank < self._rank]
        return not any(sign.inside and sign.number >= self._number and now - sign.seen <= _SILENT for sign in before)


def _answer(ask: Callable[[], _T]) -> _T | None:
    """What `ask` gets from the store; None when that does not answer: the process that holds it may be stopped."""
    found: list[_T] = []

    def work() -> None:
        with suppress(RuntimeError):
            found.append(ask())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(_SILENT)
    return found[0] if found else None


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _is_lost_process(error: RuntimeError) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return False
    return isinstance(error, dist.DistError) or re.search(_LOST, str(error), re.IGNORECASE) is not None
