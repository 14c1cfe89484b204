"""`vidtrain data flow`, and training, testing and predicting with it, from the command line."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import vidtrain
from tests.cli.conftest import Call, error_line
from tests.data.moving import moving
from tests.videos import write_video
from vidtrain import build
from vidtrain.data.flow.files import file_of, video_id
from vidtrain.data.settings import FlowConfig, FlowSourceName
from vidtrain.engine.step import TrainingStep
from vidtrain.errors import ConfigError

pytest.importorskip("cv2", reason="computing flow needs OpenCV")

TWO_STREAM = ["model=two_stream_tiny", "run_dir=r"]


@pytest.fixture
def motion(tiny: list[str]) -> list[str]:
    """Overrides of the tiny built-in dataset."""
    return ["data=motion", *(override for override in tiny if override.startswith("data."))]


def predictions(folder: Path) -> list[list[str]]:
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_flow_train_eval_predict(motion: list[str], tiny: list[str], call: Call, tmp_path: Path) -> None:
    make = ["data", "flow", *motion, "method=dis", "output=my flow", "flow.short_side=32", "num_workers=2"]
    lines = call(*make).stdout.splitlines()
    cache = tmp_path / "my flow"
    assert lines[0].startswith(f"flow of 32 videos is in {cache} (32 now, 0 before), ")
    assert lines[-1] == (
        f"train with it: vidtrain train model=two_stream flow=cache 'flow.root={cache}', and the same data"
    )
    assert len(list(cache.rglob("*.flow"))) == 32
    assert call(*make).stdout.startswith(f"flow of 32 videos is in {cache} (0 now, 32 before)")

    call("train", *TWO_STREAM, *tiny, "flow=cache", "flow.root='my flow'", "task.mixup=0.5")
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert (result["test"]["scored"], result["test"]["listed"]) == (8, 8)
    checkpoint = tmp_path / "r" / "best.pt"
    _, content = vidtrain.load_model(checkpoint)
    assert content["config"]["flow"] == {"source": "cache", "root": str(cache), "method": "dis"}

    call("eval", f"checkpoint={checkpoint}", "output=again")
    assert predictions(tmp_path / "again") == predictions(tmp_path / "r" / "test")
    call("eval", f"checkpoint={checkpoint}", "output=computed", "flow=dis")
    for cached, computed in zip(
        predictions(tmp_path / "again")[1:], predictions(tmp_path / "computed")[1:], strict=True
    ):
        assert cached[0] == computed[0]
        assert float(cached[4]) == pytest.approx(float(computed[4]), abs=0.01)  # JPEGs and rounding

    # a video that the cache has no flow of: an error in a test, computed in a prediction
    tested = Path(predictions(tmp_path / "again")[1][1])
    file_of(cache, video_id(str(tested))).unlink()
    call("eval", f"checkpoint={checkpoint}", "output=less")
    assert "there is no flow of it in" in (tmp_path / "less" / "not_scored.csv").read_text()
    assert len(predictions(tmp_path / "less")) == 8
    line = call("predict", f"checkpoint={checkpoint}", f"input={tested}").stdout
    shutil.rmtree(cache)
    assert call("predict", f"checkpoint={checkpoint}", f"input={tested}").stdout == line
    assert "flow.root=" in error_line(call("eval", f"checkpoint={checkpoint}", "output=none", check=2))


def test_streams_first_on_the_fly(tiny: list[str], call: Call, tmp_path: Path) -> None:
    options = ["model.schedule=streams_first", "model.fusion=concat", "model.fusion_epochs=1", "flow=farneback"]
    call("train", *TWO_STREAM, *tiny, *options)
    lines = (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()
    losses = [line["loss"] for line in map(json.loads, lines) if line["kind"] == "train_epoch"]
    assert 3.5 < losses[0] < 5.5  # of two streams, about ln 8 each; then of one fusion
    assert 1.5 < losses[1] < 2.6
    last, content = vidtrain.load_model(tmp_path / "r" / "last.pt")
    assert last.fused
    assert content["config"]["flow"]["source"] == "farneback"
    for stream in ("rgb", "flow"):
        call("eval", "checkpoint=r/last.pt", f"stream={stream}", f"output={stream}")
    alone = [predictions(tmp_path / stream) for stream in ("rgb", "flow")]
    assert [row[0] for row in alone[0]] == [row[0] for row in alone[1]]
    assert alone[0] != alone[1]
    video = write_video(tmp_path / "other.mp4", moving(12, (1.0, 0.0)))
    assert "other.mp4: " in call("predict", f"checkpoint={tmp_path / 'r' / 'last.pt'}", f"input={video}").stdout


@pytest.mark.slow
def test_interrupted_within_the_fusion_and_resumed(
    tiny: list[str], call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with the weights of a run that was not: the fusion is not started a second time."""
    options = ["model=two_stream_tiny", "model.schedule=streams_first", "model.fusion=concat", "model.fusion_epochs=2"]
    options += [*tiny, "flow=dis", "trainer.epochs=4", "trainer.save_minutes=0", "trainer.test=false"]
    call("train", *options, "run_dir=whole")

    with monkeypatch.context() as patch:
        updates, step = itertools.count(1), TrainingStep.__call__

        def interrupted(self: TrainingStep, *args: Any) -> None:
            if next(updates) == 6:  # the second of two batches of the third epoch
                raise KeyboardInterrupt
            step(self, *args)

        patch.setattr(TrainingStep, "__call__", interrupted)
        call("train", *options, "run_dir=r", check=130)
    assert "resumed from" in call("train", *options, "run_dir=r", "resume=auto").stderr
    ends = [torch.load(tmp_path / run / "last.pt", weights_only=True)["model"] for run in ("whole", "r")]
    assert bool(ends[0]["fusing"])
    assert all(torch.equal(ends[1][key], value) for key, value in ends[0].items())


def test_a_model_and_its_flow_must_fit(tiny: list[str], call: Call, tmp_path: Path) -> None:
    for options, message in (
        (["model=two_stream_tiny"], "TwoStream reads optical flow beside RGB: add flow=dis, which computes"),
        (["flow=dis"], "flow=dis: SlowFusion reads RGB only: leave flow out, or take model=two_stream"),
        (["model=two_stream_tiny", "flow=cache"], "flow=cache requires flow.root=FOLDER"),
        (["model=two_stream_tiny", "flow=cache", "flow.root=."], "holds no flow.json: make the flow with `vidtrain"),
        (["model=two_stream_tiny", "flow=raft"], "raft"),
    ):
        assert message in error_line(call("train", *tiny, *options, "run_dir=r", check=2)), options
    assert not (tmp_path / "r" / "config.json").exists()
    average = vidtrain.create_model("two_stream_tiny", num_classes=3, num_frames=4, fusion="average")
    with pytest.raises(ConfigError, match=r"several per video require model\.fusion=concat"):
        build.check_flow(average, FlowConfig(FlowSourceName.dis), multi_label=True)
    concat = vidtrain.create_model("two_stream_tiny", num_classes=3, num_frames=4, fusion="concat")
    build.check_flow(concat, FlowConfig(FlowSourceName.dis), multi_label=True)


def test_mistakes_are_one_line(motion: list[str], call: Call, tmp_path: Path) -> None:
    (tmp_path / "no.pth").write_bytes(b"x")
    call("data", "flow", *motion, "split=val", "output=out", "flow.short_side=32")
    for wrong, message in (
        (
            ["flow.short_side=40"],
            "its flow was made with short_side=32, not 40: give the same, or choose",
        ),
        (["flow.short_side=32", "method=tvl1"], "its flow was made with method=dis, not tvl1"),
        (["method=brox"], "method"),
        (["flow.quality=0"], "flow.quality=0: must be at least 1 and at most 100"),
        (["flow.qualty=3"], "qualty"),
        (["num_workers=0"], "num_workers=0: must be at least 1"),
        (["method=raft", "flow.weights=no.pth", "flow.device=cpu"], "flow.weights=no.pth: not weights of raft_large"),
    ):
        assert message in error_line(call("data", "flow", *motion, "output=out", *wrong, check=2)), wrong


def test_without_opencv_one_line_says_what_to_install(
    motion: list[str], tiny: list[str], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    for command in (["data", "flow", *motion, "output=out"], ["train", *TWO_STREAM, *tiny, "flow=dis"]):
        line = error_line(call(*command, check=2))
        assert line.startswith("dis: optical flow needs OpenCV (")
        assert line.endswith(": pip install 'vidtrain[flow]', or opencv-python-headless")


def test_help_and_inspect(call: Call) -> None:
    out = call("data", "--help").stdout
    for option in ("method", "flow.short_side", "flow.quality", "flow.timeout", "flow.weights"):
        assert f"{option}=" in out, option
    assert "flow       cache dis farneback none tvl1" in call("train", "--help").stdout
    head = call("inspect", "model=two_stream_tiny", "transform.size=32", "sampler.num_frames=4").stdout.splitlines()[0]
    assert head == "two_stream_tiny: 400 classes, input rgb 3 x 4 x 32 x 32, flow 2 x 3 x 32 x 32 (C x T x H x W)"
