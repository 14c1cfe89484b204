"""Classification of videos: cross entropy where each has one class, binary cross entropy where it may have several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vidtrain.ranges import Range
from vidtrain.tasks.classification import metrics
from vidtrain.tasks.classification.calibration import UNKNOWN, Calibration
from vidtrain.tasks.classification.class_imbalance import ClassWeights
from vidtrain.tasks.classification.loss import ClassificationLoss
from vidtrain.tasks.classification.predictions_file import PredictionsFile
from vidtrain.tasks.classification.scores import MOST_VIEWS, ClassScores
from vidtrain.tasks.task import Forward, Predictions
from vidtrain.types import Batch
from vidtrain.view_subsets import spread_views


class Classification:
    """Targets are class numbers int64 (B,), or, multi_label, float32 (B, K) of 0 and 1; see tasks/task.py.

    A network gives logits (B, K), in training also several of them by name. Softmax makes probabilities of them, or
    sigmoid where multi_label; a video has the mean over its views.

    Args:
        label_smoothing, mixup, cutmix, focal_gamma: see loss.py.
        class_weights, logit_adjust: corrections for classes of unequal size, see class_imbalance.py; in training alone.
        class_shares: (K,) the share of the training clips that each class is drawn with; None: not for training.
        calibration: what the checkpoint holds of it, a stranger's plain values; None: nothing.
    """

    measures: Sequence[str] = ("top1",)

    def __init__(
        self,
        class_names: Sequence[str],
        multi_label: bool = False,
        *,
        label_smoothing: Annotated[float, Range(least=0, below=1)] = 0.0,
        mixup: Annotated[float, Range(least=0, most=100)] = 0.0,
        cutmix: Annotated[float, Range(least=0, most=100)] = 0.0,
        class_weights: ClassWeights = None,
        focal_gamma: Annotated[float, Range(least=0, most=10)] = 0.0,
        logit_adjust: Annotated[float, Range(least=0, most=10)] = 0.0,
        class_shares: Sequence[float] | None = None,
        calibration: Any = None,
    ) -> None:
        self.class_names = list(class_names)
        self.multi_label = multi_label
        self.titles: Mapping[str, str] = {m.key: m.title for m in metrics.METRICS if not m.detail}
        self.primary = "map" if multi_label else "top1"
        self.calibration = Calibration.of(calibration)
        self.criterion = ClassificationLoss(
            multi_label=multi_label,
            label_smoothing=label_smoothing,
            mixup=mixup,
            cutmix=cutmix,
            focal_gamma=focal_gamma,
        )
        if class_shares is not None:
            self.criterion.balance(self.class_names, class_shares, class_weights, logit_adjust)

    def loss(self, network: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        clips, targets = self.criterion.mix(batch.inputs, batch.targets, len(self.class_names))
        logits = network(clips)
        return self.criterion.loss(logits, targets), {"top1": self.criterion.hits(logits, targets)}

    def predict(self, network: Forward, inputs: Mapping[str, Any]) -> Tensor:
        """Logits float32 (N, K)."""
        logits: Tensor = network(inputs)
        return logits.float()

    def columns(self, views: Tensor, targets: Tensor, average: str) -> dict[str, Tensor]:
        """probs float32 (B, K), labels as the targets, clip_hits float64 (B,), view_hits bool (B, MOST_VIEWS) and
        view_count int64 (B,), see ClassScores; and, where a temperature changes probs, uncalibrated as they.

        views: logits (B, V, K). Where they hold nan or +inf, so do the probabilities hold nan; -inf is the logit of a
        class that is ruled out. average: "logits" averages these over the views, all else the probabilities.
        """
        if self.multi_label:  # a softmax makes nan of +inf by itself
            views = views.masked_fill(views == torch.inf, torch.nan)
        probs, total = self._probabilities(views), views.shape[1]

        def mean(some: Tensor | slice) -> Tensor:
            return self._probabilities(views[:, some].mean(1)) if average == "logits" else probs[:, some].mean(1)

        def right(best: Tensor) -> Tensor:
            return targets.gather(1, best) > 0 if targets.ndim == 2 else best == targets[:, None]

        every, order = mean(slice(None)), torch.tensor(spread_views(total, min(total - 1, MOST_VIEWS)))
        fewer = [mean(order[:count].sort().values) for count in range(1, len(order) + 1)]
        hits = right(torch.stack([one.argmax(1) for one in (*fewer, every)], 1))
        padding = hits[:, -1:].expand(-1, max(0, MOST_VIEWS - hits.shape[1]))  # more than there are: all there are
        found = {
            "probs": self.calibration.apply(every, multi_label=self.multi_label),
            "labels": targets,
            "clip_hits": right(probs.argmax(2)).double().mean(1),
            "view_hits": torch.cat([hits, padding], 1)[:, :MOST_VIEWS],
            "view_count": torch.full((len(views),), total),
        }
        return found if self.calibration.temperature is None else {**found, "uncalibrated": every}

    def _probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid() if self.multi_label else logits.softmax(-1)

    def scores(self, predictions: Predictions) -> ClassScores:
        return ClassScores.of(predictions, self.class_names, self.calibration)

    def file(self, file: Path, paths: Sequence[str], top: int = 5) -> PredictionsFile:
        return PredictionsFile(file, paths, self.class_names, top)

    def lines(self, predictions: Predictions, top: int) -> list[str]:
        """'walk 0.9100, run 0.0900'; 'unknown (walk 0.5100, run 0.4900)' below the threshold of the calibration."""
        probs = predictions.columns["probs"]
        best, classes = metrics.best_classes(probs, top)
        said = [
            ", ".join(f"{self.class_names[c]} {p:.4f}" for p, c in zip(*row, strict=True))
            for row in zip(best.tolist(), classes.tolist(), strict=True)
        ]
        rejected = self.calibration.rejects(probs).tolist()
        return [f"{UNKNOWN} ({line})" if no else line for line, no in zip(said, rejected, strict=True)]

    def describe(self) -> dict[str, Any]:
        return {"class_names": self.class_names, "multi_label": self.multi_label}

    def random_targets(self, count: int, generator: torch.Generator) -> Tensor:
        numbers = torch.randint(0, len(self.class_names), (count,), generator=generator)
        return F.one_hot(numbers, len(self.class_names)).float() if self.multi_label else numbers
