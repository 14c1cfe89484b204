"""Several nodes, played by several launchers on this machine: torchrun's agents, FSDP within a node, restarts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import Call, Run, environment
from tests.cli.test_distributed import MODEL, losses, same_losses
from tests.cli.test_kills import equal
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
BARE = ["trainer.test=false", "trainer.compile=off"]


def torchrun(folder: Path, launcher: list[str], args: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", *launcher, "-m", "vidtrain", "train", *args]
    return subprocess.Popen(
        command, cwd=folder, env={**environment(), "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return int(listener.getsockname()[1])


def worker(agent: subprocess.Popen[str], rank: int) -> int:
    """The process of this rank among those that torchrun has started."""
    for children in Path(f"/proc/{agent.pid}/task").glob("*/children"):
        for pid in children.read_text().split():
            if f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return int(pid)
    raise AssertionError(f"no process of rank {rank}")


def wait_for(happened: Callable[[], bool], agent: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        if happened():
            return
        assert agent.poll() is None, agent.stderr.read() if agent.stderr else ""
        time.sleep(0.02)
    raise AssertionError("it has not happened")


def updates(run: Path) -> int:
    file = run / "metrics.jsonl"
    lines = file.read_text().split("\n")[:-1] if file.is_file() else []
    return json.loads(lines[-1])["update"] if lines else 0


def test_what_torchrun_starts_again_continues(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    show = ("train", "--cfg", "job")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert "resume: null" in call(*show).stdout
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert "resume: auto" in call(*show).stdout
    assert "resume: null" in call(*show, "resume=null").stdout  # as asked


@pytest.mark.slow
def test_two_nodes_of_two_processes(tiny: list[str], tmp_path: Path, vidtrain: Run) -> None:
    """HSDP has DDP's losses, and its checkpoints are those of FSDP."""
    args = [*tiny, *MODEL, *BARE, "trainer.accumulate=2", "data.train_scenes=4", "trainer.ema=0.9"]
    args.append("schedule=constant")  # the same updates, however many epochs are to come
    vidtrain("train", *args, "trainer.devices=2", "run_dir=ddp")
    nodes = ["--nnodes=2", "--nproc-per-node=2", "--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{free_port()}"]
    agents = [torchrun(tmp_path, nodes, [*args, "trainer.strategy=hsdp", "run_dir=hsdp"]) for _ in range(2)]
    said = [agent.communicate(timeout=400)[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    same_losses(tmp_path / "ddp", tmp_path / "hsdp")
    assert len(losses(tmp_path / "hsdp")) > 6
    one, two = (load_checkpoint(tmp_path / run / "best.pt")["model"] for run in ("ddp", "hsdp"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-4, rtol=1e-3, msg=name)

    # two processes on one node go on from it by FSDP
    (tmp_path / "hsdp" / "result.json").unlink()
    more = [*args, "trainer.epochs=3", "trainer.devices=2", "run_dir=hsdp", "resume=auto", "resume_changed=true"]
    done = vidtrain("train", *more, "trainer.strategy=fsdp")
    assert "saved by 4 processes, continued by 2" in done.stderr
    vidtrain("train", *args, "trainer.epochs=3", "run_dir=three")
    after = [loss for run in ("three", "hsdp") for kind, _, loss in losses(tmp_path / run)[-1:]]
    assert after[0] == pytest.approx(after[1], abs=1e-4)


@pytest.mark.slow
def test_a_lost_process_is_started_again_and_changes_nothing(tiny: list[str], tmp_path: Path, vidtrain: Run) -> None:
    args = [*tiny, *MODEL, *BARE, "model.dropout=0.2", "trainer.epochs=4", "data.train_scenes=4", "trainer.ema=0.9"]
    args += ["trainer.save_minutes=0", "trainer.batch_size=4"]
    vidtrain("train", *args, "trainer.devices=2", "run_dir=whole")
    agent = torchrun(tmp_path, ["--standalone", "--nproc-per-node=2", "--max-restarts=3"], [*args, "run_dir=lost"])
    killed = 0
    for rank, update in ((1, 3), (0, 19)):  # of eight an epoch; the second time the main process
        wait_for(lambda update=update: updates(tmp_path / "lost") >= update, agent)
        assert worker(agent, rank) != killed
        os.kill(killed := worker(agent, rank), signal.SIGKILL)
    _, said = agent.communicate(timeout=400)
    assert agent.returncode == 0, said
    assert said.count("resumed from") == 2, said
    assert "process 1 (on " in said
    assert losses(tmp_path / "whole") == losses(tmp_path / "lost")
    whole, lost = (load_checkpoint(tmp_path / run / "last.pt") for run in ("whole", "lost"))
    for part in ("model", "optimizer", "ema"):
        assert equal(whole[part], lost[part]), part
