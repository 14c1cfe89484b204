"""What a Predictor answers about a video."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from vidtrain.errors import VideoError
from vidtrain.tasks.classification.calibration import UNKNOWN


@dataclass(frozen=True)
class Prediction:
    """What a network says of one video.

    top: the most probable classes with their probabilities, the best first. probabilities: float32 (K,), of all classes
    in the order of class_names; of a multi-label network they do not sum to 1. rejected: the best is less probable than
    the threshold of the checkpoint's calibration. error: why there are none.
    """

    path: str
    top: list[tuple[str, float]] = field(default_factory=list)
    probabilities: Tensor = field(default_factory=lambda: torch.empty(0), repr=False, compare=False)
    rejected: bool = False
    error: str | None = None

    @property
    def label(self) -> str:
        """The most probable class, or "unknown"; raises VideoError where the video could not be read."""
        return UNKNOWN if self.rejected else self._best[0]

    @property
    def probability(self) -> float:
        """That of the most probable class."""
        return self._best[1]

    @property
    def _best(self) -> tuple[str, float]:
        if self.error is not None:
            raise VideoError(self.path, self.error)
        return self.top[0]

    def __str__(self) -> str:
        said = ", ".join(f"{name} {p:.4f}" for name, p in self.top) if self.error is None else self.error
        return f"{self.path}: {UNKNOWN} ({said})" if self.rejected else f"{self.path}: {said}"
