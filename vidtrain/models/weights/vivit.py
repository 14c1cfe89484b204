"""ViViT (model 1) as Hugging Face keeps it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from vidtrain.models.layers.position_tables import likely_grid
from vidtrain.models.weights import hugging_face
from vidtrain.models.weights.expected_clips import HALF, clips
from vidtrain.models.weights.layout import Fit, Layout, Shapes, State, always, any_key, rename, shapes_of
from vidtrain.models.weights.vit_names import HUGGING_FACE, merged, read_options

_PUBLISHED = {"tubelet": 2, "patch": 16, "width": 768, "depth": 12, "heads": 12, "mlp_ratio": 4.0}

_PUBLISHED_ROWS = 16 * 14 * 14


def _translate(state: State) -> State:
    # a pooling layer that the port keeps and no logit depends on
    rest = {key: tensor for key, tensor in state.items() if not key.startswith("vivit.pooler.")}
    return merged(rename(rest, HUGGING_FACE))


def _fit(ours: Shapes) -> Fit:
    options: dict[str, Any] = read_options(ours, _PUBLISHED)
    tubelet, patch = ours["patch_embed.proj.weight"][2], ours["patch_embed.proj.weight"][-1]
    time, side, _ = likely_grid(ours["pos_embed"][1] - 1)
    return "vivit", {**options, "num_frames": time * tubelet, "size": side * patch}


def _notes(state: Mapping[str, torch.Tensor], model: nn.Module) -> Sequence[str]:
    """The grid of the table of positions, where several have so many rows."""
    ours = shapes_of(_translate(dict(state)))
    rows, (tubelet, patch) = ours["pos_embed"][1] - 1, ours["patch_embed.proj.weight"][2:4]
    if rows == _PUBLISHED_ROWS or sum(rows % side**2 == 0 for side in range(1, math.isqrt(rows) + 1)) == 1:
        return ()
    time, side, _ = likely_grid(rows)
    return (
        f"the file does not tell how its {rows} positions lie: assumed are {time} x {side} x {side}, of clips with "
        f"sampler.num_frames={time * tubelet} transform.size={side * patch}",
    )


LAYOUTS: tuple[Layout, ...] = (
    Layout.translated(
        _fit,
        "Hugging Face ViViT",
        lambda shapes: any_key(shapes, r"vivit\.embeddings\."),
        _translate,
        notes=_notes,
        expects=always(HALF | clips(32, 2, 224, 256)),
        stated=hugging_face.stated,
    ),
)
