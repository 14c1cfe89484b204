"""V-JEPA 2 and 2.1 as facebookresearch/vjepa2 (whose names are ours, behind `encoder.` and `classifier.`) and Hugging
Face keep them. An encoder's file without a probe leaves the probe and the head as they are; a predictor is not read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from vidtrain.models.weights import hugging_face
from vidtrain.models.weights.expected_clips import IMAGENET, Expects, clips
from vidtrain.models.weights.layout import (
    Fit,
    Layout,
    Rule,
    Shapes,
    State,
    any_key,
    classes,
    count,
    nothing_stated,
    rename,
    translated_shapes,
)
from vidtrain.models.weights.vit_names import merged

_PUBLISHED = {  # (width, version) -> (our name, depth, heads, hidden channels of the MLP)
    (1024, "2"): ("vjepa2_vit_l", 24, 16, 4096),
    (1280, "2"): ("vjepa2_vit_h", 32, 16, 5120),
    (1408, "2"): ("vjepa2_vit_g", 40, 22, 6144),
    (768, "2.1"): ("vjepa21_vit_b", 12, 12, 3072),
    (1024, "2.1"): ("vjepa21_vit_l", 24, 16, 4096),
}
_OTHER = "vjepa2_vit_l"  # the model that takes encoders of any other size
_PORTS_EPS = 1e-6  # of the probe's norms in Hugging Face's port, which also gives it the encoder's number of heads
_PROBED = {48: (32, 2)}  # classes of Diving48 -> frames and stride of its probes
_HEADS = {1280: 16, 1408: 22, 1664: 26}  # by width, where a head is not 64 channels wide
_AUTHORS: tuple[Rule, ...] = (
    (r"^encoder\.", ""),
    (r"^classifier\.linear\.", "head."),
    (r"^linear\.", "head."),
    (r"^classifier\.", ""),
)
_HUGGING_FACE: tuple[Rule, ...] = (
    (r"^vjepa2\.", ""),
    (r"^encoder\.embeddings\.patch_embeddings\.", "patch_embed."),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"^encoder\.layernorm\.", "norm."),
    (r"^pooler\.self_attention_layers\.", "pooler.blocks."),
    (r"^pooler\.cross_attention_layer\.", "pooler.cross_attention_block."),
    (r"^classifier\.", "head."),
    (r"\.cross_attn\.([qkv])_proj\.", r".xattn.\1."),
    (r"\.(?:attention|self_attn)\.(q|k|v)(?:uery|ey|alue|_proj)\.", r".attn.\1."),
    (r"\.(?:attention\.proj|self_attn\.out_proj)\.", ".attn.proj."),
    (r"\.layer_norm([12])\.", r".norm\1."),
)
_NOT_READ = ("predictor.", "pos_embed")
"""What files hold besides: the predictor of pre-training, and a table of positions that rotation has replaced."""


def _ours(state: Mapping[str, torch.Tensor], rules: tuple[Rule, ...]) -> State:
    names = merged(rename(state, rules))
    for stem in [key.removesuffix("k.weight") for key in names if key.endswith(".xattn.k.weight")]:
        for kind in ("weight", "bias"):
            names[f"{stem}kv.{kind}"] = torch.cat([names.pop(f"{stem}{part}.{kind}") for part in "kv"])
    return {key: tensor for key, tensor in names.items() if not key.startswith(_NOT_READ)}


def _fit(ours: Shapes, probe_norm_eps: float) -> Fit:
    width, version = ours["patch_embed.proj.weight"][0], "2.1" if "video_mod_embed" in ours else "2"
    name, depth, heads, hidden = _PUBLISHED.get((width, version), (_OTHER, 24, None, 4 * width))
    found: dict[str, Any] = {"depth": count(ours, r"blocks\.(\d+)\.")}
    usual = {"depth": depth, "probe_depth": 3, "probe_heads": 16, "probe_norm_eps": 1e-5, "version": "2"}
    if name == _OTHER and width != 1024:
        found |= {"width": width, "version": version}
        if width % 64 == 0 or width in _HEADS:
            found["heads"] = _HEADS.get(width, width // 64)
    if ours["blocks.0.mlp.fc1.weight"][0] != hidden:
        found["mlp_ratio"] = ours["blocks.0.mlp.fc1.weight"][0] / width
    if any_key(ours, r"pooler\."):
        found |= {"probe_depth": count(ours, r"pooler\.blocks\.(\d+)\."), "probe_norm_eps": probe_norm_eps}
        if probe_norm_eps == _PORTS_EPS and (heads or found.get("heads")):
            found["probe_heads"] = heads or found["heads"]
    changed = {key: value for key, value in found.items() if usual.get(key) != value}
    return name, {**changed, **classes(ours, "head.weight")}


def _notes(state: Mapping[str, torch.Tensor], model: nn.Module) -> list[str]:
    notes = []
    if not any("pooler." in key for key in state):
        notes.append("an encoder without a probe: pooler and head start from scratch")
    encoder, probe = (model.get_submodule(p) for p in ("blocks.0.attn", "pooler.cross_attention_block.xattn"))
    notes.append(
        "the file does not tell how many attention heads there are: assumed are "
        f"model.heads={encoder.heads} and model.probe_heads={probe.heads}"
    )
    return notes


def _layout(name: str, matches: Callable[[Shapes], bool], rules: tuple[Rule, ...], probe_norm_eps: float) -> Layout:
    def translate(state: State, model: nn.Module) -> State:
        ours = _ours(state, rules)
        if not any(key.startswith("pooler.") for key in ours):
            ours |= {key: tensor for key, tensor in model.state_dict().items() if key.startswith("pooler.")}
        return ours

    return Layout(
        name=name,
        matches=matches,
        model=lambda shapes: _fit(translated_shapes(shapes, lambda state: _ours(state, rules)), probe_norm_eps),
        translate=translate,
        notes=_notes,
        expects=_expects,
        stated=hugging_face.stated if rules is _HUGGING_FACE else nothing_stated,
    )


def _expects(name: str, options: Mapping[str, Any]) -> Expects:
    """The short side is 256 / 224 of the crop. Which size and length a file is for does not show in it: the usual."""
    frames, stride = _PROBED.get(options.get("num_classes", 0), (16, 4))
    side = 384 if name.startswith("vjepa21") or options.get("version") == "2.1" else 256
    return IMAGENET | clips(frames, stride, side, side * 256 // 224)


def _is_authors(shapes: Shapes) -> bool:
    patch = shapes.get("encoder.patch_embed.proj.weight") or shapes.get("patch_embed.proj.weight") or ()
    return (
        len(patch) == 5
        and any_key(shapes, r"(encoder\.)?blocks\.0\.attn\.qkv\.bias$")
        and any_key(shapes, r"(encoder\.)?(norm|norms_block\.3)\.weight$")
        and not any_key(shapes, r"(encoder\.)?(cls_token|pos_embed_spatial|time_embed|fc_norm\.)")
    )


LAYOUTS: tuple[Layout, ...] = (
    _layout("facebookresearch V-JEPA 2", _is_authors, _AUTHORS, 1e-5),
    _layout(
        "Hugging Face V-JEPA 2",
        lambda shapes: any_key(shapes, r"(vjepa2\.)?encoder\.embeddings\.patch_embeddings\.proj\."),
        _HUGGING_FACE,
        _PORTS_EPS,
    ),
)
