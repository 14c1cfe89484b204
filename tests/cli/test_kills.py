"""A training that is killed at random moments, again and again, ends with the very weights of one that was not."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Run, environment
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint

KILLS = 20


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize(("name", "save"), [("SIGKILL", "false"), ("SIGTERM", "false"), ("SIGKILL", "true")])
def test_twenty_kills_change_nothing(tiny: list[str], tmp_path: Path, vidtrain: Run, name: str, save: str) -> None:
    # saved after every update, so that many of the kills fall into the writing of a checkpoint
    args = [*tiny, "model.dropout=0.3", "trainer.epochs=60", "trainer.save_minutes=0", "trainer.test=false"]
    args += ["trainer.num_workers=1", "trainer.ema=0.9", "task.mixup=0.4", "trainer.accumulate=1"]
    vidtrain("train", *args, "run_dir=whole")

    rng = random.Random(0)
    command = [sys.executable, "-m", "vidtrain", "train", *args, "resume=auto", "run_dir=killed"]
    command.append(f"trainer.async_save={save}")
    last, kills = tmp_path / "killed" / "last.pt", 0
    while True:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
        if kills < KILLS:
            # training has gone on: at any time within the next few updates, or while they are saved
            saved = _saved(last)
            while process.poll() is None and _saved(last) == saved:
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.3))
        if kills >= KILLS or process.poll() is not None:
            break
        process.send_signal(getattr(signal, name))
        _, stderr = process.communicate(timeout=60)
        assert process.returncode in ((-signal.SIGKILL,) if name == "SIGKILL" else (75, -signal.SIGTERM)), stderr
        kills += 1
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    assert kills == KILLS
    kinds = [[(r["kind"], r["update"]) for r in _log(tmp_path / run)] for run in ("whole", "killed")]
    assert kinds[0] == kinds[1]  # nothing twice, nothing missing
    whole, killed = (load_checkpoint(tmp_path / run / "last.pt") for run in ("whole", "killed"))
    assert whole["progress"]["update"] == killed["progress"]["update"] == 120
    for part in ("model", "optimizer", "ema"):
        assert equal(whole[part], killed[part]), part
    best = [load_checkpoint(tmp_path / run / "best.pt") for run in ("whole", "killed")]
    assert equal(best[0]["model"], best[1]["model"])


def _saved(file: Path) -> int:
    return file.stat().st_mtime_ns if file.is_file() else 0


def _log(run: Path) -> list[dict[str, int]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def equal(one: object, other: object) -> bool:
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return isinstance(other, type(one)) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    return bool((one == other).all()) if hasattr(one, "all") else one == other  # type: ignore[attr-defined]
