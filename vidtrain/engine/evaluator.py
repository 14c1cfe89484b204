"""Testing: scores averaged over the views of a video, each video exactly once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidtrain import metrics
from vidtrain.engine.precision import Precision
from vidtrain.engine.preprocess import ModelInput
from vidtrain.sequences import Sequences
from vidtrain.types import BadVideo, Batch, ViewPart


@dataclass
class Scores:
    """What a test found. n videos, K classes, V views.

    probs: float32 (n, K), mean over views. labels: int64 (n,), or float32 (n, K) of a multi-label set. videos: int64
    (n,). clip_hits: float64 (n,), the share of a video's views that are right by themselves. bad: videos that could
    not be read. not_finite: rows of the manifest, ascending, for which the network's output was not finite: these are
    not among the n.
    """

    probs: Tensor
    labels: Tensor
    videos: Tensor
    clip_hits: Tensor
    loss: float
    bad: list[BadVideo] = field(default_factory=list)
    not_finite: list[int] = field(default_factory=list)

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2

    @property
    def primary(self) -> str:
        """The number of `summary` by which checkpoints are ranked."""
        return "map" if self.multi_label else "top1"

    @property
    def confusion(self) -> Tensor:
        """int64 (K, K), rows are true classes; of a set with one class a video."""
        known = self.labels >= 0
        return metrics.confusion_matrix(self.probs[known].argmax(1), self.labels[known], self.probs.shape[1])

    @property
    def answered(self) -> float:
        """Share of the readable videos that the network has a finite output for, in [0, 1]; 0 when there is none."""
        count = len(self.videos)
        return count / max(count + len(self.not_finite), 1)

    def _labelled(self) -> Scores:
        """Only the videos whose class is known; all numbers are nan when none is."""
        known = self.labels >= 0
        return replace(
            self,
            probs=self.probs[known],
            labels=self.labels[known],
            videos=self.videos[known],
            clip_hits=self.clip_hits[known],
        )

    def summary(self) -> dict[str, float]:
        """metrics.METRICS by key: accuracies in [0, 1], top5 only where there are more than five classes.

        Of a multi-label set: map, the mean over classes of the average precision, and top1, the share of videos whose
        most probable class is one of theirs.
        """
        if not self.multi_label and (self.labels < 0).any():
            return metrics.measured(self._labelled())
        return metrics.measured(self)


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch | ViewPart],
    to_input: ModelInput,
    precision: Precision,
    *,
    views_per_forward: int,
    average_logits: bool = False,
    each: Callable[[Tensor, Tensor, Tensor], None] | None = None,
) -> Scores:
    """Score every video of `batches`; leaves the model in eval mode.

    average_logits: see `view_scores`. each: is called with (videos, probs, labels) of those that have just been scored,
    shapes as in Scores.

    Videos whose label is -1 get probabilities and count in no number. Labels of shape (B, K) mean a multi-label set:
    the probabilities are then sigmoids, one per class, else a softmax. The loss is the negative logarithm of the
    averaged probability of what is true, averaged over videos (and classes). A video with a view whose logits hold nan
    or +inf is not scored but listed in `not_finite`.
    """
    model.eval()
    probs: list[Tensor] = []
    labels: list[Tensor] = []
    videos: list[Tensor] = []
    hits: list[Tensor] = []
    bad: list[BadVideo] = []
    not_finite: list[int] = []
    for found in view_scores(
        model, batches, to_input, precision, views_per_forward=views_per_forward, average_logits=average_logits
    ):
        bad += found.bad
        if not len(found.videos):
            continue
        mean = found.mean
        finite = mean.isfinite().all(1)
        not_finite += found.videos[~finite].tolist()
        best = found.probs.argmax(2)
        multi_label = found.labels.ndim == 2
        right = found.labels.gather(1, best) > 0 if multi_label else best == found.labels[:, None]
        probs.append(mean[finite])
        hits.append(right.double().mean(1)[finite])
        labels.append(found.labels[finite])
        if each is not None:
            each(found.videos[finite], mean[finite], found.labels[finite])
        videos.append(found.videos[finite])
    if not probs:
        nothing = torch.empty(0)
        return Scores(torch.empty(0, 1), nothing.long(), nothing.long(), nothing.double(), float("nan"), bad)
    columns = torch.cat(probs), torch.cat(labels)
    return Scores(*columns, torch.cat(videos), torch.cat(hits), _loss(*columns), bad, sorted(not_finite))


@dataclass
class ViewScores:
    """What the network says of whole videos. probs: float32 (B, V, K); mean: (B, K), their average over the views, or
    the probabilities that the average of the logits gives. labels, videos, bad: as in a Batch."""

    probs: Tensor
    mean: Tensor
    labels: Tensor
    videos: Tensor
    bad: list[BadVideo] = field(default_factory=list)


def view_scores(
    model: nn.Module,
    batches: Iterable[Batch | ViewPart],
    to_input: ModelInput,
    precision: Precision,
    *,
    views_per_forward: int,
    average_logits: bool = False,
    multi_label: bool | None = None,
) -> Iterator[ViewScores]:
    """The probabilities of every view of every video, in the order of the loader.

    Of a video that comes in parts only the logits of its views are kept until its last part, and those of the
    videos that are finished before one that stands ahead of them.

    Args:
        average_logits: average the logits of a video's views instead of their probabilities.
        multi_label: None: when labels have the shape (B, K).
    """
    several = multi_label
    parts: dict[int, list[Tensor]] = {}
    done: dict[int, ViewScores] = {}
    place = 0
    for batch in batches:
        if multi_label is None:
            label = batch.labels if isinstance(batch, Batch) else batch.label
            several = isinstance(label, Tensor) and label.ndim == (2 if isinstance(batch, Batch) else 1)
        if isinstance(batch, Batch):
            probs = mean = torch.empty(0)
            if len(batch):
                logits = view_logits(model, batch.views, to_input, precision, views_per_forward)
                probs, mean = _probabilities(logits, multi_label=bool(several), average_logits=average_logits)
            yield ViewScores(probs, mean, batch.labels, batch.videos, batch.bad)
            continue
        if batch.bad is not None:
            parts.pop(batch.place, None)
            nothing = torch.empty(0, dtype=torch.int64)
            done[batch.place] = ViewScores(torch.empty(0), torch.empty(0), nothing, nothing, [batch.bad])
        else:
            kept = [] if batch.first == 0 else parts[batch.place]
            parts[batch.place] = kept
            kept.append(view_logits(model, batch.views[None], to_input, precision, views_per_forward))
            if batch.first + len(batch.views) == batch.total:
                logits = torch.cat(parts.pop(batch.place), 1)
                found = _probabilities(logits, multi_label=bool(several), average_logits=average_logits)
                label = torch.as_tensor(batch.label)
                done[batch.place] = ViewScores(*found, label[None], torch.tensor([batch.video]))
        while place in done:
            yield done.pop(place)
            place += 1


def merged(parts: Sequence[Scores]) -> Scores:
    """What several processes found of different videos, as one would have: in the manifest's order."""
    if len(parts) == 1:
        return parts[0]
    bad = [video for part in parts for video in part.bad]
    not_finite = sorted(row for part in parts for row in part.not_finite)
    parts = [part for part in parts if len(part.labels)] or parts[:1]
    videos = torch.cat([part.videos for part in parts])
    order = videos.argsort()
    probs, labels, hits = (torch.cat(column)[order] for column in zip(*map(_columns, parts), strict=True))
    return Scores(probs, labels, videos[order], hits, _loss(probs, labels), bad, not_finite)


def _columns(scores: Scores) -> tuple[Tensor, Tensor, Tensor]:
    return scores.probs, scores.labels, scores.clip_hits


def _loss(probs: Tensor, labels: Tensor) -> float:
    if labels.ndim == 2:
        return F.binary_cross_entropy(probs, labels).item()
    known = labels >= 0
    picked = probs[known].gather(1, labels[known, None]).clamp_min(torch.finfo(torch.float32).tiny)
    return -picked.log().mean().item()


@torch.inference_mode()
def view_logits(
    model: nn.Module, views: Tensor | Sequences, to_input: ModelInput, precision: Precision, views_per_forward: int
) -> Tensor:
    """uint8 (B, V, T, H, W, 3) -> float32 (B, V, K) on the CPU. A sequence of features is one view."""
    parts = []
    for part in (views if isinstance(views, Sequences) else views.flatten(0, 1)).split(views_per_forward):
        with precision.autocast():
            logits = model(to_input(part))
        parts.append(logits.float().cpu())
    return torch.cat(parts).unflatten(0, (-1, 1) if isinstance(views, Sequences) else views.shape[:2])


def _probabilities(logits: Tensor, *, multi_label: bool, average_logits: bool) -> tuple[Tensor, Tensor]:
    """float32 (B, V, K) -> probs (B, V, K) and mean (B, K) as in ViewScores: softmax, or sigmoid when multi_label.

    Where the logits hold nan or +inf, so do the probabilities hold nan; -inf is the logit of a class that is ruled out.
    """
    if multi_label:  # a softmax makes nan of +inf by itself
        logits = logits.masked_fill(logits == torch.inf, torch.nan)

    def squashed(values: Tensor) -> Tensor:
        return values.sigmoid() if multi_label else values.softmax(-1)

    probs = squashed(logits)
    return probs, squashed(logits.mean(1)) if average_logits else probs.mean(1)
