"""Hiera for video as facebookresearch/hiera keeps it, fine-tuned or as it comes from pre-training (MAE), whose decoder
is skipped. Our names are its own but for the head's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from vidtrain.models.weights.expected_clips import IMAGENET, Expects, clips
from vidtrain.models.weights.layout import Fit, Layout, Rule, Shapes, State, always, any_key, classes, count, rename

_PUBLISHED: dict[
    tuple[int, tuple[int, ...]], tuple[str, int]
] = {  # (width, stages) -> (our name, attention heads of the first stage)
    (96, (2, 3, 16, 3)): ("hiera_b", 1),
    (112, (2, 3, 16, 3)): ("hiera_b_plus", 2),
    (144, (2, 6, 36, 4)): ("hiera_l", 2),
    (256, (2, 6, 36, 4)): ("hiera_h", 4),
}
_RULES: tuple[Rule, ...] = ((r"^head\.projection\.", "head."),)
_EXPECTS = IMAGENET | clips(16, 4, 224) | Expects(protocol="pyslowfast")
_PRETRAINING = ("decoder_", "mask_token", "multi_scale_fusion_heads.", "encoder_norm.")


def _stages(shapes: Shapes) -> tuple[int, tuple[int, ...]]:
    """Width of the first stage, and the blocks of each."""
    widths = [shapes[f"blocks.{i}.norm2.weight"][0] for i in range(count(shapes, r"blocks\.(\d+)\."))]
    return widths[0], tuple(widths.count(width) for width in dict.fromkeys(widths))


def _model(shapes: Shapes) -> Fit | None:
    width, stages = _stages(shapes)
    name, _ = _PUBLISHED.get((width, stages), ("hiera_b", 1))
    options: dict[str, Any] = {
        "num_frames": 2 * shapes["pos_embed_temporal"][1],
        "size": 4 * math.isqrt(shapes["pos_embed_spatial"][1]),
    }
    if (width, stages) not in _PUBLISHED:
        usual = {"width": 96, "stages": [2, 3, 16, 3], "pools": 3}
        found = {"width": width, "stages": list(stages), "pools": min(3, len(stages) - 1)}
        options |= {key: value for key, value in found.items() if value != usual[key]}
    ratio = shapes["blocks.0.mlp.fc1.weight"][0] / width
    if ratio != 4:
        options["mlp_ratio"] = ratio
    return name, {**options, **classes(shapes, "head.projection.weight")}


def _translate(state: State, model: nn.Module) -> State:
    ours = {key: tensor for key, tensor in rename(state, _RULES).items() if not key.startswith(_PRETRAINING)}
    if len(ours) < len(state):
        ours |= {key: tensor for key, tensor in model.state_dict().items() if key.startswith("norm.")}
    return ours


def _notes(state: Mapping[str, torch.Tensor], model: nn.Module) -> list[str]:
    notes = []
    if any(key.startswith(_PRETRAINING) for key in state):
        notes.append("a file of pre-training: its decoder and its norm are skipped, norm is re-initialised")
    heads = model.get_submodule("blocks.0.attn").heads
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    if _PUBLISHED.get(_stages(shapes), ("", 0))[1] != heads:
        notes.append(f"the file does not tell how many attention heads there are: assumed is model.heads={heads}")
    return notes


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        name="facebookresearch Hiera",
        matches=lambda shapes: (
            len(shapes.get("patch_embed.proj.weight", ())) == 5
            and any_key(shapes, r"pos_embed_spatial$")
            and any_key(shapes, r"blocks\.0\.attn\.qkv\.weight$")
            and not any_key(shapes, r"cls_token$|blocks\.\d+\.attn\.pool_")
        ),
        model=_model,
        translate=_translate,
        notes=_notes,
        expects=always(_EXPECTS),
    ),
)
