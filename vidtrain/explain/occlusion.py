"""Occlusion: by how much the class loses when a box of the clip is taken away (Zeiler and Fergus 2014, "Visualizing and
Understanding Convolutional Networks", here over space and time). Asks the network, not its inside, so it holds for any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor

from vidtrain.explain.score import ClassScore, Fill, Inputs, clip_shape, filling, without

Box = tuple[slice, slice, slice]


def occlusion(
    score: ClassScore,
    inputs: Inputs,
    *,
    window: tuple[int, int] | None = None,
    fill: Fill = Fill.mean,
    batch_size: int = 8,
    each: Callable[[int], None] | None = None,
) -> Tensor:
    """One clip -> float32 (T, H, W) >= 0: the mean loss of log probability over the boxes that cover a pixel.

    Boxes overlap by half. Where the class gains by losing a box, that box speaks against it and counts as 0.

    Args:
        window: frames and pixels of a box's sides; None: `usual_window`. fill: what a box is filled with.
        batch_size: clips per forward pass. each: called after every box with their number.
    """
    shape = clip_shape(inputs)
    device = inputs["rgb"].device
    filled = filling(inputs, fill)
    whole = score.log_prob(inputs)
    lost, covered = torch.zeros(shape, device=device), torch.zeros(shape, device=device)
    boxes = list(boxes_of(shape, window or usual_window(shape)))
    for at in range(0, len(boxes), batch_size):
        part = boxes[at : at + batch_size]
        masks = torch.zeros(len(part), *shape, dtype=torch.bool, device=device)
        for mask, box in zip(masks, part, strict=True):
            mask[box] = True
        drops = (whole - score.log_prob(without(inputs, masks, filled))).clamp_min(0)
        for box, drop in zip(part, drops, strict=True):
            lost[box] += drop
            covered[box] += 1
            if each is not None:
                each(len(boxes))
    return lost / covered


def usual_window(shape: tuple[int, int, int]) -> tuple[int, int]:
    """A quarter of the frames, and of the shorter side: 343 boxes in a square clip."""
    frames, height, width = shape
    return max(1, round(frames / 4)), max(1, round(min(height, width) / 4))


def boxes_of(shape: tuple[int, int, int], window: tuple[int, int]) -> Iterator[Box]:
    """Boxes of window[0] frames and window[1] x window[1] pixels that cover the clip, half a box apart."""
    sides = (window[0], window[1], window[1])
    yield from product(*(_steps(length, min(side, length)) for length, side in zip(shape, sides, strict=True)))


def _steps(length: int, side: int) -> list[slice]:
    """From the first position to the last, at most half a side apart and evenly."""
    hop = max(1, side // 2)
    count = -(-(length - side) // hop) + 1
    starts = torch.linspace(0, length - side, count).round().int().tolist()
    return [slice(start, start + side) for start in starts]
