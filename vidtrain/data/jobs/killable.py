"""A process that is asked one thing after the other, and that can be killed when an answer takes too long.

Native code that hangs hears no exception and no signal handler of Python's; only the end of its process ends it. The
workers of a DataLoader may not have children of multiprocessing; so this is a plain subprocess (see `worker_loop`),
which finds the modules that this process finds, and is sent a function, and then what to call it with:

    this process                         worker
    function                ------->     it is imported
                            <-------     ready, or why not
    arguments               ------->     function(*arguments)
                            <-------     what it returned, arrays straight into their memory; or its exception

A worker ends when its standard input does, however this process ends; and by itself when a request outlasts its time by
far. What it waits for a processor does not count, so that on a busy machine nothing is late that is not on an idle one.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any, Final

import numpy as np

from vidtrain.child_python_path import command
from vidtrain.data.jobs.worker_loop import ASK, FUNCTION, HEAD, LENGTH, TELL, Answer, read_bytes, read_into, write_all
from vidtrain.errors import VidtrainError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

START_SECONDS: Final = 300.0
"""To start and to import what the function needs, torch from a slow disk on a busy machine."""
LISTENER: Final = "worker"
"""What the name of the thread that takes in a worker's answers begins with; its process ID follows."""
_START: Final = "from vidtrain.data.jobs.worker_loop import main; main()"
_GRACE: Final = 1.0  # seconds that a worker may take to end by itself
_END_SECONDS: Final = 5.0  # for a killed one to be gone; one that waits for a dead network disk cannot be killed
_PIPE_BYTES: Final = 1 << 20

Inbox = SimpleQueue[tuple["Worker", Answer | None]]


class TookTooLong(Exception):  # noqa: N818 - says what happened
    """No answer came within the time; the worker has been killed."""


class WorkerDied(Exception):  # noqa: N818
    """The worker has ended without an answer; the text says how: "SIGABRT", "exit code 3"."""


class _WorkerError(Exception):
    """Carries the traceback of the worker as the cause of an exception that is raised here."""


class Worker:
    """One process.

    inbox: where its answers arrive, each beside the worker; None in place of an answer: it has ended.
    """

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        self.inbox: Inbox = SimpleQueue()
        self.command = command(_START)
        self._ended = False
        self._lock = threading.Lock()
        with _interrupts_held():
            self._process = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, bufsize=0)
            assert self._process.stdin
            assert self._process.stdout
            self._to, self._from = self._process.stdin, self._process.stdout
            # Ctrl-C shall reach the main thread, which may be waiting
            name = f"{LISTENER} {self._process.pid}"
            threading.Thread(target=self._hear, args=(self._from,), name=name, daemon=True).start()
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with suppress(OSError):  # the user has too many pipes
                fcntl.fcntl(self._from, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        _workers.add(self)

    @property
    def usable(self) -> bool:
        """Belongs to this process (not to the one that this was forked from) and has not ended."""
        return not self._ended and self._process.poll() is None

    @property
    def finds_the_same(self) -> bool:
        """Whether it finds the modules that this process finds now."""
        return self.command == command(_START)

    @property
    def waited(self) -> float:
        """Seconds that its threads have waited for a processor, in sum; 0 where the system does not say (not Linux)."""
        threads = Path(f"/proc/{self._process.pid}/task").glob("*/schedstat")
        with suppress(OSError):  # it, or one of its threads, has just ended
            return sum(int(thread.read_text().split()[1]) for thread in threads) / 1e9
        return 0.0

    def load(self, function: Callable[..., Any]) -> None:
        """What to call from now on; must pickle. Answered with None, or with the error of its import or `prepare`."""
        self._send(FUNCTION, START_SECONDS, function)

    def give(self, seconds: float, *arguments: Any) -> None:
        """Arguments to call the function with, to be answered within `seconds`."""
        self._send(ASK, seconds, arguments)

    def tell(self, seconds: float, *arguments: Any) -> None:
        """The same without an answer; waits for the one that another thread waits for."""
        with self._lock:
            self._send(TELL, seconds, arguments)

    def ready(self, function: Callable[..., Any]) -> Worker:
        """Load a function and wait until it can be asked; raises what hinders it."""
        try:
            self._answered(START_SECONDS, lambda: self.load(function))
        except WorkerDied as how:
            raise not_started(str(how)) from None
        except BaseException:
            self.end()
            raise
        return self

    def ask(self, seconds: float, *arguments: Any) -> Any:
        """What the function returns, or raises.

        Raises:
            TookTooLong, WorkerDied: nothing came, and this worker is of no more use.
        """
        return self._answered(seconds, lambda: self.give(seconds, *arguments))

    def kill(self) -> None:
        """End it at once; `end` waits until it is gone."""
        self._process.kill()

    def end(self) -> str:
        """Let it end by itself, and soon; says how it did."""
        self._ended = True
        _workers.discard(self)
        with suppress(OSError):
            self._to.close()
        for patience in (_GRACE, _END_SECONDS):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
                break
            self._process.kill()
        return _how(self._process.returncode)

    def abandon(self) -> None:
        """After a fork, in the new process: it is the parent's, and has to notice when the parent is gone."""
        self._ended = True
        for pipe in (self._to, self._from):
            with suppress(OSError):
                pipe.close()
        self._process.returncode = 0  # not ours to wait for

    def _answered(self, seconds: float, send: Callable[[], None]) -> Any:
        with self._lock:
            if self._ended:  # another thread, or another file, has taken it along
                raise WorkerDied(self.end())
            try:
                send()
                answer = self._next_answer(seconds)
            except BaseException as error:  # also a KeyboardInterrupt: what is under way would answer the next question
                self.kill()
                self.end()
                if isinstance(error, Empty):
                    raise TookTooLong from None
                raise
        if answer is None:
            raise WorkerDied(self.end())
        return value_of(answer)

    def _next_answer(self, seconds: float) -> Answer | None:
        """Raises Empty when there is none in time."""
        end, before = time.monotonic() + seconds, self.waited
        left = seconds
        while left > 0:
            with suppress(Empty):
                return self.inbox.get(timeout=left)[1]
            left = end + self.waited - before - time.monotonic()
        raise Empty

    def _send(self, kind: bytes, seconds: float, what: Any) -> None:
        data = pickle.dumps(what, protocol=pickle.HIGHEST_PROTOCOL)
        with suppress(OSError, ValueError):  # it has ended, or was: the inbox says so
            write_all(self._to, HEAD.pack(kind, seconds, len(data)) + data)

    def _hear(self, answers: IO[bytes]) -> None:
        """Take in answers, in a thread of its own."""
        try:
            while True:
                (length,) = LENGTH.unpack(read_bytes(answers, LENGTH.size))
                body, sizes = pickle.loads(read_bytes(answers, length))
                arrays = [np.empty(size, np.uint8) for size in sizes]
                for array in arrays:
                    read_into(answers, array)
                self.inbox.put((self, pickle.loads(body, buffers=arrays)))
        except (EOFError, OSError):
            pass
        finally:
            self.inbox.put((self, None))
            with suppress(OSError):
                answers.close()


def value_of(answer: Answer) -> Any:
    """What a function returned; raises what it raised, its traceback in the worker as the cause."""
    value, error, trace = answer
    if error is None:
        return value
    if isinstance(error, VidtrainError):
        raise error
    raise error from _WorkerError(f"\n{trace}")


def not_started(how: str) -> VidtrainError:
    """For the user, of a worker that has ended before it was ready."""
    return VidtrainError(f"a process that reads videos does not start ({how}): see its message above")


def _how(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, out of memory?" if name == "SIGKILL" else name


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """A process started here inherits that Ctrl-C waits, and is not torn apart while it still imports."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_workers: set[Worker] = set()


@atexit.register
def _end_workers() -> None:
    while _workers:
        _workers.pop().end()


def _after_fork() -> None:
    while _workers:
        _workers.pop().abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
