from __future__ import annotations

from pathlib import Path

import pytest

from vidtrain.data.formats._files.text_files import BadRows, read_classes, read_lines
from vidtrain.errors import DataError


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
