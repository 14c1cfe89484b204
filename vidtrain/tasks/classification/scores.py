"""The scores of a split: each video counts once, by the mean of its views' probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from vidtrain.tasks.classification import metrics
from vidtrain.tasks.classification.calibration import expected_calibration_error, reliability
from vidtrain.tasks.classification.per_class import PerClass
from vidtrain.tasks.task import Predictions

_MOST_CLASSES = 1000  # of a confusion matrix in result.json: 5 MB; predictions.csv holds what it is made of


@dataclass
class ClassScores:
    """Of n videos and K classes; implements tasks.task.Scores.

    probs: float32 (n, K), mean over views. labels: int64 (n,), -1 where unknown, or float32 (n, K) of a multi-label
    dataset. clip_hits: float64 (n,), the share of a video's views that are right by themselves. loss: the negative
    logarithm of the averaged probability of what is true, averaged over videos (and classes).
    """

    probs: Tensor
    labels: Tensor
    clip_hits: Tensor
    loss: float
    predictions: Predictions
    class_names: Sequence[str]

    @classmethod
    def of(cls, predictions: Predictions, class_names: Sequence[str]) -> ClassScores:
        """From Classification.columns; all numbers are nan when there is no video."""
        if not len(predictions):
            columns = torch.empty(0, len(class_names)), torch.empty(0).long(), torch.empty(0).double()
            return cls(*columns, float("nan"), predictions, class_names)
        probs, labels, hits = (predictions.columns[name] for name in ("probs", "labels", "clip_hits"))
        return cls(probs, labels, hits, _loss(probs, labels), predictions, class_names)

    @cached_property
    def per_class(self) -> PerClass:
        return PerClass.of(self.probs, self.labels)

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2

    @property
    def primary(self) -> str:
        return "map" if self.multi_label else "top1"

    def rank(self) -> list[float]:
        """A video without a finite output is a wrong answer here, or a network that diverges would rank by the rest."""
        values = self.summary()
        return [values[self.primary] * self.predictions.finite_share, -values["loss"]]

    @property
    def confusion(self) -> Tensor:
        """int64 (K, K), rows are true classes; of a dataset with one class per video."""
        known = self.labels >= 0
        return metrics.confusion_matrix(self.probs[known].argmax(1), self.labels[known], self.probs.shape[1])

    def _labelled(self) -> ClassScores:
        """Only the videos whose class is known; all numbers are nan when none is."""
        known = self.labels >= 0
        return replace(self, probs=self.probs[known], labels=self.labels[known], clip_hits=self.clip_hits[known])

    @property
    def _known(self) -> ClassScores:
        """Only the videos whose class is known; all numbers are nan when none is."""
        return self._labelled() if not self.multi_label and (self.labels < 0).any() else self

    def summary(self) -> dict[str, float]:
        """metrics.METRICS by key: accuracies in [0, 1], top5 only where there are more than five classes.

        Of a multi-label dataset: map, the mean over classes of the average precision, and top1, the share of videos
        whose most probable class is one of theirs.
        """
        return metrics.measured(self._known)

    def report(self) -> dict[str, Any]:
        """All else that docs/testing.md lists; the confusion matrix of a dataset with one class per video and not too
        many."""
        known = self._known
        bins = reliability(known.probs, known.labels)
        found = {
            **metrics.measured(known, detail=True),
            "class_names": list(self.class_names),
            "multi_label": self.multi_label,
            "classes": known.per_class.rows(self.class_names),
            "calibration": {
                "temperature": None,
                "ece": expected_calibration_error(bins),
                "ece_uncalibrated": None,
                "bins": bins,
            },
        }
        if not self.multi_label and len(self.class_names) <= _MOST_CLASSES:
            found["confusion"] = self.confusion.tolist() if len(self.labels) else []
        return found

    def arrays(self) -> dict[str, Tensor]:
        return {"probabilities": self.probs}

    def remarks(self) -> list[str]:
        count, ties = len(self.labels), int(metrics.shared_first(self.probs).sum())
        if ties <= count / 10:
            return []
        return [
            f"several classes share the highest probability in {ties} of {count} videos, and the first of them counts "
            "as the answer: has the network learned anything?"
        ]

    def figures(self) -> dict[str, Callable[[], npt.NDArray[np.uint8]]]:
        """The confusion matrix, of a dataset with one class per video."""
        if not len(self.labels) or self.multi_label:
            return {}

        def draw() -> npt.NDArray[np.uint8]:
            from vidtrain.reports.confusion import confusion_image  # matplotlib takes a second

            return confusion_image(self.confusion, self.class_names)

        return {"confusion": draw}


def _loss(probs: Tensor, labels: Tensor) -> float:
    if labels.ndim == 2:
        return F.binary_cross_entropy(probs, labels).item()
    known = labels >= 0
    picked = probs[known].gather(1, labels[known, None]).clamp_min(torch.finfo(torch.float32).tiny)
    return -picked.log().mean().item()
