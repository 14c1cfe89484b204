"""Points in time and the segments that they answer: by hand, there and back, and what they learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_sequence

from vidtrain.errors import ConfigError
from vidtrain.models.segment_head import _halved, segment_head
from vidtrain.segments import Annotated
from vidtrain.sequences import Sequences, stacked
from vidtrain.tasks.segments.from_points import (
    assigned,
    candidates,
    detection_loss,
    distance_loss,
    in_seconds,
    in_windows,
    place_in_time,
    soft_nms,
)
from vidtrain.tasks.segments.task import Segments
from vidtrain.tasks.task import Predictions
from vidtrain.types import Batch

HEAD = {"num_classes": 2, "in_features": 4, "width": 16, "blocks": 1, "scales": 3, "dropout": 0.0}


def video(length: int, *truth: tuple[float, float, int], hop: float = 0.5) -> Annotated:
    """Windows of a second, `hop` apart."""
    starts = np.arange(length) * hop
    return Annotated(float(starts[-1] + 1), np.stack([starts, starts + 1], 1), np.array(truth, float).reshape(-1, 3))


def test_what_happens_as_a_table_and_back() -> None:
    one = video(4, (0.25, 1.5, 1), (1.0, 2.0, 0))
    back = Annotated.of(one.table())
    assert back.seconds == one.seconds
    assert np.array_equal(back.windows, one.windows)
    assert np.array_equal(back.truth, one.truth)
    assert Annotated.of(video(3).table()).truth.shape == (0, 3)


@settings(max_examples=30)
@given(st.lists(st.floats(0.01, 3), min_size=1, max_size=9), st.floats(-5, 30))
def test_places_among_windows_and_back(steps: list[float], second: float) -> None:
    grid = np.cumsum(steps)
    places = in_windows(np.array([second, *grid]), grid)
    assert in_seconds(places, grid) == pytest.approx(np.array([second, *grid]), abs=1e-6)
    assert places[1:] == pytest.approx(np.arange(len(grid)), abs=1e-9)


def points(rows: list[tuple[float, float, float, float]]) -> torch.Tensor:
    return torch.tensor(rows)


def test_which_points_answer_for_a_segment() -> None:
    # windows with centres 0.5, 1, 1.5 ...: the segment from 1.5 to 4.5 s is that from place 2 to 8, its centre 5
    labels, offsets = assigned(points([(k, 1.0, 0.0, math.inf) for k in range(12)]), video(12, (1.5, 4.5, 1)), 2)
    assert labels[:, 0].sum() == 0
    assert labels[:, 1].nonzero()[:, 0].tolist() == [4, 5, 6]  # 1.5 strides around the centre
    assert offsets[4].tolist() == [2, 4]
    assert offsets[5].tolist() == [3, 3]
    assert offsets[0].tolist() == [0, 0]
    # a point answers for what its scale is made for: the longest of its distances is 4 here
    labels, _ = assigned(points([(4.0, 1.0, 0.0, 4.0), (4.0, 1.0, 4.0, 9.0)]), video(12, (1.5, 4.5, 1)), 2)
    assert labels[:, 1].tolist() == [0, 1]
    # strides of two: distances in these, and the neighbourhood is as wide
    labels, offsets = assigned(points([(2.5, 2.0, 0.0, math.inf)]), video(12, (1.5, 4.5, 1)), 2)
    assert labels[0, 1] == 1
    assert offsets[0].tolist() == [0.25, 2.75]
    # of two the shorter one; of equal ones all their classes
    labels, offsets = assigned(points([(5.0, 1.0, 0.0, 99.0)]), video(12, (1.5, 4.5, 1), (2.5, 3.5, 0)), 2)
    assert (labels.tolist(), offsets.tolist()) == ([[1, 0]], [[1, 1]])
    labels, _ = assigned(points([(5.0, 1.0, 0.0, 99.0)]), video(12, (1.5, 4.5, 1), (1.5, 4.5, 0)), 2)
    assert labels.tolist() == [[1, 1]]
    labels, _ = assigned(points([(5.0, 1.0, 0.0, 99.0)]), video(12), 2)
    assert labels.sum() == 0


def test_distance_of_segments() -> None:
    found = torch.tensor([[1.0, 3.0], [2.0, 2.0], [1.0, 1.0]])
    assert distance_loss(found, found).tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    # from -1 to 3 against -2 to 2: 3 of 5 shared, centres 1 apart, 5 around both
    assert distance_loss(found[:1], found[1:2]).item() == pytest.approx(1 - 3 / 5 + (1 / 5) ** 2)
    far = distance_loss(torch.tensor([[0.0, 9.0]]), torch.tensor([[1.0, 1.0]]))
    assert far > distance_loss(torch.tensor([[0.0, 4.0]]), torch.tensor([[1.0, 1.0]]))


def test_right_answers_are_the_segments() -> None:
    """What the points are to answer, as candidates: the truth again, to the second."""
    truth = [(1.5, 4.5, 1), (6.0, 7.25, 0), (8.0, 15.5, 1)]
    one, head = video(40, *truth), segment_head(**HEAD)
    found = head(pack_sequence([torch.zeros(40, 4)]))
    labels, offsets = assigned(found["points"], one, 2)
    ideal = {**found, "logits": (labels[None] - 0.5) * 20, "offsets": offsets[None]}
    placed = place_in_time(candidates(ideal, 99)[0].double().numpy(), one)
    kept = soft_nms(placed[placed[:, 3] > 0.5], 0.01)
    rows = sorted((s, e, int(k)) for s, e, k, score in kept.tolist() if score > 0.5)
    assert rows == [pytest.approx(row, abs=1e-4) for row in truth]
    perfect, _ = detection_loss(ideal, [one], 2)
    assert perfect < 0.01
    worse, _ = detection_loss({**ideal, "offsets": offsets[None] * 2}, [one], 2)
    assert worse > perfect + 0.1


def test_candidates_are_padded_and_stay_within_the_video() -> None:
    found = {
        "logits": torch.tensor([[[2.0, -9.0], [-9.0, 1.0], [5.0, 5.0]]]),
        "offsets": torch.tensor([[[9.0, 1.0], [1.0, 99.0], [1.0, 1.0]]]),
        "points": torch.tensor([[0.0, 1, 0, 9], [4.0, 2, 0, 9], [8.0, 1, 0, 9]]),
        "there": torch.tensor([[True, True, False]]),
    }
    table = candidates(found, 10)
    assert table.shape == (1, 10, 4)
    assert table[0, 0].tolist() == pytest.approx([-9, 1, 0, torch.tensor(2.0).sigmoid().item()])
    assert table[0, 1].tolist() == pytest.approx([2, 202, 1, torch.tensor(1.0).sigmoid().item()])
    placed = place_in_time(table[0].double().numpy(), video(8))
    assert placed[0, :2].tolist() == [0, 1]
    assert placed[1, :2].tolist() == [1.5, 4.5]  # the video's end
    assert candidates(found, 2).shape == (1, 2, 4)


def test_soft_suppression() -> None:
    table = np.array([[0, 10, 0, 0.9], [1, 11, 0, 0.8], [0, 10, 1, 0.7], [20, 30, 0, 0.6], [0, 10, 0, 0.002]])
    found = soft_nms(table, 0.5)
    assert found[:, 3].tolist() == pytest.approx([0.9, 0.7, 0.6, 0.8 * np.exp(-((9 / 11) ** 2) / 0.5)])
    assert soft_nms(np.empty((0, 4)), 0.5).shape == (0, 4)


def test_a_video_is_answered_as_if_it_were_alone() -> None:
    torch.manual_seed(0)
    head = segment_head(**HEAD).eval()
    parts = [torch.randn(n, 4) for n in (7, 16, 1)]
    together = head(pack_sequence(parts, enforce_sorted=False))
    for number, part in enumerate(parts):
        alone = head(pack_sequence([part]))
        rows = together["there"][number].nonzero()[:, 0]
        there = alone["there"][0].nonzero()[:, 0]
        assert len(rows) == len(there) == sum(-(-len(part) // 2**n) for n in range(3))
        assert torch.equal(together["points"][rows], alone["points"][there])
        for name in ("logits", "offsets"):
            torch.testing.assert_close(together[name][number, rows], alone[name][0, there], rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="packed features of length 4"):
        head(pack_sequence([torch.zeros(3, 5)]))
    with pytest.raises(ConfigError, match="data=features"):
        segment_head(num_classes=2)


def test_an_odd_end_is_halved_by_itself() -> None:
    there = torch.tensor([[[1.0, 1, 1, 1, 1]], [[1, 1, 1, 0, 0]]])
    x = torch.arange(1.0, 11).reshape(2, 1, 5) * there
    half, left = _halved(x, there)
    assert half[:, 0].tolist() == [[1.5, 3.5, 5], [6.5, 8, 0]]
    assert left[:, 0].tolist() == [[1, 1, 1], [1, 1, 0]]


class Plain:
    """The network as the loop calls it."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model

    def __call__(self, inputs: dict[str, Sequences]) -> object:
        return self.model(inputs["features"].pack())


def test_it_learns_what_happens_when() -> None:
    """Features that say what happens at each window, with noise: found again in videos that were not trained on."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    task, head = Segments(["walk", "run"]), segment_head(**{**HEAD, "width": 32})

    def batch(count: int) -> Batch:
        videos, features = [], []
        for _ in range(count):
            edges = np.cumsum(rng.uniform(1.5, 5, 6))
            truth = [(edges[k], edges[k + 1], int(rng.integers(2))) for k in range(0, 5, 2)]
            one = video(60, *truth)
            x = 0.3 * rng.normal(size=(60, 4))
            for start, end, label in truth:
                x[(one.grid >= start) & (one.grid < end), label] += 1.5
            videos.append(torch.from_numpy(one.table()))
            features.append(torch.from_numpy(x).float())
        return Batch({"features": Sequences.of(features)}, stacked(videos), torch.arange(count))

    network, optimizer = Plain(head), torch.optim.AdamW(head.parameters(), lr=5e-3)
    first = last = 0.0
    for update in range(40):
        loss, measures = task.loss(network, batch(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first, last = first or loss.item(), loss.item()
        assert measures["right"].shape == (4,)
        assert update or measures["right"].max() <= 1
    assert last < 0.5 * first
    head.eval()
    test = batch(8)
    with torch.no_grad():
        views = task.predict(network, test.inputs)
    scores = task.scores(Predictions(task.columns(views[:, None], test.targets, "probs"), test.videos))
    summary = scores.summary()
    assert summary["map_50"] > 0.9
    assert summary["frame_accuracy"] > 0.85
    assert set(summary) == set(task.titles) - {"right"}
