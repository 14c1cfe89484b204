"""vidtrain search: a query finds itself, by the checkpoint and the clips that made the index; recall of a split."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Call, error_line
from vidtrain.data.features.nearest import nearest, recall, unit_mean
from vidtrain.data.features.subsets import sources_of
from vidtrain.data.formats.features import features
from vidtrain.shell import cli


@pytest.fixture(scope="module")
def index(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features by a checkpoint, with other clips than it was trained on."""
    folder = tmp_path_factory.mktemp("search") / "index"
    with pytest.raises(SystemExit) as end:
        cli.main(["extract", f"checkpoint={trained / 'best.pt'}", "sampler.num_frames=4", "hop=4", f"output={folder}"])
    assert end.value.code == 0
    return folder


def test_a_video_finds_itself(index: Path, call: Call, tmp_path: Path) -> None:
    videos = sources_of(features(index).splits["test"])
    out = call("search", f"query={videos[3]}", f"index={index}", "top=3", "output=found.csv").stdout
    with (tmp_path / "found.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["rank"] for line in lines] == ["1", "2", "3"]
    assert (lines[0]["video"], lines[0]["split"]) == (videos[3], "test")
    assert float(lines[0]["cosine"]) == pytest.approx(1, abs=2e-3)
    assert float(lines[0]["cosine"]) >= float(lines[1]["cosine"]) >= float(lines[2]["cosine"])
    data = features(index)
    assert lines[0]["label"] == data.class_names[int(data.splits["test"].labels[3])]
    assert videos[3] in out
    call("search", f"query={Path(videos[3]).parent}", f"index={index}", "top=1", "output=found.json")
    for item in json.loads((tmp_path / "found.json").read_text()):
        assert item["query"] == item["video"]


def test_an_index_of_clips_spread_over_the_videos(trained: Path, call: Call, tmp_path: Path) -> None:
    """The query's clips are spread as those of the index; a number that no extraction writes is refused."""
    spread = ["sampler.num_frames=4", "sampler.mode=segments", "clips=2", "dtype=float32", "output=spread"]
    call("extract", f"checkpoint={trained / 'best.pt'}", *spread)
    query = sources_of(features(tmp_path / "spread").splits["test"])[3]
    call("search", f"query={query}", "index=spread", "top=1", "output=found.json")
    (item,) = json.loads((tmp_path / "found.json").read_text())
    assert item["video"] == query
    assert item["cosine"] == pytest.approx(1, abs=1e-4)
    settings = tmp_path / "spread" / "features.json"
    content = json.loads(settings.read_text())
    assert content["made_by"]["clips"] == 2
    for wrong in ("2", 10**9, [2], True):
        settings.write_text(json.dumps({**content, "made_by": {**content["made_by"], "clips": wrong}}))
        assert "clips=" in error_line(call("search", f"query={query}", "index=spread", check=2))


def test_recall_of_a_split(index: Path, call: Call, tmp_path: Path) -> None:
    call("search", "split=test", f"index={index}", "output=recall.json")
    found = json.loads((tmp_path / "recall.json").read_text())
    assert found["among"] == ["train", "val"]
    data = features(index)
    keys, labels = [], []
    for split in ("train", "val"):
        keys += [unit_mean(np.load(path)) for path in data.splits[split].paths]
        labels += data.splits[split].labels.tolist()
    hits = {1: 0, 5: 0, 10: 0}
    for path, label in zip(data.splits["test"].paths, data.splits["test"].labels, strict=True):
        order = np.argsort(-(np.stack(keys) @ unit_mean(np.load(path))), kind="stable")
        for k in hits:
            hits[k] += int(label) in [labels[row] for row in order[:k]]
    for k, count in hits.items():
        assert found[f"recall@{k}"] == pytest.approx(count / len(data.splits["test"]))


def test_mistakes_are_one_line(index: Path, trained: Path, call: Call, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    for given, message in (
        ([], "give query=FILE for the videos like it, or split=test"),
        (["query=x.mp4", "split=test"], "give query=FILE"),
        (["split=test", "output=x.txt"], "ends in .csv or .json"),
        (
            ["split=test", "top=3"],
            "top: split=test compares features that are there; query=FILE makes some; leave top out",
        ),
        (["split=test", "sampler.stride=3"], "sampler.stride: split=test compares"),
        (["query=none.mp4"], "query=none.mp4: no such file"),
        (["query=none.mp4", "index=none"], "index=none: no such folder"),
        (["query=broken.mp4"], "broken.mp4: "),
    ):
        index_too = [] if "index=none" in given else [f"index={index}"]
        assert message in error_line(call("search", *index_too, *given, check=2))
    file = features(index).splits["test"].paths[0]
    sound = np.load(file)
    np.save(file, np.full_like(sound, np.nan))
    line = error_line(call("search", f"index={index}", "split=test", check=2))
    assert line == f"{file}: holds numbers that are not finite"
    np.save(file, sound)
    settings = index / "features.json"
    before = settings.read_text()
    try:
        content = json.loads(before)
        settings.write_text(json.dumps({**content, "made_by": {**content["made_by"], "weights": "00"}}))
        line = error_line(call("search", f"index={index}", f"query={index}/../none", "top=1", check=2))
        assert "no such file" in line
        video = sources_of(features(index).splits["test"])[0]
        assert "was made with weights=00" in error_line(call("search", f"index={index}", f"query={video}", check=2))
        settings.write_text(json.dumps({**content, "checkpoint": None}))
        assert "names no checkpoint" in error_line(call("search", f"index={index}", f"query={video}", check=2))
        call("search", f"index={index}", f"query={video}", f"checkpoint={trained / 'best.pt'}")
    finally:
        settings.write_text(before)


def test_nearest_and_recall_by_hand() -> None:
    keys = np.eye(4, dtype=np.float32)
    queries = np.array([[0.6, 0.8, 0, 0], [0, 0, 1, 0]], np.float32)
    cosines, rows = nearest(queries, keys, 9)
    assert rows.tolist() == [[1, 0, 2, 3], [2, 0, 1, 3]]  # of equal ones the earlier first
    assert cosines[0].tolist() == pytest.approx([0.8, 0.6, 0, 0])
    found = recall(queries, [{0}, set()], keys, [{0}, {1}, {2}, {3}], (1, 2))
    assert found == {1: 0.0, 2: 1.0}
    assert unit_mean(np.array([[[3.0, 0.0], [0.0, 3.0]]])).tolist() == pytest.approx([0.5**0.5] * 2)
