"""Processes of a sweep: how they end, what is known of it, and that none outlives the one that has started it."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.sweeps.test_scheduler import RESULT
from vidtrain import child_python_path
from vidtrain.commands.sweep import write_failure
from vidtrain.commands.sweeps import workers
from vidtrain.commands.sweeps.record import RunState, SweepRecord, SweepRun
from vidtrain.commands.sweeps.run_sources import GridSource
from vidtrain.commands.sweeps.scheduler import Scheduler
from vidtrain.commands.sweeps.workers import Ended, LaunchedTogether, LauncherWorkers, ProcessWorkers, gpu_slots, quoted
from vidtrain.errors import EXIT_CONFIG, VidtrainError
from vidtrain.shell import cli, sweep_child


def end_of(pool: ProcessWorkers | LauncherWorkers) -> Ended:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if found := pool.ended():
            return found[0]
        time.sleep(0.02)
    raise AssertionError("it does not end")


def test_a_mistake_is_told_as_the_process_has_printed_it(tmp_path: Path) -> None:
    pool = ProcessWorkers([], 1)
    assert pool.free()
    pool.start(3, tmp_path / "a, (b)", ["trainer.ephocs=1"])
    assert not pool.free()
    ended = end_of(pool)
    assert (ended.number, ended.cut) == (3, False)
    assert ended.reason.startswith("no key 'trainer.ephocs' (did you mean trainer.epochs?)")
    assert pool.free()
    assert "vidtrain: error: no key" in (tmp_path / "a, (b)" / "output.txt").read_text()


SLEEPER = "import os, sys, time; print(os.environ.get('CUDA_VISIBLE_DEVICES')); sys.stdout.flush(); time.sleep(60)"


def test_each_slot_has_its_gpus_and_a_killed_process_is_to_be_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_python_path, "command", lambda code: [sys.executable, "-c", SLEEPER])
    pool = ProcessWorkers([], 3, ["0,1", "2,3"])
    for number in range(3):
        pool.start(number, tmp_path / str(number), [])
    assert not pool.free()
    files = [tmp_path / str(number) / "output.txt" for number in range(3)]
    until = time.monotonic() + 30
    while not all(file.read_text() for file in files) and time.monotonic() < until:
        time.sleep(0.02)
    assert [file.read_text().strip() for file in files] == ["0,1", "2,3", "0,1"]
    assert pool.ended() == []
    pool.stop(at_once=False)
    assert end_of(pool) == Ended(0, True, "ended by SIGTERM")
    pool.stop(at_once=True)


@pytest.mark.parametrize(
    ("code", "output", "expected"),
    [
        (0, "", (False, "")),
        (75, "vidtrain: SIGTERM received", (True, "told to stop")),
        (-9, "", (True, "ended by SIGKILL")),
        (2, "a\nvidtrain: error: no data\nb\n", (False, "no data")),
        (1, "Traceback\nKeyError: 'x'\n", (False, "exit code 1: KeyError: 'x'")),
        (1, "", (False, "exit code 1: it printed nothing")),
    ],
)
def test_how_a_process_has_ended(tmp_path: Path, code: int, output: str, expected: tuple[bool, str]) -> None:
    (tmp_path / "output.txt").write_text(output)
    assert workers._how(0, code, tmp_path / "output.txt") == Ended(0, *expected)


def test_a_run_ends_with_the_sweep_that_has_started_it() -> None:
    code = "import os, threading, time; from vidtrain.shell.sweep_child import _end_with; "
    code += "threading.Thread(target=_end_with, args=(0,), daemon=True).start(); print(1, flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdin is not None
    child.stdout.readline()
    assert child.poll() is None
    child.stdin.close()  # as the end of the other process does
    assert child.wait(timeout=30) == -signal.SIGTERM


def test_a_job_of_a_launcher(tmp_path: Path) -> None:
    seen, go = [], threading.Event()

    def launch(jobs: list[list[str]], number: int) -> None:
        seen.append((jobs, number))
        go.wait(30)
        if number == 1:
            raise OSError("no such partition\nmore")

    pool = LauncherWorkers(launch, tmp_path, 2)
    for number in range(2):
        pool.start(number, tmp_path / f"{number}_x=1", ["a=1"])
    assert not pool.free()
    assert pool.ended() == []
    go.set()
    found: list[Ended] = []
    until = time.monotonic() + 30
    while len(found) < 2 and time.monotonic() < until:
        found += pool.ended()
        time.sleep(0.02)
    reasons = {ended.number: ended.reason for ended in found}
    assert reasons == {0: "", 1: "OSError: no such partition"}
    job = ["a=1", f"hydra.sweep.dir='{tmp_path}'", "hydra.sweep.subdir='0_x=1'"]
    assert ([job], 0) in seen


def test_jobs_of_a_launcher_are_not_waited_for_when_the_sweep_is_told_to_stop(tmp_path: Path) -> None:
    go = threading.Event()
    pool = LauncherWorkers(lambda jobs, number: go.wait(30), tmp_path, 2)
    for number in range(2):
        pool.start(number, tmp_path / str(number), [])
    pool.stop(at_once=False)
    assert [(ended.number, ended.cut) for ended in pool.ended()] == [(0, True), (1, True)]
    assert pool.ended() == []
    go.set()


def test_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "cuda", SimpleNamespace(device_count=lambda: 4))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu_slots(1) == ["0", "1", "2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-a,5,7")
    assert gpu_slots(2) == ["3,GPU-a", "5,7"]
    assert gpu_slots(3) == ["3,GPU-a,5"]
    monkeypatch.setattr(torch, "cuda", SimpleNamespace(device_count=lambda: 0))
    assert gpu_slots(1) == []


def test_a_path_as_hydra_reads_it() -> None:
    assert quoted("a b/${x}'y") == r"'a b/\${x}\'y'"
    assert os.sep in quoted(Path("a") / "b")


def test_jobs_of_one_launch_are_tried_again_in_a_second_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As a grid has it on one process or as an array of a cluster: by the scheduler that processes have, too. None is
    said to start before the launcher begins it, nor to have finished when the last one has: only what failed is said.
    """
    caplog.set_level(logging.INFO, "vidtrain")
    seen: list[tuple[list[str], int]] = []

    def launch(jobs: Sequence[Sequence[str]], number: int) -> None:
        seen.append(([job[0] for job in jobs], number))
        for job in jobs:
            run = tmp_path / job[2].split("'")[1]
            run.mkdir(exist_ok=True)
            if job[0] == "x=1" and len(seen) < 3:
                write_failure(run, "x=1", "no memory")
            else:
                (run / "result.json").write_text(json.dumps(RESULT))

    runs = [SweepRun(n, f"{n}_x={n}", {"x": str(n)}) for n in range(3)]
    record = SweepRecord(tmp_path, "grid", {}, {}, [], runs)
    workers = LaunchedTogether(launch, tmp_path)
    source = GridSource(together=True)
    scheduler = Scheduler(record, source, workers, lambda run: [f"x={run.number}"], retries=1, together=True)
    while scheduler.step():
        pass
    assert seen == [(["x=0", "x=1", "x=2"], 0), (["x=1"], 1)]
    assert [record.state(run) for run in runs] == [RunState.finished, RunState.failed, RunState.finished]
    assert caplog.messages == ["run 1 has failed, and is tried again", "run 1: failed"]


@pytest.mark.parametrize(("options", "code"), [(["no.such=1"], EXIT_CONFIG), (["model=none"], EXIT_CONFIG), ([], 2)])
def test_a_process_says_whether_its_options_were_the_reason(
    options: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its exit code: a run that has failed of something else may be tried again."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "arguments").write_text(json.dumps(["train", *options]) + "\n")
    monkeypatch.setattr(sys, "stdin", (tmp_path / "arguments").open())
    monkeypatch.setattr(sweep_child, "_end_with", lambda _pipe: None)
    monkeypatch.setattr(sweep_child.os, "dup2", lambda *_files: None)
    if not options:

        def full(_arguments: list[str]) -> None:
            raise SystemExit(2) from VidtrainError("No space left on device")

        monkeypatch.setattr(cli, "main", full)
    with pytest.raises(SystemExit) as end:
        sweep_child.main()
    assert end.value.code == code
