"""Testing: views are averaged, each video counts once, bad ones are reported and never scored."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from tests.tasks.made import scores_of
from vidtrain.engine.evaluator import evaluate, merged
from vidtrain.engine.precision import Precision
from vidtrain.engine.preprocess import ModelRunner, Preprocess
from vidtrain.engine.settings import PrecisionName
from vidtrain.tasks.classification.scores import ClassScores
from vidtrain.tasks.classification.task import Classification
from vidtrain.tasks.task import Predictions
from vidtrain.types import BadVideo, Batch

CPU = torch.device("cpu")
PRECISION = Precision(PrecisionName.fp32, CPU)
PREPROCESS = Preprocess([0.5] * 3, [0.25] * 3, CPU)


def answered(model: nn.Module, batches: list[Batch], views_per_forward: int = 2, average: str = "") -> Predictions:
    network, task = ModelRunner(model, PREPROCESS, PRECISION), task_of(batches[0].targets)
    return evaluate(task, network, batches, views_per_forward=views_per_forward, average=average)


def scored(model: nn.Module, batches: list[Batch], views_per_forward: int = 2, average: str = "") -> ClassScores:
    return ClassScores.of(answered(model, batches, views_per_forward, average), ["dark", "bright"])


def task_of(targets: Tensor) -> Classification:
    return Classification(["dark", "bright"], multi_label=targets.ndim == 2)


class Brightness(nn.Module):
    """Two classes: a bright clip is class 1."""

    def forward(self, clips: Tensor) -> Tensor:
        mean = clips.mean((1, 2, 3, 4))
        return torch.stack([-mean, mean], 1)


def views_of(*levels: int) -> Tensor:
    """A video whose views have these grey levels: uint8 (1, V, 2, 4, 4, 3)."""
    return torch.stack([torch.full((2, 4, 4, 3), level, dtype=torch.uint8) for level in levels])[None]


def test_probabilities_are_averaged_over_views() -> None:
    views = torch.cat([views_of(0, 110, 120), views_of(200, 250, 10)])
    batch = Batch({"rgb": views}, torch.tensor([0, 1]), torch.tensor([5, 3]), [BadVideo("x.mp4", "broken")])
    scores = scored(Brightness(), [batch], 2)

    mean = (views.double().mean((2, 3, 4, 5)) / 255 - 0.5) / 0.25
    expected = torch.stack([-mean, mean], 2).softmax(2).mean(1)
    torch.testing.assert_close(scores.probs.double(), expected, atol=1e-6, rtol=0)
    assert scores.predictions.videos.tolist() == [5, 3]
    assert scores.clip_hits.tolist() == [1.0, 2 / 3]
    assert [b.path for b in scores.predictions.bad] == ["x.mp4"]
    summary = scores.summary()
    assert summary["top1"] == 1.0
    assert "top5" not in summary  # with two classes it would always be 1


@pytest.mark.parametrize("multi_label", [False, True])
def test_logits_are_averaged_when_asked(multi_label: bool) -> None:
    """Of a sure view and two that mildly disagree, the sure one weighs more in the mean of the logits."""
    views, label = views_of(0, 134, 134), torch.tensor([[0.0, 1.0]]) if multi_label else torch.tensor([1])
    batch = [Batch({"rgb": views}, label, torch.tensor([0]))]
    by_probability = scored(Brightness(), batch)
    found = scored(Brightness(), batch, average="logits")
    mean = (views.double().mean((2, 3, 4, 5)) / 255 - 0.5) / 0.25
    logits = torch.stack([-mean, mean], 2).mean(1)
    expected = logits.sigmoid() if multi_label else logits.softmax(1)
    torch.testing.assert_close(found.probs.double(), expected, atol=1e-6, rtol=0)
    assert (found.probs - by_probability.probs).abs().max() > 0.03
    assert torch.equal(found.clip_hits, by_probability.clip_hits)
    assert found.clip_hits.item() == pytest.approx(2 / 3)


def test_batching_does_not_change_a_score() -> None:
    views = torch.cat([views_of(0, 100), views_of(140, 150), views_of(130, 100)])
    labels, videos = torch.tensor([0, 1, 1]), torch.arange(3)
    one = scored(Brightness(), [Batch({"rgb": views}, labels, videos)], 100)
    parts = [Batch({"rgb": views[i : i + 1]}, labels[i : i + 1], videos[i : i + 1]) for i in range(3)]
    three = scored(Brightness(), parts, 1)
    assert torch.equal(one.probs, three.probs)
    assert one.summary() == three.summary()


def test_nothing_readable_is_a_result_not_a_crash() -> None:
    empty = Batch({}, torch.empty(0), torch.empty(0), [BadVideo("a", "b")])
    scores = scored(Brightness(), [empty], 1)
    assert len(scores.labels) == 0
    assert len(scores.predictions.bad) == 1


def test_several_classes_a_video_are_scored_by_map() -> None:
    views = torch.cat([views_of(0, 110), views_of(200, 250), views_of(140, 150)])
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    scores = scored(Brightness(), [Batch({"rgb": views}, labels, torch.arange(3))], 2)
    mean = (views.double().mean((2, 3, 4, 5)) / 255 - 0.5) / 0.25
    expected = torch.stack([-mean, mean], 2).sigmoid().mean(1)
    torch.testing.assert_close(scores.probs.double(), expected, atol=1e-6, rtol=0)
    summary = scores.summary()
    assert scores.primary == "map"
    # class 0 is true of the darkest and the brightest of three, class 1 of the brightest
    assert summary["map"] == ((1 + 2 / 3) / 2 + 1) / 2
    assert summary["top1"] == 2 / 3
    wanted = -(labels * expected.log() + (1 - labels) * (1 - expected).log()).mean()
    assert abs(summary["loss"] - wanted.item()) < 1e-6


def test_videos_without_a_label_are_predicted_and_do_not_count() -> None:
    views = torch.cat([views_of(0, 110), views_of(200, 250), views_of(140, 150)])
    labels = torch.tensor([0, -1, 0])
    scores = scored(Brightness(), [Batch({"rgb": views}, labels, torch.arange(3))], 2)
    assert len(scores.probs) == 3
    assert scores.summary()["top1"] == 0.5
    assert scores.confusion.tolist() == [[1, 1], [0, 0]]


class Poisoned(nn.Module):
    """`Brightness`, with `value` as a logit of every view that is white."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, clips: Tensor) -> Tensor:
        logits = Brightness()(clips)
        logits[clips.amin((1, 2, 3, 4)) > 1.99, 0] = self.value
        return logits


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_video_without_a_finite_output_is_named_and_not_scored(value: float, multi_label: bool, average: str) -> None:
    views = torch.cat([views_of(0, 110), views_of(255, 0), views_of(140, 150)])
    labels = torch.tensor([0, 0, 0])
    labels = nn.functional.one_hot(labels, 2).float() if multi_label else labels
    batches = [
        Batch({"rgb": views}, labels, torch.tensor([4, 7, 9])),
        Batch({"rgb": views[1:2]}, labels[1:2], torch.tensor([2])),
    ]
    found = answered(Poisoned(value), batches, average=average)
    assert found.videos.tolist() == [4, 9]
    assert found.not_finite == [2, 7]
    assert found.finite_share == 0.5
    assert ClassScores.of(found, ["dark", "bright"]).summary()["top1"] == 0.5
    both = merged([found, answered(Poisoned(value), batches[:1], average=average)])
    assert both.not_finite == [2, 7, 7]
    assert both.videos.tolist() == [4, 4, 9, 9]
    assert torch.equal(both.columns["probs"], found.columns["probs"].repeat_interleave(2, 0))

    none = scored(Poisoned(value), batches[1:], average=average)
    assert (none.predictions.finite_share, none.predictions.not_finite, len(none.probs)) == (0, [2], 0)
    assert all(math.isnan(number) for number in none.summary().values())


def test_minus_infinity_is_the_logit_of_a_class_that_is_ruled_out() -> None:
    batch = Batch({"rgb": views_of(255, 255)}, torch.tensor([0]), torch.tensor([0]))
    network = ModelRunner(Poisoned(-math.inf), PREPROCESS, PRECISION)
    for multi_label, average in product([False, True], ["probabilities", "logits"]):
        task = Classification("ab", multi_label)
        found = evaluate(task, network, [batch], views_per_forward=8, average=average)
        assert found.columns["probs"][0, 0] == 0
        assert found.columns["probs"].isfinite().all()


def test_unlabelled_videos_without_a_finite_output_are_named_too() -> None:
    scores = scores_of(torch.eye(2), torch.tensor([0, -1]), not_finite=[5])
    assert scores._labelled().predictions.not_finite == [5]
    assert scores.rank() == [2 / 3, -0.5]


def test_the_loss_is_the_logarithm_of_the_true_class_down_to_the_smallest_number() -> None:
    batch = Batch({"rgb": torch.cat([views_of(255), views_of(0)])}, torch.tensor([0, 0]), torch.arange(2))
    for sharpness in (1.0, 4.0, 100.0):

        class Sharp(nn.Module):
            def forward(self, clips: Tensor, by: float = sharpness) -> Tensor:
                return by * Brightness()(clips)

        logits = 2 * sharpness * torch.tensor([[-1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
        expected = -logits.log_softmax(1)[:, 0].clamp_min(math.log(torch.finfo(torch.float32).tiny)).mean()
        scores = scored(Sharp(), [batch], 8)
        assert scores.loss == pytest.approx(expected.item(), rel=1e-5)
