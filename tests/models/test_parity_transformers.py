"""The transformers against third-party code with the same weights, and every published layout read to the last key."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import vidtrain
from tests.models.parity import drawn_weights, error_of, key_layout
from tests.sampled import sampled
from vidtrain.errors import CheckpointError
from vidtrain.models.layers.position_tables import likely_grid, resize_grid, sincos_table
from vidtrain.models.weights.load import describe_weights, load_weights

State = dict[str, torch.Tensor]
_TINY = {"size": 64, "width": 96, "depth": 3, "heads": 4}
_B = {"num_frames": 16, "size": 224}
TARGETS = [
    ("hf_timesformer_tiny", "timesformer", {**_TINY, "num_frames": 4}),
    ("hf_vivit_tiny", "vivit", {**_TINY, "num_frames": 8}),
    ("hf_videomae_tiny", "videomae_vit_b", {**_TINY, "num_frames": 8, "norm_eps": 1e-12}),
    (
        "hf_vjepa2",
        "vjepa2_vit_l",
        {"width": 100, "depth": 4, "heads": 5, "mlp_ratio": 48 / 11, "probe_heads": 5, "probe_norm_eps": 1e-6},
    ),
    ("fb_vjepa2_tiny", "vjepa2_vit_l", {"width": 80, "depth": 3, "heads": 4, "probe_depth": 2, "probe_heads": 8}),
    (
        "videomaev2_tiny",
        "videomaev2_vit_g",
        {"num_frames": 8, "size": 56, "width": 88, "depth": 4, "heads": 4},
    ),
    ("uniformerv2_tiny", "uniformerv2_b16", {**_TINY, "read_after": 2}),
    ("hiera_tiny_video", "hiera_b", {"num_frames": 8, "size": 64, "width": 24, "stages": [1, 2, 3, 2]}),
    pytest.param("tv_swin3d_t", "swin3d_t", {}, marks=pytest.mark.slow),
    pytest.param("tv_mvit_v2_s", "mvit_v2_s", _B, marks=pytest.mark.slow),
]
# name, model, what its file tells of the options (not the heads where they are not 64 wide), what it does not tell
_SMALL = {"width": 96, "depth": 3}
_FOUR = {"heads": 4}
LAYOUTS: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("fb_timesformer_divided", "timesformer", {"num_frames": 8, "size": 224}, {}),
    ("fb_timesformer_tiny_divided", "timesformer", {**_SMALL, "num_frames": 4, "size": 64}, _FOUR),
    (
        "fb_timesformer_tiny_joint",
        "timesformer",
        {**_SMALL, "attention": "joint", "num_frames": 4, "size": 64},
        _FOUR,
    ),
    ("fb_timesformer_tiny_space", "timesformer", {**_SMALL, "attention": "space", "size": 64}, _FOUR),
    ("hf_timesformer_divided", "timesformer", {"num_frames": 8, "size": 224}, {}),
    ("hf_timesformer_tiny", "timesformer", {**_SMALL, "num_frames": 4, "size": 64}, _FOUR),
    ("hf_vivit_b16x2", "vivit", {"num_frames": 32, "size": 224}, {}),
    ("hf_vivit_tiny", "vivit", {**_SMALL, "num_frames": 8, "size": 64}, _FOUR),
    ("hf_videomae_base", "videomae_vit_b", {"norm_eps": 1e-12}, {}),
    ("hf_videomae_tiny", "videomae_vit_b", {**_SMALL, "norm_eps": 1e-12}, _FOUR),
    ("videomae_repo_tiny", "videomae_vit_b", _SMALL, _FOUR),
    ("videomaev2_small", "videomae_vit_s", {}, {}),
    ("videomaev2_vit_b", "videomae_vit_b", {}, {}),
    ("videomaev2_vit_g14", "videomaev2_vit_g", {}, {}),
    (
        "videomaev2_tiny",
        "videomae_vit_b",
        {"patch": 14, "width": 88, "depth": 4, "mlp_ratio": 4.3636},
        {**_FOUR, "size": 56},
    ),
    ("uniformerv2_b16_k400", "uniformerv2_b16", {"size": 224}, {}),
    ("uniformerv2_b16_ssv2", "uniformerv2_b16_ssv2", {"size": 224}, {}),
    ("uniformerv2_tiny", "uniformerv2_b16", {**_SMALL, "read_after": 2, "size": 64}, _FOUR),
    ("uniformerv2_tiny_lmhra", "uniformerv2_b16_ssv2", {**_SMALL, "read_after": 2, "size": 64}, _FOUR),
    ("fb_vjepa2_vit_large", "vjepa2_vit_l", {}, {}),
    ("fb_vjepa2_tiny", "vjepa2_vit_l", {"width": 80, "depth": 3, "probe_depth": 2}, {"heads": 4, "probe_heads": 8}),
    ("fb_vjepa21_vit_base", "vjepa21_vit_b", {}, {}),
    ("fb_vjepa21_vit_large", "vjepa21_vit_l", {}, {}),
    (
        "fb_vjepa21_tiny",
        "vjepa2_vit_l",
        {"width": 80, "depth": 12, "version": "2.1", "probe_depth": 2},
        {"heads": 4, "probe_heads": 8},
    ),
    ("hiera_base_16x224", "hiera_b", _B, {}),
    ("hiera_tiny_video", "hiera_b", {"num_frames": 8, "size": 64, "width": 24, "stages": [1, 2, 3, 2]}, {}),
    ("tv_mvit_v1_b", "mvit_v1_b", _B, {}),
    ("tv_mvit_v2_s", "mvit_v2_s", _B, {}),
    ("ptv_mvit_base_16x4", "mvit_v1_b", _B, {}),
    ("psf_MVITv2_S_16x4", "mvit_v2_s", _B, {}),
    ("tv_swin3d_t", "swin3d_t", {}, {}),
    ("tv_swin3d_s", "swin3d_s", {}, {}),
    ("tv_swin3d_b", "swin3d_b", {}, {}),
    ("vswin_tiny", "swin3d_t", {}, {}),
]


@pytest.mark.parametrize(("target", "model", "options"), TARGETS)
def test_logits_are_those_of_the_published_code(target: str, model: str, options: dict[str, object]) -> None:
    assert error_of(target, model, **options) <= 1e-4


# of each kind of file the smallest
SMALLEST = [layout for layout, *_ in LAYOUTS if "_tiny" in layout and layout != "fb_vjepa21_tiny"]
SMALLEST += ["fb_vjepa21_vit_base", "ptv_mvit_base_16x4", "psf_MVITv2_S_16x4", "tv_mvit_v2_s", "tv_swin3d_t"]


@pytest.mark.parametrize(("layout", "model", "told", "untold"), sampled(LAYOUTS, SMALLEST))
def test_published_layouts(layout: str, model: str, told: dict[str, Any], untold: dict[str, Any]) -> None:
    """Each file says which of our models it is, and every tensor of the model is filled from it."""
    state = key_layout(layout)
    info = describe_weights(state)
    assert (info.model, info.options, info.num_classes) == (model, told, 101)
    with torch.device("meta"):
        net = vidtrain.create_model(model, num_classes=101, **told, **untold)
        fewer = vidtrain.create_model(model, num_classes=7, **told, **untold)
    report = load_weights(net, state)
    assert (report.head, report.left_out, report.loaded) == (None, (), len(net.state_dict()))
    report = load_weights(fewer, state)
    assert report.head == "checkpoint has 101 classes, model has 7"
    assert report.loaded == len(net.state_dict()) - 2
    lost = next(
        key for key in state if key.endswith(("mlp.fc2.bias", "mlp.c_proj.bias", "mlp.3.bias", "output.dense.bias"))
    )
    with pytest.raises(CheckpointError, match="1 missing"):
        load_weights(net, {key: tensor for key, tensor in state.items() if key != lost})
    with pytest.raises(CheckpointError, match="1 unexpected"):
        load_weights(net, {**state, "another.weight": torch.empty(1, device="meta")})


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("hf_vjepa2_vitl", {"probe_norm_eps": 1e-6}),
        ("hf_vjepa2", {"depth": 4, "width": 100, "mlp_ratio": 4.36, "probe_norm_eps": 1e-6}),
    ],
)
def test_hugging_faces_v_jepa_2_leaves_its_predictor_out(name: str, told: dict[str, Any]) -> None:
    state = key_layout(name)
    info = describe_weights(state)
    assert (info.layout, info.model, info.options) == ("Hugging Face V-JEPA 2", "vjepa2_vit_l", told)
    heads = {} if name.endswith("vitl") else {"heads": 5, "probe_heads": 5}
    with torch.device("meta"):
        net = vidtrain.create_model("vjepa2_vit_l", num_classes=101, **told, **heads)
    report = load_weights(net, state)
    assert (report.head, report.loaded) == (None, len(net.state_dict()))
    assert any("model.heads=" in note and "model.probe_heads=" in note for note in report.notes)


@pytest.mark.parametrize("key", ["target_encoder", "ema_encoder", "encoder"])
def test_an_encoder_of_v_jepa_2_without_a_probe(key: str) -> None:
    """As the authors publish them: wrapped, with a predictor beside it and a table of positions that nobody reads."""
    small_one = {"width": 32, "depth": 2, "heads": 4, "probe_depth": 1, "probe_heads": 4}
    torch.manual_seed(0)
    source, target = (vidtrain.create_model("vjepa2_vit_l", num_classes=3, **small_one) for _ in range(2))
    encoder = {k: v for k, v in source.state_dict().items() if not k.startswith(("pooler.", "head."))}
    file = {f"module.backbone.{k}": v for k, v in {**encoder, "pos_embed": torch.zeros(1, 8, 32)}.items()}
    probe = {k: v.clone() for k, v in target.state_dict().items() if k.startswith(("pooler.", "head."))}
    report = load_weights(target, {key: file, "predictor": {"module.x": torch.zeros(1)}, "epoch": 3})
    assert all(torch.equal(target.state_dict()[k], v) for k, v in {**encoder, **probe}.items())
    assert report.head == "the file has none"
    assert any("without a probe" in note for note in report.notes)


# ---------------------------------------------------------------- the same net under every name


def small(model: str, **options: Any) -> nn.Module:
    clip = {"num_frames": 4, "size": 32}
    return vidtrain.create_model(model, num_classes=5, **{**clip, "width": 32, "depth": 2, "heads": 4, **options})


def renamed(state: State, *rules: tuple[str, str]) -> State:
    """Plain replacement, back from our names to a publisher's."""
    out = {}
    for key, tensor in state.items():
        for old, new in rules:
            key = key.replace(old, new)
        out[key] = tensor
    return out


def in_three(state: State, names: tuple[str, str, str], kinds: tuple[str, ...] = ("weight", "bias")) -> State:
    """qkv.weight as three tensors."""
    out = {}
    for key, tensor in state.items():
        stem, _, kind = key.rpartition("qkv.")
        if stem and kind in kinds:
            out |= {f"{stem}{n}.{kind}": part.clone() for n, part in zip(names, tensor.chunk(3), strict=True)}
        else:
            out[key] = tensor
    return out


_HF = (
    ("blocks.", "encoder.layer."),
    ("norm1.", "layernorm_before."),
    ("norm2.", "layernorm_after."),
    (".attn.proj.", ".attention.output.dense."),
    ("mlp.fc1.", "intermediate.dense."),
    ("mlp.fc2.", "output.dense."),
    ("patch_embed.proj.", "embeddings.patch_embeddings.projection."),
    ("cls_token", "embeddings.cls_token"),
    ("pos_embed", "embeddings.position_embeddings"),
)


def _hub_vivit(state: State) -> State:
    """ViViT as the hub's files call it; newer releases' names are those of the numeric target."""
    state = in_three(state, ("query", "key", "value"))
    body = renamed(state, *_HF, (".attn.", ".attention.attention."), ("head.", "classifier."))
    body = {("layernorm." + key[5:] if key.startswith("norm.") else key): tensor for key, tensor in body.items()}
    return {(key if key.startswith("classifier.") else f"vivit.{key}"): tensor for key, tensor in body.items()}


def _hub_videomae(state: State) -> State:
    """VideoMAE as the hub's files call it: q_bias and v_bias, and no bias inside the linear layers."""
    state = in_three(state, ("query", "key", "value"), ("weight",))
    body = renamed(state, *_HF, (".attn.", ".attention.attention."), ("head.", "classifier."))
    outside = ("classifier.", "fc_norm.")
    return {(key if key.startswith(outside) else f"videomae.{key}"): tensor for key, tensor in body.items()}


def _mmaction_timesformer(state: State) -> State:
    divided = any("temporal_fc" in key for key in state)
    space = "attentions.1." if divided else "attentions.0."
    layer = ("blocks.", "transformer_layers.layers.")
    norms = (
        (("norm2.", "ffns.0.norm."), ("temporal_norm1.", "attentions.0.norm."), ("norm1.", "attentions.1.norm."))
        if divided
        else (("norm1.", "norms.0."), ("norm2.", "norms.1."))
    )
    body = renamed(
        state,
        *norms,
        ("temporal_fc.", "attentions.0.temporal_fc."),
        ("temporal_attn.", "attentions.0.attn."),
        (".attn.qkv.", f".{space}attn.qkv.") if not divided else ("\0", "\0"),
    )
    out = {}
    for key, tensor in body.items():
        if ".attn." in key and "attentions." not in key:
            key = key.replace(".attn.", f".{space}attn.")
        key = key.replace("attn.qkv.", "attn.in_proj_").replace("attn.proj.", "attn.out_proj.")
        key = key.replace("mlp.fc1.", "ffns.0.layers.0.0.").replace("mlp.fc2.", "ffns.0.layers.1.")
        key = key.replace("patch_embed.proj.", "patch_embed.projection.").replace(*layer)
        out["cls_head.fc_cls." + key[5:] if key.startswith("head.") else f"backbone.{key}"] = tensor
    return out


def _mmaction_videomae(state: State) -> State:
    body = renamed(
        state,
        ("mlp.fc1.", "mlp.layers.0.0."),
        ("mlp.fc2.", "mlp.layers.1."),
        ("patch_embed.proj.", "patch_embed.projection."),
    )
    body["pos_embed"] = sincos_table(8, 32)
    return {("cls_head.fc_cls." + k[5:] if k.startswith("head.") else f"backbone.{k}"): t for k, t in body.items()}


def _newer_timesformer(state: State) -> State:
    body = renamed(
        state,
        *_HF,
        ("time_embed", "embeddings.time_embeddings"),
        ("temporal_norm1.", "temporal_layernorm."),
        ("temporal_layernorm_before.", "temporal_layernorm."),
        ("temporal_attn.qkv.", "temporal_attention.attention.qkv."),
        ("temporal_attn.proj.", "temporal_attention.output.dense."),
        ("temporal_fc.", "temporal_dense."),
        (".attn.qkv.", ".attention.attention.qkv."),
    )
    body = {("layernorm." + key[5:] if key.startswith("norm.") else key): tensor for key, tensor in body.items()}
    body = renamed(body, ("head.", "classifier."))
    return {(key if key.startswith("classifier.") else f"timesformer.{key}"): tensor for key, tensor in body.items()}


def _mmaction_uniformerv2(state: State) -> State:
    """in_proj of both kinds of attention joined again, and a norm and a head of their own."""
    out = {}
    for key, tensor in state.items():
        if "xattn.kv." in key:
            continue
        if "xattn.q." in key:
            key, tensor = key.replace("q.", "in_proj_"), torch.cat([tensor, state[key.replace("q.", "kv.")]])
        if key in ("cls_token", "pos_embed"):
            tensor = tensor[0, 0] if key == "cls_token" else tensor[0]
        key = re.sub(r"^decoder\.(\d+)\.neighbours", r"transformer.dpe.\1", key)
        out[re.sub(r"^(norm\.|balance|query_token|blocks|decoder)", r"transformer.\1", key)] = tensor
    body = renamed(
        out,
        ("cls_token", "class_embedding"),
        ("pos_embed", "positional_embedding"),
        ("norm_pre", "ln_pre"),
        ("query_token", "temporal_cls_token"),
        ("transformer.blocks", "transformer.resblocks"),
        ("transformer.decoder", "transformer.dec"),
        ("local1", "lmhra1.pos_embed"),
        ("qkv.", "in_proj_"),
        ("xattn", "attn"),
        ("attn.proj", "attn.out_proj"),
        ("norm_tokens", "ln_3"),
        (".norm1.", ".ln_1."),
        (".norm2.", ".ln_2."),
        ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"),
        ("head.", "cls_head.fc_cls."),
    )
    return {(key if key.startswith("cls_head.") else f"backbone.{key}"): tensor for key, tensor in body.items()}


_RENAMED: list[tuple[str, str, dict[str, Any], Callable[[State], State]]] = [
    ("Hugging Face ViViT", "vivit", {}, _hub_vivit),
    ("Hugging Face VideoMAE", "videomae_vit_b", {}, _hub_videomae),
    ("MMAction2 VideoMAE", "videomae_vit_b", {}, _mmaction_videomae),
    ("MMAction2 UniFormerV2", "uniformerv2_b16", {"read_after": 1}, _mmaction_uniformerv2),
    ("MMAction2 TimeSformer", "timesformer", {}, _mmaction_timesformer),
    ("MMAction2 TimeSformer", "timesformer", {"attention": "joint"}, _mmaction_timesformer),
    ("MMAction2 TimeSformer", "timesformer", {"attention": "space"}, _mmaction_timesformer),
    ("Hugging Face TimeSformer", "timesformer", {"attention": "joint"}, _newer_timesformer),
    ("Hugging Face TimeSformer", "timesformer", {"attention": "space"}, _newer_timesformer),
]


@pytest.mark.parametrize(("layout", "model", "options", "theirs"), _RENAMED)
def test_other_spellings(layout: str, model: str, options: dict[str, Any], theirs: Callable[[State], State]) -> None:
    net = small(model, **options)
    state = drawn_weights(net)
    report = load_weights(other := small(model, **options), theirs(state))
    assert (report.layout, report.head, report.left_out) == (layout, None, ())
    for key, tensor in other.state_dict().items():
        assert torch.equal(tensor, state[key]), key
    assert describe_weights(theirs(state)).options.get("attention") == options.get("attention")


# ---------------------------------------------------------------- what files leave open


def test_files_of_pretraining() -> None:
    net = small("videomae_vit_b")
    state = drawn_weights(net)
    body = {f"encoder.{key}": tensor for key, tensor in state.items() if not key.startswith(("head.", "fc_norm."))}
    extra = {
        "encoder.norm.weight": torch.ones(32),
        "mask_token": torch.ones(1, 1, 16),
        "decoder.norm.weight": torch.ones(16),
    }
    fresh = small("videomae_vit_b")
    report = load_weights(fresh, {"model": {**body, **extra}})
    assert report.head == "the file has none"
    assert any("decoder" in note and "fc_norm is re-initialised" in note for note in report.notes)
    assert torch.equal(fresh.blocks[1].attn.q_bias, state["blocks.1.attn.q_bias"])
    assert torch.equal(fresh.fc_norm.weight, torch.ones(32))


def test_learned_positions_do_not_pass_for_fixed_ones() -> None:
    net = small("videomae_vit_b")
    state = _mmaction_videomae(drawn_weights(net))
    state["backbone.pos_embed"] = torch.randn(1, 8, 32)
    with pytest.raises(CheckpointError, match="positions are learned"):
        load_weights(net, state)


def test_a_classifier_of_the_first_token_is_refused() -> None:
    net = small("videomae_vit_b")
    state = {key.replace("fc_norm.", "norm."): tensor for key, tensor in drawn_weights(net).items()}
    with pytest.raises(CheckpointError, match="by its first token"):
        load_weights(net, state)


def test_the_number_of_heads_is_asked_for() -> None:
    state = _hub_vivit(drawn_weights(small("vivit")))
    assert any(
        "assumed is model.heads=4, 8 channels each" in note for note in load_weights(small("vivit"), state).notes
    )


# ---------------------------------------------------------------- clips of another size


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_a_table_of_the_same_size_stays(mode: str) -> None:
    table = torch.randn(1, 1 + 12, 6)
    assert resize_grid(table, (3, 2, 2), (3, 2, 2), tokens=1, time=mode) is table


def test_tables_are_interpolated() -> None:
    table = torch.randn(1, 2 + 3 * 4 * 4, 5)
    larger = resize_grid(table, (3, 4, 4), (6, 8, 8), tokens=2)
    assert torch.equal(larger[:, :2], table[:, :2])
    pictures = table[0, 2:].view(3, 4, 4, 5).permute(0, 3, 1, 2)
    space = nn.functional.interpolate(pictures, size=(8, 8), mode="bicubic", align_corners=False)
    times = nn.functional.interpolate(space.flatten(1).t()[None], size=6, mode="linear", align_corners=False)[0]
    expected = times.t().view(6, 5, 8, 8).permute(0, 2, 3, 1).reshape(-1, 5)
    torch.testing.assert_close(larger[0, 2:], expected, rtol=1e-4, atol=1e-5)
    rows = resize_grid(torch.arange(4.0)[None, :, None], (4,), (8,), time="nearest")
    assert rows[0, :, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    flat = resize_grid(torch.full((1, 16, 3), 2.5), (4, 4), (7, 7))
    torch.testing.assert_close(flat, torch.full((1, 49, 3), 2.5))


@pytest.mark.parametrize(
    ("model", "options", "other", "note"),
    [
        ("timesformer", {}, {"num_frames": 8, "size": 64}, "pos_embed from 2 x 2 to 4 x 4 (bicubic)"),
        ("timesformer", {}, {"num_frames": 8}, "time_embed from 4 to 8 (nearest)"),
        ("vivit", {}, {"size": 64}, "pos_embed from 2 x 2 x 2 to 2 x 4 x 4 (bicubic in space, linear in time)"),
        ("vivit", {}, {"num_frames": 16}, "pos_embed from 2 x 2 x 2 to 8 x 2 x 2"),
        ("vivit_fe", {}, {"num_frames": 8, "size": 64}, "time_embed from 2 to 4 (linear)"),
        ("mvit_v1_b", {"width": 8}, {"size": 64}, "spatial_pos from 8 x 8 to 16 x 16 (bicubic)"),
        ("mvit_v2_s", {"width": 8}, {"num_frames": 8}, "rel_pos_t from 3 to 7 (linear)"),
    ],
)
def test_weights_of_other_clips(model: str, options: dict[str, Any], other: dict[str, Any], note: str) -> None:
    options = options or {"width": 32, "depth": 2, "heads": 4}
    net = vidtrain.create_model(model, num_classes=5, **{"num_frames": 4, "size": 32, **options})
    state = drawn_weights(net)
    bigger = vidtrain.create_model(model, num_classes=5, **{"num_frames": 4, "size": 32, **options, **other})
    report = load_weights(bigger, state)
    assert any(note in line for line in report.notes), report.notes
    assert report.loaded == len(bigger.state_dict())
    with torch.no_grad():
        clip = torch.randn(1, 3, other.get("num_frames", 4), other.get("size", 32), other.get("size", 32))
        assert bigger.eval()(clip).isfinite().all()
        assert not [note for note in load_weights(net, state).notes if "model.heads" not in note]


@pytest.mark.parametrize("patch", [14, 16])
def test_videomae_at_the_published_clip_has_nothing_to_ask(patch: int) -> None:
    """Which for patches of 14 pixels is another grid than for those of 16."""
    clip = {"num_frames": 16, "size": 224, "patch": patch, "width": 32, "depth": 1, "heads": 4}
    with torch.device("meta"):
        net, other = (
            vidtrain.create_model("videomae_vit_b", num_classes=7, **{**clip, **o}) for o in ({}, {"size": 112})
        )
    state = {key: torch.empty(tensor.shape, device="meta") for key, tensor in net.state_dict().items()}
    assert not any("table_size" in note for note in load_weights(net, state).notes)
    assert any("table_size" in note for note in load_weights(other, state).notes)


def test_uniformerv2_says_what_its_file_does_not() -> None:
    net = small("uniformerv2_b16", read_after=[0])
    state = {f"module.{key}": tensor for key, tensor in _mmaction_uniformerv2(drawn_weights(net)).items()}
    report = load_weights(small("uniformerv2_b16", read_after=1), state)
    assert any("assumed are 1 (model.read_after)" in note for note in report.notes)
    assert (report.expects.mode, report.expects.num_frames, report.expects.mean) == ("segments", 8, (0.45,) * 3)
    wider = small("uniformerv2_b16", read_after=1, size=64)
    assert any("pos_embed from 2 x 2 to 4 x 4 (bicubic)" in note for note in load_weights(wider, state).notes)


def test_the_published_vivit_at_the_default_clip() -> None:
    with torch.device("meta"):
        net = vidtrain.create_model("vivit", num_classes=101)
    report = load_weights(net, key_layout("hf_vivit_b16x2"))
    assert report.notes == (
        "positions interpolated: pos_embed from 16 x 14 x 14 to 8 x 7 x 7 (bicubic in space, linear in time)",
    )


@pytest.mark.parametrize(
    ("rows", "model", "grid"),
    [
        (3136, (8, 7, 7), (16, 14, 14)),
        (1568, (16, 7, 7), (8, 14, 14)),
        (784, (8, 7, 7), (16, 7, 7)),
        (784, (8, 14, 14), (4, 14, 14)),
        (7, (2, 2, 2), (7, 1, 1)),
    ],
)
def test_the_likely_grid_of_a_table(rows: int, model: tuple[int, int, int], grid: tuple[int, int, int]) -> None:
    assert likely_grid(rows, model) == grid


def test_a_table_of_no_square() -> None:
    net = small("timesformer")
    state = drawn_weights(net)
    state["pos_embed"] = torch.zeros(1, 8, 32)
    with pytest.raises(CheckpointError, match="pos_embed has 7 positions, expected a square"):
        load_weights(net, state)


def test_videomae_asks_for_the_clip_of_its_table() -> None:
    net = small("videomae_vit_b")
    state = drawn_weights(net)
    assert any("model.table_frames=16 model.table_size=224" in note for note in load_weights(net, state).notes)
    notes = load_weights(small("videomae_vit_b", table_frames=16, table_size=224), state).notes
    assert not [note for note in notes if "table" in note]
