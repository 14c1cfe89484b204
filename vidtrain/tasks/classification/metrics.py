"""Numbers from class probabilities. Each video counts once.

Equal scores have one order everywhere, in top-k, the confusion matrix, clip accuracy and in what is printed: the class
with the lower number comes first, as in torch.argmax. A network that gives all classes the same score thus answers the
first class, always, and gets the share of that class. (Average precision ranks videos, not classes: there equal scores
share a rank.) Scores must be finite; the evaluator keeps the others out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor

from vidtrain.tasks.classification.calibration import calibration_error
from vidtrain.tasks.classification.per_class import PerClass, mean_known, one_against_rest


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


def mean_class_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Accuracy averaged over the classes that occur. predicted, labels: int64 (N,)."""
    totals = torch.bincount(labels)
    right = torch.bincount(labels[predicted == labels], minlength=len(totals))
    return (right[totals > 0].double() / totals[totals > 0]).mean().item()


def any_hit(scores: Tensor, labels: Tensor) -> Tensor:
    """bool (N,): the highest of scores (N, K) belongs to one of the classes that labels (N, K) has as 1."""
    return labels.gather(1, scores.argmax(1, keepdim=True))[:, 0] > 0


def average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """float64 (K,): for each class the mean of the precision at the rank of each of its videos; nan without one.

    scores (N, K), labels (N, K) of 0 and 1. Equal scores share a rank, as in scikit-learn's average_precision_score, so
    that the order of the videos does not matter.
    """
    return torch.from_numpy(one_against_rest(scores, labels)[0])


def mean_average_precision(scores: Tensor, labels: Tensor) -> float:
    """The mean of `average_precision` over the classes that occur; nan when none does."""
    return average_precision(scores, labels).nanmean().item()


# ---------------------------------------------------------------- what a test reports


class Scored(Protocol):
    """Of n videos whose class is known, K classes. probs float32 (n, K). labels int64 (n,), or float32 (n, K) of a
    multi-label set. clip_hits float64 (n,)."""

    probs: Tensor
    labels: Tensor
    clip_hits: Tensor
    loss: float

    @property
    def per_class(self) -> PerClass: ...


@dataclass(frozen=True)
class Metric:
    """A number of a test.

    key: in result.json, metrics.jsonl and TensorBoard. title: in tables. of: its value, None where it has no meaning,
    as accuracies of one class have none where a video has several. detail: stands in the result.json of a test alone,
    and in no table and no validation.
    """

    key: str
    title: str
    of: Callable[[Scored], float | None]
    detail: bool = False


def _several(scored: Scored) -> bool:
    return scored.labels.ndim == 2


def _mean_class(scored: Scored) -> float | None:
    return None if _several(scored) else mean_class_accuracy(scored.probs.argmax(1), scored.labels)


def _top1(scored: Scored) -> float:
    if _several(scored):
        return any_hit(scored.probs, scored.labels).double().mean().item()
    return topk_accuracy(scored.probs, scored.labels, 1)


def _auc(scored: Scored) -> float:
    """Of two classes that of the second, as a ROC curve is drawn for it; else the mean over the classes."""
    areas = scored.per_class.auc
    return float(areas[1]) if len(areas) == 2 and not _several(scored) else mean_known(areas)


METRICS: Final = (
    Metric("map", "mAP", lambda s: mean_average_precision(s.probs, s.labels) if _several(s) else None),
    Metric("top1", "top-1", _top1),
    Metric(
        "top5",
        "top-5",
        lambda s: None if _several(s) or s.probs.shape[1] <= 5 else topk_accuracy(s.probs, s.labels, 5),
    ),
    Metric("clip_top1", "clip top-1", lambda s: s.clip_hits.mean().item()),
    Metric("mean_class", "mean class accuracy", _mean_class),
    Metric("loss", "loss", lambda s: s.loss),
    Metric("balanced_accuracy", "balanced accuracy", _mean_class, detail=True),
    Metric("macro_f1", "macro F1", lambda s: s.per_class.macro_f1, detail=True),
    Metric("micro_f1", "micro F1", lambda s: s.per_class.micro_f1, detail=True),
    Metric("average_precision", "mean AP", lambda s: mean_known(s.per_class.average_precision), detail=True),
    Metric("auc", "AUC", _auc, detail=True),
    Metric("ece", "ECE", lambda s: calibration_error(s.probs, s.labels), detail=True),
)
"""All that a test reports, in the order of its tables; a function more in this list is a metric more everywhere.
balanced_accuracy is mean_class by the name that scikit-learn has for it."""


def measured(scored: Scored, *, detail: bool = False) -> dict[str, float]:
    """Key -> value of all METRICS that have a meaning here, the details or the others."""
    values = {metric.key: metric.of(scored) for metric in METRICS if metric.detail is detail}
    return {key: value for key, value in values.items() if value is not None}
