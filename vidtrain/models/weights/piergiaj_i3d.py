"""Inception I3D as piergiaj/pytorch-i3d keeps it. Our layers have its names; only the head is a convolution there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vidtrain.models.layers.inception import FULL_WIDTH
from vidtrain.models.weights.expected_clips import HALF, Expects
from vidtrain.models.weights.layout import Fit, Layout, Shapes, State, any_key, classes, rename

_STEM = "Conv3d_1a_7x7.conv3d.weight"


def i3d_fit(shapes: Shapes, stem: str, head: str) -> Fit:
    """The options of i3d that its first convolution and its head tell."""
    width, channels = shapes[stem][:2]
    options: dict[str, int] = classes(shapes, head)
    if channels != 3:
        options["in_channels"] = channels
    if width != FULL_WIDTH:
        options["width"] = width
    return "i3d", options


def i3d_expects(name: str, options: Mapping[str, Any]) -> Expects:
    """RGB in [-1, 1] at 25 frames per second; flow has no colours."""
    found = Expects(num_frames=64, fps=25.0, size=224, resize=256)
    return found if options.get("in_channels", 3) != 3 else HALF | found


def linear_head(state: State, head: str) -> State:
    """The head's weight (K, D, 1, 1, 1) as (K, D)."""
    weight = f"{head}.weight"
    return {key: t.flatten(1) if key == weight and t.shape[2:].numel() == 1 else t for key, t in state.items()}


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        name="piergiaj I3D",
        matches=lambda shapes: _STEM in shapes and any_key(shapes, r"Mixed_\w\w\.b1a\.conv3d\."),
        model=lambda shapes: i3d_fit(shapes, _STEM, "logits.conv3d.weight"),
        translate=lambda state, model: linear_head(rename(state, [(r"^logits\.conv3d\.", "logits.")]), "logits"),
        expects=i3d_expects,
    ),
)
