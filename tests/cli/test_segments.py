"""task=segments from one end to the other: trained, tested, asked about files, on videos and on features of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import vidtrain
from tests.cli.conftest import Call, error_line
from vidtrain.data.formats.segments import segments
from vidtrain.errors import ConfigError

LONG = [
    "data=motion_long",
    "data.train_videos=2",
    "data.val_videos=1",
    "data.test_videos=1",
    "data.seconds=10",
    "data.size=32",
]
CLIPS = ["transform=small", "transform.size=32", "transform.resize=36", "sampler.num_frames=4", "sampler.stride=2"]
LITTLE = ["trainer.epochs=1", "trainer.batch_size=8", "trainer.num_workers=0", "logger=none", "eval.figures=true"]


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.slow  # its parts one by one: tests/tasks/test_segment_task.py
def test_windows(call: Call, tmp_path: Path) -> None:
    """A classifier of windows: the segments of a test are those of `predict timeline=true`, and can be trained on."""
    data = [*LONG, f"data.root={tmp_path / 'data'}"]
    task = ["task=segments", "task.threshold=0.47", "task.smoothing=0", "sampler.background=0.5", "eval.hop=4"]
    call("train", *task, *data, *CLIPS, *LITTLE, "model=slow_fusion", f"run_dir={tmp_path / 'run'}", "trainer.ema=0.5")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    test = result["test"]
    assert result["primary"] == "map_50"
    assert {"map_50", "map_thumos", "frame_accuracy", "f1_10", "f1_50", "edit", "loss"} <= test.keys()
    assert (
        list(test["map_by_overlap"])
        == [f"{n / 100:g}" for n in (30, 40, *range(50, 100, 5))[:3]] + list(test["map_by_overlap"])[3:]
    )
    assert test["segments"] == sum(row["segments"] for row in test["segment_classes"]) > 0
    assert test["worst"][0]["video"].endswith("00000.mp4")
    assert "a clip every 4 frames x 1 crops" in test["protocol"]
    assert (tmp_path / "run" / "test" / "figures" / "timelines.png").stat().st_size > 1000
    found = rows(tmp_path / "run" / "test" / "predictions.csv")
    assert len(found) == test["segments_found"] > 0

    best = tmp_path / "run" / "best.pt"
    options = ["segments.threshold=0.47", "segments.smoothing=0", "eval.hop=4", f"output={tmp_path / 'out'}"]
    call("predict", f"checkpoint={best}", f"input={found[0]['file']}", "timeline=true", *options)
    again = rows(tmp_path / "out" / "segments.csv")
    assert [(r["start"], r["end"], r["label"]) for r in again] == [(r["start"], r["end"], r["label"]) for r in found]
    assert [float(r["score"]) for r in again] == pytest.approx([float(r["score"]) for r in found], abs=1e-4)
    folder = Path(found[0]["file"]).parent
    back = segments(folder, train=str(tmp_path / "run" / "test" / "predictions.csv"), val_fraction=0, test_fraction=0)
    assert len(back.splits["train"]) == len(found)

    call("eval", f"checkpoint={best}", "data.seconds=10", f"output={tmp_path / 'eval'}")
    once_more = json.loads((tmp_path / "eval" / "result.json").read_text())
    assert {k: v for k, v in once_more.items() if k != "split"} == {k: v for k, v in test.items() if k != "split"}

    done = call("predict", f"checkpoint={best}", f"input={found[0]['file']}", check=2)
    assert "give timeline=true" in error_line(done)
    with pytest.raises(ConfigError, match=r"clf.timeline\(video\)"):
        vidtrain.load(best).predict(found[0]["file"])
    clips = ["data=motion", f"data.root={tmp_path / 'm'}", "data.size=32", "data.num_frames=8"]
    scenes = ["data.train_scenes=1", "data.val_scenes=1", "data.test_scenes=1"]
    done = call("train", "task=segments", *clips, *scenes, *LITTLE, check=2)
    assert "its rows have no start and end" in error_line(done)


@pytest.mark.slow
def test_features_of_whole_videos(call: Call, tmp_path: Path) -> None:
    """extract untrimmed=true, then a temporal head on it."""
    data = [*LONG, f"data.root={tmp_path / 'data'}"]
    features, network = tmp_path / "features", ["model=slow_fusion", "trainer.num_workers=0"]
    done = call("extract", *network, *data, *CLIPS, "hop=4", "untrimmed=true", f"output={features}")
    assert "model=segment_head task=segments data=features" in done.stdout
    head = ["task=segments", "model=segment_head", "model.width=16", "model.scales=2", "optimizer=adamw"]
    own = [*head, "data=features", f"data.root={features}", *LITTLE[:1], *LITTLE[2:], "trainer.batch_size=2"]
    call("train", *own, f"run_dir={tmp_path / 'run'}")
    test = json.loads((tmp_path / "run" / "result.json").read_text())["test"]
    assert test["map_50"] is not None
    assert test["segments_found"] > 0
    times = [(float(r["start"]), float(r["end"])) for r in rows(tmp_path / "run" / "test" / "predictions.csv")]
    assert all(0 <= start < end <= 10 for start, end in times)
    done = call("train", "model=feature_rnn_tiny", "data=features", f"data.root={features}", check=2)
    assert "give task=segments, or extract without untrimmed=true" in error_line(done)


@pytest.mark.slow
def test_a_head_is_asked_about_files(call: Call, tmp_path: Path) -> None:
    """predict makes the features, and gives the segments of the test; what makes no sense of a head is one line."""
    data, network, head = [*LONG, f"data.root={tmp_path / 'data'}"], tmp_path / "net", tmp_path / "head"
    tiny = ["model=slow_fusion", *data, *CLIPS, *LITTLE[:3], "trainer.test=false", "logger=jsonl", "report=false"]
    call("train", "task=segments", *tiny, f"run_dir={network}")
    call("extract", f"checkpoint={network / 'best.pt'}", "hop=4", "untrimmed=true", "output=features")
    own = ["model=segment_head", "model.width=16", "model.scales=2", "optimizer=adamw", "trainer.num_workers=0"]
    own += ["data=features", f"data.root={tmp_path / 'features'}", "trainer.epochs=1", "logger=jsonl", "report=true"]
    call("train", "task=segments", *own, f"run_dir={head}")
    assert "Truth and answer of the worst videos" in (head / "report.html").read_text(encoding="utf-8")
    expected = rows(head / "test" / "predictions.csv")
    best, video = f"checkpoint={head / 'best.pt'}", next((tmp_path / "data").rglob("test/*.mp4"))

    asked = ["predict", best, f"input={video}"]
    done = call(*asked, "timeline=true", "segments.threshold=0", "output=out", "overlay=true")
    found = rows(tmp_path / "out" / "segments.csv")
    assert len(found) == len(expected) > 0
    for one, other in zip(found, sorted(expected, key=lambda row: float(row["start"])), strict=True):
        assert float(one["start"]) == pytest.approx(float(other["start"]), abs=2e-3)
    for name in ("start", "end", "score"):
        values = [sorted(float(row[name]) for row in table) for table in (found, expected)]
        assert values[0] == pytest.approx(values[1], abs=2e-3)
    assert {file.name for file in (tmp_path / "out" / video.name).iterdir()} >= {"overlay.mp4", "timeline.png"}
    done = call(*asked, "timeline=true")
    assert "no segment reached segments.threshold=0.25; the best was " in done.stdout

    def refused(*words: str | Path) -> str:
        return error_line(call(*words, check=2))

    assert "give timeline=true" in refused(*asked)
    assert "give features=FOLDER" in refused(*asked, "timeline=true", "features=nowhere")
    assert "watches no stream" in refused("predict", best, "input=rtsp://127.0.0.1:1/x", "timeline=true")
    assert "reads features, not frames" in refused("export", best, f"input={video}", "output=exported")
    assert "this checkpoint features" in refused("explain", best, f"input={video}", "output=explained")
    net = f"checkpoint={network / 'best.pt'}"
    assert "this one reads videos" in refused("predict", net, f"input={video}", "features=features", "timeline=true")
    assert "gives no classes to explain" in refused("explain", net, f"input={video}", "output=explained")
