"""Video Swin as torchvision (whose names are ours), Video-Swin-Transformer and MMAction2 keep it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from vidtrain.models.weights.expected_clips import IMAGENET, Expects, clips
from vidtrain.models.weights.layout import Fit, Layout, Rule, Shapes, State, always, any_key, classes, count, rename

_INDEX = ".relative_position_index"
_PUBLISHED: dict[str, dict[str, Any]] = {
    "swin3d_t": {"width": 96, "depths": [2, 2, 6, 2], "heads": [3, 6, 12, 24]},
    "swin3d_s": {"width": 96, "depths": [2, 2, 18, 2], "heads": [3, 6, 12, 24]},
    "swin3d_b": {"width": 128, "depths": [2, 2, 18, 2], "heads": [4, 8, 16, 32]},
}
_RULES: tuple[Rule, ...] = (
    (r"^backbone\.", ""),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.3."),
    (r"^norm\d+\.", "norm."),
    (r"^cls_head\.fc_cls\.", "head."),
    *((rf"^layers\.{stage}\.blocks\.", f"features.{2 * stage}.") for stage in range(8)),
    *((rf"^layers\.{stage}\.downsample\.", f"features.{2 * stage + 1}.") for stage in range(8)),
)


def _weights(state: State) -> State:
    """Without the numbering of a window's positions, which is no weight."""
    return {key: tensor for key, tensor in state.items() if not key.endswith(_INDEX)}


def _upstream(state: State) -> State:
    return rename(_weights(state), _RULES)


def _fit(ours: Shapes) -> Fit | None:
    from vidtrain.models.swin3d import PATCH, WINDOW  # on torchvision, which is slow to import

    stem = ours["patch_embed.proj.weight"]
    if [*stem[2:]] != PATCH:
        return None
    stages = count(ours, r"features\.(\d+)\.\d+\.norm1\.")
    tables = [ours[f"features.{2 * s}.0.attn.relative_position_bias_table"] for s in range(stages)]
    found: dict[str, Any] = {
        "width": stem[0],
        "depths": [count(ours, rf"features\.{2 * s}\.(\d+)\.norm1\.") for s in range(stages)],
        "heads": [heads for _, heads in tables],
    }
    name = next((name for name, options in _PUBLISHED.items() if options == found), "swin3d_t")
    options = {key: value for key, value in found.items() if _PUBLISHED[name][key] != value}
    window = _window(tables[0][0])
    if window is None:
        return None
    if tuple(window) != WINDOW:
        options["window"] = window
    return name, {**options, **classes(ours, "head.weight")}


def _window(rows: int) -> list[int] | None:
    """[T, S, S] of a table with (2T - 1)(2S - 1)^2 rows; of several, that with S = 7, as published, or the largest."""
    sides = [s for s in (7, *range(math.isqrt(rows) // 2 + 1, 0, -1)) if rows % (2 * s - 1) ** 2 == 0]
    times = [(rows // (2 * side - 1) ** 2, side) for side in sides]
    return next(([(time + 1) // 2, side, side] for time, side in times if time % 2), None)


def _notes(state: Mapping[str, torch.Tensor], model: nn.Module) -> Sequence[str]:
    if any(key.endswith(_INDEX) for key in state):
        return (f"*{_INDEX} is skipped: the size of the window gives it",)
    return ()


_layout = partial(Layout.translated, _fit, notes=_notes)


def _tables(blocks: str) -> Callable[[Shapes], bool]:
    return lambda shapes: (
        any_key(shapes, blocks + r"\.attn\.relative_position_bias_table$")
        and any(len(shape) == 5 for key, shape in shapes.items() if key.endswith("patch_embed.proj.weight"))
    )


LAYOUTS: tuple[Layout, ...] = (
    _layout(
        "torchvision Video Swin",
        _tables(r"features\.0\.0"),
        _weights,
        expects=always(IMAGENET | Expects(num_frames=32, fps=15.0, size=224, resize=256, protocol="torchvision")),
    ),
    _layout(
        "Video-Swin-Transformer",
        _tables(r"(backbone\.)?layers\.0\.blocks\.0"),
        _upstream,
        expects=always(IMAGENET | clips(32, 2, 224) | Expects(protocol="mmaction2")),
    ),
)
