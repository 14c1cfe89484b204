"""What a model reads: the shapes of one example, for counting and for looking at it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from torch import nn

Value = TypeVar("Value")


def input_shapes(model: nn.Module, num_frames: int, size: int) -> dict[str, tuple[int, int, int, int]]:
    """(C, T, H, W) of each input, by name: "rgb" alone, unless the model says by `inputs` that it reads flow, too."""
    shapes = {"rgb": (getattr(model, "in_channels", 3), num_frames, size, size)}
    if "flow" in getattr(model, "inputs", ()):
        shapes["flow"] = (2, num_frames - 1, size, size)
    return shapes


def as_input(values: Mapping[str, Value]) -> Value | dict[str, Value]:
    """What the model is called with: the value itself, or a dict of several."""
    return dict(values) if len(values) > 1 else next(iter(values.values()))
