"""Scores as a test finds them, from probabilities and labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vidtrain.tasks.classification.scores import ClassScores
from vidtrain.tasks.task import Predictions


def scores_of(
    probs: Tensor, labels: Tensor, loss: float = 0.5, *, hits: Tensor | None = None, not_finite: Sequence[int] = ()
) -> ClassScores:
    """Of videos 0, 1, ...; hits: clip_hits, all right by themselves where None."""
    predictions = Predictions({}, torch.arange(len(probs)), not_finite=list(not_finite))
    shares = torch.ones(len(probs)).double() if hits is None else hits
    return ClassScores(probs, labels, shares, loss, predictions, [f"class {n}" for n in range(probs.shape[1])])
