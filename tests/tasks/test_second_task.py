"""The loop trains, scores, keeps and resumes what it has never heard of: prediction of the next frame."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.conftest import Call
from tests.cli.conftest import call as call
from tests.cli.conftest import tiny as tiny
from tests.engine.test_pair import run_pair
from tests.tasks.second import found
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint
from vidtrain.engine.devices.distributed import World


def of(log: list[list[Any]], kind: str) -> list[dict[str, float]]:
    return [values for name, _, _, values in log if name == kind]


def test_it_learns_and_is_kept_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    own = found(tmp_path / "alone", World())
    whole, parts = own["whole"], own["parts"]
    trained, scored = of(whole["log"], "train_epoch"), of(whole["log"], "val")
    assert [set(values) for values in trained] == [{"loss", "error"}] * 2
    assert all(values["loss"] == pytest.approx(values["error"], rel=1e-6) for values in trained)
    assert trained[-1]["loss"] < 0.9 * trained[0]["loss"]
    assert [set(values) for values in scored] == [{"closeness", "loss"}] * 2
    assert scored[-1]["closeness"] > scored[0]["closeness"]

    folder = tmp_path / "alone" / "whole"
    best, last = load_checkpoint(folder / "best.pt"), load_checkpoint(folder / "last.pt")
    assert best["epoch"] == last["progress"]["best_epoch"] == 2
    assert last["progress"]["best"] == [scored[-1]["closeness"]]
    average = last["ema"]["average"]
    assert torch.equal(best["model"]["scale"], average["scale"])  # the average is what is scored and kept
    assert not torch.equal(best["model"]["scale"], last["model"]["scale"])

    assert "saved after update 2" in parts["said"]
    assert parts["began"][:2] == [0, 4]
    assert len(parts["began"][2]) == 3  # loss, error, samples
    assert (parts["weights"], parts["buffers"]) == (whole["weights"], whole["buffers"])
    assert of(parts["log"], "val") == scored
    assert of(parts["log"], "train_epoch") == trained  # the running totals of the task's measures are kept, too


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gloo's meeting by a file")
def test_two_processes_train_it_together(tmp_path: Path) -> None:
    zero, one = run_pair("tests.tasks.second", tmp_path)
    for name in ("whole", "parts"):
        assert zero[name]["weights"] == one[name]["weights"]
        assert of(zero[name]["log"], "val") == of(one[name]["log"], "val")
    assert zero["whole"]["weights"] == zero["parts"]["weights"]
    scored = of(zero["whole"]["log"], "val")
    assert scored[-1]["closeness"] > scored[0]["closeness"]


def test_from_outside_by_its_yaml(tiny: list[str], call: Call, tmp_path: Path) -> None:
    """Trained, tested, scored again and asked by the commands: one class, here in tests/, and one YAML."""
    for group, text in (("task", "_target_: tests.tasks.second.NextFrame\npower: 2.0\n"),
                        ("model", "_target_: tests.tasks.second.Predictor\n")):  # fmt: skip
        (tmp_path / "own" / group).mkdir(parents=True)
        (tmp_path / "own" / group / "frames.yaml").write_text(text)
    own = ["--config-dir", "own", "task=frames", "model=frames"]
    data = [option for option in tiny if not option.startswith("model")]
    done = call("train", *own, *data, "trainer.epochs=2", "task.power=1.5", "run_dir=run", "optimizer.lr=0.01")
    assert "closeness" in done.stdout
    result = json.loads(Path("run/result.json").read_text())
    assert (result["primary"], set(result["val"])) == ("closeness", {"closeness"})
    assert result["test"]["kept"] == ["error"]
    assert not {"top1", "confusion"} & set(result["test"])
    assert load_checkpoint("run/best.pt")["config"]["task"]["power"] == 1.5

    trusted = ["checkpoint=run/best.pt", "trust=[tests]"]
    assert "closeness" in call("eval", *trusted, "output=again").stdout
    again = json.loads(Path("again/result.json").read_text())
    assert again["closeness"] == result["test"]["closeness"]
    rows = list(csv.reader(Path("again/predictions.csv").read_text().splitlines()))
    assert len(rows) == again["scored"]
    path, error = rows[0]
    assert f"{path}: error {float(error):.4f}" in call("predict", *trusted, f"input={path}").stdout
