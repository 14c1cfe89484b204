"""What the layouts of the plain video transformers share: Hugging Face's names, and options read off the shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from vidtrain.models.layers.transformer import Attention
from vidtrain.models.weights.layout import Rule, Shapes, State, classes, count

HUGGING_FACE: tuple[Rule, ...] = (
    (r"^(?:timesformer|vivit|videomae)\.", ""),
    (r"^(?:encoder\.layers?|layers?)\.(\d+)\.", r"blocks.\1."),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.time_embeddings$", "time_embed"),
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head."),
    (r"\.temporal_attention\.attention\.qkv\.", ".temporal_attn.qkv."),
    (r"\.temporal_attention\.output\.dense\.", ".temporal_attn.proj."),
    (r"\.temporal_dense\.", ".temporal_fc."),
    (r"\.temporal_layernorm\.", ".temporal_norm1."),
    (r"\.attention\.(?:attention\.)?(?:query|q_proj)\.", ".attn.q."),
    (r"\.attention\.(?:attention\.)?(?:key|k_proj)\.", ".attn.k."),
    (r"\.attention\.(?:attention\.)?(?:value|v_proj)\.", ".attn.v."),
    (r"\.attention\.(?:attention\.)?([qv]_bias)$", r".attn.\1"),
    (r"\.attention\.attention\.qkv\.", ".attn.qkv."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)
"""Its TimeSformer, ViViT and VideoMAE, as the hub's files have it and as newer releases have it in memory."""

_HEADS = {1280: 16, 1408: 16}
"""By width, where a head is not 64 channels wide: VideoMAE's ViT-H and ViT-g."""
_PUBLISHED_WIDTHS = (192, 384, 768, 1024)
_BIAS = re.compile(r"(?<=attn\.)(qkv\.bias|[qv]_bias)$")


def merged(state: Mapping[str, torch.Tensor]) -> State:
    """q, k and v of each attention in one `qkv`. Where only q and v have a bias it becomes q_bias and v_bias."""
    joined = dict(state)
    for stem in [key.removesuffix("q.weight") for key in state if key.endswith(".attn.q.weight")]:
        for kind in ("weight", "bias"):
            parts = {part: state[f"{stem}{part}.{kind}"] for part in "qkv" if f"{stem}{part}.{kind}" in state}
            if len(parts) == 3:
                joined[f"{stem}qkv.{kind}"] = torch.cat(list(parts.values()))
            elif kind == "bias" and parts.keys() == {"q", "v"}:
                joined |= {f"{stem}{part}_bias": tensor for part, tensor in parts.items()}
            else:
                continue
            for part in parts:
                del joined[f"{stem}{part}.{kind}"]
    return joined


def read_options(ours: Shapes, published: Mapping[str, Any]) -> dict[str, Any]:
    """The options, other than those of `published`, of a transformer whose tensors are called as here."""
    width, _, *kernel = ours["patch_embed.proj.weight"]
    found: dict[str, Any] = {
        "patch": kernel[-1],
        "width": width,
        "depth": count(ours, r"blocks\.(\d+)\."),
        "mlp_ratio": round(ours["blocks.0.mlp.fc1.weight"][0] / width, 4),
    }
    if len(kernel) == 3:
        found["tubelet"] = kernel[0]
    if width in _HEADS or width % 64 == 0:
        found["heads"] = _HEADS.get(width, width // 64)
    changed = {key: value for key, value in found.items() if published.get(key) != value}
    return {**changed, **classes(ours, "head.weight")}


def size_of(positions: int, patch: int) -> dict[str, int]:
    """{"size": pixels} of the frames with so many patches, {} where they are no square."""
    side = math.isqrt(positions)
    return {"size": side * patch} if side * side == positions else {}


def filled_biases(ours: State, own: Mapping[str, torch.Tensor]) -> tuple[State, list[str]]:
    """`ours` with zeros for the biases of queries, keys and values, where a net was trained without any of them; and a
    sentence about it."""
    groups: dict[str, list[str]] = {}
    for key in own:
        if _BIAS.search(key) and f"{_BIAS.sub('', key)}qkv.weight" in ours:
            groups.setdefault(re.sub(r"\d+", "N", _BIAS.sub("", key)), []).append(key)
    missing = [key for keys in groups.values() if not any(key in ours for key in keys) for key in keys]
    if not missing:
        return ours, []
    note = "the file's queries, keys and values have no bias (qkv_bias=false): the model's begin at 0"
    return {**ours, **{key: torch.zeros(own[key].shape) for key in missing}}, [note]


def head_notes(model: nn.Module) -> list[str]:
    """No tensor shows how many heads attention has: say what is assumed, but for the published widths."""
    attention = next((module for module in model.modules() if isinstance(module, Attention)), None)
    if attention is None:
        return []
    width, heads = attention.proj.in_features, attention.heads
    if heads == _HEADS.get(width, width / 64) and (width in _HEADS or width in _PUBLISHED_WIDTHS):
        return []
    return [
        f"the file does not tell how many attention heads there are: assumed is model.heads={heads}, "
        f"{width // heads} channels each"
    ]
