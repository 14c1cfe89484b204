"""Is a map faithful? Take away what it marks, and see whether the class loses more than by as much elsewhere (Petsiuk
et al. 2018, "RISE", deletion; Samek et al. 2017, against random regions)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vidtrain.explain.score import ClassScore, Fill, Inputs, filling, without

SHARE = 0.2
"""Of the clip's pixels, over space and time, are taken away."""
DRAWS = 8


@dataclass(frozen=True)
class Deletion:
    """Probabilities of the class: of the whole clip; without the `share` of it that the map marks most; and the mean
    without as much elsewhere."""

    share: float
    whole: float
    without_marked: float
    without_random: float

    @property
    def faithful(self) -> bool:
        return self.without_marked < self.without_random

    @property
    def gain(self) -> float:
        """How much more of the probability is lost with what is marked than with as much elsewhere."""
        return self.without_random - self.without_marked

    def __str__(self) -> str:
        return (
            f"without the {self.share:.0%} that it marks most: {self.without_marked:.4f}; "
            f"without as much elsewhere: {self.without_random:.4f}"
        )


def deletion(
    score: ClassScore,
    inputs: Inputs,
    map_: Tensor,
    *,
    share: float = SHARE,
    fill: Fill = Fill.mean,
    draws: int = DRAWS,
    batch_size: int = 8,
) -> Deletion:
    """Take away what `map_` (T, H, W) marks.

    What is taken away elsewhere is the same mask, shifted round the clip by `draws` random distances in time, height
    and width: as large, as many pieces of the same form. The distances are the same in every call.
    """
    mask = marked(map_, share)
    generator = torch.Generator().manual_seed(0)
    shifts = [[int(torch.randint(n, (), generator=generator)) for n in mask.shape] for _ in range(draws)]
    masks = torch.stack([mask, *(mask.roll(shift, (0, 1, 2)) for shift in shifts)])
    filled = filling(inputs, fill)
    parts = [score.log_prob(without(inputs, part, filled)) for part in masks.split(batch_size)]
    probs = torch.cat(parts).exp()
    return Deletion(share, score.log_prob(inputs).exp().item(), probs[0].item(), probs[1:].mean().item())


def marked(map_: Tensor, share: float) -> Tensor:
    """bool (T, H, W), true for the `share` of the pixels with the largest values."""
    count = max(1, round(share * map_.numel()))
    mask = torch.zeros(map_.numel(), dtype=torch.bool, device=map_.device)
    mask[map_.flatten().topk(count).indices] = True
    return mask.view(map_.shape)
