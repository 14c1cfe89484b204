"""VideoMAE as MCG-NJU/VideoMAE (whose names are ours), Hugging Face and MMAction2 keep it, and VideoMAE V2, fine-tuned
or as it comes from pre-training. Pre-training files have a decoder, which is skipped, and no fc_norm, which is then
re-initialised."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from vidtrain.errors import CheckpointError
from vidtrain.models.layers.position_tables import sincos_table
from vidtrain.models.weights import hugging_face
from vidtrain.models.weights.expected_clips import IMAGENET, Expects
from vidtrain.models.weights.layout import (
    Fit,
    Layout,
    Shapes,
    State,
    any_key,
    nothing_stated,
    rename,
    translated_shapes,
)
from vidtrain.models.weights.vit_names import HUGGING_FACE, merged, read_options

_COMMON = {"tubelet": 2, "patch": 16, "mlp_ratio": 4.0}
_PUBLISHED: dict[int, tuple[str, dict[str, Any]]] = {
    384: ("videomae_vit_s", {**_COMMON, "width": 384, "depth": 12, "heads": 6}),
    768: ("videomae_vit_b", {**_COMMON, "width": 768, "depth": 12, "heads": 12}),
    1024: ("videomae_vit_l", {**_COMMON, "width": 1024, "depth": 24, "heads": 16}),
    1280: ("videomae_vit_h", {**_COMMON, "width": 1280, "depth": 32, "heads": 16}),
    1408: (
        "videomaev2_vit_g",
        {"tubelet": 2, "patch": 14, "mlp_ratio": 4.3636, "width": 1408, "depth": 40, "heads": 16},
    ),
}
"""By width; S and B of VideoMAE V2 are the same networks as those of VideoMAE."""
_UPSTREAM = ((r"^encoder\.", ""),)
_MMACTION = (
    (r"^backbone\.", ""),
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"\.mlp\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.mlp\.layers\.1\.", ".mlp.fc2."),
    (r"^cls_head\.fc_cls\.", "head."),
)
_SOMETHING = 174  # classes of Something-Something, whose nets saw one frame of each of 16 segments
_PRETRAINING = ("decoder.", "encoder_to_decoder.", "mask_token")


def _pretrained(keys: Iterable[str]) -> bool:
    return any(key.startswith(_PRETRAINING) for key in keys)


def _finished(state: State, model: nn.Module | None) -> State:
    """What is left to do after renaming."""
    state = merged(state)
    table = state.pop("pos_embed", None)
    if table is not None and not table.is_meta and not _is_sincos(table):
        raise CheckpointError("their positions are learned, and this model's are fixed")
    if not _pretrained(state):
        if "norm.weight" in state and "fc_norm.weight" not in state and "head.weight" in state:
            raise CheckpointError("they are of a net that classifies by its first token, this one by the mean of all")
        return state
    state = {key: tensor for key, tensor in state.items() if not key.startswith((*_PRETRAINING, "norm."))}
    fresh = {} if model is None else model.state_dict()
    return {**state, **{key: tensor for key, tensor in fresh.items() if key.startswith("fc_norm.")}}


def _is_sincos(table: torch.Tensor) -> bool:
    return torch.allclose(table.float(), sincos_table(table.shape[-2], table.shape[-1]).to(table.device), atol=1e-4)


def _fit(ours: Shapes) -> Fit:
    name, published = _PUBLISHED.get(ours["patch_embed.proj.weight"][0], _PUBLISHED[768])
    return name, read_options(ours, published)


def _notes(state: Mapping[str, torch.Tensor], model: nn.Module) -> list[str]:
    notes = []
    if _pretrained(state):
        notes.append("a file of pre-training: its decoder and last norm are skipped, fc_norm is re-initialised")
    if any(key.removeprefix("backbone.") == "pos_embed" for key in state):
        notes.append("pos_embed is skipped: the model computes its fixed positions")
    return notes


def _layout(name: str, matches: Callable[[Shapes], bool], rules: tuple[tuple[str, str], ...], **options: Any) -> Layout:
    def model(shapes: Shapes) -> Fit:
        found, changed = _fit(translated_shapes(shapes, lambda state: _finished(rename(state, rules), None)))
        return found, {**changed, **options}

    return Layout(
        name=name,
        matches=matches,
        model=model,
        translate=lambda state, model: _finished(rename(state, rules), model),
        notes=_notes,
        expects=_expects,
        stated=hugging_face.stated if rules is HUGGING_FACE else nothing_stated,
    )


def _expects(name: str, options: Mapping[str, Any]) -> Expects:
    time = Expects(mode="segments") if options.get("num_classes") == _SOMETHING else Expects(stride=4)
    return IMAGENET | time | Expects(num_frames=16, size=224, resize=224, protocol="videomae")


def _is_upstream(shapes: Shapes) -> bool:
    tubelets = shapes.get("patch_embed.proj.weight") or shapes.get("encoder.patch_embed.proj.weight") or ()
    return len(tubelets) == 5 and any_key(shapes, r"(encoder\.)?blocks\.0\.attn\.q_bias$")


LAYOUTS: tuple[Layout, ...] = (
    _layout("MCG-NJU VideoMAE", _is_upstream, _UPSTREAM),
    _layout(
        "Hugging Face VideoMAE",
        lambda shapes: any_key(shapes, r"videomae\.embeddings\."),
        HUGGING_FACE,
        norm_eps=1e-12,  # as its configuration says; the authors' nets have 1e-6, and no logit shows it
    ),
    _layout(
        "MMAction2 VideoMAE",
        lambda shapes: (
            any_key(shapes, r"(backbone\.)?blocks\.0\.mlp\.layers\.0\.0\.")
            and any_key(shapes, r"(backbone\.)?blocks\.0\.attn\.q_bias$")
        ),
        _MMACTION,
    ),
)
