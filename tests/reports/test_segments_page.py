"""The report of a test with task=segments: from the scores of a task to what stands on the page."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.reports.test_page import HOSTILE, TAGS, Parsed
from tests.reports.test_results import put
from vidtrain.commands.report import write_report
from vidtrain.errors import DataError
from vidtrain.reports.results import TestResult
from vidtrain.reports.segment_results import SegmentsResult, read_test
from vidtrain.runs.atomic import write_json
from vidtrain.segments import Segment
from vidtrain.sequences import Sequences
from vidtrain.tasks.segments.scores import SegmentScores
from vidtrain.tasks.settings import SegmentsConfig
from vidtrain.tasks.task import Predictions

NAMES = ["walk", "run", "rest"]
TRUTH = [[(0, 4, 0), (5, 9, 1)], [(2, 6, 0), (7, 9, 0)]]
FOUND = [[(0, 4, 0, 0.9), (5, 9, 1, 0.8)], [(3, 6, 0, 0.7), (1, 2, 1, 0.6), (0, 10, 2, 0.1)]]


def write_segments_test(folder: Path, names: list[str] | None = None) -> dict[str, Any]:
    """The folder of a test of two videos of 10 seconds, as vidtrain eval writes it; returns what is in result.json."""
    names = names or NAMES
    columns = {
        "truth": Sequences.of([torch.tensor(own, dtype=torch.float64) for own in TRUTH]),
        "found": Sequences.of([torch.tensor(own, dtype=torch.float64) for own in FOUND]),
        "seconds": torch.tensor([10.0, 10.0], dtype=torch.float64),
        "least": torch.tensor([0.25, 0.25], dtype=torch.float64),
        "loss": torch.tensor([0.5, 1.0]),
    }
    predictions = Predictions(columns, torch.tensor([3, 1]), names=["good.mp4", f"{names[0]}/bad.mp4"])
    scores = SegmentScores(predictions, names, SegmentsConfig())
    result = {"format": 2, "split": "test", "protocol": "a clip every 4 frames", "scored": 2, "listed": 3, "missing": 1}
    result |= {"unreadable": 0, "not_finite": [], **scores.summary(), **scores.report()}
    folder.mkdir(parents=True)
    write_json(folder / "result.json", result)
    (folder / "predictions.csv").write_text("path,file,start,end,label,score\n")
    (folder / "not_scored.csv").write_text("path,reason\ngone.mp4,not on disk\n")
    return result


def test_what_a_test_says_is_read_back(tmp_path: Path) -> None:
    write_segments_test(tmp_path / "out")
    result = read_test(tmp_path / "out")
    assert isinstance(result, SegmentsResult)
    assert result.class_names == ("walk", "run", "rest")
    assert result.scored == 2
    bad, good = result.worst
    assert (bad.path, bad.seconds, good.path) == ("walk/bad.mp4", 10.0, "good.mp4")
    assert bad.accuracy == pytest.approx(0.6)  # right from 0 to 1, 3 to 7, 9 to 10
    assert bad.truth == [Segment(2, 6, "walk", 1.0), Segment(7, 9, "walk", 1.0)]
    assert bad.found == [Segment(1, 2, "run", 0.6), Segment(3, 6, "walk", 0.7)]  # that of 0.1 counts for mAP alone
    assert good.accuracy == 1.0
    assert result.part("background") == pytest.approx((2 + 4) / 20)
    assert result.part("least_score") == 0.25
    rows = {row["name"]: row for row in result.part("segment_classes")}
    assert rows["walk"] == {
        "name": "walk",
        "segments": 3,
        "found": 2,
        "ap_50": pytest.approx(2 / 3),
        "ap_75": rows["walk"]["ap_75"],
    }
    assert rows["walk"]["ap_75"] == pytest.approx(2 / 3)  # an overlap of just three quarters
    assert rows["rest"] == {"name": "rest", "segments": 0, "found": 0, "ap_50": None, "ap_75": None}
    assert result.numbers["map_50"] == pytest.approx((2 / 3 + 1) / 2)
    with pytest.raises(DataError, match=r"`vidtrain report .*out` shows it"):
        TestResult.read(tmp_path / "out")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("format", 1, "test again"),
        ("segments", -1, "segments: '-1'"),
        ("background", 2, "background: '2'"),
        ("map_50", float("inf"), "map_50: not a finite number"),
        ("map_by_overlap", [1], "map_by_overlap: expected a mapping"),
        ("map_by_overlap", {"x": 0.5}, "map_by_overlap: x: 0.5"),
        ("map_by_overlap_thumos_kit", {"0.5": 3}, "map_by_overlap_thumos_kit: 0.5: 3"),
        ("segment_classes", [], "segment_classes: expected a row or more"),
        ("segment_classes.1.name", "walk", "each name once"),
        ("segment_classes.0.name", "x" * 100_000, "segment_classes[0].name"),
        ("segment_classes.0.ap_50", "high", "segment_classes[0].ap_50"),
        ("worst", None, "worst: expected a list"),
        ("worst.0.seconds", "10", "worst[0].seconds"),
        ("worst.0.truth", [[0, 1, 0]] * 1001, "worst[0].truth: expected a list of at most 1000"),
        ("worst.0.truth.0", [0, 1, 3], "worst[0].truth: expected"),
        ("worst.0.truth.0", [0, 1, 0.0], "worst[0].truth: expected"),
        ("worst.0.truth.0", [2, 1, 0], "worst[0].truth: expected"),
        ("worst.0.truth.0", [0, float("inf"), 0], "worst[0].truth: expected"),
        ("worst.1.found.0", [0, 1, 0], "worst[1].found: expected"),
        ("worst.1.found.0", [0, 1, 0, 1.5], "worst[1].found: expected"),
    ],
)
def test_a_result_of_a_stranger_is_refused(tmp_path: Path, path: str, value: Any, said: str) -> None:
    changed = copy.deepcopy(write_segments_test(tmp_path / "out"))
    change: Callable[[dict[str, Any]], None] = put(path, value)
    change(changed)
    (tmp_path / "out" / "result.json").write_text(json.dumps(changed))
    with pytest.raises(DataError, match=re.escape(said)):
        read_test(tmp_path / "out")


def test_the_page(tmp_path: Path) -> None:
    write_segments_test(tmp_path / "out")
    write_report(tmp_path / "out", tmp_path / "page.html", 12, 10)
    page = Parsed((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.balanced
    assert [link["href"] for link in page.all("a")] == [
        "#timelines",
        "#overlaps",
        "#segment_classes",
        "#data",
        "#commands",
    ]
    text = " ".join(page.words)
    assert "mAP@0.5 0.833 on 2 videos of the test split, with 4 segments of 3 classes." in text
    assert "Scored 2 of 3 (1 not on disk); a clip every 4 frames." in text
    assert "4 segments were found with a score of 0.25 or more." in text
    assert "Of all frames 0.800 have the right class; an answer of nothing at all would be right for 0.300." in text
    assert "walk/bad.mp4: 0.600 of its frames are right" in text
    assert "gone.mp4" in text
    bars = [(i["class"], i["title"]) for i in page.all("i") if "title" in i]
    assert bars[:4] == [
        ("found wrong", "run 1.00 to 2.00 s (0.60)"),
        ("true", "walk 2.00 to 6.00 s"),
        ("true missed", "walk 7.00 to 9.00 s"),
        ("found", "walk 3.00 to 6.00 s (0.70)"),
    ]
    lanes = [d["aria-label"] for d in page.all("div") if "aria-label" in d]
    assert lanes[1] == "walk, seconds: truly 2.0 to 6.0, 7.0 to 9.0; found 3.0 to 6.0"
    assert lanes[0] == "run, seconds: truly never; found 1.0 to 2.0"
    [place] = [i["style"] for i in page.all("i") if i.get("title") == "walk 3.00 to 6.00 s (0.70)"]
    assert place == "left:30.000%;width:30.000%;opacity:0.79"


def test_nothing_that_a_class_is_called_does_anything(tmp_path: Path) -> None:
    for number in range(0, len(HOSTILE) - 2, 3):
        write_segments_test(tmp_path / str(number), HOSTILE[number : number + 3])
        write_report(tmp_path / str(number), tmp_path / "page.html", 12, 10)
        page = Parsed((tmp_path / "page.html").read_text(encoding="utf-8"))
        assert page.balanced
        assert len(page.scripts) == 1
        assert {tag for tag, _ in page.elements} <= TAGS
        attributes = {key for _, found in page.elements for key in found}
        assert not [key for key in attributes if key.startswith("on")]
        styles = [found["style"] for tag, found in page.elements if tag == "i" and "style" in found]
        assert all(re.fullmatch(r"(left:[\d.]+%;?|width:[\d.]+%;?|opacity:[\d.]+;?)+", style) for style in styles)
