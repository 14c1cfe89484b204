"""The decoding processes of a loader, and what is known when no batch comes.

Each process notes which video it is at, so that one that stands still, or has died, can be named together with its
video. How batches cross to the main process: `batch_transfer`.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import connection
from typing import Any, Generic, TypeVar

from torch.utils.data import DataLoader, Dataset, get_worker_info

from vidtrain.data.clips.batch_transfer import Piped, warn_once
from vidtrain.errors import LoaderError, VidtrainError

log = logging.getLogger("vidtrain")

_Item = TypeVar("_Item")

WAIT_LIMIT = 1800.0
"""Seconds without a batch after which a loader gives up: long enough for an hour of video on a slow disk."""
_TICK = 1.0  # seconds between two looks at whether the workers are alive
_SPEAK = 30.0  # seconds without a batch after which it is said who is waited for
_END_SECONDS = 5.0  # for killed workers to be gone; one that waits for a dead network disk cannot be killed


def process_context() -> Any:
    """How processes are started: in the way usual on this system.

    A launcher may have set another way that only its own processes understand: joblib's is called "loky".
    """
    known = multiprocessing.get_all_start_methods()  # the usual one first
    usual = multiprocessing.get_start_method()
    return multiprocessing.get_context(usual if usual in known else known[0])


@dataclass(frozen=True)
class Workers:
    """The decoding processes of a loader.

    count: 0 decodes in the main process. pin_memory: batches lie where a CUDA device takes them fastest. wait_limit:
    seconds without a batch after which LoaderError is raised; 0: never.
    """

    count: int
    pin_memory: bool = False
    wait_limit: float = WAIT_LIMIT

    def at_most(self, count: int) -> Workers:
        """No more than there is work for."""
        return replace(self, count=min(self.count, count))

    def board(self, paths: Sequence[str]) -> Board | None:
        """For what each of them is at, a row of `paths`; None where there are none."""
        return Board(self.count, paths) if self.count else None

    def options(self, board: Board | None) -> dict[str, Any]:
        """The options of a DataLoader that `Batches` relies on."""
        found: dict[str, Any] = {"num_workers": self.count, "pin_memory": self.pin_memory}
        if board is not None:
            found |= {"worker_init_fn": _Start(board), "multiprocessing_context": process_context()}
        return found


# ---------------------------------------------------------------- what a worker is at


class Board:
    """What each worker is at, in memory that all of them share.

    Args:
        paths: the file of each row.
    """

    def __init__(self, workers: int, paths: Sequence[str]) -> None:
        self._paths = paths
        context: Any = process_context()
        self._rows = context.RawArray("q", [-1] * workers)
        self._since = context.RawArray("d", workers)
        self._pids = context.RawArray("q", workers)

    def start(self, worker: int) -> None:
        """Called in a worker when it starts."""
        self._pids[worker] = os.getpid()

    def note(self, row: int) -> None:
        """This process begins with a row; -1: it has nothing to do."""
        if (info := get_worker_info()) is not None:
            self._rows[info.id], self._since[info.id] = row, time.monotonic()

    def doing(self) -> str:
        """What the workers are at, those that have been at it for longest first."""
        now = time.monotonic()
        busy = sorted((now - since, n) for n, since in enumerate(self._since) if self._rows[n] >= 0)
        if not all(self._pids):
            return "its workers are still starting"
        if not busy:
            return "its workers have nothing to do: a batch is on its way, or was lost"
        longest, *others = reversed(busy)
        more = f" ({len(others)} others are busy, too)" if others else ""
        return f"worker {longest[1]} has been at {self._paths[self._rows[longest[1]]]} for {longest[0]:.0f} s{more}"

    def dead(self) -> str:
        """'while it read PATH' of the workers that are gone; '' when it is not known."""
        for pid, row in zip(self._pids, self._rows, strict=True):
            if pid and row >= 0 and not _alive(pid):
                return f" while it read {self._paths[row]}"
        return ""

    def wait_for_a_death(self) -> bool:
        """Whether a worker is gone, or is within a second."""
        until = time.monotonic() + 1.0
        while all(_alive(pid) for pid in self._pids if pid):
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def kill(self) -> None:
        """End the workers, and wait until they are gone: one that stands still hears no request to end."""
        pids = [pid for pid in self._pids if pid]
        for pid in pids:
            with suppress(OSError):
                os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        until = time.monotonic() + _END_SECONDS
        while any(map(_alive, pids)) and time.monotonic() < until:
            time.sleep(0.02)


def _alive(pid: int) -> bool:
    """Whether a child of this process runs; one that has ended and was not waited for does not."""
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:
        return True


class Noted(Dataset[Any]):
    """A dataset that notes on the board which row is read. Keys are rows, or tuples with the row in second place."""

    def __init__(self, dataset: Any, board: Board) -> None:
        self._dataset = dataset
        self._board = board

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitems__(self, keys: Sequence[Any]) -> list[Any]:
        read = getattr(self._dataset, "__getitems__", None)
        found: list[Any] = []
        for key in keys:
            self._board.note(key[1] if isinstance(key, tuple) else key)
            found += [self._dataset[key]] if read is None else read([key])
        self._board.note(-1)
        return found


# ---------------------------------------------------------------- in the main process


class Batches(Generic[_Item]):
    """What a loader yields, with an end to waiting; a user's mistake that a worker found keeps its own words.

    Args:
        board: of the loader's workers; None when there are none.
        limit: seconds without a batch after which LoaderError is raised; 0: never.

    Raises:
        LoaderError: a worker has died, or no batch came within the limit.
    """

    def __init__(self, loader: DataLoader[Any], board: Board | None = None, limit: float = WAIT_LIMIT) -> None:
        self._loader = loader
        self._board = board
        self._limit = limit

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[_Item]:
        if self._board is None:
            yield from iter(self._loader)
            return
        watch = _Watch(self._board, self._limit)
        try:
            # workers that stay from epoch to epoch may have died between two of them
            batches = self._taken(lambda: iter(self._loader), self._loader._iterator, self._board, watch)
            _restore_sigchld()
            while True:
                item = self._taken(lambda: next(batches, None), batches, self._board, watch)
                if item is None:
                    return
                if isinstance(item, Piped):
                    warn_once(item)
                    item = item.unpacked()
                yield item
        finally:
            watch.end()

    def _taken(self, take: Callable[[], Any], batches: Any, board: Board, watch: _Watch) -> Any:
        """What `take` returns, which waits for the workers of torch's iterator `batches`."""
        try:
            with watch:
                return take()
        except VidtrainError as error:
            # torch puts the worker's traceback into the message of the exception that it raises again
            name, last = type(error).__name__, str(error).strip().splitlines()[-1]
            raise type(error)(last.rpartition(f"{name}: ")[2]) from None
        except Exception as error:
            if watch.verdict:
                raise LoaderError(watch.verdict) from None
            torn = isinstance(error, OSError | EOFError)  # it died while it handed a batch over
            if torn or (isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker")):
                if not board.wait_for_a_death() and torn:
                    raise
                raise LoaderError(f"a decoding process {_how_it_ended(batches)}{board.dead()}") from None
            raise


class _Watch:
    """A thread that looks at how long the main process has been waiting: while it is entered.

    The main process may not be able to look itself: it may be about to take a batch out of the hands of a worker that
    has stopped, which has no time limit in Python. Seconds are counted one by one, so that those in which the computer
    was suspended, or this process stopped, do not count.

    Attributes:
        verdict: why the workers have been ended; "" as long as they have not.
    """

    def __init__(self, board: Board, limit: float) -> None:
        self.verdict = ""
        self._board = board
        self._limit = limit
        self._number = 0  # of the wait, from 1; negative between two of them
        self._ended = threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def __enter__(self) -> None:
        self._number = 1 - self._number

    def __exit__(self, *error: object) -> None:
        self._number = -self._number

    def end(self) -> None:
        self._ended.set()

    def _look(self) -> None:
        waited, speak, number = 0.0, _SPEAK, 0
        tick = min(_TICK, self._limit) if self._limit else _TICK
        while not self._ended.wait(tick):
            if self._number != number or number <= 0:
                waited, speak, number = 0.0, _SPEAK, self._number
                continue
            waited += tick
            if self._limit and waited >= self._limit:
                self.verdict = (
                    f"no batch came for {waited:.0f} s, the limit of trainer.data_timeout: {self._board.doing()}; "
                    "a disk that hangs?"
                )
                self._board.kill()
                return
            if waited >= speak:
                log.warning("no batch for %.0f s: %s", waited, self._board.doing())
                speak *= 2


def _restore_sigchld() -> None:
    """torch tells of a dead worker by an exception at once, be it in the middle of an update, which would then be
    neither done nor undone. Asking for the next batch finds it, too."""
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD"):
        handler = signal.getsignal(signal.SIGCHLD)
        if str(getattr(handler, "__module__", "")).startswith("torch.utils.data"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _how_it_ended(batches: Any) -> str:
    """'was ended by SIGKILL (out of memory?)'; torch's own words are different from time to time."""
    processes = list(getattr(batches, "_workers", ()))
    if processes:  # on a busy machine it is known a moment after torch has noticed
        gone = connection.wait([process.sentinel for process in processes], timeout=1)
        for process in (process for process in processes if process.sentinel in gone):
            process.join(1)  # its files are closed a moment before its exit code is there
    for process in processes:
        code = process.exitcode
        if code is not None and code < 0:
            with suppress(ValueError):
                memory = " (out of memory? lower trainer.num_workers or the batch size)"
                hints = {"SIGKILL": memory, "SIGBUS": " (is /dev/shm full?)"}
                name = signal.Signals(-code).name
                return f"was ended by {name}{hints.get(name, '')}"
        if code:
            return f"ended with exit code {code}"
    return "has died"


class _Start:
    """What a worker does first."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def __call__(self, worker: int) -> None:
        # Ctrl-C reaches every process of a terminal; the main one decides what follows, and ends the workers
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._board.start(worker)
