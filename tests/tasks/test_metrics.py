"""Metrics against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.tasks.made import scores_of
from vidtrain.reports.results import summary_cells
from vidtrain.tasks.classification import metrics

SCORES = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.4, 0.35, 0.25]])
LABELS = torch.tensor([0, 2, 2, 1])


def test_topk_accuracy() -> None:
    assert metrics.topk_accuracy(SCORES, LABELS, 1) == 0.5
    assert metrics.topk_accuracy(SCORES, LABELS, 2) == 1.0
    assert metrics.topk_accuracy(SCORES, LABELS, 5) == 1.0  # k is cut to the number of classes
    assert math.isnan(metrics.topk_accuracy(SCORES[:0], LABELS[:0], 1))


def test_confusion_matrix_has_true_classes_as_rows() -> None:
    confusion = metrics.confusion_matrix(SCORES.argmax(1), LABELS, 3)
    assert confusion.tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 1]]


def test_mean_class_accuracy_leaves_out_absent_classes() -> None:
    labels, predicted = torch.tensor([0, 2, 0, 0, 0, 2, 2, 2]), torch.tensor([0, 1, 1, 0, 0, 1, 2, 2])
    assert metrics.mean_class_accuracy(predicted, labels) == (0.75 + 0.5) / 2
    assert math.isnan(metrics.mean_class_accuracy(labels[:0], labels[:0]))


def slow_average_precision(scores: list[float], truth: list[int]) -> float:
    """The definition: the mean, over the true videos, of the precision among those scored as high or higher."""
    found = []
    for score, true in zip(scores, truth, strict=True):
        if true:
            above = [t for s, t in zip(scores, truth, strict=True) if s >= score]
            found.append(sum(above) / len(above))
    return sum(found) / len(found) if found else float("nan")


@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 10_000))
def test_average_precision_is_its_definition(videos: int, classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 6, (videos, classes), generator=generator) / 5  # with ties
    labels = torch.randint(0, 2, (videos, classes), generator=generator).float()
    found = metrics.average_precision(scores, labels)
    for k in range(classes):
        wanted = slow_average_precision(scores[:, k].tolist(), labels[:, k].int().tolist())
        assert found[k].item() == pytest.approx(wanted, nan_ok=True)
    order = torch.randperm(videos, generator=generator)
    assert torch.allclose(found, metrics.average_precision(scores[order], labels[order]), equal_nan=True)


def test_classes_without_a_video_do_not_count() -> None:
    scores = torch.tensor([[0.9, 0.5], [0.1, 0.6]])
    labels = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert metrics.mean_average_precision(scores, labels) == 1.0
    assert metrics.any_hit(scores, labels).tolist() == [True, False]


def ranked(scores: list[float]) -> list[int]:
    """The definition of the order of classes: by score from the highest, equal ones by their number."""
    return sorted(range(len(scores)), key=lambda k: (-scores[k], k))


@given(st.integers(1, 12), st.integers(1, 8), st.integers(1, 9), st.sampled_from([1, 3, 100]), st.integers(0, 10_000))
def test_every_number_has_the_same_order_of_equal_scores(
    videos: int, classes: int, k: int, levels: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    probs = torch.randint(0, levels, (videos, classes), generator=generator) / 100
    labels = torch.randint(0, classes, (videos,), generator=generator)
    orders = [ranked(row) for row in probs.tolist()]
    hits = [label in order[:k] for order, label in zip(orders, labels.tolist(), strict=True)]
    assert metrics.topk_hits(probs, labels, k).tolist() == hits
    values, best = metrics.best_classes(probs, k)
    assert best.tolist() == [order[:k] for order in orders]
    assert torch.equal(values, probs.gather(1, best))
    assert torch.equal(best[:, 0], probs.argmax(1))

    summary = (scores := scores_of(probs, labels)).summary()
    wanted = [[0] * classes for _ in range(classes)]
    for order, label in zip(orders, labels.tolist(), strict=True):
        wanted[label][order[0]] += 1
    assert scores.confusion.tolist() == wanted
    assert summary["top1"] == sum(wanted[c][c] for c in range(classes)) / videos
    recalls = [wanted[c][c] / sum(wanted[c]) for c in range(classes) if sum(wanted[c])]
    assert summary["mean_class"] == pytest.approx(np.mean(recalls), abs=1e-12)
    if classes > 5:
        tops = [label in order[:5] for order, label in zip(orders, labels.tolist(), strict=True)]
        assert summary["top5"] == sum(tops) / videos
    several = torch.nn.functional.one_hot(labels, classes).float()
    assert metrics.any_hit(probs, several).tolist() == metrics.topk_hits(probs, labels, 1).tolist()
    shared = [row.count(max(row)) > 1 for row in probs.tolist()]
    assert metrics.shared_first(probs).tolist() == shared


def test_a_constant_scorer_answers_the_first_class() -> None:
    labels = torch.tensor([0, 1, 2, 0, 6, 6])
    summary = scores_of(torch.full((6, 7), 1 / 7), labels).summary()
    assert summary["top1"] == 2 / 6  # the share of class 0
    assert summary["mean_class"] == 1 / 4  # one of the four classes that occur
    assert summary["top5"] == 4 / 6  # of classes 0 to 4


def test_the_order_of_equal_scores_holds_for_many_classes() -> None:
    """Where torch's topk and its plain sort go their own ways."""
    scores = torch.randint(0, 3, (4, 400), generator=torch.Generator().manual_seed(0)) / 2
    for row, best in zip(scores.tolist(), metrics.best_classes(scores, 400)[1].tolist(), strict=True):
        assert best == ranked(row)
    assert metrics.best_classes(torch.ones(1000), 5)[1].tolist() == [0, 1, 2, 3, 4]


def test_a_metric_more_in_the_list_is_one_more_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it costs to add one: a function in a list. The log, result.json and the tables draw from it."""
    from vidtrain.tasks.classification.task import Classification

    mine = metrics.Metric("sure", "sureness", lambda scored: scored.probs.amax(1).mean().item())
    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, mine))
    probs = torch.tensor([[0.75, 0.25], [0.5, 0.5]])
    scores = scores_of(probs, torch.tensor([0, 1]))
    found = scores.summary()
    assert found == {"top1": 0.5, "clip_top1": 1.0, "mean_class": 0.5, "loss": 0.5, "sure": 0.625}
    test = {**found, "scored": 2, "listed": 2}
    cells = summary_cells(
        {
            "titles": Classification("ab").titles,
            "test": test,
            "val": None,
            "clips_per_second": None,
            "params": 1,
            "minutes": 0.1,
        }
    )
    assert cells["test sureness"] == "0.625"
