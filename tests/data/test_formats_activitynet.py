from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vidtrain.data.formats.activitynet import activitynet
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.errors import DataError


def video(subset: str, *segments: tuple[float, float, str]) -> dict[str, Any]:
    annotations = [{"segment": [start, end], "label": label} for start, end, label in segments]
    return {"duration": 82.75, "subset": subset, "resolution": "320x240", "url": "x", "annotations": annotations}


DATABASE = {
    "--1DO2V4K74": video("training", (0.01, 64.32, "Rock climbing"), (70.0, 82.5, "Rock climbing")),
    "_x_yz_12345": video("training", (5, 6, "Archery")),
    "wONwHYy59Tc": video("validation", (1.5, 20.25, "Archery")),
    "W_hux-Z6Ll0": video("testing"),
}


def make(root: Path, database: dict[str, Any] = DATABASE, lists: str = "", name: str = "v_{}.mp4") -> Path:
    (root / lists).mkdir(exist_ok=True)
    content = {"database": database, "taxonomy": [], "version": "VERSION 1.3"}
    (root / lists / "activity_net.v1-3.min.json").write_text(json.dumps(content))
    (root / "videos").mkdir(exist_ok=True)
    for each in database:
        (root / "videos" / name.format(each)).touch()
    return root


def times(data: VideoData, split: str) -> list[tuple[float, float]]:
    starts, ends = data.splits[split].starts, data.splits[split].ends
    assert starts is not None
    assert ends is not None
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


@pytest.mark.parametrize("lists", ["", "annotations"])
@pytest.mark.parametrize("name", ["v_{}.mp4", "{}.mkv"])
def test_a_row_is_a_segment(tmp_path: Path, lists: str, name: str) -> None:
    data = activitynet(make(tmp_path, lists=lists, name=name))
    assert data.class_names == ("Archery", "Rock climbing")
    assert data.splits["train"].labels.tolist() == [1, 1, 0]
    assert times(data, "train") == [(0.01, 64.32), (70, 82.5), (5, 6)]
    assert [Path(path).stem[-11:] for path in data.splits["train"].paths] == ["--1DO2V4K74"] * 2 + ["_x_yz_12345"]
    assert times(data, "val") == [(1.5, 20.25)]
    assert data.splits["test"] is data.splits["val"]
    assert not any("once more" in note for note in data.notes)  # two segments of one video are two rows


def test_segments_without_length_and_before_the_start(tmp_path: Path) -> None:
    odd = {**DATABASE, "aaaaaaaaaaa": video("training", (4, 4, "Archery"), (-0.5, 3, "Archery"))}
    data = activitynet(make(tmp_path, odd))
    assert times(data, "train")[-1] == (0, 3)
    assert len(data.splits["train"]) == 4
    assert any("1 segments end before they begin and are skipped (aaaaaaaaaaa 4 4)" in note for note in data.notes)


def test_missing_videos(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "videos/v_--1DO2V4K74.mp4").unlink()
    data = activitynet(tmp_path)
    assert data.splits["train"].missing == ("--1DO2V4K74", "--1DO2V4K74")
    assert len(data.splits["train"]) == 1


def test_the_layout_of_mmaction2(test_videos: Path, tmp_path: Path) -> None:
    path = test_videos / "annotations" / "mmaction2_tests" / "annotations" / "action_test_anno.json"
    names = list(json.loads(path.read_text()))
    for name in names:
        (tmp_path / f"{name}.mp4").touch()
    data = activitynet(tmp_path, annotations=str(path))
    assert "Rock climbing" in data.class_names
    assert times(data, "train")[0] == (0.3, 0.6)
    assert {Path(p).stem for p in data.splits["train"].paths} == set(names)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            {"database": {"a": {"subset": "training"}}},
            r"min.json: entry 1: got '{\"a\": .*expected an object with subset",
        ),
        ({"database": {"a": video("other", (1, 2, "x"))}}, r"entry 1: "),
        ({"database": {"a": {"subset": "training", "annotations": [{"segment": [1], "label": "x"}]}}}, r"entry 1: "),
        ({"database": {"a": {"subset": "training", "annotations": [{"segment": [1, 2]}]}}}, r"entry 1: "),
        ([], r"min.json: expected {\"database\""),
        ({"database": {"a": video("testing")}}, r"no video has an annotation"),
    ],
)
def test_errors(tmp_path: Path, content: Any, says: str) -> None:
    (make(tmp_path) / "activity_net.v1-3.min.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=says):
        activitynet(tmp_path)


def test_results_of_a_challenge_are_no_annotations(test_videos: Path, tmp_path: Path) -> None:
    path = test_videos / "annotations" / "activitynet" / "sample_classification_prediction.json"
    with pytest.raises(DataError, match=r"sample_classification_prediction.json: entry 1: "):
        activitynet(tmp_path, annotations=str(path))


def test_no_annotations(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"activity_net.v1-3.min.json is neither here nor in annotations"):
        activitynet(tmp_path)
