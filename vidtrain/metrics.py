"""Numbers from class probabilities. Each video counts once.

Equal scores have one order everywhere, in top-k, the confusion matrix, clip accuracy and in what is printed: the class
with the lower number comes first, as in torch.argmax. A network that gives all classes the same score thus answers the
first class, always, and gets the share of that class. (Average precision ranks videos, not classes: there equal scores
share a rank.) Scores must be finite; the evaluator keeps the others out.
"""

from __future__ import annotations

import torch
from torch import Tensor


def best_classes(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest of scores (..., K) and their classes int64, both (..., k); k is cut to K. Equal ones: see above."""
    values, classes = scores.sort(dim=-1, descending=True, stable=True)  # topk has no fixed order of equal scores
    return values[..., :k], classes[..., :k]


def topk_hits(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    """bool (N,): the label (N,) is among the k highest of scores (N, K), equal ones ordered as everywhere."""
    own = scores.gather(1, labels[:, None])
    lower = torch.arange(scores.shape[1], device=scores.device) < labels[:, None]
    before = (scores > own) | ((scores == own) & lower)
    return before.sum(1) < k


def shared_first(scores: Tensor) -> Tensor:
    """bool (N,): several classes have the highest of scores (N, K), so the answer follows from their order alone."""
    return (scores == scores.amax(1, keepdim=True)).sum(1) > 1


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
    return (confusion.diagonal()[present].double() / totals[present]).mean().item()


def any_hit(scores: Tensor, labels: Tensor) -> Tensor:
    """bool (N,): the highest of scores (N, K) belongs to one of the classes that labels (N, K) has as 1."""
    return labels.gather(1, scores.argmax(1, keepdim=True))[:, 0] > 0


def average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """float64 (K,): for each class the mean of the precision at the rank of each of its videos; nan without one.

    scores (N, K), labels (N, K) of 0 and 1. Equal scores share a rank, as in scikit-learn's average_precision_score, so
    that the order of the videos does not matter.
    """
    found = []
    for column, truth in zip(scores.double().T, labels.T > 0, strict=True):
        ranked, order = column.sort(descending=True)
        right = truth[order].double().cumsum(0)
        last = torch.ones_like(truth)  # the last of those with an equal score
        last[:-1] = ranked[:-1] != ranked[1:]
        counts = right[last]
        places = torch.arange(1, len(ranked) + 1, device=scores.device)[last]
        new = counts - torch.cat([counts.new_zeros(1), counts[:-1]])
        found.append((new * counts / places).sum() / truth.sum())
    return torch.stack(found)


def mean_average_precision(scores: Tensor, labels: Tensor) -> float:
    """The mean of `average_precision` over the classes that occur; nan when none does."""
    return average_precision(scores, labels).nanmean().item()
