"""Something-Something and Jester."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vidtrain.data.formats.jester import jester
from vidtrain.data.formats.something_something import something_something
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.errors import DataError

TEMPLATES = ("Putting [something] on [something]", "Pushing [something] from left to right", "Folding [something]")
CLASSES = tuple(t.replace("[", "").replace("]", "") for t in TEMPLATES)


def entries(*rows: tuple[int, int]) -> str:
    found = [{"id": str(n), "label": "x", "template": TEMPLATES[k], "placeholders": ["x"]} for n, k in rows]
    return "[\n" + ",\n".join(json.dumps(entry) for entry in found) + "\n]"


def make_v2(root: Path, prefix: str = "labels/", video: str = "20bn-something-something-v2/{}.webm") -> Path:
    """Videos 1 to 4 for training, 5 and 6 for validation, 7 and 8 for testing; 9 has no label."""
    Path(f"{root}/{prefix}x").parent.mkdir(parents=True, exist_ok=True)
    files = {
        "train.json": entries((1, 2), (2, 0), (3, 1), (4, 1)),
        "validation.json": entries((5, 0), (6, 2)),
        "test.json": '[{"id": "7"}, {"id": "8"}, {"id": "9"}]',
        "labels.json": json.dumps({name: str(n) for n, name in enumerate(CLASSES)}),
    }
    for name, text in files.items():
        Path(f"{root}/{prefix}{name}").write_text(text)
    place(root, video, range(1, 10))
    return root


def place(root: Path, video: str, numbers: range) -> None:
    for n in numbers:
        path = root / video.format(n)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(data: VideoData, split: str) -> list[tuple[str, str]]:
    m = data.splits[split]
    return [(Path(p).stem, data.class_names[k]) for p, k in zip(m.paths, m.labels.tolist(), strict=True)]


@pytest.mark.parametrize("prefix", ["labels/", "something-something-v2-", "annotations/something-something-v2-", ""])
@pytest.mark.parametrize("video", ["20bn-something-something-v2/{}.webm", "{}.mp4", "frames/{}/000001.jpg"])
def test_version_2(tmp_path: Path, prefix: str, video: str) -> None:
    data = something_something(make_v2(tmp_path, prefix, video))
    assert data.class_names == CLASSES
    assert found(data, "train") == [("1", CLASSES[2]), ("2", CLASSES[0]), ("3", CLASSES[1]), ("4", CLASSES[1])]
    assert found(data, "val") == [("5", CLASSES[0]), ("6", CLASSES[2])]
    assert data.splits["test"] is data.splits["val"]
    assert "test: the val split, as the field reports it; there are no answers for the test videos" in data.notes


def test_test_answers(tmp_path: Path) -> None:
    make_v2(tmp_path)
    (tmp_path / "labels" / "test-answers.csv").write_text(f"7;{CLASSES[1]}\n8;{TEMPLATES[0]}\n")
    data = something_something(tmp_path)
    assert found(data, "test") == [("7", CLASSES[1]), ("8", CLASSES[0])]
    assert found(something_something(tmp_path, test="labels/test-answers.csv"), "test") == found(data, "test")


def test_only_validation_videos_are_on_disk(tmp_path: Path) -> None:
    make_v2(tmp_path)
    for n in range(1, 5):
        (tmp_path / f"20bn-something-something-v2/{n}.webm").unlink()
    data = something_something(tmp_path)
    assert list(data.splits) == ["val", "test"]
    assert any(note.startswith("train: none of the 4 listed videos is on disk (first: 1)") for note in data.notes)


def test_videos_elsewhere_and_missing(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    make_v2(tmp_path, video="lists_only/{}.txt")
    elsewhere = tmp_path_factory.mktemp("videos")
    place(elsewhere, "{}.webm", range(2, 10))
    data = something_something(tmp_path, videos=str(elsewhere))
    assert data.splits["train"].missing == ("1",)
    assert [Path(p).parent for p in data.splits["val"].paths] == [elsewhere] * 2
    with pytest.raises(DataError, match="videos=none: no such folder below"):
        something_something(tmp_path, videos="none")


def test_flips_without_a_partner_are_told(tmp_path: Path) -> None:
    data = something_something(make_v2(tmp_path))
    assert not data.flip_pairs
    assert any("changes what 'Pushing something from left to right' shows" in note for note in data.notes)


def test_version_1(tmp_path: Path) -> None:
    rows = {"train": "2;{}\n3;{}\n", "validation": "4;{1}\n"}
    for split, text in rows.items():
        (tmp_path / f"something-something-v1-{split}.csv").write_text(text.format(*CLASSES))
    (tmp_path / "something-something-v1-test.csv").write_text("5\n6\n")
    (tmp_path / "something-something-v1-labels.csv").write_text("\n".join(CLASSES))
    place(tmp_path, "20bn-something-something-v1/{}/00001.jpg", range(1, 7))
    data = something_something(tmp_path)
    assert data.class_names == CLASSES
    assert (found(data, "train"), found(data, "val")) == (
        [("2", CLASSES[0]), ("3", CLASSES[1])],
        [("4", CLASSES[1])],
    )
    assert all(Path(path).is_dir() for path in data.splits["train"].paths)


def test_without_labels_the_lists_tell_the_classes(tmp_path: Path) -> None:
    make_v2(tmp_path)
    (tmp_path / "labels" / "labels.json").unlink()
    data = something_something(tmp_path)
    assert data.class_names == tuple(sorted(CLASSES))
    assert any(note.startswith("no labels file: the 3 classes") for note in data.notes)


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        (
            "train.json",
            '[{"id": "1"}]',
            r"train.json: entry 1: got '{\"id\": \"1\"}', expected an object with id.*answers",
        ),
        ("train.json", "[1, 2", r"train.json:1: not JSON: "),
        ("train.json", "{}", r"expected a list of objects with id and template"),
        (
            "train.json",
            entries((1, 1)).replace("Pushing", "Pulling"),
            r"entry 1: .*a label among the 3 classes, not 'Pull",
        ),
        ("labels.json", '{"a": "0", "b": "2"}', r"the numbers of the 2 classes should run from 0 to 1"),
        ("labels.json", "[]", r"labels.json: expected {"),
        ("test-answers.csv", "7,x\n", r"test-answers.csv:1: got '7,x', expected id;label"),
    ],
)
def test_errors(tmp_path: Path, file: str, text: str, says: str) -> None:
    (make_v2(tmp_path) / "labels" / file).write_text(text)
    with pytest.raises(DataError, match=says) as error:
        something_something(tmp_path)
    assert "\n" not in str(error.value)


def test_lists_that_are_not_there_or_several(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no lists of the videos .*set data.train and data.val"):
        something_something(tmp_path)
    make_v2(make_v2(tmp_path), "annotations/something-something-v2-")
    with pytest.raises(DataError, match=r"several lists for train \(annotations/.*; choose with data.train"):
        something_something(tmp_path)


def test_the_real_lists(test_videos: Path, tmp_path: Path) -> None:
    lists = test_videos / "annotations" / "ssv2"
    official = json.loads((lists / "something-something-v2-validation.json").read_text())
    place(tmp_path, "videos/{}.webm", range(0))
    for entry in official[::500]:
        place(tmp_path, "videos/{}.webm", range(int(entry["id"]), int(entry["id"]) + 1))
    data = something_something(
        tmp_path,
        val=str(lists / "something-something-v2-validation.json"),
        labels=str(lists / "something-something-v2-labels.json"),
    )
    names = (test_videos / "annotations" / "label_maps" / "sthv2_label_map.txt").read_text().splitlines()
    assert data.class_names == tuple(names)
    assert (len(data.splits["val"]), data.splits["val"].listed) == (len(official[::500]), 24777)
    expected = [(e["id"], e["template"].replace("[", "").replace("]", "")) for e in official[::500]]
    assert found(data, "val") == expected
    assert len(data.flip_pairs) == 3


GESTURES = ("Swiping Left", "Swiping Right", "Thumb Up")


@pytest.mark.parametrize("prefix", ["jester-v1-", "labels/", "annotations/jester-v1-"])
@pytest.mark.parametrize("video", ["20bn-jester-v1/{}/00001.jpg", "videos/{}.mp4"])
def test_jester(tmp_path: Path, prefix: str, video: str) -> None:
    Path(f"{tmp_path}/{prefix}x").parent.mkdir(exist_ok=True)
    texts = {"train": "1;Thumb Up\n2;Swiping Left\n", "validation": "3;Swiping Right\n", "test": "4\n5\n"}
    for split, text in {**texts, "labels": "\n".join(GESTURES)}.items():
        Path(f"{tmp_path}/{prefix}{split}.csv").write_text(text)
    place(tmp_path, video, range(1, 6))
    data = jester(tmp_path)
    assert data.class_names == GESTURES
    assert found(data, "train") == [("1", "Thumb Up"), ("2", "Swiping Left")]
    assert found(data, "val") == [("3", "Swiping Right")]
    assert data.flip_pairs == (("Swiping Left", "Swiping Right"),)
    assert data.splits["test"] is data.splits["val"]
    Path(f"{tmp_path}/{prefix}test-answers.csv").write_text("4;Thumb Up\n5;Swiping Left\n")
    assert found(jester(tmp_path), "test") == [("4", "Thumb Up"), ("5", "Swiping Left")]


def test_jester_with_the_real_labels(test_videos: Path, tmp_path: Path) -> None:
    (tmp_path / "jester-v1-train.csv").write_text("1;Turning Hand Clockwise\n2;Turning hand Clockwise\n")
    place(tmp_path, "{}/00001.jpg", range(1, 3))
    labels = str(test_videos / "annotations" / "jester" / "jester-v1-labels.csv")
    with pytest.raises(DataError, match=r"train.csv:2: .*among the 27 classes, not 'Turning hand Clockwise' \(did you"):
        jester(tmp_path, labels=labels)
    (tmp_path / "jester-v1-train.csv").write_text("1;Turning Hand Clockwise\n2;No gesture\n")
    data = jester(tmp_path, labels=labels)
    assert data.num_classes == 27
    assert ("Turning Hand Clockwise", "Turning Hand Counterclockwise") in data.flip_pairs
    assert found(data, "train") == [("1", "Turning Hand Clockwise"), ("2", "No gesture")]
