"""One function over many items in several processes, when an item may hang, crash or take all the memory.

Every item has a time limit; the process of one that exceeds it is killed and replaced, and only that item is reported:

    with closing(run(probe, paths, workers=8, timeout=20)) as outcomes:
        for outcome in outcomes:
            print(paths[outcome.index], outcome.error or outcome.value)

Nothing is shared between the processes (see `killable`): each has pipes of its own and one item at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, Literal, Protocol, TypeVar

from vidtrain.data.jobs.killable import START_SECONDS, Inbox, Worker, not_started, value_of
from vidtrain.data.jobs.progress import ProgressBar
from vidtrain.data.jobs.worker_loop import Answer
from vidtrain.errors import VideoError

Item = TypeVar("Item")
Value = TypeVar("Value")

_MOST_SPARE: Final = 4
_spare: list[Worker] = []  # of earlier runs: to start one and to import numpy and PyAV costs 0.2 s


@dataclass(frozen=True)
class Outcome(Generic[Value]):
    """What came of one item.

    index: its position among the items.
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


Timeout = float | Callable[[Any], float]


class Executor(Protocol):
    """What has other processes do the work, perhaps on other machines."""

    def run(
        self, function: Callable[[Item], Value], items: Sequence[Item], timeout: Timeout
    ) -> Generator[Outcome[Value], None, None]:
        """As the function `run`."""


def run(
    function: Callable[[Item], Value],
    items: Sequence[Item],
    *,
    workers: int | Executor | None,
    timeout: Timeout,
    progress: ProgressBar | None = None,
) -> Generator[Outcome[Value], None, None]:
    """Call `function` with each item, in `workers` processes (one, too, is a process of its own).

    Close the generator when it is left early (`contextlib.closing`): that kills the processes at once. They also end
    when this process does, however it ends.

    Args:
        function: what to call, of a module that can be imported; it and its results must pickle. VideoError is an
            outcome, any other exception is raised here, with the worker's traceback as its cause, and ends the run.
        items: what to call it with; each must pickle.
        workers: processes, 1 or more; None: in this process, one item after the other and without a limit; an
            Executor: there.
        timeout: seconds an item may take, above 0, what it waits for a processor aside; or a function from the item to
            them.
        progress: counts each outcome before it is yielded.

    Yields:
        One outcome per item, in the order they finish.
    """
    if workers is None:
        yield from _one_by_one(function, items, progress)
        return
    assert callable(timeout) or timeout > 0, timeout
    if not isinstance(workers, int):
        with closing(workers.run(function, items, timeout)) as outcomes:
            for outcome in outcomes:
                if progress is not None:
                    progress.step()
                yield outcome
        return
    assert workers >= 1, workers
    crew = _Crew(function, items, timeout)
    try:
        crew.start(workers)
        while crew.busy:
            for outcome in crew.wait():
                if progress is not None:
                    progress.step()
                yield outcome
    finally:
        crew.kill()


def _one_by_one(
    function: Callable[[Item], Value], items: Sequence[Item], progress: ProgressBar | None
) -> Generator[Outcome[Value], None, None]:
    for index, item in enumerate(items):
        began, value, reason = time.monotonic(), None, None
        try:
            value = function(item)
        except VideoError as error:
            reason = error.reason
        if progress is not None:
            progress.step()
        yield Outcome(index, value, reason, "video" if reason else "", time.monotonic() - began)


@dataclass(frozen=True)
class _Task:
    """What a worker is at: an item, or, where index is None, its own start.

    waited: what `Worker.waited` was when it began. extra: what it has waited since, as far as is known.
    """

    index: int | None
    limit: float
    began: float
    waited: float = 0.0
    extra: float = 0.0

    @property
    def end(self) -> float:
        return self.began + self.limit + self.extra


class _Crew(Generic[Item, Value]):
    """The workers of a run. Each of them is starting or has an item; who has none leaves."""

    def __init__(self, function: Callable[[Item], Value], items: Sequence[Item], timeout: Timeout) -> None:
        self._function = function
        self._items = items
        self._timeout = timeout
        self._next = 0  # the first item that nobody has been given
        self._inbox: Inbox = SimpleQueue()
        self.busy: dict[Worker, _Task] = {}

    def start(self, number: int) -> None:
        """Start processes, no more of them than there are items left."""
        for _ in range(min(number, len(self._items) - self._next)):
            worker = _taken()
            worker.inbox = self._inbox
            self.busy[worker] = _Task(None, START_SECONDS, time.monotonic())
            worker.load(self._function)

    def wait(self) -> list[Outcome[Value]]:
        """Sleep until something happens; returns what was finished, with new work given out already."""
        soonest = min(task.end for task in self.busy.values())
        found: list[Outcome[Value] | None] = []
        try:
            found.append(self._hear(*self._inbox.get(timeout=max(0.0, soonest - time.monotonic()))))
            while True:
                found.append(self._hear(*self._inbox.get_nowait()))
        except Empty:
            pass
        # only now: whoever has answered is in time, however late this process comes to look
        now = time.monotonic()
        for worker, task in self.busy.items():
            if task.end <= now:
                self.busy[worker] = replace(task, extra=worker.waited - task.waited)
        late = [worker for worker, task in self.busy.items() if task.end <= now]
        found += [self._stop(worker) for worker in late]
        return [outcome for outcome in found if outcome is not None]

    def kill(self) -> None:
        for worker in self.busy:
            worker.kill()
        for worker in self.busy:
            worker.end()
        self.busy.clear()

    def _give(self, worker: Worker) -> None:
        """Give a worker its next item."""
        if self._next < len(self._items):
            item = self._items[self._next]
            limit = self._timeout(item) if callable(self._timeout) else self._timeout
            self.busy[worker] = _Task(self._next, limit, time.monotonic(), worker.waited)
            worker.give(limit, item)
            self._next += 1
        else:
            del self.busy[worker]
            worker.inbox = SimpleQueue()
            if len(_spare) < _MOST_SPARE:
                _spare.append(worker)
            else:
                worker.end()

    def _hear(self, worker: Worker, answer: Answer | None) -> Outcome[Value] | None:
        """What a worker says; None when it only says that it is ready, or was sent away already."""
        task = self.busy.get(worker)
        if task is None:
            return None
        seconds = time.monotonic() - task.began
        if answer is None:
            del self.busy[worker]
            how = worker.end()
            if task.index is None:
                raise not_started(how)
            self.start(1)
            return Outcome(task.index, None, f"crashed the process that read it ({how})", "crash", seconds)
        reason, value = None, None
        try:
            value = value_of(answer)
        except VideoError as error:
            if task.index is None:
                raise
            reason = error.reason
        self._give(worker)
        return None if task.index is None else Outcome(task.index, value, reason, "video" if reason else "", seconds)

    def _stop(self, worker: Worker) -> Outcome[Value]:
        """A worker takes too long."""
        task: Any = self.busy.pop(worker)
        worker.kill()
        worker.end()
        if task.index is None:
            raise not_started(f"not within {task.limit:g} s")
        self.start(1)
        seconds = time.monotonic() - task.began
        return Outcome(task.index, None, f"took longer than {task.limit:.4g} s", "timeout", seconds)


def _taken() -> Worker:
    """A worker without work: one of an earlier run that finds what a new one would, or a new one."""
    while _spare:
        worker = _spare.pop()
        if worker.usable and worker.finds_the_same:
            return worker
        worker.end()
    return Worker()
