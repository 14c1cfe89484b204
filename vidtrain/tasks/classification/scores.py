"""The scores of a split: each video counts once, by the mean of its views' probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from vidtrain.tasks.classification import metrics
from vidtrain.tasks.classification.calibration import (
    UNCALIBRATED,
    Calibration,
    answers,
    calibration_error,
    expected_calibration_error,
    rejection_curve,
    reliability,
)
from vidtrain.tasks.classification.intervals import intervals
from vidtrain.tasks.classification.per_class import PerClass
from vidtrain.tasks.task import Predictions

_MOST_POINTS: Final = 200  # of a curve in result.json, about
MOST_VIEWS: Final = 64
"""Of the curve of accuracy over views."""
_MOST_CLASSES = 1000  # of a confusion matrix in result.json: 5 MB; predictions.csv holds what it is made of


@dataclass
class ClassScores:
    """Of n videos and K classes; implements tasks.task.Scores.

    probs: float32 (n, K), mean over views, at the temperature of the calibration. labels: int64 (n,), -1 where unknown,
    or float32 (n, K) of a multi-label dataset. clip_hits: float64 (n,), the share of a video's views that are right by
    themselves. loss: the negative logarithm of the averaged probability of what is true, averaged over videos (and
    classes).

    The columns of `predictions` hold besides: view_hits bool (n, MOST_VIEWS), whether the answer by at most 1, 2, ...
    of a video's views is right, those of vidtrain/view_subsets.py; view_count int64 (n,), how many it has.
    """

    probs: Tensor
    labels: Tensor
    clip_hits: Tensor
    loss: float
    predictions: Predictions
    class_names: Sequence[str]
    calibration: Calibration = UNCALIBRATED

    @classmethod
    def of(
        cls, predictions: Predictions, class_names: Sequence[str], calibration: Calibration = UNCALIBRATED
    ) -> ClassScores:
        """From Classification.columns; all numbers are nan when there is no video."""
        if not len(predictions):
            columns = torch.empty(0, len(class_names)), torch.empty(0).long(), torch.empty(0).double()
            return cls(*columns, float("nan"), predictions, class_names, calibration)
        probs, labels, hits = (predictions.columns[name] for name in ("probs", "labels", "clip_hits"))
        return cls(probs, labels, hits, _loss(probs, labels), predictions, class_names, calibration)

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
        known = self._is_known
        return replace(self, probs=self.probs[known], labels=self.labels[known], clip_hits=self.clip_hits[known])

    @property
    def _known(self) -> ClassScores:
        """Only the videos whose class is known; all numbers are nan when none is."""
        return self if self._is_known.all() else self._labelled()

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
        found = {
            **metrics.measured(known, detail=True),
            "class_names": list(self.class_names),
            "multi_label": self.multi_label,
            "intervals": intervals(known, self._groups),
            "classes": known.per_class.rows(self.class_names),
            "views": self._views(),
            "calibration": self._reliability(known),
            "rejection": self._rejection(known),
            "conformal": self._conformal(known),
        }
        if not self.multi_label and len(self.class_names) <= _MOST_CLASSES:
            found["confusion"] = self.confusion.tolist() if len(self.labels) else []
        return found

    @property
    def _is_known(self) -> Tensor:
        """bool (n,)."""
        return self.labels >= 0 if not self.multi_label else torch.ones(len(self.labels), dtype=torch.bool)

    @property
    def _groups(self) -> Tensor | None:
        groups = self.predictions.groups
        return None if groups is None else groups[self._is_known]

    def _views(self) -> list[dict[str, Any]]:
        """The curve of accuracy over views: of each video at most so many, up to all or to MOST_VIEWS."""
        if "view_hits" not in self.predictions.columns or not self._is_known.any():
            return []
        hits, counts = (self.predictions.columns[name][self._is_known] for name in ("view_hits", "view_count"))
        curve = hits[:, : int(counts.max())].double().mean(0)
        return [{"views": number, "top1": top1} for number, top1 in enumerate(curve.tolist(), 1)]

    def _reliability(self, known: ClassScores) -> dict[str, Any]:
        bins, raw = reliability(known.probs, known.labels), self.predictions.columns.get("uncalibrated")
        before = None if raw is None else calibration_error(raw[self._is_known], known.labels)
        ece = expected_calibration_error(bins)
        return {"temperature": self.calibration.temperature, "ece": ece, "ece_uncalibrated": before, "bins": bins}

    def _rejection(self, known: ClassScores) -> dict[str, Any] | None:
        """What the threshold that was chosen on val does here, and what others would."""
        threshold = self.calibration.threshold
        if threshold is None or not len(known.labels):
            return None
        confidence, right = answers(known.probs, known.labels)
        kept = confidence >= threshold
        curve = rejection_curve(confidence, right)
        shown = curve[:: max(1, len(curve) // _MOST_POINTS)]
        return {
            "threshold": threshold,
            "wanted_precision": self.calibration.wanted_precision,
            "precision": right[kept].double().mean().item() if kept.any() else None,
            "coverage": kept.double().mean().item(),
            "curve": [dict(zip(("threshold", "coverage", "precision"), point, strict=True)) for point in shown],
        }

    def _conformal(self, known: ClassScores) -> dict[str, Any] | None:
        cutoff = self.calibration.cutoff
        if cutoff is None or not len(known.labels):
            return None
        sets = known.probs >= cutoff
        return {
            "wanted_coverage": self.calibration.wanted_coverage,
            "threshold": cutoff,
            "coverage": sets.gather(1, known.labels[:, None]).double().mean().item(),
            "mean_size": sets.sum(1).double().mean().item(),
        }

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
