"""What a test leaves, by the command: its files, the curve over views, what is calibrated on val."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vidtrain
from tests.cli.conftest import Call, error_line
from vidtrain.commands import calibrating
from vidtrain.commands.calibrating import check_can_be_kept
from vidtrain.commands.eval import EvalCommandConfig
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from vidtrain.errors import ConfigError
from vidtrain.reports.results import TestResult
from vidtrain.tasks.classification.intervals import group_interval


def result(folder: str | Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(folder, "result.json").read_text())
    return content


def test_the_files_of_a_test(trained: Path, call: Call) -> None:
    found = TestResult.read(trained / "test")
    rows, probs = found.predictions(), found.probabilities()
    assert len(rows) == len(probs) == 8
    for row, own in zip(rows, probs, strict=True):
        assert Path(row.file).is_absolute()
        assert row.file.endswith(f"/{row.path}")
        assert row.path.split("/")[1:3] == ["test", *row.labels]
        best = np.argsort(-own, kind="stable")
        assert [name for name, _ in row.top] == [found.class_names[k] for k in best[:5]]
        assert [p for _, p in row.top] == pytest.approx(own[best[:5]].tolist(), abs=1e-6)
    assert (probs.argmax(1) == found.labels(rows)).mean() == found.numbers["top1"]
    intervals = found.part("intervals")
    assert (intervals["over"], intervals["count"]) == ("videos", 8)
    low, high = intervals["values"]["top1"]
    out = call("eval", f"checkpoint={trained / 'best.pt'}", "output=out").stdout
    line = f"top-1 {found.numbers['top1']:.3f} (95 % interval {low:.2f}-{high:.2f} over 8 videos)"
    assert line in out.splitlines()


def test_intervals_are_over_groups_where_the_data_has_some(trained: Path, call: Call) -> None:
    for number, row in enumerate(TestResult.read(trained / "test").predictions()):
        for split in ("train", "test"):
            folder = Path("mine") / split / row.labels[0]
            folder.mkdir(parents=True)
            for copy in range(2):
                shutil.copy(row.file, folder / f"{split}{number}_{copy}.mp4")
    data = [f"checkpoint={trained / 'best.pt'}", "data=folder", "data.root=mine", "data.val_fraction=0", "output=out"]
    call("eval", *data)
    assert (result("out")["intervals"]["over"], result("out")["intervals"]["count"]) == ("videos", 16)
    done = call("eval", *data, r"data.group_by='/([a-z]+\d)_\d'")
    found = result("out")["intervals"]
    assert (found["over"], found["count"]) == ("groups", 8)
    hits = np.arange(8) < round(8 * result("out")["top1"])  # both copies of a video are right, or none
    without = (hits.sum() - hits) / 7
    assert found["values"]["top1"] == pytest.approx(group_interval(hits.mean(), without), abs=1e-6)
    assert "over 8 groups)" in done.stdout


def test_the_curve_over_views_is_what_fewer_views_score(trained: Path, call: Call) -> None:
    """Also where they differ from video to video."""
    given = [f"checkpoint={trained / 'best.pt'}", "eval.clips=3", "eval.crops=3", "transform.resize=40"]
    for more in ([], ["eval.hop=2"]):
        call("eval", *given, *more, "output=all")
        curve = result("all")["views"]
        assert curve[-1]["top1"] == result("all")["top1"]
        assert [point["views"] for point in curve] == list(range(1, len(curve) + 1))
        for views in (2, 5):
            call("eval", *given, *more, f"eval.max_views={views}", "output=some")
            assert result("some")["top1"] == curve[views - 1]["top1"]
            assert f", {views} of them at most" in result("some")["protocol"]


def test_calibration_is_kept_in_the_checkpoint(trained: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(trained / "best.pt", "best.pt")
    options = ["checkpoint=best.pt", "split=train", "reject_precision=0.05", "conformal_coverage=0.6"]
    done = call("eval", *options, "calibrate=true", "output=first")
    assert "calibrated on the 8 videos of val: temperature " in done.stderr
    first, plain = result("first"), load_checkpoint(trained / "best.pt")
    kept = load_checkpoint("best.pt")
    stored = kept.pop("calibration")
    assert kept.keys() == plain.keys()
    assert first["calibration"]["temperature"] == stored["temperature"]
    assert first["calibration"]["ece_uncalibrated"] is not None
    assert first["rejection"]["threshold"] == stored["threshold"]
    assert first["conformal"]["threshold"] == stored["cutoff"]
    assert TestResult.read("first").part("rejection")["wanted_precision"] == 0.05

    with monkeypatch.context() as patch:  # another process has calibrated it while this one scored
        patch.setattr(calibrating, "load_checkpoint", lambda file: {**plain, "calibration": {**stored, "videos": 7}})
        done = call("eval", "checkpoint=best.pt", "calibrate=true", "output=late", check=2)
        assert "has been calibrated by another process meanwhile" in done.stderr.splitlines()[-1]

    call("eval", "checkpoint=best.pt", "split=train", "output=again")  # what is kept is used
    assert result("again")["calibration"] == first["calibration"]
    raw = TestResult.read(trained / "test").predictions()[0]
    stored["threshold"] = 0.999
    save_checkpoint(Path("sure.pt"), {**kept, "calibration": stored})
    line = call("predict", "checkpoint=sure.pt", f"input={raw.file}", "top=8").stdout.strip()
    assert ": unknown (" in line
    prediction = vidtrain.load("sure.pt", device="cpu").predict(raw.file, top=8)
    assert str(prediction) == line
    assert (prediction.label, prediction.rejected) == ("unknown", True)
    probs = vidtrain.load(trained / "best.pt", device="cpu").predict(raw.file).probabilities
    wanted = (probs.double().log() / stored["temperature"]).softmax(0)
    assert prediction.probabilities.numpy() == pytest.approx(wanted.numpy(), abs=1e-6)

    other = call("eval", "checkpoint=best.pt", "eval.clips=3", "output=other")
    assert "the checkpoint was calibrated with " in other.stderr
    call("publish", "checkpoint=sure.pt", "output=folder")
    assert vidtrain.load("folder", device="cpu").predict(raw.file).label == "unknown"
    assert "publish or export it again" in error_line(call("eval", "checkpoint=folder", "calibrate=true", check=2))
    call("eval", "checkpoint=best.pt", "calibrate=true", "output=third")
    assert load_checkpoint("best.pt")["calibration"]["threshold"] is None  # it was one of other probabilities


def test_mistakes_of_a_calibration(trained: Path, call: Call) -> None:
    best = f"checkpoint={trained / 'best.pt'}"
    before = (trained / "best.pt").read_bytes()
    assert "is chosen on val" in error_line(call("eval", best, "split=val", "calibrate=true", check=2))
    with pytest.raises(ConfigError, match="leave stream=rgb out"):
        check_can_be_kept(EvalCommandConfig(checkpoint="x.pt", stream="rgb", calibrate=True))
    assert "must be above 0 and below 1" in error_line(call("eval", best, "reject_precision=1", check=2))
    line = error_line(call("eval", best, "reject_precision=0.999", "output=out", check=2))
    assert "no threshold reaches it on the 8 videos of val, the best is " in line
    assert (trained / "best.pt").read_bytes() == before
    content = load_checkpoint(trained / "best.pt")
    save_checkpoint(Path("evil.pt"), {**content, "calibration": {"temperature": -1.0}})
    assert "calibration cannot be used" in error_line(call("eval", "checkpoint=evil.pt", check=2))
