"""A run that is killed and started again ends as if it had not been."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import warm
from tests.cli.conftest import Call, environment, error_line
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint


def start(args: list[str], cwd: Path) -> subprocess.Popen[str]:
    command = ["-m", "vidtrain", "train", *args]
    return warm.Python(command, cwd=cwd, stderr=subprocess.PIPE, text=True, env=environment())


def wait_for_lines(file: Path, lines: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if file.is_file() and len(file.read_text().splitlines()) >= lines:
            return
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.01)
    raise AssertionError(f"{file} never had {lines} lines")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_killed_and_resumed_equals_uninterrupted(tiny: list[str], tmp_path: Path, call: Call) -> None:
    # two batches an epoch, saved after each: the kill lands in the middle of an epoch
    args = [*tiny, "trainer.epochs=4", "trainer.save_minutes=0", "model.dropout=0.3", "optimizer.lr=0.01"]
    call("train", *args, "run_dir=whole")

    process = start(args, tmp_path)
    folder = None
    while folder is None and process.poll() is None:
        folder = next(iter(tmp_path.glob("runs/motion/slow_fusion/*")), None)
        time.sleep(0.01)
    assert folder is not None
    wait_for_lines(folder / "metrics.jsonl", 6, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "result.json").exists()

    done = call("train", *args, "resume=auto")
    assert "resumed from" in done.stderr
    assert list(tmp_path.glob("runs/motion/slow_fusion/*")) == [folder]

    def metrics(run: Path) -> list[tuple[object, ...]]:
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        epochs = [r for r in records if r["kind"] != "train"]
        return [(r["kind"], r["update"], r["loss"], r["top1"]) for r in epochs]

    assert metrics(folder) == metrics(tmp_path / "whole")
    ends = [load_checkpoint(run / "last.pt") for run in (folder, tmp_path / "whole")]
    assert all((ends[0]["model"][k] == v).all() for k, v in ends[1]["model"].items())
    results = [json.loads((run / "result.json").read_text())["test"] for run in (folder, tmp_path / "whole")]
    assert results[0] == results[1]


def test_resume_auto_starts_a_run_where_there_is_none_and_leaves_finished_ones(
    tiny: list[str], call: Call, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "done")
    before = (tmp_path / "done" / "last.pt").read_bytes()
    done = call("train", *tiny, "run_dir=done", "resume=auto")
    assert "is finished already" in done.stderr
    assert "8/8" in done.stdout
    assert (tmp_path / "done" / "last.pt").read_bytes() == before
    assert "is finished already" in call("train", *tiny, "resume=done/last.pt").stderr  # its folder is meant

    short = ["trainer.epochs=1", "trainer.test=false"]
    call("train", *tiny, *short, "resume=auto")
    call("train", *tiny, *short, "resume=auto")  # the first has finished: a new run
    assert len(list(tmp_path.glob("runs/motion/slow_fusion/*"))) == 2


def test_resume_of_a_folder_without_a_checkpoint(tiny: list[str], call: Call) -> None:
    assert "no last.pt in" in error_line(call("train", *tiny, "resume=nowhere", check=2))


def test_a_folder_that_holds_a_run_is_not_overwritten(tiny: list[str], call: Call, trained: Path) -> None:
    before = (trained / "last.pt").read_bytes()
    assert "holds a run: resume=auto continues it" in error_line(call("train", *tiny, f"run_dir={trained}", check=2))
    assert (trained / "last.pt").read_bytes() == before
