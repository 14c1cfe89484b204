from __future__ import annotations

import json
from pathlib import Path

import pytest

from vidtrain.data.formats.diving48 import diving48
from vidtrain.errors import DataError

VOCAB = [["Back", "15som", "05Twis", "FREE"], ["Forward", "25som", "NoTwis", "PIKE"]]


def make(root: Path, lists: str = "", video: str = "rgb/{}.mp4", version: str = "_V2") -> Path:
    """Ten recordings with two dives each for training, one of another for testing."""
    train = [(f"rec-_{r}x_{d:05d}", (r + d) % 2) for r in range(10) for d in range(2)]
    test = [("other_00000", 1)]
    (root / lists).mkdir(parents=True, exist_ok=True)
    for split, rows in (("train", train), ("test", test)):
        entries = [{"vid_name": name, "label": k, "start_frame": 0, "end_frame": 90} for name, k in rows]
        (root / lists / f"Diving48{version}_{split}.json").write_text(json.dumps(entries))
    (root / lists / "Diving48_vocab.json").write_text(json.dumps(VOCAB))
    for name, _ in (*train, *test):
        path = root / video.format(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.mark.parametrize("lists", ["", "annotations"])
@pytest.mark.parametrize(
    ("video", "version"), [("rgb/{}.mp4", "_V2"), ("videos/{}.webm", ""), ("rawframes/{}/img_00001.jpg", "_V2")]
)
def test_layouts(tmp_path: Path, lists: str, video: str, version: str) -> None:
    data = diving48(make(tmp_path, lists, video, version))
    assert data.class_names == ("Back_15som_05Twis_FREE", "Forward_25som_NoTwis_PIKE")
    assert {s: (len(m), m.missing) for s, m in data.splits.items()} == {"train": (20, ()), "test": (1, ())}
    assert data.splits["train"].labels.tolist()[:3] == [0, 1, 1]
    assert data.splits["train"].starts is None


def test_validation_takes_whole_recordings(tmp_path: Path) -> None:
    data = diving48(make(tmp_path), val_fraction=0.2)
    films = {s: {Path(path).stem.rpartition("_")[0] for path in data.splits[s].paths} for s in ("train", "val")}
    assert (len(films["train"]), len(films["val"])) == (8, 2)
    assert not films["train"] & films["val"]


def test_without_names(tmp_path: Path) -> None:
    (make(tmp_path) / "Diving48_vocab.json").unlink()
    assert diving48(tmp_path).class_names == tuple(str(n) for n in range(48))


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        (
            "V2_train",
            '[{"vid_name": "a"}]',
            r"train.json: entry 1: got '{\"vid_name\": \"a\"}', expected an object with",
        ),
        ("V2_train", '[{"vid_name": "a", "label": 2}]', r"entry 1: .*a label among the 2 classes, not '2'"),
        ("V2_train", "{}", r"expected a list of objects with vid_name and label"),
        ("vocab", "{}", r"vocab.json: expected a list of dives"),
        ("vocab", '[["a"], ["a"]]', r"a dive is there twice"),
    ],
)
def test_errors(tmp_path: Path, file: str, text: str, says: str) -> None:
    (make(tmp_path) / f"Diving48_{file}.json").write_text(text)
    with pytest.raises(DataError, match=says):
        diving48(tmp_path)


def test_no_lists(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither Diving48_V2_train.json nor Diving48_V2_test.json here"):
        diving48(tmp_path)
