"""One function over many items in several processes, when an item may hang, crash or take all the memory.

Native code that hangs hears no Python signal, and a segmentation fault takes its process along. So every item has a
time limit; the process of one that exceeds it is killed and replaced, and only that item is reported:

    with closing(run(probe, paths, workers=8, timeout=20)) as outcomes:
        for outcome in outcomes:
            print(paths[outcome.index], outcome.error or outcome.value)

Nothing is shared between the processes: each has a pipe of its own and one item at a time.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Literal, TypeVar

from vidtrain.data.jobs.progress import ProgressBar
from vidtrain.errors import VideoError

Item = TypeVar("Item")
Value = TypeVar("Value")

_START_SECONDS = 300  # to start a process and import what the function needs, on a busy machine with a cold disk
_END_SECONDS = 5  # for a killed process to be gone; one that waits for a dead network disk cannot be killed


@dataclass(frozen=True)
class Outcome(Generic[Value]):
    """What came of one item.

    index: its place among the items.
    value: what the function returned; None unless fault is "".
    error: None, or why there is no value, in the user's words and without the item's name.
    fault: "" none, "video" the function raised VideoError, "timeout" it was killed, "crash" its process died.
    seconds: wall time that the item took.
    """

    index: int
    value: Value | None
    error: str | None = None
    fault: Literal["", "video", "timeout", "crash"] = ""
    seconds: float = 0.0


def process_context(method: str | None = None) -> Any:
    """How processes are started: by `method`, "fork", "spawn" or "forkserver"; None: the way usual on this system.

    A launcher may have set another way that only its own processes understand: joblib's is called "loky".
    """
    known = multiprocessing.get_all_start_methods()  # the usual one first
    usual = multiprocessing.get_start_method()
    return multiprocessing.get_context(method or (usual if usual in known else known[0]))


def processors() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    function: Callable[[Item], Value],
    items: Sequence[Item],
    *,
    workers: int,
    timeout: float | Callable[[Item], float],
    progress: ProgressBar | None = None,
    start_method: str | None = None,
) -> Generator[Outcome[Value], None, None]:
    """Call `function` with each item, in `workers` processes (one, too, is a process of its own).

    Close the generator when it is left early (`contextlib.closing`): that kills the processes at once. They also end
    when this process does, however it ends.

    Args:
        function: what to call; it and its results must pickle. VideoError is an outcome, any other exception is
            raised here, with the worker's traceback as its cause, and ends the run.
        items: what to call it with; each must pickle.
        workers: processes, 1 or more.
        timeout: seconds of wall time an item may take, above 0; or a function from the item to them.
        progress: told of each outcome before it is yielded.
        start_method: "fork", "spawn" or "forkserver"; None: the one usual on this system.

    Yields:
        One outcome an item, in the order they finish.
    """
    assert workers >= 1, workers
    assert callable(timeout) or timeout > 0, timeout
    crew = _Crew(function, items, process_context(start_method), timeout)
    try:
        crew.start(workers)
        while crew.workers:
            for outcome in crew.wait():
                if progress is not None:
                    progress.step()
                yield outcome
    finally:
        crew.kill()


class _Worker:
    """A process, this end of its pipe, and what it works at."""

    def __init__(self, context: Any, function: Callable[[Any], Any]) -> None:
        self.connection: Connection
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, function), daemon=True)
        with _interrupts_held():
            self.process.start()
        theirs.close()  # or the end of the process would not show as the end of the pipe
        self.index: int | None = None  # of the item it has; None while it starts
        self.began = time.monotonic()
        self.limit: float = _START_SECONDS

    def give(self, index: int, item: Any, limit: float) -> None:
        """Hand it an item, to be answered within `limit` seconds."""
        self.index, self.began, self.limit = index, time.monotonic(), limit
        with suppress(OSError):  # it has died meanwhile: the pipe will tell
            self.connection.send((index, item))

    def kill(self) -> None:
        self.process.kill()

    def bury(self) -> None:
        """Wait until the process is gone, so that no zombie stays."""
        self.process.join(_END_SECONDS)
        self.connection.close()
        if self.process.exitcode is not None:
            self.process.close()

    def death(self) -> str:
        """How the process ended, for the user."""
        self.process.join(_END_SECONDS)
        code = self.process.exitcode
        if code is None or code >= 0:
            return f"ended the process that read it (exit code {code})"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = ", out of memory?" if name == "SIGKILL" else ""
        return f"crashed the process that read it ({name}{hint})"


class _Crew(Generic[Item, Value]):
    """The workers of a run. Each of them is starting or has an item; who has none is sent home."""

    def __init__(
        self,
        function: Callable[[Item], Value],
        items: Sequence[Item],
        context: Any,
        timeout: float | Callable[[Item], float],
    ) -> None:
        self._function = function
        self._items = items
        self._context = context
        self._timeout = timeout
        self._next = 0  # the first item that nobody has been given
        self.workers: list[_Worker] = []

    def start(self, number: int) -> None:
        """Start processes, no more of them than there are items left."""
        for _ in range(min(number, len(self._items) - self._next)):
            self.workers.append(_Worker(self._context, self._function))

    def wait(self) -> list[Outcome[Value]]:
        """Sleep until something happens; returns what was finished, with new work given out already."""
        at = {worker.connection: worker for worker in self.workers}
        soonest = min(worker.began + worker.limit for worker in self.workers)
        heard: list[Any] = wait(list(at), max(0.0, soonest - time.monotonic()))
        found = [self._hear(at[connection]) for connection in heard]
        # only now: whoever has answered is in time, however late this process comes to look
        now = time.monotonic()
        late = [w for connection, w in at.items() if connection not in heard and w.began + w.limit <= now]
        found += [self._stop(worker) for worker in late]
        return [outcome for outcome in found if outcome is not None]

    def kill(self) -> None:
        for worker in self.workers:
            worker.kill()
        for worker in self.workers:
            worker.bury()
        self.workers.clear()

    def _give(self, worker: _Worker) -> None:
        """Give a worker its next item."""
        if self._next < len(self._items):
            item = self._items[self._next]
            worker.give(self._next, item, self._timeout(item) if callable(self._timeout) else self._timeout)
            self._next += 1
        else:
            self._dismiss(worker)

    def _dismiss(self, worker: _Worker) -> None:
        self.workers.remove(worker)
        worker.kill()  # it holds nothing that would have to be finished
        worker.bury()

    def _hear(self, worker: _Worker) -> Outcome[Value] | None:
        """What a worker says; None when it only says that it is ready."""
        index, seconds = worker.index, time.monotonic() - worker.began
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            return self._lose(worker)
        self._give(worker)
        if index is None:
            return None
        value, reason, bug = message
        if bug is not None:
            error, trace = bug
            raise error from _WorkerError(trace)
        return Outcome(index, value, reason, "" if reason is None else "video", seconds)

    def _lose(self, worker: _Worker) -> Outcome[Value]:
        """A worker has died."""
        seconds, how = time.monotonic() - worker.began, worker.death()
        self._dismiss(worker)
        if worker.index is None:
            raise RuntimeError(f"a worker process died while it started: it {how}")
        self.start(1)
        return Outcome(worker.index, None, how, "crash", seconds)

    def _stop(self, worker: _Worker) -> Outcome[Value]:
        """A worker takes too long."""
        self._dismiss(worker)
        if worker.index is None:
            raise RuntimeError(f"a worker process did not start within {_START_SECONDS} s")
        self.start(1)
        seconds = time.monotonic() - worker.began
        return Outcome(worker.index, None, f"took longer than {worker.limit:.4g} s", "timeout", seconds)


class _WorkerError(Exception):
    """Carries the traceback of the worker as the cause of an exception that is raised here."""

    def __init__(self, trace: str) -> None:
        super().__init__(f"\n{trace}")


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


def _serve(connection: Connection, function: Callable[[Any], Any]) -> None:
    """The life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    with suppress(EOFError, OSError):  # the parent is gone
        connection.send("ready")
        while True:
            _, item = connection.recv()
            _answer(connection, function, item)


def _answer(connection: Connection, function: Callable[[Any], Any], item: Any) -> None:
    """Send (value, reason, bug): what the function returned, why not, or an exception that ends the run."""
    try:
        message = pickle.dumps((function(item), None, None))
    except VideoError as error:
        message = pickle.dumps((None, error.reason, None))
    except BaseException as error:
        message = pickle.dumps((None, None, (_portable(error), traceback.format_exc())))
    connection.send_bytes(message)


def _portable(error: BaseException) -> BaseException:
    """The exception, or one that says the same where it does not survive pickling."""
    try:
        same = pickle.loads(pickle.dumps(error))
    except Exception:
        same = None
    return error if type(same) is type(error) else RuntimeError(f"{type(error).__name__}: {error}")


def _end_with_parent(parent_id: int) -> None:
    """End this process when the parent has been killed, even while native code hangs in the main thread."""
    parent = multiprocessing.parent_process()
    # A forked sibling holds a copy of the pipe that tells: so ask who the parent is, too.
    while parent is not None and parent.is_alive() and os.getppid() == parent_id:
        parent.join(1.0)
    os._exit(1)
