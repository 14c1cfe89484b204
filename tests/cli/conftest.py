"""Runs the command as a user does: in a process of its own, or in this one where that saves starting torch again."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from vidtrain import terminal
from vidtrain.data.jobs.killable import LISTENER
from vidtrain.shell import cli

Run = Callable[..., subprocess.CompletedProcess[str]]


def environment() -> dict[str, str]:
    """The environment of a user's shell, without what an earlier run in this process has set."""
    return {k: v for k, v in os.environ.items() if k not in ("HYDRA_FULL_ERROR", "PYTHONSAFEPATH")}


@pytest.fixture
def vidtrain(tmp_path: Path) -> Run:
    """Run `python -m vidtrain ARGS` in an empty folder; `check` is the exit code that is expected, `limit` seconds."""

    def run(
        *args: str | Path, check: int | None = 0, cwd: Path = tmp_path, limit: float = 300
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vidtrain", *map(str, args)]
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=limit, env=environment(), check=False
        )
        if check is not None:
            assert done.returncode == check, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(autouse=True)
def _no_line_about_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy makes every step slow, and tests count the lines on stderr."""
    monkeypatch.setattr(terminal, "SILENCE", 60.0)


@dataclass
class Done:
    """What a command in this process left."""

    code: int
    stdout: str
    stderr: str


Call = Callable[..., Done]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Like `vidtrain`, in this process."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str | Path, check: int = 0) -> Done:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main([str(arg) for arg in args])
        out, err = capfd.readouterr()
        assert end.value.code == check, f"exit code {end.value.code}\n{out}\n{err}"
        return Done(int(end.value.code or 0), out, err)

    return run


NUMBERS_ONLY = ["logger=jsonl", "eval.figures=false", "report=false", "trainer.compile=off"]
"""A training writes its numbers, draws nothing, and does not measure what compiling would gain: figures, TensorBoard
and two updates more cost more than a tiny network."""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that make a run take a second: 32 pixels, 8 frames, two scenes, no workers, nothing drawn."""
    root = tmp_path_factory.mktemp("data") / "motion"
    return [
        f"data.root={root}",
        *["data.train_scenes=2", "data.val_scenes=1", "data.test_scenes=1", "data.size=32", "data.num_frames=12"],
        *["sampler.num_frames=8", "sampler.stride=1", "transform.size=32", "transform.resize=32"],
        *["trainer.epochs=2", "trainer.batch_size=8", "trainer.num_workers=0", "trainer.log_every=1"],
        *["eval.clips=2", "schedule.warmup_epochs=0"],
        *NUMBERS_ONLY,
    ]


@pytest.fixture(scope="session")
def trained(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished tiny run, with TensorBoard's. Read it, do not change it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    with pytest.raises(SystemExit) as end:
        cli.main(["train", *tiny, "logger=[jsonl,tensorboard]", f"run_dir={folder}"])
    assert end.value.code == 0
    return folder


def error_line(done: subprocess.CompletedProcess[str] | Done) -> str:
    """The one line that a user's mistake prints, and nothing else on stderr."""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("vidtrain: error: ")
    return lines[0].removeprefix("vidtrain: error: ")


def own_threads() -> set[threading.Thread]:
    """What runs in this process, but for the listeners of its worker processes, which outlive a run and are replaced at
    any moment when one of them dies, and for timers that are cancelled and about to end."""

    def over(thread: threading.Thread) -> bool:
        return isinstance(thread, threading.Timer) and thread.finished.is_set()

    return {t for t in threading.enumerate() if not (t.name.startswith(LISTENER) or over(t))}
