"""UniFormerV2 as OpenGVLab/UniFormerV2 and MMAction2 keep it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from vidtrain.models.weights.expected_clips import SLOWFAST, Expects, by_model
from vidtrain.models.weights.layout import Fit, Layout, Rule, Shapes, State, any_key, classes, count, rename
from vidtrain.models.weights.vit_names import size_of

_B16: dict[str, Any] = {
    "patch": 16,
    "width": 768,
    "depth": 12,
    "heads": 12,
    "mlp_ratio": 4.0,
    "read_after": 4,
    "decoder_mlp_ratio": 4.0,
    "balanced": True,
    "local": "none",
    "reduction": 1.5,
    "temporal_downsample": False,
}
_PUBLISHED: dict[tuple[int, bool], tuple[str, dict[str, Any]]] = {
    (768, False): ("uniformerv2_b16", _B16),
    (768, True): ("uniformerv2_b16_ssv2", {**_B16, "read_after": 8, "local": "both", "temporal_downsample": True}),
    (1024, False): ("uniformerv2_l14", {**_B16, "patch": 14, "width": 1024, "depth": 24, "heads": 16}),
}
"""By width, and whether there are convolutions in time."""
_RULES: tuple[Rule, ...] = (
    (r"^backbone\.", ""),
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "pos_embed"),
    (r"^ln_pre\.", "norm_pre."),
    (r"^transformer\.temporal_cls_token$", "query_token"),
    (r"^transformer\.(?:proj\.0|norm)\.", "norm."),
    (r"^(?:transformer\.proj\.2|cls_head\.fc_cls)\.", "head."),
    (r"^transformer\.resblocks\.", "blocks."),
    (r"^transformer\.dpe\.(\d+)\.", r"decoder.\1.neighbours."),
    (r"^transformer\.dec\.(\d+)\.attn\.", r"decoder.\1.xattn."),
    (r"^transformer\.dec\.", "decoder."),
    (r"^transformer\.balance$", "balance"),
    (r"\.lmhra([12])\.pos_embed\.", r".local\1."),
    (r"\.attn\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
    (r"attn\.out_proj\.", "attn.proj."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.ln_3\.", ".norm_tokens."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)


def _ours(state: Mapping[str, torch.Tensor]) -> State:
    names = rename(state, _RULES)
    for key in [key for key in names if ".xattn.in_proj_" in key]:
        stem, _, kind = key.rpartition("in_proj_")
        joined = names.pop(key)
        width = len(joined) // 3
        names[f"{stem}q.{kind}"], names[f"{stem}kv.{kind}"] = joined[:width], joined[width:]
    for key, dimensions in (("cls_token", 1), ("pos_embed", 2)):
        if key in names and names[key].ndim == dimensions:
            names[key] = names[key].view(1, -1, names[key].shape[-1])
    return names


def _fit(ours: Shapes) -> Fit:
    width, _, time, patch, _ = ours["conv1.weight"]
    locals_ = 1 + ("blocks.0.local2.0.weight" in ours) if "blocks.0.local1.0.weight" in ours else 0
    name, published = _PUBLISHED.get((width, locals_ > 0), _PUBLISHED[768, locals_ > 0])
    found: dict[str, Any] = {
        "patch": patch,
        "width": width,
        "depth": count(ours, r"blocks\.(\d+)\."),
        "mlp_ratio": round(ours["blocks.0.mlp.fc1.weight"][0] / width, 4),
        "decoder_mlp_ratio": round(ours["decoder.0.mlp.fc1.weight"][0] / width, 4),
        "read_after": count(ours, r"decoder\.(\d+)\."),
        "balanced": "balance" in ours,
        "local": ("none", "before", "both")[locals_],
        "temporal_downsample": time > 1,
    }
    if width % 64 == 0:
        found["heads"] = width // 64
    if locals_:  # rounded down, so that the channels come out as they are
        hidden = ours["blocks.0.local1.1.weight"][0]
        ratio = math.floor(1e4 * width / hidden) / 1e4
        found["reduction"] = ratio if width // ratio == hidden else round(ratio - 1e-4, 4)
    changed = {key: value for key, value in found.items() if published[key] != value}
    return name, {**changed, **size_of(ours["pos_embed"][1] - 1, patch), **classes(ours, "head.weight")}


def _notes(state: Mapping[str, torch.Tensor], model: nn.Module) -> Sequence[str]:
    reads = ", ".join(map(str, getattr(model, "reads", ())))
    return (f"the file does not tell after which blocks its decoder reads: assumed are {reads} (model.read_after)",)


def _is_uniformerv2(shapes: Shapes) -> bool:
    return all(
        any_key(shapes, rf"(backbone\.)?{key}")
        for key in (
            "class_embedding$",
            r"transformer\.temporal_cls_token$",
            r"transformer\.dec\.0\.attn\.in_proj_weight$",
        )
    )


def _layout(name: str, head: str) -> Layout:
    return Layout.translated(
        _fit,
        name,
        lambda shapes: _is_uniformerv2(shapes) and any_key(shapes, rf"(backbone\.)?{head}"),
        _ours,
        notes=_notes,
        expects=by_model(
            SLOWFAST | Expects(mode="segments", num_frames=8, size=224, resize=224),
            {"uniformerv2_b16_ssv2": Expects(num_frames=16)},
        ),
    )


LAYOUTS: tuple[Layout, ...] = (
    _layout("OpenGVLab UniFormerV2", r"transformer\.proj\.0\."),
    _layout("MMAction2 UniFormerV2", r"transformer\.norm\."),
)
