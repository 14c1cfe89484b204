from __future__ import annotations

from pathlib import Path

import pytest

from vidtrain.data.formats.ucf101 import ucf101
from vidtrain.errors import DataError

CLASSES = "1 Archery\r\n2 YoYo"


def clip(name: str, group: int, number: int) -> str:
    return f"{name}/v_{name}_g{group:02d}_c{number:02d}"


def make(root: Path, *, lists: str = "ucfTrainTestlist", videos: str = "videos", extension: str = ".avi") -> Path:
    """A small UCF101: groups 3 to 8 of two classes for training, 1 and 2 for testing, two clips each."""
    train = [
        (clip(name, g, c), k) for k, name in enumerate(("Archery", "YoYo"), 1) for g in range(3, 9) for c in (1, 2)
    ]
    test = [clip(name, g, c) for name in ("Archery", "YoYo") for g in (1, 2) for c in (1, 2)]
    write(root / lists / "classInd.txt", CLASSES)
    write(root / lists / "trainlist01.txt", "".join(f"{path}.avi {k}\r\n" for path, k in train))
    write(root / lists / "testlist01.txt", "".join(f"{path}.avi\r\n" for path in test))
    for path in (*(path for path, _ in train), *test):
        write(root / videos / f"{path}{extension}", "")
    return root


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


@pytest.mark.parametrize("lists", ["ucfTrainTestlist", "."])
@pytest.mark.parametrize(("videos", "extension"), [("videos", ".avi"), ("UCF-101", ".mp4"), (".", ".webm")])
def test_layouts(tmp_path: Path, lists: str, videos: str, extension: str) -> None:
    data = ucf101(make(tmp_path, lists=lists, videos=videos, extension=extension))
    assert data.class_names == ("Archery", "YoYo")
    assert {s: (len(m), m.missing) for s, m in data.splits.items()} == {"train": (24, ()), "test": (8, ())}
    for manifest in data.splits.values():
        for path, label in zip(manifest.paths, manifest.labels, strict=True):
            assert Path(path).is_file()
            assert Path(path).parent.name == data.class_names[label]
    assert not data.notes


def test_the_lists_may_lie_elsewhere(tmp_path: Path) -> None:
    make(tmp_path, lists="my/lists")
    assert len(ucf101(tmp_path, lists="my/lists").splits["train"]) == 24
    assert len(ucf101(tmp_path, lists=str(tmp_path / "my" / "lists")).splits["train"]) == 24


def test_videos_that_are_not_on_disk(tmp_path: Path) -> None:
    make(tmp_path)
    gone = clip("YoYo", 3, 1)
    (tmp_path / "videos" / f"{gone}.avi").unlink()
    data = ucf101(tmp_path)
    assert data.splits["train"].missing == (f"{gone}.avi",)
    assert data.notes == (f"train: 1 of 24 listed videos are not on disk (first: {gone}.avi)",)


def test_of_two_containers_one_is_taken(tmp_path: Path) -> None:
    make(make(tmp_path), extension=".mp4")
    paths = [path for m in ucf101(tmp_path).splits.values() for path in m.paths]
    assert len(paths) == 32
    assert all(path.endswith(".avi") for path in paths)


def test_folders_of_pictures(tmp_path: Path) -> None:
    make(tmp_path, extension="/img_00001.jpg")
    data = ucf101(tmp_path)
    assert len(data.splits["train"]) == 24
    assert all(Path(path).is_dir() for path in data.splits["train"].paths)


def test_test_videos_alone_can_be_scored(tmp_path: Path) -> None:
    make(tmp_path)
    for file in (tmp_path / "videos").rglob("*_g0[3-8]_*"):
        file.unlink()
    data = ucf101(tmp_path)
    assert list(data.splits) == ["test"]
    assert data.notes[0].startswith("train: none of the 24 listed videos is on disk")


def test_validation_takes_whole_groups(tmp_path: Path) -> None:
    data = ucf101(make(tmp_path), val_fraction=0.3)
    assert {s: len(m) for s, m in data.splits.items()} == {"train": 16, "val": 8, "test": 8}
    groups = {s: {Path(path).stem.rsplit("_", 1)[0] for path in m.paths} for s, m in data.splits.items()}
    assert not groups["train"] & groups["val"]
    other = ucf101(tmp_path, val_fraction=0.3, split_seed=1)
    assert list(other.splits["val"].paths) != list(data.splits["val"].paths)


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        (
            "trainlist01.txt",
            "Archery/a.avi 1\nArchery/b.avi\n",
            r"trainlist01.txt:2: got 'Archery/b.avi', expected Class",
        ),
        ("trainlist01.txt", "Archery/a.avi 2\n", r":1: .*expected 1, the number of Archery in classInd.txt"),
        ("trainlist01.txt", "Archory/a.avi 1\n", r":1: .*a class of classInd.txt \(did you mean Archery\?\)"),
        ("testlist01.txt", "a.avi\n\nb.avi", r"testlist01.txt:1: .*and 1 more such lines"),
    ],
)
def test_bad_lines(tmp_path: Path, file: str, text: str, says: str) -> None:
    write(make(tmp_path) / "ucfTrainTestlist" / file, text)
    with pytest.raises(DataError, match=says):
        ucf101(tmp_path)


def test_nothing_where_it_should_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"trainlist01.txt is not in .*ucfTrainTestlist or"):
        ucf101(tmp_path)
    make(tmp_path)
    with pytest.raises(DataError, match=r"trainlist02.txt is not in"):
        ucf101(tmp_path, split=2)
    with pytest.raises(DataError, match=r"split=4: expected 1, 2 or 3"):
        ucf101(tmp_path, split=4)
    (tmp_path / "ucfTrainTestlist" / "testlist01.txt").unlink()
    with pytest.raises(DataError, match=r"testlist01.txt is not there"):
        ucf101(tmp_path)
    make(tmp_path)
    (tmp_path / "videos").rename(tmp_path / "clips")
    with pytest.raises(DataError, match=r"no videos of UCF101 \(looked in .*UCF-101/Archery"):
        ucf101(tmp_path)


def test_the_real_lists(test_videos: Path) -> None:
    data = ucf101(test_videos / "ucf101_3c", val_fraction=0.2)
    assert data.class_names == ("BabyCrawling", "Punch", "PushUps")
    assert data.splits["train"].listed + len(data.splits["val"]) == 290
    assert (len(data.splits["test"]), data.splits["test"].listed) == (65, 104)
    assert "test: 39 of 104 listed videos are not on disk" in " ".join(data.notes)
    assert all(name.endswith(".avi") for name in data.splits["test"].missing)


def test_the_complete_lists_with_few_videos(test_videos: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").symlink_to(test_videos / "ucf101_3c" / "videos")
    data = ucf101(tmp_path, lists=str(test_videos / "annotations" / "ucf101"))
    assert data.num_classes == 101
    assert (len(data.splits["train"]), data.splits["train"].listed) == (290, 9537)
    assert data.splits["test"].listed == 3783
    assert "train: no video of 98 of 101 classes (ApplyEyeMakeup, ApplyLipstick, Archery, ...)" in data.notes
