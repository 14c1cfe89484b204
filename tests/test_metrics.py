"""Metrics against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidtrain import metrics

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
    confusion = torch.tensor([[3, 1, 0], [0, 0, 0], [0, 2, 2]])
    assert metrics.mean_class_accuracy(confusion) == (0.75 + 0.5) / 2


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
