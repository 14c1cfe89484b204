"""TimeSformer as facebookresearch/TimeSformer, Hugging Face and MMAction2 keep it; our names are the first one's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vidtrain.models.weights import hugging_face, pyslowfast
from vidtrain.models.weights.expected_clips import HALF, SLOWFAST, Expects, clips
from vidtrain.models.weights.layout import Fit, Layout, Shapes, State, any_key, nothing_stated, rename
from vidtrain.models.weights.metadata import Said
from vidtrain.models.weights.vit_names import HUGGING_FACE, read_options, size_of

_PUBLISHED = {"patch": 16, "width": 768, "depth": 12, "heads": 12, "mlp_ratio": 4.0}
_STRIDES = {8: 32, 16: 16, 96: 4}
"""Frames of the published nets -> source frames from one to the next: TimeSformer, its HR and its L."""
_LAYER = r"^backbone\.transformer_layers\.layers\.(\d+)\."
_MMACTION = (
    (rf"{_LAYER}ffns\.0\.norm\.", r"blocks.\1.norm2."),
    (rf"{_LAYER}ffns\.0\.layers\.0\.0\.", r"blocks.\1.mlp.fc1."),
    (rf"{_LAYER}ffns\.0\.layers\.1\.", r"blocks.\1.mlp.fc2."),
    (rf"{_LAYER}norms\.0\.", r"blocks.\1.norm1."),
    (rf"{_LAYER}norms\.1\.", r"blocks.\1.norm2."),
    (r"\.in_proj_(weight|bias)$", r".qkv.\1"),
    (r"\.out_proj\.", ".proj."),
    (r"^backbone\.patch_embed\.projection\.", "patch_embed.proj."),
    (r"^backbone\.(cls_token|pos_embed|time_embed|norm\.)", r"\1"),
    (r"^cls_head\.fc_cls\.", "head."),
)
_DIVIDED = (  # attention over time is the first of two there
    (rf"{_LAYER}attentions\.0\.norm\.", r"blocks.\1.temporal_norm1."),
    (rf"{_LAYER}attentions\.0\.temporal_fc\.", r"blocks.\1.temporal_fc."),
    (rf"{_LAYER}attentions\.0\.attn\.", r"blocks.\1.temporal_attn."),
    (rf"{_LAYER}attentions\.1\.norm\.", r"blocks.\1.norm1."),
    (rf"{_LAYER}attentions\.1\.attn\.", r"blocks.\1.attn."),
)
_UNDIVIDED = ((rf"{_LAYER}attentions\.0\.attn\.", r"blocks.\1.attn."),)


def _from_mmaction(state: State) -> State:
    divided = any(".attentions.1." in key for key in state)
    return rename(state, (*(_DIVIDED if divided else _UNDIVIDED), *_MMACTION))


def _fit(ours: Shapes) -> Fit:
    options: dict[str, Any] = read_options(ours, _PUBLISHED)
    if "blocks.0.temporal_fc.weight" not in ours:
        options["attention"] = "joint" if "time_embed" in ours else "space"
    if "time_embed" in ours:
        options["num_frames"] = ours["time_embed"][1]
    return "timesformer", {**options, **size_of(ours["pos_embed"][1] - 1, ours["patch_embed.proj.weight"][-1])}


def _layout(
    name: str,
    matches: Callable[[Shapes], bool],
    translate: Callable[[State], State],
    colours: Expects = SLOWFAST,
    stated: Callable[[Said, str], tuple[dict[str, Any], Expects]] = nothing_stated,
) -> Layout:
    def expects(name: str, options: Mapping[str, Any]) -> Expects:
        frames = options.get("num_frames", 8)
        return colours | clips(frames, _STRIDES.get(frames, 32), options.get("size", 224))

    return Layout.translated(_fit, name, matches, translate, expects=expects, stated=stated)


def _is_timesformer(shapes: Shapes) -> bool:
    names = {"cls_token", "pos_embed", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight", "norm.weight"}
    return names <= set(shapes) and len(shapes.get("patch_embed.proj.weight", ())) == 4


LAYOUTS: tuple[Layout, ...] = (
    _layout("facebookresearch TimeSformer", _is_timesformer, lambda state: state, stated=pyslowfast.stated_clips),
    _layout(
        "Hugging Face TimeSformer",
        lambda shapes: (
            any_key(shapes, r"timesformer\.embeddings\.") or any_key(shapes, r"encoder\.layer\.0\.temporal_dense\.")
        ),
        lambda state: rename(state, HUGGING_FACE),
        stated=hugging_face.stated,
    ),
    _layout(
        "MMAction2 TimeSformer",
        lambda shapes: any_key(shapes, r"backbone\.transformer_layers\.layers\.0\.attentions\.0\."),
        _from_mmaction,
        HALF,
    ),
)
