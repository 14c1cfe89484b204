"""Videos of several classes: trained with BCE, scored by mAP, predicted with one probability a class."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Call
from tests.cli.test_runs import rows_of
from vidtrain.data.manifest.index import write_index
from vidtrain.data.manifest.manifest import IntLists, VideoData
from vidtrain.data.motion.motion import motion
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint


@pytest.fixture
def tagged(tmp_path: Path) -> Path:
    """The motion videos with the classes (moves), (turns), (of a pair: first); some have none."""
    data = motion(tmp_path / "motion", train_scenes=2, val_scenes=1, test_scenes=1, size=32, num_frames=12)
    splits = {}
    for split, manifest in data.splits.items():
        tags = [[k for k, there in enumerate((c < 4, c in (4, 5), c % 2 == 0)) if there] for c in manifest.labels]
        labels = np.array([own[0] if own else -1 for own in tags])
        splits[split] = dataclasses.replace(manifest, labels=labels, tags=IntLists.of(tags))
    write_index(tmp_path / "index", VideoData(("moves", "turns", "first"), splits))
    return tmp_path / "index"


def test_train_eval_and_predict(tagged: Path, call: Call, tiny: list[str]) -> None:
    options = [option for option in tiny if not option.startswith("data.")]
    done = call("train", *options, "data=index", f"data.root={tagged}", "task.mixup=0.8", "run_dir=run")
    assert "3 classes, any number of them per video" in done.stderr
    assert "test mAP" in done.stdout
    result = json.loads(Path("run/result.json").read_text())
    assert 0 < result["test"]["map"] <= 1
    assert 0 < result["val"]["map"] <= 1
    assert load_checkpoint(Path("run/best.pt"))["multi_label"]

    done = call("eval", "checkpoint=run/best.pt", "output=out")
    assert "mAP" in done.stdout.splitlines()[0]
    assert json.loads(Path("out/result.json").read_text())["map"] == result["test"]["map"]
    rows = rows_of(Path("out/predictions.csv"))
    assert {row["label"] for row in rows} == {"moves;first", "moves", "turns;first", "turns", "first", ""}

    done = call("predict", "checkpoint=run/best.pt", f"input={rows[0]['file']}", "top=3")
    numbers = [float(cell.split()[-1]) for cell in done.stdout.strip().split(": ", 1)[1].split(", ")]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers == pytest.approx([float(rows[0][f"prob{rank}"]) for rank in (1, 2, 3)], abs=1e-4)
    assert sum(numbers) != pytest.approx(1, abs=1e-3)  # each class has a probability of its own
