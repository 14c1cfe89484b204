"""Whether probabilities mean what they say: of the answers given with 0.8, eight in ten should be right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vidtrain.errors import CheckpointError
from vidtrain.untrusted_data import as_dataclass

LOWEST: Final = 0.05
HIGHEST: Final = 20.0
"""Temperatures beyond would say that the network knows everything, or nothing."""
UNKNOWN: Final = "unknown"
"""The answer below the threshold."""
BINS: Final = 15
"""Of equal width, as Guo et al. 2017 have them."""


def reliability(probs: Tensor, labels: Tensor) -> list[dict[str, Any]]:
    """BINS rows of plain values: low and high, the ends of the bin; count, how many answers have a confidence above low
    and up to high; confidence and accuracy, their means, None of an empty bin.

    One class per video (labels int64 (n,)): an answer is the most probable class. Several (labels (n, K)): each pair of
    a video and a class is one, its confidence the probability, its accuracy whether the video has the class.
    """
    several = labels.ndim == 2
    confidence, right = (probs.flatten(), labels.flatten() > 0) if several else answers(probs, labels)
    edges = np.linspace(0.0, 1.0, BINS + 1)
    place = np.searchsorted(edges[1:-1], confidence.double().numpy(), "left")
    counts = np.bincount(place, minlength=BINS)
    sums = [np.bincount(place, x.double().numpy(), minlength=BINS) for x in (confidence, right)]
    means = [np.divide(total, counts, where=counts > 0, out=np.full(BINS, np.nan)) for total in sums]
    return [
        {
            "low": float(edges[k]),
            "high": float(edges[k + 1]),
            "confidence": float(means[0][k]) if counts[k] else None,
            "accuracy": float(means[1][k]) if counts[k] else None,
            "count": int(counts[k]),
        }
        for k in range(BINS)
    ]


def expected_calibration_error(bins: list[dict[str, Any]]) -> float:
    """The mean distance of confidence and accuracy over the answers of `reliability`; nan without one."""
    total = sum(one["count"] for one in bins)
    gaps = (one["count"] * abs(one["confidence"] - one["accuracy"]) for one in bins if one["count"])
    return sum(gaps) / total if total else float("nan")


def calibration_error(probs: Tensor, labels: Tensor) -> float:
    return expected_calibration_error(reliability(probs, labels))


# ---------------------------------------------------------------- what is chosen on the validation split


@dataclass(frozen=True)
class Calibration:
    """What a checkpoint keeps of a calibration; None: not chosen.

    temperature: by which the logarithms of the averaged probabilities are divided. threshold: an answer whose
    probability is lower is "unknown"; wanted_precision: of the other answers, on val. cutoff: the classes that are at
    least so probable are the prediction set; wanted_coverage: the share of sets that hold the class. protocol: by which
    clips and crops the probabilities were made, videos: of how many.
    """

    temperature: float | None = None
    threshold: float | None = None
    wanted_precision: float | None = None
    cutoff: float | None = None
    wanted_coverage: float | None = None
    protocol: str = ""
    videos: int = 0

    @classmethod
    def of(cls, stored: Any) -> Calibration:
        """What `asdict` made of one, as a checkpoint of anybody's holds it; None: no calibration.

        Raises:
            CheckpointError: it is something else.
        """
        if stored is None:
            return cls()
        try:
            found = as_dataclass(cls, stored)
        except ValueError as error:
            raise CheckpointError(f"the checkpoint's calibration cannot be used: {error}") from None
        shares = (found.threshold, found.wanted_precision, found.cutoff, found.wanted_coverage)
        if not all(share is None or 0 <= share <= 1 for share in shares):
            raise CheckpointError("the checkpoint's calibration cannot be used: a share outside of 0 to 1")
        if found.temperature is not None and not LOWEST / 2 <= found.temperature <= 2 * HIGHEST:
            raise CheckpointError(f"the checkpoint's calibration cannot be used: temperature {found.temperature}")
        return found

    @property
    def at_its_bound(self) -> bool:
        """The temperature is about the lowest or the highest that is tried, as without a wrong or a right answer."""
        return self.temperature is not None and not 1.2 * LOWEST < self.temperature < HIGHEST / 1.2

    def apply(self, probs: Tensor, *, multi_label: bool) -> Tensor:
        """float32 (..., K): the probabilities at the temperature; as they are without one."""
        if self.temperature is None:
            return probs
        scaled = _logits(probs, multi_label=multi_label) / self.temperature
        return (scaled.sigmoid() if multi_label else scaled.softmax(-1)).float()

    def rejects(self, probs: Tensor) -> Tensor:
        """bool (...,): the answer to probabilities (..., K) is "unknown"."""
        best = probs.amax(-1)
        return torch.zeros_like(best, dtype=torch.bool) if self.threshold is None else best < self.threshold


UNCALIBRATED: Final = Calibration()


def fit_temperature(probs: Tensor, labels: Tensor) -> float:
    """The temperature in [LOWEST, HIGHEST] of the lowest negative log-likelihood, to a relative 1e-6.

    probs: float32 (n, K), averaged over views in whatever way. labels: int64 (n,), or (n, K) of 0 and 1. The likelihood
    is convex in 1 / temperature, so a golden-section search finds the one minimum.
    """
    several = labels.ndim == 2
    logits = _logits(probs, multi_label=several)

    def loss(inverse: float) -> float:
        scaled = logits * inverse
        if several:
            return F.binary_cross_entropy_with_logits(scaled, labels.double()).item()
        return F.cross_entropy(scaled, labels).item()

    low, high, ratio = math.log(1 / HIGHEST), math.log(1 / LOWEST), (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = loss(math.exp(left)), loss(math.exp(right))
    while high - low > 1e-6:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = loss(math.exp(left))
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = loss(math.exp(right))
    return math.exp(-(low + high) / 2)


def rejection_curve(confidence: Tensor, right: Tensor) -> list[tuple[float, float, float]]:
    """(threshold, coverage, precision) for every confidence that occurs, from the highest: of the answers with at least
    that confidence their share of all n, and the share of them that is right. confidence: (n,). right: bool (n,)."""
    values, order = confidence.double().sort(descending=True)
    last = torch.ones_like(order, dtype=torch.bool)
    last[:-1] = values[:-1] != values[1:]
    kept = torch.arange(1, len(order) + 1)[last]
    precision = right[order].double().cumsum(0)[last] / kept
    return list(zip(values[last].tolist(), (kept / len(order)).tolist(), precision.tolist(), strict=True))


def choose_threshold(confidence: Tensor, right: Tensor, wanted: float) -> float | None:
    """The lowest threshold at which the precision of the other answers is as wanted, or above; None: there is none."""
    fitting = [threshold for threshold, _, precision in rejection_curve(confidence, right) if precision >= wanted]
    return min(fitting, default=None)


def choose_cutoff(probs: Tensor, labels: Tensor, wanted: float) -> float:
    """The probability from which on a class belongs to the prediction set, so that a share `wanted` of the sets of new
    videos hold the class: split conformal prediction (Sadinle et al. 2019, least ambiguous sets).

    probs: (n, K). labels: int64 (n,). 0, which takes all classes, where n is too small to promise it.
    """
    own = probs.double().gather(1, labels[:, None])[:, 0].sort(descending=True).values
    rank = math.ceil((len(own) + 1) * wanted)
    return float(own[rank - 1]) if rank <= len(own) else 0.0


def answers(probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) each: the probability of the most probable class, and whether the video has that class."""
    confidence, best = probs.max(1)
    return confidence, labels.gather(1, best[:, None])[:, 0] > 0 if labels.ndim == 2 else best == labels


def _logits(probs: Tensor, *, multi_label: bool) -> Tensor:
    """float64: what makes these probabilities by a softmax, or a sigmoid. Those of 0 and 1 are taken for float32's
    nearest ones."""
    probs = probs.double()
    tiny, eps = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).eps
    return torch.logit(probs.clamp(tiny, 1 - eps / 2)) if multi_label else probs.clamp_min(tiny).log()
