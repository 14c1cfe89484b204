from __future__ import annotations

from pathlib import Path

import pytest

from vidtrain.data.formats.moments_in_time import moments_in_time
from vidtrain.errors import DataError

TRAIN = "adult+female+singing/a-b_1.mp4,adult+female+singing,3,0\nblocking/getty_2.mp4,blocking,5,1\n"
VAL = "blocking/v_3.mp4,blocking,3,0\nblocking/v_4.mp4,blocking,3,0\n"


def make(root: Path, lists: str = "", training: str = "training", validation: str = "validation") -> Path:
    files = {
        "trainingSet.csv": TRAIN,
        "validationSet.csv": VAL,
        "moments_categories.txt": "blocking,1\nadult+female+singing,0\n",
    }
    for name, text in files.items():
        path = root / lists / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for home, text in ((training, TRAIN), (validation, VAL)):
        for line in text.splitlines():
            path = root / home / line.split(",")[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return root


@pytest.mark.parametrize("lists", ["", "annotations"])
@pytest.mark.parametrize("homes", [("training", "validation"), ("videos/training", "videos/validation"), ("", "")])
def test_layouts(tmp_path: Path, lists: str, homes: tuple[str, str]) -> None:
    data = moments_in_time(make(tmp_path, lists, *homes))
    assert data.class_names == ("adult+female+singing", "blocking")
    assert data.splits["train"].labels.tolist() == [0, 1]
    assert [Path(path).name for path in data.splits["val"].paths] == ["v_3.mp4", "v_4.mp4"]
    assert data.splits["test"] is data.splits["val"]
    assert "test: the val split, as the field reports it; the labels of the test videos are not public" in data.notes


def test_the_folder_of_the_split_counts_and_pictures_do_too(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "training/blocking/v_3.mp4").touch()
    (tmp_path / "validation/blocking/v_4.mp4").unlink()
    (tmp_path / "validation/blocking/v_4").mkdir()
    paths = [Path(path).relative_to(tmp_path).as_posix() for path in moments_in_time(tmp_path).splits["val"].paths]
    assert paths == ["validation/blocking/v_3.mp4", "validation/blocking/v_4"]


def test_without_categories(tmp_path: Path) -> None:
    (make(tmp_path) / "moments_categories.txt").unlink()
    data = moments_in_time(tmp_path)
    assert data.class_names == ("adult+female+singing", "blocking")
    assert any("no moments_categories.txt: the 2 classes are those of the lists" in note for note in data.notes)


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        (
            "trainingSet.csv",
            "a.mp4,blocking,3,0\n",
            r"trainingSet.csv:1: got 'a.mp4,blocking,3,0', expected class/name",
        ),
        (
            "trainingSet.csv",
            "x/a.mp4,bloking,3,0\n",
            r":1: .*among the 2 classes, not 'bloking' \(did you mean blocking",
        ),
        ("moments_categories.txt", "a\n", r"moments_categories.txt:1: got 'a', expected class,number"),
        ("moments_categories.txt", "blocking,2\nadult+female+singing,0\n", r"should run from 0 to 1"),
    ],
)
def test_errors(tmp_path: Path, file: str, text: str, says: str) -> None:
    (make(tmp_path) / file).write_text(text)
    with pytest.raises(DataError, match=says):
        moments_in_time(tmp_path)


def test_no_lists(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither trainingSet.csv nor validationSet.csv here"):
        moments_in_time(tmp_path)
