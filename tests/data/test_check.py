"""What is wrong with a dataset, from its lists and its probes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from vidtrain.data.checks.check import Problem, find_group_leaks, find_problems, report_problems, without_unusable
from vidtrain.data.checks.probe_video import Probe
from vidtrain.data.clips.sampling import ClipSpec
from vidtrain.data.manifest.index import read_index, write_index
from vidtrain.data.manifest.manifest import IntLists, Manifest, StringArray, VideoData
from vidtrain.data.readers.timeline import packed
from vidtrain.errors import DataError

SPEC = ClipSpec(num_frames=8, stride=2)  # spans 15 frames


def made(splits: dict[str, list[tuple[str, int]]], classes: int = 2) -> VideoData:
    manifests = {
        split: Manifest.of([path for path, _ in rows], [label for _, label in rows]) for split, rows in splits.items()
    }
    return VideoData(tuple(f"class{n}" for n in range(classes)), manifests)


def sound(content: str = "", frames: int = 30, **options: object) -> Probe:
    return Probe(**{"frames": frames, "fps": 25.0, "height": 48, "width": 64, "content": content, **options})  # type: ignore[arg-type]


def found_in(
    data: VideoData, probes: dict[str, Probe], spec: ClipSpec = SPEC, leaks: Sequence[Problem] = ()
) -> list[Problem]:
    return find_problems(data, {str(Path(path).absolute()): p for path, p in probes.items()}, spec, leaks)


def kinds(problems: list[Problem]) -> list[tuple[str, str, str]]:
    return [(problem.split, problem.path, problem.kind) for problem in problems]


def test_nothing_wrong() -> None:
    data = made({"train": [("a", 0), ("b", 1)], "test": [("c", 0)]})
    assert found_in(data, {"a": sound("1"), "b": sound("2"), "c": sound("3")}) == []


def test_problems_of_rows() -> None:
    data = made({"train": [("a", 0), ("b", 1), ("c", 0), ("d", 0)]})
    probes = {
        "a": sound("1", corrupt=2, broken="frame 7 of 30 does not decode"),
        "b": sound("2", absent=100, claimed=40),
        "c": Probe(error="is empty", fault="video"),
        "d": sound("3", black=True, still=True),
    }
    problems = found_in(data, probes)
    assert kinds(problems) == [
        ("train", "a", "corrupt"),
        ("train", "b", "truncated"),
        ("train", "c", "unreadable"),
        ("train", "d", "black"),
    ]
    assert [problem.detail for problem in problems[:3]] == [
        "2 frames do not decode, the first: frame 7 of 30 does not decode",
        "the last 100 bytes of the file are missing, it shows 30 of 40 frames",
        "is empty",
    ]
    assert [problem.usable for problem in problems] == [True, True, False, True]
    assert [problem.serious for problem in problems] == [True, True, True, False]


@pytest.mark.parametrize(
    ("spec", "frames", "detail"),
    [
        (ClipSpec(8, 2), 15, ""),
        (ClipSpec(8, 2), 14, "14 frames, a clip spans 15: its last frame is repeated"),
        (ClipSpec(8, 2, short="loop"), 14, "14 frames, a clip spans 15: it is played again"),
        (ClipSpec(8, 2, short="error"), 14, "14 frames, a clip spans 15: sampler.short=error refuses it"),
        (ClipSpec(8, fps=5), 36, ""),
        (ClipSpec(8, fps=5), 35, "35 frames, a clip spans 36: its last frame is repeated"),
        (ClipSpec(8, mode="segments"), 8, ""),
        (ClipSpec(8, mode="segments"), 7, "7 frames, a clip spans 8: some are taken twice"),
    ],
)
def test_too_short_for_the_clip(spec: ClipSpec, frames: int, detail: str) -> None:
    problems = found_in(made({"val": [("a", 0)]}), {"a": sound(frames=frames)}, spec)
    assert [problem.detail for problem in problems] == ([detail] if detail else [])
    assert all(problem.serious == (spec.short == "error") for problem in problems)


def test_segments() -> None:
    """The video has 250 frames, 10 s."""
    starts, ends = [0.0, 9.7, 2.0, 10.5, 3.0], [10.3, 10.0, 11.0, 12.0, np.inf]
    manifest = Manifest(StringArray.of(["a"] * 5), np.zeros(5, np.int64), np.array(starts), np.array(ends))
    problems = found_in(VideoData(("x",), {"train": manifest}), {"a": sound(frames=250)})
    assert [(p.row, p.kind, p.usable) for p in problems] == [
        (1, "short", True),
        (2, "segment", True),
        (3, "segment", False),
    ]
    assert "7 frames, a clip spans 15" in problems[0].detail
    assert problems[1].detail == "the segment ends at 11 s, the video at 10 s"


def test_times_of_the_frames() -> None:
    """A video whose first 2 s have 60 frames per second and the other 10 s 3, and one whose clock jumps."""
    times = np.concatenate([np.arange(120) / 60, 2 + np.arange(31) / 3])
    starts, ends = np.array([2.0, 11.0, 12.1]), np.array([7.0, 12.9, 13.0])
    manifest = Manifest(StringArray.of(["a"] * 3), np.zeros(3, np.int64), starts, ends)
    probe = sound(frames=150, fps=12.8, times=packed(times))
    problems = found_in(VideoData(("x",), {"train": manifest}), {"a": probe}, ClipSpec(16, fps=4))
    assert [(p.row, p.kind, p.detail) for p in problems] == [
        (1, "segment", "the segment ends at 12.9 s, the video at 12 s"),
        (1, "short", "1 s, a clip spans 3.75 s: its last frame is repeated"),
        (2, "segment", "the segment begins at 12.1 s, the video ends at 12 s"),
    ]
    note = "the timestamps jump by 3600 s at frame 50"
    (problem,) = found_in(made({"val": [("a", 0)]}), {"a": sound(frames=250, times_note=note)})
    assert (problem.kind, problem.detail, problem.serious, problem.usable) == ("times", note, False, True)


def test_duplicates_and_leaks() -> None:
    data = made(
        {
            "train": [("a", 0), ("b", 0), ("c", 1), ("d", 1), ("d", 1)],
            "val": [("e", 0), ("f", 1)],
            "test": [("g", 0), ("a", 0), ("h", 1)],
        }
    )
    probes = {name: sound(content) for name, content in zip("abcdefgh", "11234567", strict=True)}
    probes |= {"c": sound("1"), "e": sound("1"), "h": sound("5")}
    problems = found_in(data, probes)
    assert [(p.split, p.path, p.kind, p.detail) for p in problems] == [
        ("train", "b", "duplicate", "is the same video: a"),
        ("train", "c", "duplicate", "is the same video: a as class0"),
        ("train", "d", "duplicate", "was listed before"),
        ("val", "e", "leak", "is also in train: a"),
        ("test", "a", "leak", "is also in train"),
        ("test", "h", "leak", "is also in val: f"),
    ]


def test_the_same_packets_at_another_speed_are_another_video() -> None:
    data = made({"train": [("a", 0), ("b", 1), ("c", 0)]})
    probes = {"a": sound("1"), "b": sound("1", fps=50.0), "c": sound("1", fps=25.02)}
    assert kinds(found_in(data, probes)) == [("train", "c", "duplicate")]


def test_segments_of_one_file_are_no_duplicates() -> None:
    rows = Manifest(StringArray.of(["a", "a"]), np.zeros(2, np.int64), np.array([0.0, 5.0]), np.array([5.0, 9.0]))
    other = Manifest(StringArray.of(["a"]), np.zeros(1, np.int64), np.array([2.0]), np.array([8.0]))
    data = VideoData(("x",), {"train": rows, "val": other})
    assert kinds(found_in(data, {"a": sound("1", frames=250)})) == [("val", "a", "leak")]


def test_a_test_list_that_is_the_validation_list_is_no_leak() -> None:
    data = made({"train": [("a", 0)], "val": [("b", 0), ("c", 1)], "test": [("b", 0), ("c", 1)]})
    assert found_in(data, {"a": sound("1"), "b": sound("2"), "c": sound("3")}) == []


def test_unreadable_files_are_no_copies_of_each_other() -> None:
    data = made({"train": [("a", 0), ("b", 0)]})
    bad = Probe(error="the file is empty", fault="video")
    assert [kind for _, _, kind in kinds(found_in(data, {"a": bad, "b": bad}))] == ["unreadable"] * 2


def test_groups_in_two_splits() -> None:
    data = made({"train": [("x/p1_a", 0), ("x/p2_a", 0)], "test": [("x/p2_b", 0), ("x/p3_a", 1)]})
    probes = {path: sound(path) for path in ("x/p1_a", "x/p2_a", "x/p2_b", "x/p3_a")}
    leaks = find_group_leaks(data, "x", r"^(p\d)_")
    problems = found_in(data, probes, leaks=leaks)
    assert [(p.path, p.detail) for p in problems] == [("x/p2_b", "group p2 is also in train")]
    with pytest.raises(DataError, match="finds no group"):
        find_group_leaks(data, "x", "person")
    same = {**probes, "x/p2_b": sound("x/p2_a")}
    assert [p.detail for p in found_in(data, same, leaks=leaks)] == ["is also in train: x/p2_a"]


def test_missing_rows() -> None:
    data = VideoData(("x",), {"val": Manifest.of(["a"], [0], ["gone.mp4"])})
    assert kinds(found_in(data, {"a": sound()})) == [("val", "gone.mp4", "missing")]


# ---------------------------------------------------------------- what is left


def test_index_leaves_out_what_cannot_be_trained_on(tmp_path: Path) -> None:
    data = made({"train": [("a", 0), ("b", 1), ("c", 0)], "test": [("d", 0), ("e", 1)]})
    bad = Probe(error="is empty", fault="video")
    probes = {
        "a": sound("1"),
        "b": bad,
        "c": sound("2", corrupt=1, broken="frame 3"),
        "d": bad,
        "e": sound("4"),
    }
    checked = without_unusable(data, found_in(data, probes))
    write_index(tmp_path, checked)
    again = read_index(tmp_path)
    assert [Path(path).name for path in again.splits["train"].paths] == ["a", "c"]
    assert again.splits["train"].labels.tolist() == [0, 0]
    assert [Path(path).name for path in again.splits["test"].paths] == ["d", "e"]
    assert again.notes == ("train: 1 of 3 videos cannot be used and are excluded; report.csv of the check names them",)


def test_an_index_of_nothing_is_refused() -> None:
    data = made({"train": [("a", 0)]})
    problems = found_in(data, {"a": Probe(error="is empty", fault="video")})
    with pytest.raises(DataError, match=r"^train: none of the 1 videos can be used \(first: a: is empty\)$"):
        without_unusable(data, problems)


def test_nothing_is_left_out_of_a_sound_set() -> None:
    data = made({"train": [("a", 0)], "test": [("b", 1)]})
    assert without_unusable(data, found_in(data, {"a": sound("1"), "b": Probe(error="x", fault="video")})) is data


def test_report(tmp_path: Path) -> None:
    tags = IntLists.of([[0, 1], []])
    train = Manifest(StringArray.of(["a, b.mp4", "c\udcff"]), np.array([0, -1]), missing=("gone",), tags=tags)
    data = VideoData(("run", "jump"), {"train": train})
    probes = {str(Path("a, b.mp4").absolute()): sound("1", frames=10, codec="h264", container="mov", size=77)}
    probes[str(Path("c\udcff").absolute())] = Probe(error='says "no"', fault="video")
    report_problems(tmp_path, data, probes, find_problems(data, probes, SPEC))
    with (tmp_path / "report.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == ["a, b.mp4", "c\udcff", "gone"]
    assert [row["problem"] for row in rows] == ["short", "unreadable", "missing"]
    assert [row["class"] for row in rows] == ["run|jump", "", ""]
    assert rows[1]["detail"] == 'says "no"'
    columns = ["split", "frames", "fps", "seconds", "width", "height", "codec", "bytes"]
    assert [rows[0][column] for column in columns] == ["train", "10", "25", "0.4", "64", "48", "h264", "77"]
