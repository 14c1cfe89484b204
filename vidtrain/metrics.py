"""Numbers from class probabilities. Each video counts once."""

from __future__ import annotations

import torch
from torch import Tensor


def topk_hits(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    """bool (N,): the label is among the k highest of scores (N, K)."""
    k = min(k, scores.shape[1])
    return (scores.topk(k, dim=1).indices == labels[:, None]).any(1)


def topk_accuracy(scores: Tensor, labels: Tensor, k: int) -> float:
    """Share of the N rows whose label is among the k highest scores; nan when N = 0."""
    return topk_hits(scores, labels, k).double().mean().item()


def confusion_matrix(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """int64 (K, K): rows are true classes, columns predicted ones."""
    flat = labels * num_classes + predicted
    return torch.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def mean_class_accuracy(confusion: Tensor) -> float:
    """Accuracy averaged over the classes that occur."""
    totals = confusion.sum(1)
    present = totals > 0
    return (confusion.diagonal()[present] / totals[present]).double().mean().item()
