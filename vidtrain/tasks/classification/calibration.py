"""Whether probabilities mean what they say: of the answers given with 0.8, eight in ten should be right."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from torch import Tensor

BINS: Final = 15
"""Of equal width, as Guo et al. 2017 have them."""


def reliability(probs: Tensor, labels: Tensor) -> list[dict[str, Any]]:
    """BINS rows of plain values: low and high, the ends of the bin; count, how many answers have a confidence above low
    and up to high; confidence and accuracy, their means, None of an empty bin.

    One class per video (labels int64 (n,)): an answer is the most probable class. Several (labels (n, K)): each pair of
    a video and a class is one, its confidence the probability, its accuracy whether the video has the class.
    """
    if labels.ndim == 2:
        confidence, right = probs.flatten(), labels.flatten() > 0
    else:
        confidence, best = probs.max(1)
        right = best == labels
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
