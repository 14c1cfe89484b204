"""The files of a test, read back: those that a test writes, and those that nobody should believe."""

from __future__ import annotations

import copy
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tasks.made import scores_of
from vidtrain.errors import DataError
from vidtrain.reports.results import TestResult
from vidtrain.runs.atomic import write_json
from vidtrain.tasks.classification.predictions_file import PredictionsFile
from vidtrain.tasks.task import Predictions
from vidtrain.types import ListedVideos
from vidtrain.untrusted_data import LONGEST_TEXT

NAMES = ["<b>walk</b>", 'run, "fast"', "喧嘩"]
COUNTS = {"scored": 3, "listed": 5, "missing": 1, "unreadable": 1}


def written(folder: Path, *, several: bool = False) -> Path:
    """A folder as a test of three segments leaves it."""
    folder.mkdir(exist_ok=True)
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3]])
    labels = torch.tensor([[1, 1, 0], [0, 0, 1], [0, 0, 0]]).float() if several else torch.tensor([0, 2, -1])
    videos, seconds = torch.tensor([0, 2, 3]), np.array([0.0, 1.5, 2.0, 1 / 3])
    scores = scores_of(probs, labels)
    scores.class_names = NAMES
    listed = ListedVideos([str(folder / f"clips/{n}.mp4") for n in range(3)] + ["/else/3.mp4"], str(folder), seconds)
    with PredictionsFile(folder / "predictions.csv", listed, NAMES) as file:
        file.add(Predictions({"probs": probs, "labels": labels}, videos))
    np.save(folder / "probabilities.npy", scores.arrays()["probabilities"].numpy())
    start = {"format": 2, "split": "test", "protocol": "16x2", "not_finite": ["x.mp4"], **COUNTS}
    write_json(folder / "result.json", {**start, **scores.summary(), **scores.report()})
    return folder


def test_what_a_test_writes_is_read_back(tmp_path: Path) -> None:
    result = TestResult.read(written(tmp_path / "out"))
    assert (result.class_names, result.multi_label, result.scored) == (tuple(NAMES), False, 3)
    assert result.numbers["top1"] == 1.0
    assert "format" not in result.numbers
    assert "scored" not in result.numbers
    assert result.confusion is not None
    assert result.confusion.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert result.part("rejection") is None
    rows = result.predictions()
    assert [row.key for row in rows] == [("clips/0.mp4", 0.0, None), ("clips/2.mp4", 2.0, None), rows[2].key]
    assert (rows[2].path, rows[2].file, rows[2].start) == ("/else/3.mp4", "/else/3.mp4", pytest.approx(1 / 3, abs=1e-9))
    assert [row.labels for row in rows] == [(NAMES[0],), (NAMES[2],), ()]
    assert rows[0].top[:2] == ((NAMES[0], 0.7), (NAMES[1], 0.2))
    assert result.labels(rows).tolist() == [0, 2, -1]
    probabilities = result.probabilities()
    assert probabilities[1].tolist() == pytest.approx([0.1, 0.3, 0.6])
    assert not probabilities.flags.writeable


def test_classes_of_any_name_are_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder's may be no UTF-8."""
    monkeypatch.setitem(globals(), "NAMES", ["caf\udce9", *NAMES[1:]])
    result = TestResult.read(written(tmp_path / "out"))
    assert result.predictions()[0].labels == ("caf\udce9",)


def test_several_classes_per_video(tmp_path: Path) -> None:
    result = TestResult.read(written(tmp_path / "out", several=True))
    rows = result.predictions()
    assert [row.labels for row in rows] == [(NAMES[0], NAMES[1]), (NAMES[2],), ()]
    assert result.labels(rows).tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert result.confusion is None


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Change a part: "classes.0.f1"."""

    def change(content: dict[str, Any]) -> None:
        *above, last = [int(key) if key.isdigit() else key for key in path.split(".")]
        place: Any = content
        for key in above:
            place = place[key]
        place[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("format", 1, "format 2 (its format: 1): test again"),
        ("format", "x" * 10_000, "format 2"),
        ("split", 3, "split: '3'"),
        ("class_names", ["a", "a", "b"], "class_names: 3 names"),
        ("class_names", [], "class_names: 0 names"),
        ("class_names", ["a", "b", "x" * (LONGEST_TEXT + 1)], "class_names: "),
        ("class_names", ["a", "b", "c"], "classes: not the rows of class_names"),
        ("scored", -1, "scored: '-1'"),
        ("scored", True, "scored: 'True'"),
        ("top1", float("inf"), "top1: not a finite number"),
        ("extra", [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]], "deep"),
        ("classes.0.f1", 1.5, "classes[0].f1"),
        ("classes.1.support", None, "classes[1].support"),
        ("classes", {"0": 1}, "classes: expected a list"),
        ("calibration.bins", 5, "calibration.bins: expected a list"),
        ("calibration.bins.3.count", "many", "calibration.bins[3].count"),
        ("confusion", [[1, 2], [3, 4]], "confusion: not 3 rows of 3 counts"),
        ("confusion.1.1", 0.5, "confusion: not 3 rows of 3 counts"),
        ("intervals", {"level": 0.95}, "intervals.resamples: missing"),
        ("views", [{"views": 1, "top1": "1"}], "views[0].top1"),
        ("rejection", {"threshold": 2}, "rejection.threshold"),
        ("conformal", [1], "conformal: expected a mapping"),
    ],
)
def test_a_result_of_a_stranger_is_refused(tmp_path: Path, path: str, value: Any, said: str) -> None:
    file = written(tmp_path / "out") / "result.json"
    content = json.loads(file.read_text())
    changed = copy.deepcopy(content)
    put(path, value)(changed)
    file.write_text(json.dumps(changed))
    with pytest.raises(DataError) as error:
        TestResult.read(file.parent)
    assert said in str(error.value), error.value
    assert str(error.value).startswith(f"{file}: ")
    assert len(str(error.value)) < 300 + len(str(file))


def test_a_part_that_nobody_knows_is_no_mistake(tmp_path: Path) -> None:
    file = written(tmp_path / "out") / "result.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "later": {"a": [1, None]}, "few": 0.5}))
    assert TestResult.read(file.parent).numbers["few"] == 0.5


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"format": 2}', '{"format": 2, "top1": NaN}', "[" * 100_000])
def test_what_is_no_result(tmp_path: Path, text: str) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(DataError, match=r"result\.json: "):
        TestResult.read(tmp_path)
    with pytest.raises(DataError, match="No such file"):
        TestResult.read(tmp_path / "none")


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[:-1],
        lambda rows: [*rows, rows[-1]],
        lambda rows: [{**row, "prob1": "high"} for row in rows],
        lambda rows: [{**row, "top1": "nobody"} for row in rows],
        lambda rows: [{**row, "label": "nobody"} for row in rows],
        lambda rows: [{key: row[key] for key in row if key != "file"} for row in rows],
        lambda rows: [{**row, "start": "0", "end": "nan"} for row in rows],
        lambda rows: [{**row, "start": "-1", "end": "2"} for row in rows],
        lambda rows: [{**row, "start": "1", "end": "inf"} for row in rows],
        lambda rows: [{**row, "path": "x" * 200_000} for row in rows],  # csv's own limit
    ],
)
def test_predictions_that_are_not_those_of_the_result(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    result = TestResult.read(written(tmp_path / "out"))
    file = result.folder / "predictions.csv"
    with file.open(newline="") as lines:
        rows = change(list(csv.DictReader(lines)))
    with file.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(DataError, match=r"predictions\.csv: "):
        result.predictions()


def test_probabilities_that_are_not_those_of_the_result(tmp_path: Path) -> None:
    result = TestResult.read(written(tmp_path / "out"))
    for array in (np.zeros((3, 2), np.float32), np.zeros((3, 3)), np.array([{}], dtype=object)):
        np.save(result.folder / "probabilities.npy", array, allow_pickle=True)
        with pytest.raises(DataError, match=r"probabilities\.npy: "):
            result.probabilities()
    (result.folder / "probabilities.npy").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        result.probabilities()


def test_a_test_of_segments_is_named_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"format": 2, "split": "test", "protocol": "x", "segment_classes": []}')
    with pytest.raises(DataError, match=r"task=segments, not of a classification: `vidtrain report .*` shows it"):
        TestResult.read(tmp_path)
