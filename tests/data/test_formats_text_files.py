from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vidtrain.data.formats._files.text_files import BadRows, read_classes, read_json_text, read_lines
from vidtrain.data.formats.activitynet import activitynet
from vidtrain.data.formats.lists import lists
from vidtrain.data.formats.moments_in_time import moments_in_time
from vidtrain.data.formats.something_something import something_something
from vidtrain.data.formats.ucf101 import ucf101
from vidtrain.errors import DataError

LONG = "1" * 5000  # digits; Python reads 4300 of a number
FRAMES = "original_vido_id video_id frame_id path labels"
SEGMENT = {"segment": [10**400, 2], "label": "x"}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "classes.txt"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb c\n", ("a", "b c")),
        ("1 a\r\n2 b\r\n3 c d", ("a", "b", "c d")),
        ("0 a\n1 b\n", ("a", "b")),
        ("2 b\n1 a\n", ("a", "b")),
        ("\ufeff1 a\n\n2 b\n", ("a", "b")),
        ("2 handed throw\n1 handed throw\nrun\n", ("2 handed throw", "1 handed throw", "run")),
        ("5 a\n6 b\n", ("5 a", "6 b")),
        ("0\n1\n", ("0", "1")),
        ("b\u2028c\n", ("b\u2028c",)),
        (f"{LONG} a\n", (f"{LONG} a",)),
    ],
)
def test_classes(tmp_path: Path, text: str, expected: tuple[str, ...]) -> None:
    assert read_classes(write(tmp_path, text)) == expected


@pytest.mark.parametrize(("text", "says"), [("", "empty; expected class names"), ("a\nb\na\n", "'a' is there twice")])
def test_bad_classes(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_classes(write(tmp_path, text))


def test_lines_keep_their_numbers(tmp_path: Path) -> None:
    assert read_lines(write(tmp_path, "\na\r\n\r\n  \nb")) == [(2, "a"), (5, "b")]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_lines(tmp_path)


@pytest.mark.parametrize(
    ("files", "read", "says"),
    [
        ({"a": f"[{LONG}]"}, lambda root: read_json_text(root / "a"), "a number of thousands of digits"),
        ({"a": f"x {LONG} 3\ny {LONG} 2\n"}, lambda root: lists(root, train="a"), r"a:1: got 'x 1+"),
        ({"a": f'{FRAMES}\nv 0 0 v/1.jpg "{LONG}"\n'}, lambda root: lists(root, train="a"), r"a:2: got 'v 0 0"),
        (
            {"a.json": json.dumps([{"filename": "x.mp4", "label": 1, "total_frames": 10**400}])},
            lambda root: lists(root, train="a.json"),
            "none of the 1 listed videos",
        ),
        (
            {"activitynet.json": json.dumps({"x": {"subset": "train", "annotations": [SEGMENT]}})},
            activitynet,
            "entry 1: got",
        ),
        (
            {"trainingSet.csv": "x/a.mp4,x\n", "moments_categories.txt": f"x,{LONG}\n"},
            moments_in_time,
            r"categories.txt:1: got 'x,1+",
        ),
        (
            {"train.json": '[{"id": "1", "template": "x"}]', "labels.json": json.dumps({"x": LONG})},
            something_something,
            "labels.json: expected",
        ),
        (
            {"classInd.txt": "1 A\n2 B\n", "trainlist01.txt": f"A/a.avi {LONG}\n", "testlist01.txt": "A/b.avi\n"},
            ucf101,
            "trainlist01.txt:1: got",
        ),
    ],
)
def test_numbers_that_python_does_not_read(
    tmp_path: Path, files: dict[str, str], read: Callable[[Path], Any], says: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=says):
        read(tmp_path)


def test_long_lines_are_cut_in_messages(tmp_path: Path) -> None:
    bad = BadRows()
    bad.add(tmp_path / "x", 3, "y" * 1000, "z")
    with pytest.raises(DataError, match=r"x:3: got 'y+\.\.\.', expected z$") as error:
        bad.check()
    assert len(str(error.value)) < 300 + len(str(tmp_path))


def test_real_class_files(test_videos: Path) -> None:
    annotations = test_videos / "annotations"
    assert read_classes(annotations / "ucf101" / "classInd.txt")[::100] == ("ApplyEyeMakeup", "YoYo")
    assert len(read_classes(annotations / "ucf101" / "classInd.txt")) == 101
    for name, count in {"kinetics_label_map_k700": 700, "sthv2_label_map": 174, "ucf101_label_map": 101}.items():
        assert len(read_classes(annotations / "label_maps" / f"{name}.txt")) == count
