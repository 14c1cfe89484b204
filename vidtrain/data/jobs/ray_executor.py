"""Work over many files on a Ray cluster.

A task of Ray has a few files, which it works at one after the other in a process that can be killed, as is done on one
machine (`pool`); what came of each comes back as soon as it is there. When a worker or a node dies, the first of its
files that has not come back goes to another by itself, then the rest: it may have been read, and its result be lost, so
a file is blamed for no death but of workers that had nothing else.

What is sent are functions of this package by their names, and their arguments: vidtrain has to be installed on every
node, in the same version, and the nodes have to see the same folders.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, Final, TypeVar

from vidtrain import __version__
from vidtrain.child_python_path import processors
from vidtrain.data.jobs.pool import Outcome, Timeout, run
from vidtrain.errors import ConfigError, VidtrainError

Item = TypeVar("Item")
Value = TypeVar("Value")

_STORE: Final = 1 << 28  # bytes of shared memory for a cluster of one's own: what is sent is small
_ALL: Final = 2  # tasks per processor of the cluster that Ray is given at once, so that none waits


@dataclass(frozen=True)
class RayExecutor:
    """An Executor (see `pool`).

    address: of a cluster, "auto" or HOST:PORT; None: one on this machine, which ends with the run.
    tasks: at once at most; None: as many as the cluster has room for.
    chunk: files of a task. cpus, gpus: that a task takes. deaths: workers that may die at a file before it is given up.
    """

    address: str | None = None
    tasks: int | None = None
    chunk: int = 8
    cpus: float = 1.0
    gpus: float = 0.0
    deaths: int = 3

    def run(
        self, function: Callable[[Item], Value], items: Sequence[Item], timeout: Timeout
    ) -> Generator[Outcome[Value], None, None]:
        """As `pool.run`.

        Raises:
            ConfigError: Ray is not installed. VidtrainError: the cluster cannot be reached, or has another vidtrain.
        """
        if not items:
            return
        limits = [timeout(item) if callable(timeout) else timeout for item in items]
        chunks = (range(first, min(first + self.chunk, len(items))) for first in range(0, len(items), self.chunk))
        with self._connected() as ray:
            task = ray.remote(_work).options(
                num_returns="streaming", num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0, name="vidtrain"
            )
            shared = ray.put((function, __version__))
            crew = _Tasks(
                ray, lambda rows: task.remote(shared, [items[row] for row in rows], [limits[n] for n in rows])
            )
            crew.waiting.extend(map(list, chunks))
            try:
                while crew.waiting or crew.running:
                    crew.start(self._most(ray))
                    yield from crew.wait(self.deaths)
            finally:
                crew.cancel()

    def _most(self, ray: Any) -> int:
        if self.tasks is not None:
            return self.tasks
        return max(1, int(_ALL * ray.cluster_resources().get("CPU", 1) / max(self.cpus, 1e-3)))

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        try:
            ray: Any = import_module("ray")
        except ImportError as error:
            raise ConfigError(f"jobs=ray: Ray is not there ({error}): pip install 'vidtrain[ray]'") from None
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        own: dict[str, Any] = {"address": self.address}
        if self.address is None:
            count = max(1, self.tasks or processors())
            own = {"address": "local", "num_cpus": count * self.cpus, "object_store_memory": _STORE}
            own["include_dashboard"] = False
            os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 is next to nothing on a busy machine
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as empty:
            try:
                with _inside(empty):
                    ray.init(**own, logging_level=logging.ERROR, configure_logging=False)
            except Exception as error:  # the bare class, too: of a machine so busy that nothing starts in time
                said = " ".join(str(error).split())
                where = "jobs=ray: Ray does not start"
                if self.address is not None:
                    where = f"jobs.address={self.address}: Ray cannot be reached"
                raise VidtrainError(f"{where}: {said}") from None
            try:
                yield ray
            finally:
                ray.shutdown()


@contextmanager
def _inside(folder: str) -> Iterator[None]:
    """Ray's workers look for modules in the folder it is started in: not in the user's, see `child_python_path`."""
    here = os.getcwd()  # noqa: PTH109
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)


def _work(
    shared: tuple[Callable[[Any], Any], str], items: Sequence[Any], limits: Sequence[float]
) -> Iterator[Outcome[Any]]:
    """A task: runs in a worker of Ray."""
    function, version = shared
    if version != __version__:
        raise VidtrainError(f"jobs=ray: vidtrain {version} here, {__version__} on a node: install the same everywhere")
    each = iter(limits)  # asked for once per item, in their order
    with closing(run(function, items, workers=1, timeout=lambda _: next(each))) as outcomes:
        yield from outcomes


def _cause(error: Any) -> BaseException:
    """What a task has raised."""
    lacks = re.search(r"No module named '[^']+'", str(error.cause))
    if lacks is not None:
        return VidtrainError(
            f"jobs=ray: {lacks[0]} on a node: install the same vidtrain, and your own modules, on each"
        )
    cause: BaseException = error.cause
    return cause


@dataclass
class _Tasks:
    """The tasks of a run.

    begin: gives Ray a task for some rows of the items. waiting: rows of tasks to be given. running: the rows that are
    still to come, in their order, by task. alone: the tasks that were given a single row. died: how often a worker has
    died that had a row alone.
    """

    ray: Any
    begin: Callable[[Sequence[int]], Any]
    waiting: deque[list[int]] = field(default_factory=deque)
    running: dict[Any, list[int]] = field(default_factory=dict)
    alone: set[Any] = field(default_factory=set)
    died: Counter[int] = field(default_factory=Counter)

    def start(self, most: int) -> None:
        while self.waiting and len(self.running) < most:
            rows = self.waiting.popleft()
            task = self.begin(rows)
            self.running[task] = rows
            if len(rows) == 1:
                self.alone.add(task)

    def wait(self, deaths: int) -> Iterator[Outcome[Any]]:
        """What comes next: one or more, where there are more."""
        tasks = list(self.running)
        self.ray.wait(tasks, num_returns=1, fetch_local=False)
        ready, _ = self.ray.wait(tasks, num_returns=len(tasks), timeout=0, fetch_local=False)
        for task in ready:
            rows = self.running[task]
            try:
                outcome = self.ray.get(next(task))
            except StopIteration:
                del self.running[task]
                assert not rows, rows
            except self.ray.exceptions.RayTaskError as error:
                raise _cause(error) from error
            except self.ray.exceptions.RayError:
                del self.running[task]
                yield from self._again(rows, deaths, alone=task in self.alone)
            else:
                row = rows.pop(0)
                yield replace(outcome, index=row)

    def _again(self, rows: list[int], deaths: int, *, alone: bool) -> Iterator[Outcome[Any]]:
        """A worker has died, before these of its rows have come; at its end, where there are none."""
        if not alone:
            self.waiting.extendleft(part for part in (rows[1:], rows[:1]) if part)
        elif rows:
            self.died[rows[0]] += 1
            if self.died[rows[0]] > deaths:
                said = f"{deaths + 1} workers of the cluster died while they read it"
                yield Outcome(rows[0], None, said, "crash")
            else:
                self.waiting.appendleft(rows)

    def cancel(self) -> None:
        for task in self.running:
            with suppress(Exception):
                self.ray.cancel(task, force=True)
