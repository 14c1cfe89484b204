"""Where the runs of a sweep are executed: processes on this machine, or jobs of one of Hydra's launchers."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Protocol

from vidtrain.child_python_path import processors, start_command
from vidtrain.errors import EXIT_CONFIG, EXIT_INTERRUPTED, EXIT_UNFINISHED

log = logging.getLogger("vidtrain")

OUTPUT: Final = "output.txt"
"""In a run's folder: what its process has printed."""
_TAIL: Final = 1 << 14  # bytes of OUTPUT that are searched for the reason of a failure


@dataclass(frozen=True)
class Ended:
    """How the process of a run has ended.

    cut: it was ended from outside, so that the run is to be continued. reason: why, of one that has failed, else ''.
    mistake: by an option that cannot be used, so that it would fail again.
    """

    number: int
    cut: bool
    reason: str
    mistake: bool = False


class RunWorkers(Protocol):
    """Executes runs, several at once."""

    def free(self) -> bool:
        """Whether another run can be started now."""
        ...

    def start(self, number: int, folder: Path, overrides: Sequence[str]) -> None:
        """Begin a run. overrides: of its command. folder: its own, which is made."""
        ...

    def ended(self) -> list[Ended]:
        """Those that have ended since this was last asked. Does not wait."""
        ...

    def stop(self, *, at_once: bool) -> None:
        """Ask all to save and end, or end them."""
        ...


@dataclass
class _Process:
    number: int
    process: subprocess.Popen[bytes]
    slot: int
    output: Path


@dataclass
class ProcessWorkers:
    """Each run is a process: `vidtrain train OVERRIDES` with its output in the run's folder.

    A process notices when this one is gone, whatever ended it, saves and ends (shell/sweep_child.py).

    flags: of the command, --config-dir. slots: how many at once. devices: CUDA_VISIBLE_DEVICES of each slot in turn,
    [] where there are no GPUs.
    """

    flags: Sequence[str]
    slots: int
    devices: Sequence[str] = ()
    _running: list[_Process] = field(default_factory=list)

    def free(self) -> bool:
        return len(self._running) < self.slots

    def start(self, number: int, folder: Path, overrides: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        slot = min(set(range(self.slots)) - {one.slot for one in self._running})
        environment = dict(os.environ)
        if self.devices:
            environment["CUDA_VISIBLE_DEVICES"] = self.devices[slot % len(self.devices)]
        environment.setdefault("OMP_NUM_THREADS", str(max(1, processors() // self.slots)))
        arguments = ["train", *self.flags, *overrides, f"hydra.run.dir={quoted(folder)}"]
        with (folder / OUTPUT).open("ab") as output:
            # Ctrl-C in the terminal comes to this process, which asks the others
            process = start_command(arguments, output, output, env=environment, start_new_session=True)
        self._running.append(_Process(number, process, slot, folder / OUTPUT))

    def ended(self) -> list[Ended]:
        over = [one for one in self._running if one.process.poll() is not None]
        for one in over:
            self._running.remove(one)
            _close(one.process.stdin)
        return [_how(one.number, one.process.returncode, one.output) for one in over]

    def stop(self, *, at_once: bool) -> None:
        for one in self._running:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if at_once and hasattr(os, "killpg"):
                    os.killpg(one.process.pid, signal.SIGKILL)
                else:
                    one.process.terminate()


def _close(pipe: IO[bytes] | None) -> None:
    with contextlib.suppress(OSError):
        if pipe is not None:
            pipe.close()


def _how(number: int, code: int, output: Path) -> Ended:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return Ended(number, cut=True, reason=f"ended by {name}")
    if code in (EXIT_UNFINISHED, EXIT_INTERRUPTED):
        return Ended(number, cut=True, reason="told to stop")
    reason = "" if code == 0 else _said_last(output, code)
    return Ended(number, cut=False, reason=reason, mistake=code == EXIT_CONFIG)


def _said_last(output: Path, code: int) -> str:
    """The error that a process has ended with, as it printed it."""
    try:
        with output.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    mistakes = [line for line in lines if line.startswith("vidtrain: error: ")]
    if mistakes:
        return mistakes[-1].removeprefix("vidtrain: error: ")
    return f"exit code {code}: {lines[-1] if lines else 'it printed nothing'}"


def quoted(path: Path | str) -> str:
    """A path as a value of an override."""
    from hydra.core.override_parser.types import Quote, QuotedString

    from vidtrain.options.path_options import literal

    return QuotedString(literal(str(path)), Quote.single).with_quotes()


def _job(sweep: Path, folder: Path, overrides: Sequence[str]) -> list[str]:
    """The overrides of a launcher's job."""
    return [*overrides, f"hydra.sweep.dir={quoted(sweep)}", f"hydra.sweep.subdir={quoted(folder.name)}"]


@dataclass
class LaunchedTogether:
    """All runs that are begun are one call of one of Hydra's launchers: this process, one after the other, or an array.

    launch: Hydra's `launcher.launch`, which waits for them.
    """

    launch: Callable[[Sequence[Sequence[str]], int], Any]
    sweep: Path
    _jobs: dict[int, list[str]] = field(default_factory=dict)

    def free(self) -> bool:
        return True

    def start(self, number: int, folder: Path, overrides: Sequence[str]) -> None:
        self._jobs[number] = _job(self.sweep, folder, overrides)

    def ended(self) -> list[Ended]:
        """All that were begun since, when they have ended."""
        jobs, self._jobs = self._jobs, {}
        if jobs:
            self.launch(list(jobs.values()), min(jobs))
        return [Ended(number, cut=False, reason="") for number in jobs]

    def stop(self, *, at_once: bool) -> None:
        self._jobs.clear()


class LauncherWorkers:
    """Each run is a job of its own of one of Hydra's launchers (Slurm, Ray), waited for in a thread.

    launch: Hydra's `launcher.launch`. slots: how many at once.
    """

    def __init__(self, launch: Callable[[Sequence[Sequence[str]], int], Any], sweep: Path, slots: int) -> None:
        self._launch, self._sweep, self._slots = launch, sweep, slots
        self._running: dict[int, tuple[threading.Thread, list[str]]] = {}
        self._left: list[Ended] = []

    def free(self) -> bool:
        return len(self._running) < self._slots

    def start(self, number: int, folder: Path, overrides: Sequence[str]) -> None:
        job = _job(self._sweep, folder, overrides)
        problems: list[str] = []

        def wait() -> None:
            try:
                self._launch([job], number)
            except Exception as error:  # of the cluster: the run's own are written where the run is
                log.debug("run %d", number, exc_info=True)
                problems.append(f"{type(error).__name__}: {error}".split("\n", 1)[0])

        thread = threading.Thread(target=wait, name=f"run {number}", daemon=True)
        self._running[number] = thread, problems
        thread.start()

    def ended(self) -> list[Ended]:
        over, self._left = self._left, []
        numbers = [number for number, (thread, _) in self._running.items() if not thread.is_alive()]
        return over + [Ended(number, cut=False, reason="".join(self._running.pop(number)[1])) for number in numbers]

    def stop(self, *, at_once: bool) -> None:
        """The cluster has them: they go on, and a resume finds them. Here they have ended."""
        self._left += [Ended(number, cut=True, reason="left to the launcher") for number in self._running]
        self._running.clear()


def gpu_slots(per_run: int) -> list[str]:
    """CUDA_VISIBLE_DEVICES of each run that can have GPUs of its own; [] without any. Imports PyTorch.

    per_run: GPUs of a run, trainer.devices.
    """
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()  # does not begin to use them
    names = visible.split(",")[:count] if visible else [str(number) for number in range(count)]
    return [",".join(names[first : first + per_run]) for first in range(0, len(names) - per_run + 1, per_run)]
