"""Several processes that train together, on the CPU with gloo: the numbers of one, faults, and the launchers."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra.core.hydra_config import HydraConfig

from tests.cli.conftest import Run, environment
from vidtrain import load_model
from vidtrain.commands import launch, run_dir
from vidtrain.data.clips.workers import process_context
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no torch elastic launcher on Windows")

# LayerNorm: with BatchNorm each process would see the statistics of its own clips
MODEL = ["model=timesformer_tiny", "optimizer=adamw", "trainer.clip_grad=1.0"]


def losses(run: Path) -> list[tuple[str, int, float]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(r["kind"], r["update"], r["loss"]) for r in records]


def predictions(run: Path) -> dict[str, list[str]]:
    with (run / "test" / "predictions.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0]: row[1:] for row in rows}


def same_losses(one: Path, other: Path) -> None:
    first, second = losses(one), losses(other)
    assert [r[:2] for r in first] == [r[:2] for r in second]
    for (*_, a), (*_, b) in zip(first, second, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def test_decoding_processes_are_started_as_those_of_a_single_process(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = multiprocessing.get_start_method()
    monkeypatch.setattr(run_dir, "register", lambda: None)
    monkeypatch.setattr("hydra.core.utils.configure_log", lambda *_: None)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    composed = SimpleNamespace(hydra=SimpleNamespace(job_logging=None, verbose=False))
    found: list[str] = []
    monkeypatch.setattr(pickle, "loads", lambda given: given)
    multiprocessing.set_start_method("spawn", force=True)  # as in a process that was spawned
    try:
        launch._work((lambda _: found.append(process_context().get_start_method()), None), composed)  # type: ignore[arg-type]
    finally:
        multiprocessing.set_start_method(None, force=True)
    assert found == [usual]


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "tuned"), [("ddp", "full"), ("fsdp", "full"), ("ddp", "head"), ("fsdp", "lora")])
def test_two_processes_have_the_numbers_of_one(
    tiny: list[str], tmp_path: Path, vidtrain: Run, strategy: str, tuned: str
) -> None:
    args = [*tiny, *MODEL, f"tune={tuned}", "data.val_scenes=2", "trainer.ema=0.9", "eval.batch_size=6"]
    vidtrain("train", *args, "run_dir=one")
    together = [*args, "trainer.devices=2", f"trainer.strategy={strategy}"]
    done = vidtrain("train", *together, "run_dir=two")
    assert "2 x cpu" in done.stderr
    same_losses(tmp_path / "one", tmp_path / "two")
    one, two = predictions(tmp_path / "one"), predictions(tmp_path / "two")
    assert list(one) == list(two)  # every video once, in the same order
    results = [json.loads((tmp_path / run / "result.json").read_text()) for run in ("one", "two")]
    assert [r["test"]["scored"] for r in results] == [8, 8]
    assert results[0]["test"]["loss"] == pytest.approx(results[1]["test"]["loss"], abs=1e-5)
    weights = [load_checkpoint(tmp_path / run / "best.pt")["model"] for run in ("one", "two")]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=1e-4, rtol=1e-3, msg=name)

    # stopped after one epoch and continued, the shards by another number of processes than wrote them
    vidtrain("train", *together, "run_dir=stopped", "trainer.test=false", "trainer.epochs=1")
    (tmp_path / "stopped" / "result.json").unlink()
    told = ["run_dir=stopped", "resume=auto", "resume_changed=true"]
    refused = vidtrain("train", *together, "run_dir=stopped", "resume=auto", check=2)
    assert "trainer.epochs was 1, is 2" in refused.stderr
    vidtrain("train", *together, *told)
    assert (tmp_path / "stopped" / "result.json").is_file()


@pytest.mark.slow
def test_intervals_of_two_processes_are_those_of_one(trained: Path, tmp_path: Path, vidtrain: Run) -> None:
    """Over groups, whose videos do not lie in one process."""
    root = Path(load_checkpoint(trained / "best.pt")["config"]["data"]["root"])
    for split in ("train", "test"):
        for name in sorted({file.parent.name for file in root.rglob("*.mp4")}):
            (tmp_path / "videos" / split / name).mkdir(parents=True)
            for number, file in enumerate(sorted(root.glob(f"*/*/{name}/*.mp4"))[:4]):
                shutil.copy(file, tmp_path / "videos" / split / name / f"g{(number + len(name)) % 6}_{number}.mp4")
    own = ["data=folder", "data.root=videos", "data.val_fraction=0", r"data.group_by=(g\d)_", "eval.clips=2"]
    found = []
    for devices in (1, 2):
        options = [*own, f"trainer.devices={devices}", "trainer.num_workers=0", f"output=out{devices}"]
        vidtrain("eval", f"checkpoint={trained / 'best.pt'}", *options)
        found.append(json.loads((tmp_path / f"out{devices}" / "result.json").read_text())["intervals"])
    assert found[0] == found[1]
    assert (found[0]["over"], found[0]["count"]) == ("groups", 6)
    assert found[0]["values"]["top1"][0] < found[0]["values"]["top1"][1]


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["average", "concat"])
def test_streams_first_on_two_devices(tiny: list[str], tmp_path: Path, vidtrain: Run, fusion: str) -> None:
    options = ["model=two_stream_tiny", "model.schedule=streams_first", f"model.fusion={fusion}", "flow=farneback"]
    done = vidtrain("train", *tiny, *options, "trainer.devices=2", "run_dir=r")
    assert "find_unused_parameters" not in done.stderr  # said by PyTorch where all of them are used
    model, _ = load_model(tmp_path / "r" / "last.pt")
    assert model.fused == (fusion == "concat")
    train = [loss for kind, _, loss in losses(tmp_path / "r") if kind == "train_epoch"]
    assert train[0] > 3.5  # the sum over both streams
    assert (train[-1] < 2.6) == model.fused


@pytest.mark.slow
def test_a_dying_process_ends_all_and_says_why(tiny: list[str], tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "import os, torch\n"
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__()\n"
        "        self.fc = nn.Linear(3, num_classes)\n"
        "    def forward(self, x):\n"
        "        if self.training and os.environ.get('RANK') == '1':\n"
        "            raise ArithmeticError('rank one has had enough')\n"
        "        return self.fc(x.mean((2, 3, 4)))\n"
        "def net(num_classes):\n"
        "    return Net(num_classes)\n"
    )
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "broken.yaml").write_text("_target_: broken.net\n")
    command = [sys.executable, "-m", "vidtrain", "train", *tiny, "--config-dir", "conf", "model=broken"]
    began = time.monotonic()
    done = subprocess.run(
        [*command, "trainer.devices=2"],
        cwd=tmp_path,
        env={**environment(), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert time.monotonic() - began < 100
    assert done.returncode == 2
    assert "process 1 of 2" in done.stderr
    assert 'raise ArithmeticError("rank one has had enough")' in done.stderr.replace("'", '"')
    assert done.stderr.strip().splitlines()[-1].startswith("vidtrain: error: process 1 of 2 ended with code 1")


@pytest.mark.slow
def test_a_signal_to_the_launcher_saves(tiny: list[str], tmp_path: Path, vidtrain: Run) -> None:
    args = [*tiny, *MODEL, "trainer.devices=2", "trainer.epochs=500", "trainer.val_every=500", "run_dir=run"]
    command = [sys.executable, "-m", "vidtrain", "train", *args]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 100
    while not (metrics.is_file() and metrics.read_text().count("\n") > 3):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 75, stderr
    assert "resume=auto continues" in stderr
    assert load_checkpoint(tmp_path / "run" / "last.pt")["progress"]["update"] > 0


@pytest.mark.slow
def test_torchrun_makes_one_run_folder(tiny: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "vidtrain", "train", *tiny]
    subprocess.run([*command, *MODEL, "trainer.epochs=1"], cwd=tmp_path, env=environment(), check=True, timeout=200)
    folders = list((tmp_path / "runs" / "motion" / "timesformer_tiny").iterdir())
    assert len(folders) == 1
    assert json.loads((folders[0] / "result.json").read_text())["devices"] == 2


@pytest.mark.slow
def test_srun_needs_no_launcher(tiny: list[str], tmp_path: Path) -> None:
    # what srun sets for the two tasks of a step
    slurm = {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_ID": str(os.getpid())}
    slurm |= {"SLURM_STEP_NODELIST": "localhost"}
    command = [sys.executable, "-m", "vidtrain", "train", *tiny, *MODEL, "trainer.epochs=1"]
    tasks = [
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**environment(), **slurm, "SLURM_PROCID": str(n), "SLURM_LOCALID": str(n)},
        )
        for n in range(2)
    ]
    assert [task.wait(timeout=200) for task in tasks] == [0, 0]
    (folder,) = (tmp_path / "runs" / "motion" / "timesformer_tiny").iterdir()
    assert json.loads((folder / "result.json").read_text())["devices"] == 2
