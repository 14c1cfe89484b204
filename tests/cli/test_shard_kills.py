"""`data shard`, and trainings from what it writes, killed at random moments: nothing is lost, doubled or changed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Run, environment
from tests.cli.test_kills import equal
from vidtrain.data.manifest.index import read_index
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint
from vidtrain.tar_members import open_bytes

_LIMIT = 1200  # seconds: three ranks with two decoding processes each start on two busy cores
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")]

VIDEOS, KILLS = 900, 5


def contents(folder: Path) -> dict[str, bytes]:
    """What the job has made; its report and index hold no time of day."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix in (".tar", ".txt", ".csv")}


@pytest.mark.parametrize("whom", ["the whole job", "its main process"])
def test_kills_of_the_job_leave_the_same_shards(tmp_path: Path, vidtrain: Run, whom: str) -> None:
    rng = random.Random(whom)
    for n in range(VIDEOS):
        file = tmp_path / "videos" / f"class{n % 3}" / f"{n}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(np.random.default_rng(n).bytes(100_000 + n))
    args = ["data", "shard", "data=folder", "data.root=videos", "shard.size=500kB", "num_workers=2"]
    vidtrain(*args, "output=whole")
    whole = contents(tmp_path / "whole")
    assert len(whole) > 150

    kills, found = 0, [0]
    while True:
        process = subprocess.Popen(
            [sys.executable, "-m", "vidtrain", *args, "output=killed"],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        if kills < KILLS:
            wanted = found[-1] + rng.randrange(1, 20)
            while process.poll() is None and len(list((tmp_path / "killed").glob("*.tar"))) < wanted:
                time.sleep(0.001)
        if kills == KILLS or process.poll() is not None:
            break
        (os.killpg if whom == "the whole job" else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        found.append(len(list((tmp_path / "killed").glob("*.tar"))))
        assert not (tmp_path / "killed" / "index.json").exists(), "it had ended"
        for tar in (tmp_path / "killed").glob("*.tar"):  # what has its name is whole
            assert tar.read_bytes() == whole[tar.name], tar.name
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert kills == KILLS
    assert KILLS <= found[-1] < len(whole) - 2
    assert found == sorted(found)  # none is lost
    assert contents(tmp_path / "killed") == whole
    assert not list((tmp_path / "killed").glob(".*part"))
    one, other = (read_index(tmp_path / name) for name in ("whole", "killed"))
    for split, manifest in one.splits.items():
        rows = [path.removeprefix(str(tmp_path / "whole")) for path in manifest.paths]
        assert [path.removeprefix(str(tmp_path / "killed")) for path in other.splits[split].paths] == rows
        assert other.splits[split].labels.tolist() == manifest.labels.tolist()
    videos = [path for manifest in other.splits.values() for path in manifest.paths]
    assert len(videos) == VIDEOS
    for path in videos[::50]:
        assert (
            open_bytes(path).read() == (tmp_path / "videos" / path.partition(".tar@")[2].partition("/")[2]).read_bytes()
        )


@pytest.mark.parametrize(("devices", "workers"), [(1, 2), (2, 0), (3, 2)])
def test_kills_of_a_training_from_shards_change_nothing(
    tiny: list[str], tmp_path: Path, vidtrain: Run, devices: int, workers: int
) -> None:
    made = [option for option in tiny if option.startswith("data.") and "scenes" not in option]
    made += ["data.train_scenes=6", "data.val_scenes=1", "data.test_scenes=1"]
    made += [f"data.root={tmp_path / 'motion'}"]
    vidtrain("data", "shard", "data=motion", *made, "output=shards", "shard.size=20kB")
    args = [option for option in tiny if not option.startswith("data.")]
    args += ["data=shards", "data.root=shards", "sampler.shuffle_window=10", "model.dropout=0.3"]
    args += ["trainer.epochs=6", "trainer.save_minutes=0", "trainer.test=false", "trainer.batch_size=6"]
    args += [f"trainer.num_workers={workers}", f"trainer.devices={devices}", "trainer.device=cpu", "trainer.ema=0.9"]
    vidtrain("train", *args, "run_dir=whole", limit=_LIMIT)

    rng, kills = random.Random(devices), 0
    log = tmp_path / "killed" / "metrics.jsonl"
    while True:
        process = subprocess.Popen(
            [sys.executable, "-m", "vidtrain", "train", *args, "resume=auto", "run_dir=killed"],
            cwd=tmp_path,
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        if kills < 3:
            before = len(_lines(log))
            while process.poll() is None and len(_lines(log)) < before + 3:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.2))
        if kills == 3 or process.poll() is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    _, stderr = process.communicate(timeout=_LIMIT)
    assert process.returncode == 0, stderr
    assert kills == 3
    kinds = [[(line["kind"], line["update"]) for line in _lines(tmp_path / run / "metrics.jsonl")] for run in RUNS]
    assert kinds[0] == kinds[1]
    whole, killed = (load_checkpoint(tmp_path / run / "last.pt") for run in RUNS)
    for part in ("model", "optimizer", "ema"):
        assert equal(whole[part], killed[part]), part


RUNS = ("whole", "killed")


def _lines(file: Path) -> list[dict[str, object]]:
    text = file.read_text() if file.is_file() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
