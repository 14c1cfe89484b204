"""task=segments over windows that come in parts: what is found, kept, written and said, with a tiny network."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vidtrain.commands.timeline import VideoTimeline
from vidtrain.engine.evaluator import evaluate
from vidtrain.engine.precision import Precision
from vidtrain.engine.preprocess import ModelRunner, Preprocess
from vidtrain.engine.settings import PrecisionName
from vidtrain.errors import ConfigError
from vidtrain.segments import Annotated, Windows
from vidtrain.sequences import Sequences
from vidtrain.tasks.segments.from_windows import find_segments, why_no_segment
from vidtrain.tasks.segments.task import Segments
from vidtrain.tasks.settings import SegmentsConfig
from vidtrain.types import Batch, ListedVideos, ViewPart

NAMES = ["red", "green", "blue"]
CPU = torch.device("cpu")


class Colours(nn.Module):
    """(N, 3, T, H, W) -> (N, 3): which colours there are."""

    def forward(self, clips: Tensor) -> Tensor:
        return 8 * (clips.mean((2, 3, 4)) - 0.5)


def network() -> ModelRunner:
    return ModelRunner(Colours(), Preprocess([0, 0, 0], [1, 1, 1], CPU), Precision(PrecisionName.fp32, CPU))


def windows_of(colours: list[str]) -> Tensor:
    """uint8 (V, 2, 4, 4, 3)."""
    shown = [[255 * (name[0] in letters) for name in NAMES] for letters in colours]
    return torch.tensor(shown, dtype=torch.uint8)[:, None, None, None].expand(-1, 2, 4, 4, 3)


def parts(place: int, colours: list[str], truth: list[tuple[float, float, int]], size: int = 3) -> list[ViewPart]:
    """A video of windows of two seconds, a second apart."""
    starts, views = np.arange(len(colours), dtype=float), windows_of(colours)
    video = Annotated(len(colours) + 1.0, np.stack([starts, starts + 2], 1), np.array(truth, float).reshape(-1, 3))
    target = torch.from_numpy(video.table())
    cuts = range(0, len(colours), size)
    return [ViewPart({"rgb": views[at : at + size]}, at, len(views), target, 10 + place, place) for at in cuts]


def test_windows_become_segments_video_by_video(tmp_path: Path) -> None:
    task = Segments(NAMES, smoothing=0)
    first = parts(0, ["", "r", "r", "rg", "g", ""], [(1.5, 4.5, 0), (3.5, 5.5, 1)])
    second = parts(1, ["", "", "b"], [(0.0, 1.0, 2)])
    found = evaluate(task, network(), [first[0], *second, first[1]], views_per_forward=2)
    assert found.videos.tolist() == [10, 11]
    tables = found.columns["found"].each()
    # cells reach half-way to the neighbours' centres; two at once are two segments
    assert tables[0][:, :3].tolist() == [[1.5, 4.5, 0], [3.5, 5.5, 1]]
    assert tables[1][:, :3].tolist() == [[2.5, 4, 2]]
    probs = np.array([[n[0] in letters for n in NAMES] for letters in ["", "r", "r", "rg", "g", ""]]) * 8.0 - 4
    windows = Windows(np.arange(6.0), np.arange(6.0) + 2, (1 / (1 + np.exp(-probs))).astype(np.float32), np.arange(6))
    same = find_segments(windows, NAMES, SegmentsConfig(smoothing=0), multi_label=True)
    assert [(s.start, s.end) for s in same] == [(1.5, 4.5), (3.5, 5.5)]
    assert tables[0][:, 3].tolist() == pytest.approx([s.score for s in same], abs=1e-6)

    scores = task.scores(found)
    summary = scores.summary()
    assert summary["map_50"] == pytest.approx(2 / 3)  # red and green are found, blue is elsewhere
    assert summary["f1_50"] == pytest.approx(2 * 2 / (3 + 3))
    assert scores.rank()[0] == summary["map_50"]
    assert scores.report()["worst"][0]["video"] == "video 11"
    assert scores.report()["segments_found"] == 3
    assert scores.remarks() == []
    assert scores.figures()["timelines"]().ndim == 3
    assert task.lines(found, 1) == ["red 1.50-4.50 (0.98)", "blue 2.50-4.00 (0.98)"]
    file = task.file(tmp_path / "p.csv", ListedVideos([f"/x/{n}.mp4" for n in range(12)], "/x"))
    file.add(found)
    file.close()
    with (tmp_path / "p.csv").open(newline="") as lines:
        written = list(csv.DictReader(lines))
    assert [(r["path"], r["start"], r["label"]) for r in written] == [
        ("10.mp4", "1.500", "red"),
        ("10.mp4", "3.500", "green"),
        ("11.mp4", "2.500", "blue"),
    ]


def test_an_output_that_is_not_finite_is_named_and_nothing_found_is_said() -> None:
    class Broken(Colours):
        def forward(self, clips: Tensor) -> Tensor:
            return super().forward(clips).masked_fill(clips.mean((2, 3, 4)) > 0, torch.nan)

    task, broken = Segments(NAMES), network()
    broken = ModelRunner(Broken(), broken.preprocess, broken.precision)
    found = evaluate(task, broken, [*parts(0, ["r", "r"], []), *parts(1, ["", ""], [])], views_per_forward=9)
    assert (found.videos.tolist(), found.not_finite) == ([11], [10])
    nothing = "no segment was found in any video: {}: has the network learned anything?"
    below = nothing.format("the highest probability was 0.018, below task.threshold=0.5")
    assert task.scores(found).remarks() == [below]
    low = Segments(NAMES, threshold=0.01, min_seconds=9)
    short = low.scores(evaluate(low, broken, parts(0, ["", ""], []), views_per_forward=9))
    assert short.remarks() == [nothing.format("all were shorter than task.min_seconds=9")]
    empty = task.scores(evaluate(task, broken, [], views_per_forward=9))
    assert np.isnan(empty.summary()["map_50"])
    assert empty.figures() == {}


def test_the_loss_of_windows() -> None:
    task, runner = Segments(NAMES), network()
    views = windows_of(["r", "gb"])
    batch = Batch(runner.ready({"rgb": views[:, None]}), torch.tensor([[1.0, 0, 0], [0, 1, 0]]), torch.arange(2))
    loss, measures = task.loss(runner, batch)
    low, high = np.log1p(np.exp(-4)), np.log1p(np.exp(4))
    assert loss.item() == pytest.approx((5 * low + high) / 6, rel=1e-5)
    assert measures["right"].tolist() == [True, False]
    focal = Segments(NAMES, focal_gamma=2.0).loss(runner, batch)[0]
    assert focal < loss
    tables = Batch(batch.inputs, Sequences.of([torch.zeros(1, 3)] * 2), torch.arange(2))
    with pytest.raises(ConfigError, match="requires a network with points"):
        task.loss(runner, tables)
    with pytest.raises(ConfigError, match="give timeline=true"):
        task.columns(torch.zeros(1, 2, 3), torch.tensor([-1]), "")
    with pytest.raises(ConfigError, match="one class per video"):
        Segments(NAMES, multi_label=False)


def test_why_there_is_no_segment() -> None:
    probs = np.array([[0.2, 0.35, 0.6], [0.1, 0.25, 0.9]], np.float32)
    windows = Windows(np.array([0.0, 9.0]), np.array([2.0, 11.0]), probs, np.arange(2))
    config = SegmentsConfig(background=["blue"])
    why = "no class reached segments.threshold=0.5; the highest was green 0.35"
    assert why_no_segment(windows, NAMES, config) == why
    assert VideoTimeline("a.mp4", 11.0, why_none=why).summary == f"a.mp4: 0 segments in 00:00:11.000; {why}"
    close = why_no_segment(windows, NAMES, SegmentsConfig(background=["blue"], threshold=0.351))
    assert close.endswith("threshold=0.351; the highest was green 0.350000")
    assert why_no_segment(windows, NAMES, SegmentsConfig(background=["blue"], threshold=0.3)) == ""
    assert why_no_segment(windows, NAMES, SegmentsConfig(background=NAMES)) == ""


def test_softmax_with_a_background_class() -> None:
    """Its logit is 0: nothing happens where all others are lower, and what happens excludes the rest."""
    task = Segments(NAMES, activation="softmax", threshold=0.4, smoothing=0)
    logits = torch.tensor([[0.0, 0, 0], [3, -1, -2], [-5, -5, -5]])
    probs = task.probabilities(logits[:, None])
    whole = torch.cat([logits, torch.zeros(3, 1)], 1).softmax(1)
    assert torch.allclose(probs, whole[:, :3])
    targets = torch.tensor([[1.0, 1, 0], [1, 0, 0], [0, 0, 0]])
    batch = Batch({}, targets, torch.arange(3))
    loss, measures = task.loss(lambda _: logits, batch)
    terms = -whole.log()
    assert loss.item() == pytest.approx(float((terms[0, :2].mean() + terms[1, 0] + terms[2, 3]) / 3), rel=1e-5)
    assert measures["right"].tolist() == [True, True, True]  # of equal logits the first, which is one of the two
    wrong = task.loss(lambda _: -logits, batch)[1]["right"]
    assert wrong.tolist() == [True, False, False]
    focal = Segments(NAMES, activation="softmax", focal_gamma=2.0).loss(lambda _: logits, batch)[0]
    assert focal < loss
    smooth = Segments(NAMES, activation="softmax", label_smoothing=0.4).loss(lambda _: logits, batch)[0]
    assert smooth.item() == pytest.approx(0.6 * loss.item() + 0.4 * float(terms.mean()), rel=1e-5)

    found = evaluate(task, network(), [*parts(0, ["r", "rg", "g", ""], [(0.0, 3.0, 0)])], views_per_forward=9)
    [table] = found.columns["found"].each()
    assert table[:, :3].tolist() == [[0, 2.5, 0], [2.5, 3.5, 1]]  # of the window with both the first
    assert task.describe() == {"class_names": NAMES, "multi_label": True}
    with pytest.raises(ConfigError, match=r"task.activation=softmx: expected sigmoid, softmax.*softmax"):
        Segments(NAMES, activation="softmx")
