"""What happens when: trained on windows of untrimmed videos or on features of whole ones, scored over whole ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from vidtrain.errors import ConfigError, did_you_mean, one_of
from vidtrain.ranges import LONGEST, Range
from vidtrain.segments import Annotated as WhatHappens
from vidtrain.segments import Floats, Windows
from vidtrain.sequences import Sequences
from vidtrain.tasks.classification.calibration import UNCALIBRATED
from vidtrain.tasks.classification.class_imbalance import focal_binary_cross_entropy, focal_cross_entropy
from vidtrain.tasks.segments.found_segments_csv import SegmentsFile
from vidtrain.tasks.segments.from_points import candidates, detection_loss, place_in_time, point_hits, soft_nms
from vidtrain.tasks.segments.from_windows import averaged, find_segments
from vidtrain.tasks.segments.scores import TITLES, SegmentScores
from vidtrain.tasks.settings import SegmentsConfig
from vidtrain.tasks.task import Forward, Predictions
from vidtrain.types import Batch

_LEAST = 1e-4  # of a probability in a loss
_ACTIVATIONS = ("sigmoid", "softmax")


class Segments:
    """Segments of untrimmed videos; see tasks/task.py. Classes may overlap, and where nothing happens there is none.

    A classifier gives logits (N, K) of windows: it is trained on windows whose centres say what happens, and slides
    over a video in a test. Each class stands by itself (sigmoid), or they exclude each other and nothing is one of them
    (softmax with a background class, whose logit is 0: what is added to all logits changes no softmax). A network with
    `points` (models/segment_head.py) reads the features of a whole video, and gives segments of its own.

    Args:
        activation: of a classifier's windows, sigmoid or softmax.
        focal_gamma: the exponent of a focal loss for a classifier's windows, 0: none.
        label_smoothing: share by which the targets of windows move towards 1/2.
        smoothing, threshold, min_seconds, merge_seconds: how windows become segments, see SegmentsConfig.
        most_segments: that a network with points gives for a video.
        least_score: of those of them that count in what is scored frame by frame.
        overlap: of soft suppression of its segments, the sigma of Bodla et al. 2017.
    """

    untrimmed = True
    titles: Mapping[str, str] = {**TITLES, "right": "window accuracy"}
    primary = "map_50"
    measures: Sequence[str] = ("right",)
    calibration = UNCALIBRATED

    def __init__(
        self,
        class_names: Sequence[str],
        multi_label: bool = True,
        *,
        activation: str = "sigmoid",
        focal_gamma: Annotated[float, Range(least=0, most=10)] = 0.0,
        label_smoothing: Annotated[float, Range(least=0, below=1)] = 0.0,
        smoothing: Annotated[float | None, Range(least=0, most=LONGEST)] = None,
        threshold: Annotated[float, Range(least=0, most=1)] = 0.5,
        min_seconds: Annotated[float, Range(least=0, most=LONGEST)] = 0.0,
        merge_seconds: Annotated[float, Range(least=0, most=LONGEST)] = 0.0,
        most_segments: Annotated[int, Range(least=1, most=10_000)] = 200,
        least_score: Annotated[float, Range(least=0, most=1)] = 0.25,
        overlap: Annotated[float, Range(above=0, most=10)] = 0.5,
    ) -> None:
        if not multi_label:
            raise ConfigError("task=segments: this checkpoint or dataset has one class per video, and no times")
        if activation not in _ACTIVATIONS:
            hint = did_you_mean(activation, _ACTIVATIONS)
            raise ConfigError(f"task.activation={activation}: expected {one_of(_ACTIVATIONS)}{hint}")
        self.class_names, self.multi_label = list(class_names), activation == "sigmoid"
        self.focal_gamma, self.label_smoothing = focal_gamma, label_smoothing
        self.most_segments, self.least_score, self.overlap = most_segments, least_score, overlap
        self.config = SegmentsConfig(
            smoothing=smoothing, threshold=threshold, min_seconds=min_seconds, merge_seconds=merge_seconds
        )

    def loss(self, network: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        found, targets = network(batch.inputs), batch.targets
        if isinstance(targets, Sequences):
            self._check_points(found)
            videos = [WhatHappens.of(table.cpu().numpy()) for table in targets.each()]
            loss, labels = detection_loss(found, videos, len(self.class_names))
            return loss, {"right": point_hits(found, labels)}
        logits = found.float()
        loss = self._loss_of_windows(logits, targets, self.focal_gamma, self.label_smoothing)
        return loss, {"right": self._right(logits.detach(), targets)}

    def _loss_of_windows(self, logits: Tensor, targets: Tensor, gamma: float = 0.0, smoothing: float = 0.0) -> Tensor:
        """The mean over windows; logits (N, K), targets of 0 and 1 (N, K)."""
        if self.multi_label:
            smooth = targets * (1 - smoothing) + smoothing / 2
            if gamma > 0:
                return focal_binary_cross_entropy(logits, smooth, gamma, None)
            return F.binary_cross_entropy_with_logits(logits, smooth)
        shares = _with_background(targets)
        shares = shares * (1 - smoothing) + smoothing / shares.shape[1]
        return focal_cross_entropy(_with_nothing(logits), shares, gamma, None)

    def _right(self, logits: Tensor, targets: Tensor) -> Tensor:
        """bool (N,): all that happens in the middle of the window, and nothing else; softmax: one of what happens."""
        if self.multi_label:
            return ((logits > 0) == (targets > 0)).all(1)
        answers = _with_nothing(logits).argmax(1, keepdim=True)
        return _with_background(targets).gather(1, answers)[:, 0] > 0

    def _check_points(self, found: Any) -> None:
        if not isinstance(found, Mapping) or "points" not in found:
            raise ConfigError("task=segments on features of whole videos requires a network with points: segment_head")

    def predict(self, network: Forward, inputs: Mapping[str, Any]) -> Tensor:
        """Logits float32 (N, K) of windows, or of whole videos candidates float32 (N, most_segments, 4)."""
        found = network(inputs)
        if isinstance(found, Mapping):
            self._check_points(found)
            return candidates(found, self.most_segments)
        logits: Tensor = found.float()
        return logits

    def probabilities(self, views: Tensor) -> Tensor:
        """float32 (B, K) of windows: logits (B, V, K), averaged over the views as probabilities."""
        return self._activated(views).mean(1)

    def _activated(self, logits: Tensor) -> Tensor:
        return logits.sigmoid() if self.multi_label else _with_nothing(logits).softmax(-1)[..., :-1]

    def columns(self, views: Tensor, targets: Any, average: str) -> dict[str, Any]:
        """Of B videos: see SegmentScores. views: logits (B, V, K) of V windows, or candidates (B, 1, M, 4)."""
        if not isinstance(targets, Sequences):
            raise ConfigError("a network for task=segments is asked about whole videos: give timeline=true")
        videos = [WhatHappens.of(table.numpy()) for table in targets.each()]
        rows = [
            self._of_candidates(own[0], video) if views.ndim == 4 else self._of_windows(own, video)
            for own, video in zip(views, videos, strict=True)
        ]
        return {
            "truth": Sequences.of([torch.from_numpy(video.truth.reshape(-1, 3)) for video in videos]),
            "found": Sequences.of([table for table, _, _ in rows]),
            "seconds": torch.tensor([video.seconds for video in videos], dtype=torch.float64),
            "least": torch.full((len(videos),), self.least_score if views.ndim == 4 else 0.0, dtype=torch.float64),
            "highest": torch.tensor([highest for _, _, highest in rows], dtype=torch.float64),
            "loss": torch.stack([loss for _, loss, _ in rows]),
        }

    def _of_windows(self, logits: Tensor, video: WhatHappens) -> tuple[Tensor, Tensor, float]:
        """Of logits (V, K): segments float64 (k, 4), the loss of the windows and the highest averaged probability."""
        probs = self._activated(logits)
        starts, ends = video.windows.T
        windows = Windows(starts, ends, probs.numpy(), np.arange(len(starts)))
        finite = bool(logits.isfinite().all())
        segments = find_segments(windows, self.class_names, self.config, multi_label=self.multi_label) if finite else []
        number = {name: n for n, name in enumerate(self.class_names)}
        table = [(s.start, s.end, float(number[s.label]), s.score) for s in segments]
        loss = self._loss_of_windows(logits, self._at_centres(video))
        highest = float(averaged(windows, self.config).max()) if finite else math.nan
        return torch.tensor(table, dtype=torch.float64).reshape(-1, 4), loss, highest

    def _at_centres(self, video: WhatHappens) -> Tensor:
        """float32 (V, K): what happens in the middle of each window."""
        found = torch.zeros(len(video.windows), len(self.class_names))
        for start, end, label in video.truth.tolist():
            found[torch.from_numpy((video.grid >= start) & (video.grid < end)), int(label)] = 1
        return found

    def _of_candidates(self, table: Tensor, video: WhatHappens) -> tuple[Tensor, Tensor, float]:
        """As `_of_windows`, of candidates (M, 4); the loss is that of the best score of each class at each window."""
        segments, best = self.of_candidates(table, video)
        loss = F.binary_cross_entropy(torch.from_numpy(best.clip(_LEAST, 1 - _LEAST)), self._at_centres(video))
        if not np.isfinite(table.numpy()).all():
            loss = loss * torch.nan
        return torch.from_numpy(segments), loss, float(best.max())

    def of_candidates(self, table: Tensor, video: WhatHappens) -> tuple[Floats, npt.NDArray[np.float32]]:
        """What a network with points says of a video, of candidates (M, 4) as `predict` gives them.

        Returns:
            (segments float64 (k, 4): start, end in seconds, class, score, the best first; float32 (V, K): the best
            score of each class in the middle of each window.)
        """
        placed = place_in_time(table.double().numpy(), video)
        best = np.zeros((len(video.windows), len(self.class_names)), np.float32)
        for start, end, label, score in placed.tolist():
            inside = (video.grid >= start) & (video.grid < end)
            best[inside, int(label)] = np.maximum(best[inside, int(label)], score)
        return soft_nms(placed, self.overlap), best

    def scores(self, predictions: Predictions) -> SegmentScores:
        return SegmentScores(predictions, self.class_names, self.config)

    def file(self, file: Path, paths: Sequence[str], top: int = 5) -> SegmentsFile:
        return SegmentsFile(file, paths, self.class_names)

    def lines(self, predictions: Predictions, top: int) -> list[str]:
        """'walk 1.50-4.25 (0.93), run 5.00-7.10 (0.88)': the `top` best of each video, by their start."""
        said = []
        for table in predictions.columns["found"].each():
            best = sorted(sorted(table.tolist(), key=lambda row: -row[3])[:top])
            names = (f"{self.class_names[int(k)]} {s:.2f}-{e:.2f} ({score:.2f})" for s, e, k, score in best)
            said.append(", ".join(names) or "nothing")
        return said

    def describe(self) -> dict[str, Any]:
        return {"class_names": self.class_names, "multi_label": True}  # of the dataset, whatever the activation

    def random_targets(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(0, 2, (count, len(self.class_names)), generator=generator).float()


def _with_nothing(logits: Tensor) -> Tensor:
    """(..., K) -> (..., K + 1): the last one, of the background, is 0."""
    return F.pad(logits, (0, 1))


def _with_background(targets: Tensor) -> Tensor:
    """(N, K) of 0 and 1 -> shares (N, K + 1) that add up to 1: of what happens at once each the same, else nothing."""
    both = torch.cat([targets, 1 - targets.amax(1, keepdim=True)], 1)
    return both / both.sum(1, keepdim=True)
