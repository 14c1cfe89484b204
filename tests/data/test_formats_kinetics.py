from __future__ import annotations

import csv
import os
from collections import Counter
from pathlib import Path

import pytest

from vidtrain.data.formats.kinetics import kinetics
from vidtrain.errors import DataError

HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"
ROWS = {
    "train": '"air drumming",aaaaaaaaaa1,5,15,train,0\nabseiling,-bbbbbbbb_2,100,110,train,0\n',
    "val": "abseiling,ccccccccc.3,7,17,val,1\nair drumming,dddddddddd4,0,10,val,0\n",
}
# each place of the CSV's first, and of its second video
FILES = {
    "train/air drumming/aaaaaaaaaa1_000005_000015.mp4": "train/abseiling/-bbbbbbbb_2_000100_000110.mp4",
    "train/air_drumming/aaaaaaaaaa1.mp4": "train/abseiling/-bbbbbbbb_2.webm",
    "train/aaaaaaaaaa1_000005_000015.mkv": "train/-bbbbbbbb_2.mp4",
    "air_drumming/aaaaaaaaaa1_000005_000015.mp4": "abseiling/-bbbbbbbb_2_000100_000110.mp4",
    "aaaaaaaaaa1_000005_000015.mp4": "-bbbbbbbb_2_000100_000110.mp4",
    "videos_256/all/aaaaaaaaaa1.mp4": "videos_256/all/-bbbbbbbb_2_000100_000110.mp4",
}
TRAIN = ("train/air drumming/aaaaaaaaaa1_000005_000015.mp4", "train/abseiling/-bbbbbbbb_2_000100_000110.mp4")
VAL = ("val/abseiling/ccccccccc.3_000007_000017.mp4", "val/air_drumming/dddddddddd4_000000_000010.mp4")


def make(root: Path, *files: str, **lists: str) -> Path:
    for name, rows in lists.items():
        (root / f"{name}.csv").write_text(HEADER + rows)
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


@pytest.mark.parametrize("first", FILES)
def test_places_of_the_videos(tmp_path: Path, first: str) -> None:
    data = kinetics(make(tmp_path, first, FILES[first], *VAL, **ROWS))
    assert data.class_names == ("abseiling", "air drumming")
    assert [str(Path(p).relative_to(tmp_path)) for p in data.splits["train"].paths] == [first, FILES[first]]
    assert data.splits["train"].labels.tolist() == [1, 0]
    assert [str(Path(p).relative_to(tmp_path)) for p in data.splits["val"].paths] == list(VAL)
    assert data.splits["val"].labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train.csv", "validate.csv"),
        ("kinetics-400_train.csv", "kinetics-400_val.csv"),
        ("kinetics_600_train.csv", "k600_val.csv"),
        ("K700_train.csv", "kinetics700_2020_validation.csv"),
        ("annotations/train.csv", "annotations/kinetics_val.csv"),
    ],
)
def test_names_of_the_lists(tmp_path: Path, train: str, val: str) -> None:
    make(tmp_path, *TRAIN, *VAL)
    for name, split in ((train, "train"), (val, "val")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(HEADER + ROWS[split])
    assert {s: len(m) for s, m in kinetics(tmp_path).splits.items()} == {"train": 2, "val": 2, "test": 2}


def test_lists_can_be_named_and_lie_elsewhere(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    make(tmp_path, *TRAIN, *VAL, a=ROWS["train"])
    other = make(tmp_path_factory.mktemp("lists"), b=ROWS["val"])
    data = kinetics(tmp_path, train="a.csv", val=str(other / "b.csv"))
    assert {s: len(m) for s, m in data.splits.items()} == {"train": 2, "val": 2, "test": 2}


def test_folders_without_lists(tmp_path: Path) -> None:
    make(tmp_path, "train/air_drumming/1.mp4", "train/tap dancing/2.mp4", "val/air drumming/3.mp4")
    data = kinetics(tmp_path)
    assert data.class_names == ("air_drumming", "tap dancing")
    assert (data.splits["train"].labels.tolist(), data.splits["val"].labels.tolist()) == ([0, 1], [0])
    make(tmp_path, "train/air_drumming/notes.txt", "val/air drumming/3.json", "val/@eaDir/air drumming/3.mp4")
    assert "skipped 2 files that are not videos: 1 .json, 1 .txt" in kinetics(tmp_path).notes
    assert len(kinetics(tmp_path).splits["val"]) == 1
    (tmp_path / "classes.txt").write_text("tap dancing\nair drumming\nabseiling\n")
    data = kinetics(tmp_path, classes="classes.txt")
    assert data.class_names == ("tap dancing", "air drumming", "abseiling")
    assert (data.splits["train"].labels.tolist(), data.splits["val"].labels.tolist()) == ([1, 0], [1])
    make(tmp_path, "val/yoga/1.mp4")
    with pytest.raises(DataError, match=r"val/yoga: no class of classes.txt"):
        kinetics(tmp_path, classes="classes.txt")


def test_a_list_and_a_folder(tmp_path: Path) -> None:
    make(tmp_path, "train/air_drumming/x.mp4", "train/abseiling/y.mp4", *VAL, val=ROWS["val"])
    data = kinetics(tmp_path)
    assert data.class_names == ("abseiling", "air drumming")
    assert (data.splits["train"].labels.tolist(), data.splits["val"].labels.tolist()) == ([0, 1], [0, 1])


def test_missing_videos(tmp_path: Path) -> None:
    data = kinetics(make(tmp_path, *TRAIN, VAL[0], **ROWS))
    assert data.splits["val"].missing == ("dddddddddd4_000000_000010",)
    assert sum("not on disk" in note for note in data.notes) == 1
    (tmp_path / VAL[0]).unlink()
    with pytest.raises(DataError, match=r"val: none of the 2 listed videos is on disk below .*check data.root"):
        kinetics(tmp_path)


def test_without_labels_val_is_the_test(tmp_path: Path) -> None:
    make(tmp_path, *TRAIN, *VAL, **ROWS)
    (tmp_path / "test.csv").write_text("youtube_id,time_start,time_end,split\nxyz,1,11,test\n")
    data = kinetics(tmp_path)
    assert data.splits["test"] is data.splits["val"]
    assert list(data.notes) == ["test: the val split, as the field reports it; there is no test list with labels"]
    with pytest.raises(DataError, match=r"test.csv:1: no column label in 'youtube_id,"):
        kinetics(tmp_path, test="test.csv")


def test_a_test_list_with_labels_counts_when_its_videos_are_there(tmp_path: Path) -> None:
    make(tmp_path, *TRAIN, *VAL, **ROWS, test="abseiling,eeeeeeeeee5,1,11,test,0\n")
    data = kinetics(tmp_path)
    assert data.splits["test"] is data.splits["val"]
    assert any("none of the listed test videos is on disk" in note for note in data.notes)
    make(tmp_path, "test/eeeeeeeeee5.mp4")
    assert kinetics(tmp_path).splits["test"].labels.tolist() == [0]


def test_a_video_in_the_folder_of_its_split_comes_first(tmp_path: Path) -> None:
    make(tmp_path, *TRAIN, *VAL, "other/aaaaaaaaaa1_000005_000015.mp4", **ROWS)
    assert "/train/" in kinetics(tmp_path).splits["train"].paths[0]


def test_validation_alone_can_be_scored(tmp_path: Path) -> None:
    make(tmp_path, *VAL, val=ROWS["val"])
    assert list(kinetics(tmp_path).splits) == ["val", "test"]
    make(tmp_path, train=ROWS["train"])  # the list of train is there, its videos are not
    data = kinetics(tmp_path)
    assert list(data.splits) == ["val", "test"]
    assert any(note.startswith("train: none of the 2 listed videos is on disk") for note in data.notes)


def test_folders_of_pictures_without_lists(tmp_path: Path) -> None:
    make(tmp_path, "train/air_drumming/x/1.jpg", "train/tap_dancing/y/1.jpg", "val/air_drumming/z/1.jpg")
    assert [Path(p).name for p in kinetics(tmp_path).splits["train"].paths] == ["x", "y"]


@pytest.mark.parametrize(
    ("rows", "options", "says"),
    [
        ("abseiling,abc,x,10,train,0\n", {}, r"train.csv:2: .*expected time_start and time_end in whole seconds"),
        ("abseiling,abc,1,10\n,abc,1,10,train,0\n", {}, r":2: .*expected 6 fields: label,youtube_id,.*1 more"),
        (",abc,1,10,train,0\n", {}, r":2: .*expected a label"),
        (
            "abseilin,abc,1,10,train,0\n",
            {"classes": "c.txt"},
            r":2: .*among the 2 classes, not 'abseilin' \(did you mean abseiling",
        ),
        ("abseiling,abc,1,10,train,0\n", {"classes": "no.txt"}, r"classes=no.txt: no such file"),
    ],
)
def test_bad_rows(tmp_path: Path, rows: str, options: dict[str, str], says: str) -> None:
    make(tmp_path, *VAL, train=rows, val=ROWS["val"])
    (tmp_path / "c.txt").write_text("abseiling\nair drumming\n")
    with pytest.raises(DataError, match=says):
        kinetics(tmp_path, **options)


def test_lists_that_cannot_be_chosen(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has neither train.csv .* nor train/<class>/<video>; set data.train"):
        kinetics(tmp_path)
    make(tmp_path, train=ROWS["train"])
    with pytest.raises(DataError, match=r"has neither val.csv"):
        kinetics(tmp_path)
    make(tmp_path, k400_train=ROWS["train"])
    with pytest.raises(
        DataError, match=r"several lists for train \(k400_train.csv, train.csv\); choose with data.train"
    ):
        kinetics(tmp_path)


def test_the_real_list(test_videos: Path, tmp_path: Path) -> None:
    official = test_videos / "annotations" / "kinetics400" / "kinetics-400_val.csv"
    with official.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows[::50]:
        place = tmp_path / "clips" / row["label"].replace(" ", "_")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}.mp4").touch()
    data = kinetics(tmp_path, train=str(official), val=str(official))
    names = (test_videos / "annotations" / "label_maps" / "kinetics_label_map_k400.txt").read_text().splitlines()
    assert data.class_names == tuple(names)
    val = data.splits["val"]
    assert (len(val), val.listed) == (len(rows[::50]), len(rows))
    for path, label in zip(val.paths, val.labels.tolist(), strict=True):
        assert Path(path).parent.name == names[label].replace(" ", "_")


def test_each_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"class {n}" for n in range(20)]
    files = [f"train/{name}/id{n:08d}_000000_000010.mp4" for name in names for n in range(5)]
    rows = "".join(f"{name},id{n:08d},0,10,train,0\n" for name in names for n in range(10))
    make(tmp_path, *files, *VAL, train=rows, val=ROWS["val"])
    listed, asked = Counter[str](), Counter[str]()
    scandir, stat = os.scandir, Path.stat
    monkeypatch.setattr("os.scandir", lambda path: listed.update([os.fspath(path)]) or scandir(path))
    monkeypatch.setattr(Path, "stat", lambda path, **options: asked.update([str(path)]) or stat(path, **options))
    data = kinetics(tmp_path)
    assert (len(data.splits["train"]), len(data.splits["train"].missing)) == (100, 100)
    assert {listed[str(tmp_path / "train" / name)] for name in names} == {1}
    assert not [path for path in asked if path.endswith(".mp4")]
