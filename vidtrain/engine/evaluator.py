"""Testing: probabilities averaged over the views of a video, each video exactly once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vidtrain import metrics
from vidtrain.engine.inputs import ModelInput
from vidtrain.engine.precision import Precision
from vidtrain.types import BadVideo, Batch


@dataclass
class Scores:
    """What a test found. n videos, K classes, V views.

    probs: float32 (n, K), mean over views. labels, videos: int64 (n,). clip_hits: float64 (n,), the share of a
    video's views that are right by themselves. bad: videos that could not be read.
    """

    probs: Tensor
    labels: Tensor
    videos: Tensor
    clip_hits: Tensor
    loss: float
    bad: list[BadVideo] = field(default_factory=list)

    @property
    def confusion(self) -> Tensor:
        return metrics.confusion_matrix(self.probs.argmax(1), self.labels, self.probs.shape[1])

    def summary(self) -> dict[str, float]:
        """Accuracies in [0, 1]; top5 only where there are more than five classes."""
        found = {
            "top1": metrics.topk_accuracy(self.probs, self.labels, 1),
            "clip_top1": self.clip_hits.mean().item(),
            "mean_class": metrics.mean_class_accuracy(self.confusion),
            "loss": self.loss,
        }
        if self.probs.shape[1] > 5:
            found["top5"] = metrics.topk_accuracy(self.probs, self.labels, 5)
        return found


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    to_input: ModelInput,
    precision: Precision,
    *,
    views_per_forward: int,
) -> Scores:
    """Score every video of `batches`; leaves the model in eval mode.

    The loss is the negative logarithm of the averaged probability of the label, averaged over videos.
    """
    model.eval()
    probs: list[Tensor] = []
    labels: list[Tensor] = []
    videos: list[Tensor] = []
    hits: list[Tensor] = []
    bad: list[BadVideo] = []
    for batch in batches:
        bad += batch.bad
        if not len(batch):
            continue
        views = view_probabilities(model, batch.views, to_input, precision, views_per_forward)
        probs.append(views.mean(1))
        hits.append((views.argmax(2) == batch.labels[:, None]).double().mean(1))
        labels.append(batch.labels)
        videos.append(batch.videos)
    if not probs:
        nothing = torch.empty(0)
        return Scores(torch.empty(0, 1), nothing.long(), nothing.long(), nothing.double(), float("nan"), bad)
    all_probs, all_labels = torch.cat(probs), torch.cat(labels)
    picked = all_probs.gather(1, all_labels[:, None]).clamp_min(torch.finfo(torch.float32).tiny)
    return Scores(all_probs, all_labels, torch.cat(videos), torch.cat(hits), -picked.log().mean().item(), bad)


@torch.inference_mode()
def view_probabilities(
    model: nn.Module, views: Tensor, to_input: ModelInput, precision: Precision, views_per_forward: int
) -> Tensor:
    """uint8 (B, V, T, H, W, 3) -> float32 (B, V, K) on the CPU."""
    flat = views.flatten(0, 1)
    parts = []
    for part in flat.split(views_per_forward):
        with precision.autocast():
            logits = model(to_input(part))
        parts.append(logits.float().softmax(1).cpu())
    return torch.cat(parts).unflatten(0, views.shape[:2])
