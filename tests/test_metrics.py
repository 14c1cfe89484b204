"""Metrics against numbers worked out by hand."""

from __future__ import annotations

import math

import torch

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
