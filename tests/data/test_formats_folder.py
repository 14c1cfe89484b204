from __future__ import annotations

import os
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from vidtrain.data.formats._files.find_videos import find_by_name
from vidtrain.data.formats.folder import folder
from vidtrain.data.manifest.files import Disk, is_video, list_videos, walk_videos
from vidtrain.errors import DataError


def make(root: Path, *paths: str) -> Path:
    """Empty files: formats list videos, they do not open them."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def clips(name: str, count: int) -> list[str]:
    return [f"{name}/{n}.mp4" for n in range(count)]


def test_a_folder_per_class_is_split_by_class(tmp_path: Path) -> None:
    make(tmp_path, *clips("walk", 20), *clips("run", 20))
    data = folder(tmp_path)
    assert data.class_names == ("run", "walk")
    assert {split: Counter(m.labels.tolist()) for split, m in data.splits.items()} == {
        "train": {0: 14, 1: 14},
        "val": {0: 3, 1: 3},
        "test": {0: 3, 1: 3},
    }
    for manifest in data.splits.values():
        for path, label in zip(manifest.paths, manifest.labels, strict=True):
            assert Path(path).is_file()
            assert Path(path).parent.name == data.class_names[label]
    everything = [path for m in data.splits.values() for path in m.paths]
    assert len(set(everything)) == 40
    assert [list(m.paths) for m in folder(tmp_path).splits.values()] == [list(m.paths) for m in data.splits.values()]
    assert list(folder(tmp_path, split_seed=1).splits["test"].paths) != list(data.splits["test"].paths)


def test_fractions_of_nothing_leave_out_the_split(tmp_path: Path) -> None:
    make(tmp_path, *clips("a", 4), *clips("b", 4))
    assert set(folder(tmp_path, val_fraction=0, test_fraction=0).splits) == {"train"}
    assert set(folder(tmp_path, val_fraction=0).splits) == {"train", "test"}


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_split_folders_are_the_splits(tmp_path: Path, val: str) -> None:
    for split, count in (("train", 5), (val, 2), ("test", 3)):
        make(tmp_path, *clips(f"{split}/a", count), *clips(f"{split}/b", count))
    data = folder(tmp_path)
    assert {split: len(m) for split, m in data.splits.items()} == {"train": 10, "val": 4, "test": 6}
    assert all("test" in path for path in data.splits["test"].paths)


def test_a_missing_val_folder_is_cut_from_train_and_a_missing_test_is_not(tmp_path: Path) -> None:
    make(tmp_path, *clips("train/a", 10), *clips("train/b", 10), "test/a/1.mp4", "test/b/1.mp4")
    assert {s: len(m) for s, m in folder(tmp_path).splits.items()} == {"train": 16, "val": 4, "test": 2}
    (tmp_path / "test").rename(tmp_path / "val")
    assert {s: len(m) for s, m in folder(tmp_path).splits.items()} == {"train": 20, "val": 2}


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    make(tmp_path, *clips("train", 4), *clips("bus", 4))
    assert folder(tmp_path).class_names == ("bus", "train")


def test_nested_files_count_and_others_do_not(tmp_path: Path) -> None:
    make(tmp_path, "a/x/y/1.MP4", "a/2.webm", "a/.3.mp4", "a/.cache/4.mp4", "a/5.txt", "a/mp4", *clips("b", 2))
    make(tmp_path, ".git/c.mp4", "notes.txt")
    data = folder(tmp_path, val_fraction=0, test_fraction=0)
    assert data.class_names == ("a", "b")
    found = [str(Path(path).relative_to(tmp_path)) for path in data.splits["train"].paths]
    assert found == ["a/2.webm", "a/x/y/1.MP4", "b/0.mp4", "b/1.mp4"]


def test_files_are_in_natural_order(tmp_path: Path) -> None:
    make(tmp_path, *(f"clip{n}.mp4" for n in (10, 9, 1, 100)), "clip01.mp4", "b2/1.mp4", "b10/1.mp4")
    found = [str(Path(path).relative_to(tmp_path)) for path in list_videos(tmp_path)]
    assert found == ["b2/1.mp4", "b10/1.mp4", *(f"clip{n}.mp4" for n in ("01", "1", "9", "10", "100"))]


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    make(tmp_path, "store/1.mp4", "a/2.mp4")
    (tmp_path / "a" / "linked").symlink_to(tmp_path / "store")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    assert sorted(Path(path).name for path in walk_videos(tmp_path / "a")) == ["1.mp4", "2.mp4"]


def test_what_ffmpeg_reads_as_video_is_one() -> None:
    text = """
        3gp 3g2 asf avi divx dv f4v flv gif h264 hevc ivf m1v m2p m2ts m2v m4v mjpeg mjpg mkv mov mp4 mpe mpeg mpg mts
        mxf nut ogg ogm ogv qt rm rmvb ts vob webm wmv y4m
    """
    suffixes = text.split()
    assert len(suffixes) == 39
    assert [s for s in suffixes if not (is_video(f"a.{s}") and is_video(f"b.c.{s.upper()}"))] == []


@pytest.mark.parametrize("name", ["a.txt", "a.srt", "a.wav", "a.m4a", "a.jpg", "mp4", "amp4", "a.mp4.part", "a.dat"])
def test_other_files_are_none(name: str) -> None:
    assert not is_video(name)


def test_what_is_no_video_is_counted_in_one_note(tmp_path: Path) -> None:
    make(
        tmp_path,
        *clips("a", 3),
        *clips("b", 3),
        *(f"a/{n}.txt" for n in range(5)),
        "b/x/1.JSON",
        "b/cover.jpg",
        "b/README",
    )
    notes = [note for note in folder(tmp_path).notes if "skipped" in note]
    assert notes == ["skipped 8 files that are not videos: 5 .txt, 1 without extension, 1 .jpg, 1 .json"]
    assert not any("skipped" in n for n in folder(make(tmp_path / "c", *clips("a", 3), *clips("b", 3))).notes)


def test_pictures_of_a_video_are_not_counted_as_skipped(tmp_path: Path) -> None:
    make(tmp_path, *(f"{name}/v{n}/{i}.jpg" for name in "ab" for n in range(3) for i in range(4)), "a/v1/flow.npy")
    data = folder(tmp_path)
    assert sum(len(m) for m in data.splits.values()) == 6
    assert [n for n in data.notes if "skipped" in n] == ["skipped 1 file that is not a video: 1 .npy"]


SYSTEM = (
    *(
        "@eaDir",
        "@EADIR",
        "__MACOSX",
        "#recycle",
        "$RECYCLE.BIN",
        ".Trash-1000",
        ".Trashes",
        "lost+found",
        "__pycache__",
    ),
    *("System Volume Information", ".AppleDouble", "#snapshot"),
)


@pytest.mark.parametrize("name", SYSTEM)
def test_system_folders_hold_no_videos_and_are_no_classes(tmp_path: Path, name: str) -> None:
    make(tmp_path, *clips("a", 3), *clips("b", 3), f"{name}/x.mp4", f"{name}/a/x.mp4", f"a/{name}/x.mp4")
    make(tmp_path, "a/._0.mp4", "a/Thumbs.db", "b/.DS_Store", "b/desktop.ini")
    data = folder(tmp_path, val_fraction=0, test_fraction=0)
    assert data.class_names == ("a", "b")
    assert len(data.splits["train"]) == 6
    assert not data.notes
    assert len(list_videos(tmp_path)) == 6
    assert len(find_by_name([tmp_path], {"x", "0"})) == 1


def test_videos_outside_the_class_folders_are_said(tmp_path: Path) -> None:
    make(tmp_path, *clips("a", 3), *clips("b", 3), "loose.mp4", "other.mkv")
    assert any("2 videos in no class folder skipped (loose.mp4, other.mkv)" in note for note in folder(tmp_path).notes)


def test_folders_beside_the_splits_are_said(tmp_path: Path) -> None:
    for split in ("train", "val"):
        make(tmp_path, *clips(f"{split}/a", 2), *clips(f"{split}/b", 2))
    make(tmp_path, *clips("unlabelled", 3))
    assert any("the splits are train, val; skipped unlabelled" in note for note in folder(tmp_path).notes)


def test_a_class_folder_that_is_a_link_to_another(tmp_path: Path) -> None:
    make(tmp_path, *clips("a", 8), *clips("b", 8))
    (tmp_path / "c").symlink_to(tmp_path / "a")
    (note,) = (note for note in folder(tmp_path).notes if "links" in note)
    assert note.startswith("8 videos in two classes by links (a/0.mp4, c/0.mp4: one file, in a and c)")


def test_a_file_under_two_labels_by_a_link_stays_in_one_split(tmp_path: Path) -> None:
    make(tmp_path, *clips("a", 20), *clips("b", 4))
    (tmp_path / "b" / "soft.mp4").symlink_to(tmp_path / "a" / "3.mp4")
    (tmp_path / "b" / "hard.mp4").hardlink_to(tmp_path / "a" / "5.mp4")
    for seed in range(5):
        data = folder(tmp_path, split_seed=seed)
        (note,) = (note for note in data.notes if "links" in note)
        assert note.startswith("2 videos in two classes by links (a/3.mp4, b/soft.mp4: one file, in a and b)")
        homes = {str(Path(path).relative_to(tmp_path)): split for split, m in data.splits.items() for path in m.paths}
        assert homes["b/soft.mp4"] == homes["a/3.mp4"]
        assert homes["b/hard.mp4"] == homes["a/5.mp4"]


def test_a_file_in_two_splits_by_a_link_is_said(tmp_path: Path) -> None:
    for split in ("train", "test"):
        make(tmp_path, *clips(f"{split}/a", 4), *clips(f"{split}/b", 4))
    (tmp_path / "test/a/again.mp4").symlink_to(tmp_path / "train/a/1.mp4")
    assert any("1 video in two splits by links (train/a/1.mp4, test/a/again.mp4" in n for n in folder(tmp_path).notes)


def test_links_that_lead_nowhere_or_in_a_circle(tmp_path: Path) -> None:
    make(tmp_path, *clips("a", 4), *clips("b", 4))
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b" / "gone.txt").symlink_to(tmp_path / "nowhere")
    data = folder(tmp_path, val_fraction=0, test_fraction=0)
    assert len(list_videos(tmp_path)) == 8
    assert Counter(data.splits["train"].labels.tolist())[1] == 4


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, *clips("a", 4), *clips("b", 4))
    scandir = os.scandir

    def refuse(path: str) -> object:
        if os.fspath(path).endswith("b"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="/b: cannot be read: Permission denied"):
        folder(tmp_path)


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    name = os.fsencode(tmp_path) + b"/a/\xff\xe9 1.mp4"
    try:
        Path(os.fsdecode(name)).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    make(tmp_path, "a/2.mp4", "b/1.mp4")
    paths = folder(tmp_path, val_fraction=0, test_fraction=0).splits["train"].paths
    assert name in [os.fsencode(path) for path in paths]
    assert all(Path(path).is_file() for path in paths)


def test_a_single_video_stays_in_train(tmp_path: Path) -> None:
    make(tmp_path, *clips("a", 10), *clips("b", 1))
    data = folder(tmp_path)
    assert Counter(data.splits["train"].labels.tolist())[1] == 1
    assert any(note.startswith("test: no video of b:") and "stays in train" in note for note in data.notes)


def test_groups_stay_together(tmp_path: Path) -> None:
    make(tmp_path, *(f"{name}/p{person}_{n}.mp4" for name in "ab" for person in range(8) for n in range(3)))
    data = folder(tmp_path, group_by=r"p(\d)_", test_fraction=0.25, val_fraction=0.25)
    people = [{Path(path).name[:2] for path in data.splits[split].paths} for split in ("train", "val", "test")]
    assert [len(p) for p in people] == [4, 2, 2]
    assert len(set.union(*people)) == 8
    assert "val: 12 videos held out of train, stratified by class and group, split_seed=0" in data.notes


def test_shares_that_whole_groups_do_not_allow_are_said(tmp_path: Path) -> None:
    make(tmp_path, *(f"{name}/p{person}_{n}.mp4" for name in "ab" for person in range(3) for n in range(7)))
    notes = folder(tmp_path, group_by=r"p(\d)_", test_fraction=0, val_fraction=0.15).notes
    said = "val: 14 videos (33 %, 15 % asked for: whole groups) held out of train, stratified by class and group"
    assert f"{said}, split_seed=0" in notes


def test_the_root_is_not_part_of_a_group(tmp_path: Path) -> None:
    root = make(tmp_path / "p9", *(f"{name}/p{n}.mp4" for name in "ab" for n in range(4)))
    assert len(folder(root, group_by=r"p\d").splits["test"]) == 2


def test_folders_of_pictures_are_videos(tmp_path: Path) -> None:
    make(tmp_path, "a/v1/img_00001.jpg", "a/v1/img_00002.jpg", "a/x/v2/1.png", "b/v3/1.jpg", "b/3.mp4", "b/cover.jpg")
    data = folder(tmp_path, val_fraction=0, test_fraction=0)
    found = [str(Path(path).relative_to(tmp_path)) for path in data.splits["train"].paths]
    assert found == ["a/v1", "a/x/v2", "b/3.mp4", "b/v3"]
    assert data.splits["train"].labels.tolist() == [0, 0, 1, 1]


def test_val_and_test_without_train_can_be_scored(tmp_path: Path) -> None:
    make(tmp_path, *clips("test/a", 2), *clips("test/b", 3))
    assert {s: len(m) for s, m in folder(tmp_path).splits.items()} == {"test": 5}
    make(tmp_path, "valid/a/x.mp4", "valid/b/x.mp4")
    data = folder(tmp_path)
    assert {s: len(m) for s, m in data.splits.items()} == {"val": 2, "test": 5}
    assert data.class_names == ("a", "b")


def test_classes_called_val_and_test_stay_classes(tmp_path: Path) -> None:
    make(tmp_path, *clips("val", 4), *clips("test", 4))
    assert folder(tmp_path).class_names == ("test", "val")


def test_class_folders_without_a_video_are_no_classes(tmp_path: Path) -> None:
    make(tmp_path, *(f"{split}/{name}/{split}.mp4" for split in ("train", "val", "test") for name in "ace"))
    make(tmp_path, *(f"{split}/{name}/x.txt" for split in ("train", "val", "test") for name in "bd"))
    data = folder(tmp_path)
    assert data.class_names == ("a", "c", "e")
    assert all(manifest.labels.tolist() == [0, 1, 2] for manifest in data.splits.values())
    assert "class folders without a video are no classes: b, d" in data.notes


ERRORS: dict[str, tuple[list[str], dict[str, object], str]] = {
    "no root": ([], {}, "no such folder; set data.root"),
    "no class folders": (["1.mp4"], {}, "holds videos but no class folders; expected"),
    "nothing": ([".hidden"], {}, "holds no class folders; expected"),
    "one class": (["set/1.mp4", "set/2.mp4"], {}, r"one class folder only \(set\)"),
    "empty class": ([*clips("a", 3), "b/1.txt"], {}, r"/b: class folder without a video; remove it"),
    "empty classes": ([*clips("a", 3), "b/1.txt", "c/1.txt"], {}, r"and 1 more: c"),
    "empty in a split": (
        [*(f"{split}/{name}/1.mp4" for split in ("train", "test") for name in "ab"), "train/c/1.mp4", "test/c/1.txt"],
        {},
        r"/test/c: class folder without a video; remove it, .*1 \.txt",
    ),
    "one video a class": (["a/1.mp4", "b/1.mp4"], {}, "nothing is left for test: every class has a single video"),
    "no classes in train": (["train/1.mp4", "test/1.mp4"], {}, "holds videos but no class folders"),
    "two vals": (["train/a/1.mp4", "train/b/1.mp4", "val/a/1.mp4", "valid/a/1.mp4"], {}, "could all be the val split"),
    "fraction": (["a/1.mp4"], {"val_fraction": 1.5}, "val_fraction=1.5: expected a share"),
    "group": ([*clips("a", 3), *clips("b", 3)], {"group_by": "x"}, "finds no group in a/"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(tmp_path: Path, name: str) -> None:
    paths, options, says = ERRORS[name]
    root = make(tmp_path / "data", *paths)
    with pytest.raises(DataError, match=says) as error:
        folder(root, **options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_a_file_is_no_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a file"):
        folder(make(tmp_path, "a.mp4") / "a.mp4")


def test_splits_with_other_classes_are_named(tmp_path: Path) -> None:
    make(tmp_path, "train/a/1.mp4", "train/b/1.mp4", "test/a/1.mp4", "test/c/1.mp4")
    with pytest.raises(DataError, match=r"train: has no class folder c, but .*test has"):
        folder(tmp_path)
    make(tmp_path, "train/c/1.mp4")
    with pytest.raises(DataError, match=r"test: has no class folder b, but .*train has"):
        folder(tmp_path)


def test_class_folders_in_another_unicode_form(tmp_path: Path) -> None:
    one, other = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    make(
        tmp_path, *clips(f"train/{one}", 4), *clips("train/cafez", 4), *clips(f"val/{other}", 2), *clips("val/cafez", 1)
    )
    data = folder(tmp_path)
    assert data.class_names == ("cafez", one)
    assert Counter(data.splits["val"].labels.tolist()) == {0: 1, 1: 2}
    make(tmp_path, f"val/{one}/1.mp4")
    with pytest.raises(DataError, match=r"val: two class folders .* that differ in their Unicode form only"):
        folder(tmp_path)


def test_real_clips(test_videos: Path) -> None:
    data = folder(test_videos / "motion_shapes" / "videos")
    assert data.class_names == ("circular", "horizontal", "vertical")
    assert sum(len(m) for m in data.splits.values()) == 135
    assert len(data.splits["test"]) == 21  # 0.15 of 45, three times, rounded up from 6.75


def test_disk_finds_files_from_any_home(tmp_path: Path) -> None:
    make(tmp_path, "one/a/1.mp4", "two/a/1.mp4", "two/b/2.mp4", "two/c/d.mp4/x")
    disk = Disk([tmp_path / "one", tmp_path / "two"])
    assert disk.find("a/1.mp4") == str(tmp_path / "one/a/1.mp4")
    assert disk.find("b/2.mp4") == str(tmp_path / "two/b/2.mp4")
    assert disk.find(str(tmp_path / "two/a/1.mp4")) == str(tmp_path / "two/a/1.mp4")
    assert disk.find("b/3.mp4") is None
    assert disk.find("c/d.mp4") == str(tmp_path / "two/c/d.mp4")  # a folder of images
    assert disk.find("c") == str(tmp_path / "two/c")


# ---------------------------------------------------------------- folds


def test_each_video_is_tested_in_one_fold_and_validated_in_none_that_tests_it(tmp_path: Path) -> None:
    make(tmp_path, *clips("a", 23), *clips("b", 12), *clips("c", 5))
    tested: list[str] = []
    for fold in range(5):
        data = folder(tmp_path, folds=5, fold=fold)
        paths = {split: set(m.paths) for split, m in data.splits.items()}
        assert set(paths) == {"train", "val", "test"}
        assert sum(map(len, paths.values())) == len(set.union(*paths.values())) == 40
        assert len(paths["test"]) == 8
        assert Counter(data.splits["test"].labels.tolist())[2] == 1
        assert len(paths["val"]) in (6, 7)  # 0.15 of 40
        assert any(f"test: fold {fold} of 5, 8 videos held out" in note for note in data.notes)
        tested += paths["test"]
    assert len(set(tested)) == len(tested) == 40
    other = folder(tmp_path, folds=5, fold=0, split_seed=1)
    assert set(other.splits["test"].paths) != set(folder(tmp_path, folds=5).splits["test"].paths)


def test_folds_keep_groups_whole(tmp_path: Path) -> None:
    make(tmp_path, *(f"{name}/p{person}_{n}.mp4" for name in "ab" for person in range(10) for n in range(3)))
    tested = []
    for fold in range(5):
        data = folder(tmp_path, group_by=r"p(\d)_", folds=5, fold=fold)
        people = [{Path(path).name[:2] for path in m.paths} for m in data.splits.values()]
        assert sum(map(len, people)) == len(set.union(*people)) == 10
        assert not any("look grouped" in note for note in data.notes)
        tested += sorted({Path(path).name[:2] for path in data.splits["test"].paths})
    assert sorted(tested) == [f"p{n}" for n in range(10)]
    assert any("look grouped" in note for note in folder(tmp_path, folds=5).notes)


def test_one_subject_is_left_out_though_not_all_show_every_class(tmp_path: Path) -> None:
    shown = {"walk": "abcde", "rear": "ab", "jump": "c"}
    make(tmp_path, *(f"{name}/{who}_{n}.mp4" for name, people in shown.items() for who in people for n in range(3)))
    tested, notes = [], ""
    for fold in range(5):
        data = folder(tmp_path, group_by="(.)_", folds=5, fold=fold, val_fraction=0)
        (who,) = {Path(path).name[0] for path in data.splits["test"].paths}
        assert who not in {Path(path).name[0] for path in data.splits["train"].paths}
        tested.append(who)
        notes += "".join(f"{who}: {note}; " for note in data.notes)
    assert sorted(tested) == list("abcde")
    assert "a: test: no video of jump in fold" in notes
    assert "c: test: jump cannot be learned: all videos of the class are in fold" in notes
    assert "d: test: no video of jump, rear in fold" in notes


def test_folds_of_a_set_with_splits_are_refused(tmp_path: Path) -> None:
    for split in ("train", "test"):
        make(tmp_path, *clips(f"{split}/a", 6), *clips(f"{split}/b", 6))
    with pytest.raises(DataError, match=r"folds=3: the dataset comes with its own split for test; .*root=.*/train\)"):
        folder(tmp_path, folds=3)
    assert len(folder(tmp_path / "train", folds=3).splits["test"]) == 4


FOLDS: dict[str, tuple[list[str], dict[str, object], str]] = {
    "few videos": (
        [*clips("a", 9), *clips("b", 3)],
        {},
        r"folds=5: these classes have fewer videos: b \(3\); .*folds=3 or less",
    ),
    "one video": (
        [*clips("a", 9), *clips("b", 1)],
        {},
        r"fewer videos: b \(1\); each fold has to test every class: add videos",
    ),
    "few groups": (
        [f"{name}/p{n % 4}_{n}.mp4" for name in "ab" for n in range(12)],
        {"group_by": r"p\d"},
        r"folds=5: 4 groups in all, and each fold tests one or more: set data.folds=4 or less",
    ),
}


@pytest.mark.parametrize("name", FOLDS)
def test_more_folds_than_there_is_to_part(tmp_path: Path, name: str) -> None:
    paths, options, says = FOLDS[name]
    with pytest.raises(DataError, match=says):
        folder(make(tmp_path, *paths), folds=5, **options)  # type: ignore[arg-type]


def test_what_vidtrain_has_written_beside_the_classes_is_no_class(tmp_path: Path) -> None:
    """As after `vidtrain train data=folder data.root=.`; a class of that name has videos."""
    make(tmp_path, "walk/1.mp4", "walk/2.mp4", "jump/1.mp4", "jump/2.mp4", "show/1.mp4", "show/2.mp4")
    make(tmp_path, "runs/folder/one/train.log", "runs/folder/one/figures/1.png", "check/folder/report.csv")
    data = folder(tmp_path, val_fraction=0, test_fraction=0)
    assert data.class_names == ("jump", "show", "walk")
    assert f"{tmp_path}: skipped what vidtrain has written there (check, runs)" in data.notes
