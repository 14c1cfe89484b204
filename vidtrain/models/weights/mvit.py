"""MViT v1 and v2 as torchvision (whose names are ours but for the head's), PyTorchVideo, PySlowFast and MMAction2
keep them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from vidtrain.models.weights.expected_clips import SLOWFAST, Expects, clips
from vidtrain.models.weights.layout import Fit, Layout, Rule, Shapes, State, always, any_key, classes, count, rename
from vidtrain.models.weights.vit_names import merged

_TORCHVISION = ((r"^head\.1\.", "head."),)
_RULES: tuple[Rule, ...] = (
    (r"^backbone\.", ""),
    (r"^(?:patch_embed\.(?:patch_model|proj|projection))\.", "conv_proj."),
    (r"^(?:cls_positional_encoding\.)?cls_token$", "pos_encoding.class_token"),
    (r"^(?:cls_positional_encoding\.)?pos_embed_spatial$", "pos_encoding.spatial_pos"),
    (r"^(?:cls_positional_encoding\.)?pos_embed_temporal$", "pos_encoding.temporal_pos"),
    (r"^(?:cls_positional_encoding\.)?pos_embed_class$", "pos_encoding.class_pos"),
    (r"\.attn\.pool_([qkv])\.", r".attn.pool_\1.pool."),
    (r"\.attn\.norm_([qkv])\.", r".attn.pool_\1.norm_act.0."),
    (r"\.attn\.proj\.", ".attn.project.0."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.3."),
    (r"^(blocks\.\d+)\.proj\.", r"\1.project."),
    (r"^(?:norm_embed|norm3)\.", "norm."),
    (r"^(?:head\.(?:proj|projection)|cls_head\.fc_cls)\.", "head."),
)


def _plain(state: State) -> State:
    """PyTorchVideo, PySlowFast and MMAction2: tables and tokens have a batch axis there."""
    ours = merged(rename(state, _RULES))
    return {key: _flat(tensor) if key.startswith("pos_encoding.") else tensor for key, tensor in ours.items()}


def _flat(table: torch.Tensor) -> torch.Tensor:
    """(1, 1, D) -> (D), (1, N, D) -> (N, D)."""
    rows = table[0] if table.ndim == 3 else table
    return rows[0] if rows.ndim == 2 and rows.shape[0] == 1 else rows


def _fit(ours: Shapes) -> Fit | None:
    from vidtrain.models.mvit import DEPTHS  # on torchvision, which is slow to import

    stem = ours["conv_proj.weight"]
    if len(stem) != 5:  # of images
        return None
    width, blocks = stem[0], count(ours, r"blocks\.(\d+)\.")
    second = "blocks.0.attn.rel_pos_t" in ours
    # v2 widens in the first block of a stage, v1 in the last one before it: both show in what attention works on
    widths = [ours[f"blocks.{i}.attn.project.0.weight"][0] for i in range(blocks)]
    depths = [widths.count(width << stage) for stage in range(4)]
    if sum(depths) != blocks:
        return None
    options: dict[str, Any] = {} if tuple(depths) == DEPTHS else {"depths": depths}
    if width != 96:
        options["width"] = width
    heads = width // ours["blocks.0.attn.pool_k.pool.weight"][0]
    if heads != 1:
        options["heads"] = heads
    options |= classes(ours, "head.weight")
    return "mvit_v2_s" if second else "mvit_v1_b", {**options, **_clip(ours, second=second)}


def _clip(ours: Shapes, *, second: bool) -> dict[str, int]:
    if second:
        time, side = ((ours[f"blocks.0.attn.rel_pos_{axis}"][0] + 1) // 2 for axis in "th")
    else:
        time = ours["pos_encoding.temporal_pos"][0]
        side = round(ours["pos_encoding.spatial_pos"][0] ** 0.5)
    return {"num_frames": 2 * time, "size": 4 * side}


_CLIPS = SLOWFAST | clips(16, 4, 224, 256)
"""30 frames per second, of which torchvision takes 7.5."""


_layout = partial(Layout.translated, _fit)


def _has(*patterns: str) -> Callable[[Shapes], bool]:
    return lambda shapes: all(any_key(shapes, pattern) for pattern in patterns)


_POOL: Sequence[str] = (r"(backbone\.)?blocks\.0\.attn\.pool_k\.weight$",)

LAYOUTS: tuple[Layout, ...] = (
    _layout(
        "torchvision MViT",
        _has(r"pos_encoding\.class_token$", r"blocks\.0\.attn\.pool_k\.pool\."),
        lambda state: rename(state, _TORCHVISION),
        expects=always(SLOWFAST | Expects(num_frames=16, fps=7.5, size=224, resize=256, protocol="torchvision")),
    ),
    _layout(
        "PyTorchVideo MViT",
        _has(*_POOL, r"cls_positional_encoding\.|patch_embed\.patch_model\."),
        _plain,
        expects=always(_CLIPS | Expects(protocol="pytorchvideo_0_1_5")),
    ),
    _layout(
        "MMAction2 MViT",
        _has(*_POOL, r"(backbone\.)?patch_embed\.projection\."),
        _plain,
        expects=always(SLOWFAST | clips(16, 4, 224) | Expects(protocol="mmaction2")),
    ),
    _layout(
        "PySlowFast MViT",
        _has(*_POOL, r"patch_embed\.proj\."),
        _plain,
        expects=always(_CLIPS | Expects(protocol="pyslowfast_offset")),
    ),
)
