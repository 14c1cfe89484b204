from __future__ import annotations

from pathlib import Path

import pytest

from vidtrain.data.formats.charades import charades
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.errors import DataError

HEADER = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
TRAIN = (
    'YSKX3,CP6Y,Bedroom,5,6,Yes,"fixes the bed, throws",bed;rug,"A person; looks",c001 12.10 18.00;c000 0.00 3.50,16\n'
    "T5ECU,M7K8,Kitchen,6,7,Yes,drinks,cup,One; two,c002 0.30 9.00;c002 10.00 12.00,31.29\n"
    "AAH6R,M7K8,Closet,6,6,Yes,nothing,chair,x,,30\n"
)
TEST = "B0000,ZZZZ,Closet,6,6,Yes,nothing,chair,x,c000 5.00 6.00,30\n"
CLASSES = "c000 Holding some clothes\nc001 Putting clothes somewhere\nc002 Taking some clothes from somewhere\n"


def make(root: Path, lists: str = "Charades", video: str = "Charades_v1_480/{}.mp4") -> Path:
    (root / lists).mkdir(parents=True, exist_ok=True)
    (root / lists / "Charades_v1_train.csv").write_text(HEADER + TRAIN)
    (root / lists / "Charades_v1_test.csv").write_text(HEADER + TEST)
    (root / lists / "Charades_v1_classes.txt").write_text(CLASSES)
    for name in ("YSKX3", "T5ECU", "AAH6R", "B0000"):
        path = root / video.format(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def tags(data: VideoData, split: str) -> list[list[int]]:
    found = data.splits[split].tags
    assert found is not None
    return [each.tolist() for each in found]


def times(data: VideoData, split: str) -> list[tuple[float, float]]:
    starts, ends = data.splits[split].starts, data.splits[split].ends
    assert starts is not None
    assert ends is not None
    return list(zip(starts.round(6).tolist(), ends.round(6).tolist(), strict=True))


@pytest.mark.parametrize("lists", ["Charades", "annotations", "."])
@pytest.mark.parametrize("video", ["Charades_v1_480/{}.mp4", "Charades_v1_rgb/{0}/{0}-000001.jpg"])
def test_whole_videos_with_all_their_actions(tmp_path: Path, lists: str, video: str) -> None:
    data = charades(make(tmp_path, lists, video))
    assert data.class_names[:2] == ("Holding some clothes", "Putting clothes somewhere")
    assert data.multi_label
    assert tags(data, "train") == [[0, 1], [2], []]
    assert data.splits["train"].labels.tolist() == [0, 2, -1]
    assert data.splits["train"].starts is None
    assert tags(data, "test") == [[0]]


def test_segments(tmp_path: Path) -> None:
    data = charades(make(tmp_path), segments=True)
    assert not data.multi_label
    assert data.splits["train"].labels.tolist() == [1, 0, 2, 2]
    assert times(data, "train") == [(12.1, 18), (0, 3.5), (0.3, 9), (10, 12)]


def test_segments_of_pictures_written_at_24_a_second_and_read_at_30(tmp_path: Path) -> None:
    make(tmp_path, video="Charades_v1_rgb/{0}/{0}-000001.jpg")
    assert times(charades(tmp_path, segments=True), "test") == [(4, 4.8)]
    assert times(charades(tmp_path, segments=True, images_fps=30), "test") == [(5, 6)]


def test_validation_takes_whole_persons(tmp_path: Path) -> None:
    make(tmp_path)
    rows = "".join(f"V{n:04d},P{n // 4},x,1,1,Yes,x,x,x,c000 0.00 1.00;c00{n % 3} 0.00 1.00,2\n" for n in range(40))
    (tmp_path / "Charades/Charades_v1_train.csv").write_text(HEADER + rows)
    for n in range(40):
        (tmp_path / f"V{n:04d}.mp4").touch()
    data = charades(tmp_path, val_fraction=0.2)
    people = {s: {int(Path(p).stem[1:]) // 4 for p in data.splits[s].paths} for s in ("train", "val")}
    assert not people["train"] & people["val"]
    assert 8 <= len(data.splits["val"]) <= 12
    assert {k for each in tags(data, "val") for k in each} == {0, 1, 2}


def test_segments_without_length_are_left_out_and_told(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "Charades/Charades_v1_test.csv").write_text(
        HEADER + TEST.replace("c000 5.00", "c000 6.00 6.00;c001 5.00")
    )
    data = charades(tmp_path, segments=True)
    assert times(data, "test") == [(5, 6)]
    assert any("1 segments end before they begin and are skipped (B0000 c000 6 6)" in note for note in data.notes)


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        (
            "train.csv",
            HEADER + TRAIN.replace("c002 10.00 12.00", "c002 10.00"),
            r"train.csv:3: .*expected actions 'c092",
        ),
        ("train.csv", HEADER + TRAIN.replace("c002 0.30", "c157 0.30"), r":3: .*among the 3 classes, not 'c157'"),
        ("train.csv", "id,actions\n", "train.csv:1: no column subject"),
        ("classes.txt", "Holding\n", r"classes.txt:1: got 'Holding', expected c000 and the name"),
    ],
)
def test_errors(tmp_path: Path, file: str, text: str, says: str) -> None:
    (make(tmp_path) / "Charades" / f"Charades_v1_{file}").write_text(text)
    with pytest.raises(DataError, match=says):
        charades(tmp_path)


def test_no_lists(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither Charades_v1_train.csv nor Charades_v1_test.csv here"):
        charades(tmp_path)


def test_the_real_list(test_videos: Path, tmp_path: Path) -> None:
    path = test_videos / "annotations" / "charades" / "Charades_v1_test_200.csv"
    rows = [line.split(",")[0] for line in path.read_text().splitlines()[1:]]
    for name in rows[:50]:
        (tmp_path / f"{name}.mp4").touch()
    data = charades(tmp_path, test=str(path))
    assert (len(data.splits["test"]), data.splits["test"].listed) == (50, 199)
    assert tags(data, "test")[0] == [data.class_names.index(code) for code in ("c075", "c076", "c077", "c079", "c080")]
    segments = charades(tmp_path, test=str(path), segments=True)
    assert times(segments, "test")[:2] == [(12.1, 18), (11.8, 17.3)]
