"""Trained video transformers as Hugging Face's transformers keeps them: names of tensors, config.json, and what its
processor is told. The way back is the layouts of videomae.py, timesformer.py, vivit.py and vjepa2.py.

Names are those of the hub's files, which all versions of transformers read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch
from torch import nn

from vidtrain.errors import CheckpointError
from vidtrain.models.layers.attentive import CrossAttention
from vidtrain.models.layers.transformer import Attention, Block
from vidtrain.models.timesformer import TimeSformer
from vidtrain.models.videomae import VideoMAE
from vidtrain.models.vivit import FactorisedViViT, ViViT
from vidtrain.models.vjepa2 import PATCH, TUBELET, VJEPA2
from vidtrain.models.weights.layout import Rule, State, rename, shapes_of
from vidtrain.models.weights.recognise import LAYOUTS

_PORTS_EPS: Final = 1e-6
"""Of all norms of transformers' V-JEPA 2."""
_BLOCK: Final[tuple[Rule, ...]] = (
    (r"\.temporal_attn\.qkv\.", ".temporal_attention.attention.qkv."),
    (r"\.temporal_attn\.proj\.", ".temporal_attention.output.dense."),
    (r"\.temporal_fc\.", ".temporal_dense."),
    (r"\.temporal_norm1\.", ".temporal_layernorm."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.", ".attention.attention."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)
_HEAD: Final[Rule] = (r"^head\.", "classifier.")


def _vit(prefix: str) -> tuple[Rule, ...]:
    """Rules of VideoMAE, TimeSformer and ViViT, in whose names the networks differ by a prefix only."""
    return (
        _HEAD,
        *_BLOCK,
        (r"^blocks\.", f"{prefix}.encoder.layer."),
        (r"^patch_embed\.proj\.", f"{prefix}.embeddings.patch_embeddings.projection."),
        (r"^cls_token$", f"{prefix}.embeddings.cls_token"),
        (r"^pos_embed$", f"{prefix}.embeddings.position_embeddings"),
        (r"^time_embed$", f"{prefix}.embeddings.time_embeddings"),
        (r"^norm\.", f"{prefix}.layernorm."),
    )


_VJEPA2: Final[tuple[Rule, ...]] = (
    _HEAD,
    (r"^pooler\.blocks\.(\d+)\.attn\.proj\.", r"pooler.self_attention_layers.\1.self_attn.out_proj."),
    (r"^pooler\.blocks\.(\d+)\.attn\.(query|key|value)\.", r"pooler.self_attention_layers.\1.self_attn.\2_proj."),
    (r"^pooler\.blocks\.", "pooler.self_attention_layers."),
    (
        r"^pooler\.cross_attention_block\.xattn\.(q|query|key|value)\.",
        r"pooler.cross_attention_layer.cross_attn.\1_proj.",
    ),
    (r"^pooler\.cross_attention_block\.", "pooler.cross_attention_layer."),
    (r"_attn\.(q|k|v)(?:uery|ey|alue)_proj\.", r"_attn.\1_proj."),
    (r"^(pooler\..*)\.norm([12])\.", r"\1.layer_norm\2."),
    (r"^patch_embed\.", "vjepa2.encoder.embeddings.patch_embeddings."),
    (r"^blocks\.(\d+)\.attn\.", r"vjepa2.encoder.layer.\1.attention."),
    (r"^blocks\.", "vjepa2.encoder.layer."),
    (r"^norm\.", "vjepa2.encoder.layernorm."),
)


class NotInTransformersError(ValueError):
    """A network of a kind that transformers has, but not with these options. The message says why."""


@dataclass(frozen=True)
class TransformersModel:
    """A network as transformers loads it.

    config: the fields of config.json, without classes. state: its tensors by transformers' names. processors: the
    fields of a preprocessor_config.json that name who reads it. signed: its processor expects RGB in [-1, 1] before
    mean and std. notes: how its logits differ there, a sentence each.
    """

    config: dict[str, Any]
    state: State
    processors: dict[str, str]
    signed: bool = False
    notes: list[str] = field(default_factory=list)


def to_transformers(
    model: nn.Module, state: Mapping[str, torch.Tensor], *, num_frames: int, size: int
) -> TransformersModel | None:
    """A network and its weights for transformers; None: it has nothing of the kind.

    Args:
        state: the weights, under the names of `model`.
        num_frames, size: of the clips that it is asked about.

    Raises:
        NotInTransformersError: it has the kind, but not this network.
    """
    for kind, convert in _CONVERTERS.items():
        if isinstance(model, kind):
            converted = convert(model, state)
            clip = {"frames_per_clip": num_frames, "crop_size": size} if kind is VJEPA2 else {}
            return replace(converted, config={**converted.config, **clip})
    return None


def from_transformers(state: State, source: str) -> State:
    """The tensors of `to_transformers` under our names again.

    Raises:
        CheckpointError: they are none of those.
    """
    shapes = shapes_of(state)
    layout = next((layout for layout in LAYOUTS if layout.matches(shapes)), None)
    if layout is None or not layout.name.startswith("Hugging Face "):
        raise CheckpointError(f"{source}: its tensors are not named as transformers names them")
    try:
        return layout.translate(state, nn.Module())
    except (CheckpointError, RuntimeError, LookupError) as error:
        raise CheckpointError(f"{source}: {layout.name} weights: {' '.join(str(error).split())[:200]}") from error


# ---------------------------------------------------------------- one function per network


def _videomae(model: VideoMAE, state: Mapping[str, torch.Tensor]) -> TransformersModel:
    if model.table_grid != model.grid:
        raise NotInTransformersError(
            "its VideoMAE has no interpolated positions (model.table_frames and table_size): it computes those of its "
            "own clips"
        )
    sizes = _sizes(model, model.fc_norm, model.grid) | {"qkv_bias": True, "use_mean_pooling": True}
    config = _named("videomae", "VideoMAEForVideoClassification", {**sizes, "hidden_act": "gelu"})
    return TransformersModel(config, rename(_in_three(state), _vit("videomae")), _processors("VideoMAE"))


def _timesformer(model: TimeSformer, state: Mapping[str, torch.Tensor]) -> TransformersModel:
    kinds = {"divided": "divided_space_time", "joint": "joint_space_time"}
    if model.attention not in kinds:
        raise NotInTransformersError(
            f"its TimeSformer does not average over the frames of model.attention={model.attention}"
        )
    sizes = _sizes(model, model.norm, model.grid) | {"attention_type": kinds[model.attention]}
    sizes.pop("tubelet_size")
    config = _named("timesformer", "TimesformerForVideoClassification", {**sizes, "hidden_act": "gelu"})
    names = {"image_processor_type": "VideoMAEImageProcessor", "video_processor_type": "TimesformerVideoProcessor"}
    return TransformersModel(config, rename(state, _vit("timesformer")), names)


def _vivit(model: ViViT, state: Mapping[str, torch.Tensor]) -> TransformersModel:
    if isinstance(model, FactorisedViViT):
        raise NotInTransformersError("it has no ViViT with a factorised encoder (model 2)")
    sizes = _sizes(model, model.norm, model.grid)
    patch = sizes.pop("patch_size")
    sizes["tubelet_size"] = [sizes["tubelet_size"], patch, patch]
    config = _named("vivit", "VivitForVideoClassification", {**sizes, "hidden_act": "gelu_fast"})
    return TransformersModel(config, rename(_in_three(state), _vit("vivit")), _processors("Vivit"), signed=True)


def _vjepa2(model: VJEPA2, state: Mapping[str, torch.Tensor]) -> TransformersModel:
    if model.version != "2":
        raise NotInTransformersError(f"it has no V-JEPA {model.version}")
    heads, ratio = _heads(model, "blocks.0.attn"), _mlp_ratio(model)
    probe = {part.heads for part in model.pooler.modules() if isinstance(part, (Attention, CrossAttention))}
    if probe != {heads}:
        raise NotInTransformersError(
            f"its V-JEPA 2 has as many heads in the probe as in the encoder, {heads}: this one has {max(probe)} "
            "(model.probe_heads)"
        )
    if ratio != 4.0:
        raise NotInTransformersError(f"its V-JEPA 2 has the encoder's mlp_ratio, {ratio:g}, in the probe, too")
    config = _named(
        "vjepa2",
        "VJEPA2ForVideoClassification",
        {
            "patch_size": PATCH,
            "tubelet_size": TUBELET,
            "hidden_size": model.num_features,
            "num_hidden_layers": len(model.blocks),
            "num_attention_heads": heads,
            "num_pooler_layers": len(model.pooler.blocks),
            "mlp_ratio": ratio,
            "layer_norm_eps": _PORTS_EPS,
            "hidden_act": "gelu",
            "in_chans": 3,
            "pred_num_hidden_layers": 0,  # the predictor of pre-training, which no classifier asks
        },
    )
    notes = []
    if (eps := model.pooler.cross_attention_block.norm1.eps) != _PORTS_EPS:
        notes.append(f"the norms of its probe have an epsilon of {_PORTS_EPS:g} there, {eps:g} here")
    return TransformersModel(
        config, rename(_in_three(state), _VJEPA2), {"video_processor_type": "VJEPA2VideoProcessor"}, notes=notes
    )


_CONVERTERS: Final[Mapping[type[nn.Module], Callable[[Any, Mapping[str, torch.Tensor]], TransformersModel]]] = {
    VideoMAE: _videomae,
    TimeSformer: _timesformer,
    ViViT: _vivit,
    VJEPA2: _vjepa2,
}


def _named(model_type: str, architecture: str, sizes: Mapping[str, Any]) -> dict[str, Any]:
    return {"architectures": [architecture], "model_type": model_type, **sizes}


def _processors(name: str) -> dict[str, str]:
    return {"image_processor_type": f"{name}ImageProcessor", "video_processor_type": f"{name}VideoProcessor"}


def _sizes(model: VideoMAE | TimeSformer | ViViT, norm: nn.LayerNorm, grid: tuple[int, int, int]) -> dict[str, Any]:
    """What the configurations of VideoMAE, TimeSformer and ViViT call by the same names."""
    width = model.num_features
    return {
        "image_size": model.size,
        "patch_size": model.size // grid[1],
        "num_channels": 3,
        "num_frames": model.num_frames,
        "tubelet_size": model.num_frames // grid[0],
        "hidden_size": width,
        "num_hidden_layers": len(model.blocks),
        "num_attention_heads": _heads(model, "blocks.0.attn"),
        "intermediate_size": round(_mlp_ratio(model) * width),
        "layer_norm_eps": norm.eps,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


def _heads(model: nn.Module, name: str) -> int:
    attention = model.get_submodule(name)
    assert isinstance(attention, Attention)
    return attention.heads


def _mlp_ratio(model: Any) -> float:
    block = model.blocks[0]
    assert isinstance(block, Block)
    return block.mlp.fc1.out_features / model.num_features


def _in_three(state: Mapping[str, torch.Tensor]) -> State:
    """Queries, keys and values apart, which are one tensor here; the keys and values of a probe's query, too."""
    apart: State = {}
    for key, tensor in state.items():
        for joint, parts in ((".attn.qkv.", ("query", "key", "value")), (".xattn.kv.", ("key", "value"))):
            if joint in key:
                stem = joint[: joint.rindex(".", 0, -1) + 1]
                pieces = zip(parts, tensor.chunk(len(parts)), strict=True)
                apart |= {key.replace(joint, f"{stem}{part}."): piece.clone() for part, piece in pieces}
                break
        else:
            apart[key] = tensor
    return apart
