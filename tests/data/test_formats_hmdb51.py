from __future__ import annotations

from pathlib import Path

import pytest

from vidtrain.data.formats.hmdb51 import hmdb51
from vidtrain.errors import DataError

LISTS = "testTrainMulti_7030_splits"
FILMS = ("#437_How_To_Ride_A_Bike", "Fellowship_5", "(Rad)Schlag_die_Bank!", "TrumanShow")


def clip(film: str, name: str, number: int) -> str:
    return f"{film}_{name}_f_cm_np1_fr_med_{number}"


def make(root: Path, *, videos: str = "videos", extension: str = ".avi", lists: str = LISTS) -> Path:
    """Two classes of 4 films with 3 clips each: 9 for training, 2 for testing, 1 in neither; split 2 turns it round."""
    for name in ("brush_hair", "ride_bike"):
        clips = [clip(film, name, n) for film in FILMS for n in range(3)]
        tags = [1] * 9 + [2] * 2 + [0]
        for split, order in ((1, tags), (2, tags[::-1]), (3, tags)):
            path = root / lists / f"{name}_test_split{split}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{c}.avi {t} \n" for c, t in zip(clips, order, strict=True)))
        for each in clips:
            path = root / videos / name / f"{each}{extension}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return root


@pytest.mark.parametrize("lists", [LISTS, "splits", "."])
@pytest.mark.parametrize(("videos", "extension"), [("videos", ".avi"), ("hmdb51_org", ".mp4"), (".", ".webm")])
def test_layouts(tmp_path: Path, videos: str, extension: str, lists: str) -> None:
    data = hmdb51(make(tmp_path, videos=videos, extension=extension, lists=lists))
    assert data.class_names == ("brush_hair", "ride_bike")
    assert {s: (len(m), m.missing) for s, m in data.splits.items()} == {"train": (18, ()), "test": (4, ())}
    for manifest in data.splits.values():
        for path, label in zip(manifest.paths, manifest.labels, strict=True):
            assert Path(path).is_file()
            assert Path(path).parent.name == data.class_names[label]
    assert not data.notes


def test_the_splits_differ(tmp_path: Path) -> None:
    make(tmp_path)
    first, second, third = (set(hmdb51(tmp_path, split=n).splits["test"].paths) for n in (1, 2, 3))
    assert first == third
    assert len(first) == len(second) == 4
    assert not first & second


def test_folders_of_pictures(tmp_path: Path) -> None:
    make(tmp_path, extension="")
    for file in list((tmp_path / "videos").rglob("*_med_*")):
        file.unlink()
        file.mkdir()
    data = hmdb51(tmp_path)
    assert all(Path(path).is_dir() for path in data.splits["train"].paths)
    assert len(data.splits["train"]) == 18


def test_validation_takes_whole_films(tmp_path: Path) -> None:
    data = hmdb51(make(tmp_path), val_fraction=0.3)
    films = {s: {Path(path).stem.rsplit("_f_cm", 1)[0] for path in m.paths} for s, m in data.splits.items()}
    assert {s: len(m) for s, m in data.splits.items()} == {"train": 12, "val": 6, "test": 4}
    assert not films["train"] & films["val"]


def test_videos_that_are_not_on_disk(tmp_path: Path) -> None:
    make(tmp_path)
    gone = clip(FILMS[0], "ride_bike", 0)
    (tmp_path / "videos" / "ride_bike" / f"{gone}.avi").unlink()
    assert hmdb51(tmp_path).splits["train"].missing == (f"ride_bike/{gone}.avi",)


@pytest.mark.parametrize(
    ("line", "options", "says"),
    [
        ("a.avi 3\n", {}, r"ride_bike_test_split1.txt:1: got 'a.avi 3', expected name.avi and 0, 1 \(train\) or 2"),
        ("a.avi\n 1\n", {}, r":1: .*and 1 more such lines"),
        ("", {"split": 4}, "split=4: expected 1, 2 or 3"),
        ("", {"lists": "none"}, "<class>_test_split1.txt is not in .*none or none; unpack test_train_splits.rar"),
    ],
)
def test_errors(tmp_path: Path, line: str, options: dict[str, object], says: str) -> None:
    (make(tmp_path) / LISTS / "ride_bike_test_split1.txt").write_text(line)
    with pytest.raises(DataError, match=says):
        hmdb51(tmp_path, **options)  # type: ignore[arg-type]


def test_no_videos(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "videos").rename(tmp_path.parent / "elsewhere_hmdb51")
    with pytest.raises(DataError, match=r"train: none of the 18 listed videos is on disk below .*check data.root"):
        hmdb51(tmp_path)
