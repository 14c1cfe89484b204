"""A row of numbers per class, equal to scikit-learn's: counts, precision, recall, F1, and how well the probability of a
class ranks the videos that have it before the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]

_CLASSES_AT_ONCE: Final = 64  # whose probabilities are copied, class by class, to be sorted


@dataclass(frozen=True)
class PerClass:
    """Of K classes; nan where a number has no meaning.

    support: int64 (K,), videos that have the class. predicted: int64 (K,), videos that are answered with it. right:
    int64 (K,), both. average_precision, auc: float64 (K,), of the class against all others.
    """

    support: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    average_precision: Floats
    auc: Floats

    @classmethod
    def of(cls, probs: Tensor, labels: Tensor) -> PerClass:
        """probs: float32 (n, K). labels: int64 (n,), the answer then being the most probable class, or float32 (n, K)
        of 0 and 1, where each class with a probability of 1/2 or more is answered."""
        classes = probs.shape[1]
        if labels.ndim == 2:
            true, answered = labels > 0, probs >= 0.5
            counts = [x.sum(0) for x in (true, answered, true & answered)]
        else:
            best = probs.argmax(1)
            counts = [torch.bincount(x, minlength=classes) for x in (labels, best, best[best == labels])]
        support, predicted, right = (count.numpy() for count in counts)
        return cls(support, predicted, right, *one_against_rest(probs, labels))

    @property
    def precision(self) -> Floats:
        """float64 (K,), nan for a class that is never answered."""
        return _ratio(self.right, self.predicted)

    @property
    def recall(self) -> Floats:
        """float64 (K,), nan for a class without a video."""
        return _ratio(self.right, self.support)

    @property
    def f1(self) -> Floats:
        """float64 (K,), nan for a class that neither occurs nor is answered."""
        return _ratio(2 * self.right, self.support + self.predicted)

    @property
    def macro_f1(self) -> float:
        """Mean over the classes that occur or are answered."""
        return mean_known(self.f1)

    @property
    def micro_f1(self) -> float:
        """Of all pairs of a video and a class together."""
        total = self.support.sum() + self.predicted.sum()
        return float(2 * self.right.sum() / total) if total else float("nan")

    def rows(self, class_names: Sequence[str]) -> list[dict[str, Any]]:
        """Plain values, as result.json holds them; None where a number has no meaning."""
        counts = {"support": self.support, "predicted": self.predicted}
        shares = {name: getattr(self, name) for name in ("precision", "recall", "f1", "average_precision", "auc")}
        return [
            {
                "name": name,
                **{key: int(values[k]) for key, values in counts.items()},
                **{key: None if np.isnan(values[k]) else float(values[k]) for key, values in shares.items()},
            }
            for k, name in enumerate(class_names)
        ]


def one_against_rest(probs: Tensor, labels: Tensor) -> tuple[Floats, Floats]:
    """(average precision, area under the ROC curve) of each class against all others, float64 (K,) each.

    Average precision is the mean, over the videos of the class, of the precision among those that score as high or
    higher; nan without such a video. The area is the share of pairs of a video with and one without the class that are
    in the right order, equal ones counting half; nan without one of both. probs (n, K), labels (n,) or (n, K): see
    `PerClass.of`.
    """
    count, classes = probs.shape
    precision, area = np.full(classes, np.nan), np.full(classes, np.nan)
    for k, (column, rows) in enumerate(zip(_columns(probs), _rows_of(labels, classes), strict=True)):
        positives = len(rows)
        if not positives:
            continue
        own = np.sort(column[rows])
        every = np.sort(column)
        below = np.searchsorted(every, own, "left")
        precision[k] = np.mean((positives - np.searchsorted(own, own, "left")) / (count - below))
        if positives < count:
            half = int(below.sum() + np.searchsorted(every, own, "right").sum())  # twice the pairs, those within the
            area[k] = (half - positives**2) / (2 * positives * (count - positives))  # class itself among them
    return precision, area


def mean_known(values: Floats) -> float:
    """The mean of those that are not nan; nan where all are."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _ratio(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> Floats:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _columns(probs: Tensor) -> Iterator[npt.NDArray[Any]]:
    """Each column, contiguous."""
    for part in probs.split(_CLASSES_AT_ONCE, 1):
        yield from part.T.contiguous().numpy()


def _rows_of(labels: Tensor, classes: int) -> Iterator[npt.NDArray[np.int64]]:
    """The rows that have each class."""
    if labels.ndim == 2:
        yield from (np.flatnonzero(column) for column in _columns(labels > 0))
        return
    known = labels.numpy()
    order = np.argsort(known, kind="stable")
    yield from np.split(order, np.searchsorted(known[order], np.arange(1, classes)))
