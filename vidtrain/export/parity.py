"""Whether an exported file gives what the network gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vidtrain.types import split_inputs

Ask = Callable[[Mapping[str, Tensor]], Tensor]
"""Inputs by name, uint8 (N, T, H, W, C) each -> logits (N, K)."""


@dataclass(frozen=True)
class Parity:
    """What two networks make of the same clips.

    clips: how many; with unit="answers" how many answers to streams.
    logits, probs: the largest difference of one number. std: the standard deviation of all the original's logits.
    same: clips whose most probable class is the same. finite: neither has a nan or an infinity.
    """

    clips: int
    logits: float
    probs: float
    std: float
    same: int
    finite: bool
    unit: str = "clips"

    @property
    def relative(self) -> float:
        """The largest difference of a logit in standard deviations of the logits."""
        return self.logits / self.std if self.std > 0 else float("inf") if self.logits > 0 else 0.0

    def within(self, tolerance: float) -> bool:
        return self.finite and self.relative <= tolerance

    def __str__(self) -> str:
        return (
            f"logits differ by {self.logits:.1e} at most, {self.relative:.1e} of their standard deviation, "
            f"probabilities by {self.probs:.1e}; same class for {self.same} of {self.clips} {self.unit}"
        )


@torch.inference_mode()
def compare(original: Ask, exported: Ask, clips: Mapping[str, Tensor], *, multi_label: bool) -> Parity:
    """Ask both about the clips: of the exported the first by itself and the others several at once, so that a file
    which takes only one number of clips shows it."""
    total = len(next(iter(clips.values())))
    first, rest = ({name: value[part] for name, value in clips.items()} for part in (slice(0, 1), slice(1, None)))
    wanted = torch.cat([original(part).float() for part in split_inputs(clips, 8)])
    found = torch.cat([exported(first), *(exported(part) for part in split_inputs(rest, 5) if total > 1)])

    return parity_of(wanted, found, multi_label=multi_label)


def parity_of(wanted: Tensor, found: Tensor, *, multi_label: bool, unit: str = "clips") -> Parity:
    """Of logits (N, K), the original's and the exported's."""

    def probs_of(logits: Tensor) -> Tensor:
        return logits.sigmoid() if multi_label else logits.softmax(-1)

    return Parity(
        clips=len(wanted),
        logits=(wanted - found).abs().max().item(),
        probs=(probs_of(wanted) - probs_of(found)).abs().max().item(),
        std=wanted.double().std().item(),
        same=int((wanted.argmax(1) == found.argmax(1)).sum()),
        finite=bool(wanted.isfinite().all() and found.isfinite().all()),
        unit=unit,
    )
