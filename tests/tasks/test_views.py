"""The curve of accuracy over views, against the answers by so many views alone."""

from __future__ import annotations

import pytest
import torch

from vidtrain.tasks.classification.scores import MOST_VIEWS
from vidtrain.tasks.classification.task import Classification
from vidtrain.tasks.task import Predictions
from vidtrain.view_subsets import spread_views

VIDEOS, CLASSES = 40, 5


def predictions(task: Classification, views: torch.Tensor, labels: torch.Tensor, average: str) -> Predictions:
    return Predictions(task.columns(views, labels, average), torch.arange(len(views)))


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("total", [1, 6, 66])
def test_the_curve_is_what_so_many_views_score(total: int, several: bool, average: str) -> None:
    generator = torch.Generator().manual_seed(total)
    task = Classification("abcde", several)
    views = torch.randn(VIDEOS, total, CLASSES, generator=generator) * 4
    labels = torch.randint(0, CLASSES, (VIDEOS,), generator=generator)
    if several:
        labels = torch.nn.functional.one_hot(labels, CLASSES).float()
    curve = task.scores(predictions(task, views, labels, average)).report()["views"]
    assert [point["views"] for point in curve] == list(range(1, min(total, MOST_VIEWS) + 1))
    scores = []
    for point in curve[:: max(1, total // 6)]:
        kept = sorted(spread_views(total, point["views"]))
        alone = task.scores(predictions(task, views[:, kept], labels, average))
        scores.append(alone.summary()["top1"])
        assert point["top1"] == scores[-1]
    assert total == 1 or len(set(scores)) > 2


def test_videos_with_fewer_views_count_with_all_they_have() -> None:
    task = Classification("ab")
    right, wrong = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0])
    long = torch.stack([wrong, right, wrong, wrong])[None]  # the middle one of four is the second
    short = right[None, None]
    labels = torch.zeros(1).long()
    parts = [predictions(task, long, labels, ""), predictions(task, short, labels, "")]
    curve = task.scores(Predictions.joined(parts)).report()["views"]
    assert [point["top1"] for point in curve] == [1.0, 1.0, 0.5, 0.5]


def test_videos_without_a_known_class_are_not_in_it() -> None:
    task = Classification("ab")
    views = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
    report = task.scores(predictions(task, views, torch.tensor([0, -1]), "")).report()
    assert report["views"] == [{"views": 1, "top1": 1.0}]
    report = task.scores(predictions(task, views, torch.tensor([-1, -1]), "")).report()
    assert report["views"] == []
