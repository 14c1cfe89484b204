"""What the methods ask of a network, and the boxes and masks of a clip that they take away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidtrain.ranges import Choice

Inputs = dict[str, Tensor]
"""One clip as the network reads it: "rgb" float (1, 3, T, H, W), beside it "flow" (1, 2, T - 1, H, W)."""


class Fill(Choice):
    mean = "mean"
    still = "still"


@dataclass(frozen=True)
class ClassScore:
    """The output of a network for one class.

    model: in eval mode. call: inputs of N clips -> logits (N, K). target: the class. multi_label: its probability is
    the sigmoid of its logit, not the softmax. temperature: by which the logits of a probability are divided.
    """

    model: nn.Module
    call: Callable[[Mapping[str, Tensor]], Tensor]
    target: int
    multi_label: bool = False
    temperature: float = 1.0

    def logit(self, inputs: Inputs) -> Tensor:
        """float32 (N,), with a gradient."""
        return self.call(inputs).float()[:, self.target]

    def log_prob(self, inputs: Inputs) -> Tensor:
        """The logarithm of the class's probability, float32 (N,), without a gradient."""
        with torch.no_grad():
            logits = self.call(inputs).float() / self.temperature
        logs = F.logsigmoid(logits) if self.multi_label else logits.log_softmax(1)
        return logs[:, self.target]


def clip_shape(inputs: Inputs) -> tuple[int, int, int]:
    """(T, H, W)."""
    frames, height, width = inputs["rgb"].shape[2:]
    return frames, height, width


def filling(inputs: Inputs, fill: Fill) -> Inputs:
    """What stands where something is taken away, in the shape of the clip; flow is still in both.

    mean: the mean colour of the clip. still: each pixel's own mean over time, so that only what moves is taken away.
    """
    rgb = inputs["rgb"]
    over = (2, 3, 4) if fill == Fill.mean else (2,)
    found = {"rgb": rgb.mean(over, keepdim=True).expand_as(rgb)}
    return {name: found[name] if name in found else torch.zeros_like(value) for name, value in inputs.items()}


def without(inputs: Inputs, masks: Tensor, filled: Inputs) -> Inputs:
    """N copies of a clip, each without what its mask marks.

    A field of flow lies between two frames and goes with the first of them.

    Args:
        masks: bool (N, T, H, W). filled: as `filling` gives it.
    """
    found = {}
    for name, value in inputs.items():
        own = masks[:, None, : value.shape[2]]
        found[name] = torch.where(own, filled[name], value)
    return found


def resized(map_: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """(T', H', W') -> (T, H, W), trilinear."""
    return F.interpolate(map_[None, None], size=shape, mode="trilinear", align_corners=False)[0, 0]


def to_unit_range(map_: Tensor) -> Tensor:
    """The map with its smallest value at 0 and its largest at 1; one that is the same everywhere becomes 0."""
    low, high = map_.min(), map_.max()
    return (map_ - low) / (high - low) if high > low else torch.zeros_like(map_)
