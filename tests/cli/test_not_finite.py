"""A network that gives nan or inf: said, named, never a number among the others."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.cli.conftest import Call, error_line
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from vidtrain.models.layers import classifier

MESSAGE = "the network's output is not finite (fp32)"


@pytest.fixture
def first_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first clip that the network sees comes out as nan."""
    forward, seen = classifier.ClipClassifier.forward, []

    def poisoned(self: torch.nn.Module, x: Tensor) -> Tensor:
        logits = forward(self, x)
        if not seen:
            logits[0, 1] = torch.nan
        seen.append(len(x))
        return logits

    monkeypatch.setattr(classifier.ClipClassifier, "forward", poisoned)


@pytest.fixture
def broken(trained: Path, tmp_path: Path) -> Path:
    """A checkpoint whose weights are nan."""
    content = load_checkpoint(trained / "best.pt")
    for value in content["model"].values():
        value.copy_(value * torch.nan if value.is_floating_point() else value)
    save_checkpoint(tmp_path / "broken.pt", content)
    return tmp_path / "broken.pt"


def test_weights_that_are_nan_score_nothing(call: Call, broken: Path) -> None:
    line = error_line(call("eval", f"checkpoint={broken}", "output=out", check=2))
    assert "none of the 8 videos of split test could be scored; the first: " in line
    assert line.endswith(MESSAGE)


@pytest.mark.usefixtures("first_is_nan")
def test_one_video_among_many_is_named_and_the_others_are_scored(call: Call, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "mine.csv").write_text("mine")
    (tmp_path / "out" / "not_scored.csv").symlink_to(tmp_path / "mine.csv")  # is replaced, not followed
    done = call("eval", f"checkpoint={trained / 'best.pt'}", "output=out", check=2)
    assert (tmp_path / "mine.csv").read_text() == "mine"
    assert "7/8" in done.stdout
    assert "scored 7 of 8 (1 without a finite output)" in done.stdout
    with (tmp_path / "out" / "not_scored.csv").open(newline="") as file:
        (_, (path, reason)) = csv.reader(file)
    assert reason == MESSAGE
    error = done.stderr.strip().splitlines()[-1]
    assert f"output is not finite for 1 of 8 videos, the first: {path}; the numbers are those of the others" in error
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (result["scored"], result["not_finite"]) == (7, [path])
    assert path not in (tmp_path / "out" / "predictions.csv").read_text()


@pytest.mark.usefixtures("first_is_nan")
def test_predict_names_it(call: Call, trained: Path, tmp_path: Path) -> None:
    (folder,) = Path(load_checkpoint(trained / "best.pt")["config"]["data"]["root"]).glob("*/test")
    done = call("predict", f"checkpoint={trained / 'best.pt'}", f"input={folder}", "output=p.csv", check=2)
    assert len(done.stdout.splitlines()) == 7
    assert MESSAGE in done.stderr
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 8


def test_a_diverged_training_ends_with_an_error_and_no_best(tiny: list[str], call: Call, tmp_path: Path) -> None:
    done = call("train", *tiny, "optimizer.lr=1e38", "trainer.max_skipped=100", "run_dir=run", check=2)
    assert re.search(r"val: the network's output is not finite \(fp32\): 8 of 8 videos, first .*\.mp4", done.stderr)
    error = done.stderr.splitlines()[-1]
    assert "no validation gave finite scores, so there is no best.pt (precision fp32): lower optimizer.lr" in error
    assert error.endswith("last.pt has the weights of epoch 2")
    assert not (tmp_path / "run" / "best.pt").exists()
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_network_that_gives_all_classes_the_same_is_told(call: Call, trained: Path, tmp_path: Path) -> None:
    content = load_checkpoint(trained / "best.pt")
    for value in content["model"].values():
        value.zero_()
    save_checkpoint(tmp_path / "zero.pt", content)
    done = call("eval", "checkpoint=zero.pt", "output=out")
    assert "several classes share the highest probability in 8 of 8 videos" in done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["top1"] == result["mean_class"] == result["clip_top1"] == 1 / 8
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(row["top1"] == row["label"] for row in rows) == 1
