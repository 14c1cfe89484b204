"""What holds for every conf/model/*.yaml of this chapter: options, forward and backward, batch independence, head."""

from __future__ import annotations

import copy
import functools
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.utils._pytree import tree_map

from tests.sampled import sampled
from vidtrain.errors import ConfigError
from vidtrain.models.settings import START_KEYS
from vidtrain.options.presets import model_section

CONF = Path(__file__).parents[2] / "conf" / "model"

_VJEPA2 = {"width": 32, "depth": 2, "heads": 4, "mlp_ratio": 4.0, "probe_depth": 1, "probe_heads": 4}
_UNIFORMERV2 = {"size": 32, "patch": 16, "width": 32, "depth": 3, "heads": 4, "read_after": 2}
_VIT = {"num_frames": 8, "size": 32, "width": 32, "depth": 2, "heads": 4}
# Thin versions where there are any. Clips are 8 x 32 x 32; c3d needs more frames, the ResNets-18 get fewer pixels.
THIN: dict[str, dict[str, Any]] = {
    "single_frame": {},
    "late_fusion": {"num_frames": 8, "size": 32},
    "early_fusion": {"num_frames": 8},
    "slow_fusion": {"width": 4},
    "c3d": {"num_frames": 16, "size": 32, "width": 4, "hidden": 16},
    "r3d_18": {},
    "mc3_18": {},
    "r2plus1d_18": {},
    "i3d_r50": {"depth": 14, "width": 4},
    "i3d_r50_nonlocal": {"depth": 14, "width": 4, "nonlocal_blocks": ["layer2.0", "layer3.0"]},
    "i3d_resnet_tiny": {"width": 4},
    "c2d_r50": {"depth": 14, "width": 4},
    "slow_r50": {"depth": 14, "width": 4},
    "slow_tiny": {"width": 4},
    "slowfast_r50": {"depth": 14, "width": 8, "beta": 4},
    "slowfast_4x16_r50": {"depth": 14, "width": 8, "beta": 4},
    "slowfast_r101": {"depth": 14, "width": 8, "beta": 4},
    "slowfast_tiny": {"width": 8},
    "x3d_xs": {"depth_factor": 0.2, "width_factor": 0.5, "features": 16},
    "x3d_s": {"depth_factor": 0.2, "width_factor": 0.5, "features": 16},
    "x3d_m": {"depth_factor": 0.4, "width_factor": 0.5, "features": 16},
    "x3d_l": {"depth_factor": 0.2, "width_factor": 0.5, "features": 16},
    "x3d_tiny": {"depth_factor": 0.2, "width_factor": 0.5, "features": 16},
    "csn_r101": {"depth": 14, "width": 4},
    "csn_tiny": {"num_frames": 8, "size": 32, "width": 4},
    "r2plus1d_r50": {"depth": 14, "width": 4},
    "r2plus1d_tiny": {"width": 4},
    "r2plus1d_34": {"width": 8},
    "i3d": {"width": 8},
    "i3d_tiny": {"width": 8},
    "s3d": {"width": 8},
    "s3d_tiny": {"width": 8},
    "s3dg": {"width": 8},
    "tsn_r50": {"backbone": "tiny"},
    "tsn_tiny": {},
    "tsm_r50": {"backbone": "tiny"},
    "tsm_tiny": {},
    "tsm_mobilenet_v2": {},
    "alternating3d": {"width": 4},
    "inflated": {"backbone": "tiny"},
    **{f"videomae_vit_{letter}": _VIT for letter in "sblh"},
    **{f"videomaev2_vit_{letter}": {**_VIT, "patch": 16} for letter in "sbg"},
    **dict.fromkeys(("timesformer", "vivit", "vivit_fe"), _VIT),
    **{f"{name}_tiny": {"num_frames": 8, "size": 32} for name in ("timesformer", "vivit", "videomae")},
    **{f"vjepa2_vit_{letter}": _VJEPA2 for letter in "lhg"},
    **{f"vjepa21_vit_{letter}": _VJEPA2 for letter in "bl"},
    "vjepa2_tiny": {},
    "timm_frames": {"size": 32},
    **{f"uniformerv2_{name}": _UNIFORMERV2 for name in ("b16", "b16_ssv2", "l14")},
    "uniformerv2_tiny": {"size": 32},
    **{
        name: {"num_frames": 8, "size": 32, "width": 16, "heads": 2, "stages": [1, 1, 1, 1]}
        for name in ("hiera_b", "hiera_b_plus", "hiera_l", "hiera_h")
    },
    "hiera_tiny": {"num_frames": 8, "size": 32, "width": 16},
    **{f"movinet_{name}": {"variant": "tiny"} for name in ("a0", "a1", "a2", "a0_stream", "a1_stream", "a2_stream")},
    **{f"movinet_tiny{kind}": {} for kind in ("", "_stream")},
    **{name: {"num_frames": 8, "size": 32, "width": 8, "depths": [1, 1, 2, 1]} for name in ("mvit_v1_b", "mvit_v2_s")},
    **{f"swin3d_{letter}": {"width": 8, "depths": [2, 2], "heads": [1, 2]} for letter in "tsb"},
    "two_stream": {"num_frames": 8, "backbone": "tiny"},
    "two_stream_tiny": {"num_frames": 8},
    "cnn_lstm": {"size": 32, "backbone": "tiny", "hidden": 8},
    "cnn_lstm_tiny": {"size": 32, "projection": 8, "hidden": 8},
    "feature_rnn": {"size": 32, "network": "slow_fusion", "network_options": {"width": 4}, "clip": 4, "hidden": 8},
    "feature_rnn_tiny": {"size": 32, "hidden": 8},
    "st_lstm": {"size": 32, "backbone": "tiny", "hidden": 8},
    "st_lstm_tiny": {"size": 32, "hidden": 8},
    **{name: {"channels": [4, 6]} for name in ("rcn", "rcn_tiny")},
    **{
        f"convlstm{variant}{tiny}": {"stem": [4], "hidden": [4, 6]} | ({} if variant else {"size": 32})
        for variant in ("", "_deformable", "_attention", "_dilated", "_hierarchical")
        for tiny in ("", "_tiny")
    },
}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in THIN),
    ("single_frame", {"backbone": "lecture", "dropout": 0.5}),
    ("late_fusion", {"fusion": "fc", "hidden": 8}),
    ("late_fusion", {"pool": "max", "backbone": "lecture"}),
    ("late_fusion", {"backbone": "resnet18"}),
    ("early_fusion", {"backbone": "squeezenet1_1"}),
    ("slow_fusion", {"net": "lecture", "width": None}),
    ("timesformer", {"attention": "joint", "dropout": 0.5}),
    ("timesformer", {"attention": "space"}),
    ("videomae_vit_b", {"table_frames": 16, "table_size": 224}),
    ("uniformerv2_b16", {"balanced": False, "read_after": [0, 1], "decoder_heads": 2}),
    ("uniformerv2_b16", {"local": "before", "temporal_downsample": True, "drop_path": 0.1, "decoder_drop_path": 0.2}),
    *(("i3d_r50_nonlocal", {"nonlocal_mode": mode}) for mode in ("gaussian", "dot_product", "concatenation")),
    ("i3d_r50", {"stem_stride": 2, "pool_stride": 2, "depth": 26, "temporal_kernels": [[1], [3, 1], [3], [1]]}),
    ("i3d_r50", {"time_pool": False}),
    ("slowfast_r50", {"lateral_norm": False, "draw": "stride", "fast_depth": 26, "nonlocal_blocks": ["layer3.0"]}),
    ("x3d_m", {"shortcut_norm": True, "nonlocal_blocks": ["layer2.0"], "nonlocal_pool": "after"}),
    ("csn_r101", {"kind": "ip", "nonlocal_blocks": ["layer1.0"], "nonlocal_scale": False}),
    ("csn_tiny", {"fusion": "flatten"}),
    ("movinet_tiny", {"causal": True, "dropout": 0.5}),
    ("movinet_tiny", {"conv": "2plus1d"}),
    ("hiera_tiny", {"stages": [1, 2, 1], "window": 4, "window_stages": 3, "pools": 1, "mlp_ratio": 2.5}),
    ("i3d", {"nonlocal_blocks": ["Mixed_3c", "Mixed_4d"]}),
    ("tsm_tiny", {"place": "block", "n_div": 4, "nonlocal_blocks": ["layer2.0"]}),
    ("tsm_r50", {"backbone": "resnet18"}),
    ("inflated", {"backbone": "lecture", "time_kernel": 5, "taps": "centre", "padding": "zeros"}),
    ("cnn_lstm", {"cell": "gru", "bidirectional": True, "head": "attention", "pooling": "flatten"}),
    ("cnn_lstm", {"fusion": "weights", "projection": 6, "dropout": 0.5}),
    ("cnn_lstm_tiny", {"cell": "rnn", "head": "max", "fusion": "concat", "projection": None}),
    ("feature_rnn", {"network": "tiny", "network_options": None, "head": "attention", "norm": "batch", "cell": "gru"}),
    ("two_stream", {"fusion": "concat", "segments": 3, "schedule": "joint"}),
    ("two_stream", {"backbone": "resnet18", "rgb_share": 0.3, "schedule": "joint", "dropout": 0.0}),
    ("timm_frames", {"head": "statistics"}),
    ("timm_frames", {"head": "attentive", "probe_depth": 1, "time_positions": False}),
    ("timm_frames", {"head": "recurrent", "cell": "gru", "hidden": 8, "bidirectional": True, "read": "mean"}),
    ("rcn", {"cell": "lstm", "norm": False, "head": "last"}),
    ("rcn_tiny", {"cell": "rnn", "kernel": 5, "stride": 1}),
    ("convlstm", {"peephole": True, "norm": False, "head": "attention"}),
    ("convlstm_deformable", {"groups": 2}),
    ("convlstm_hierarchical", {"time_scale": 3, "hidden": [4, 5, 6]}),
    ("st_lstm", {"inputs": "avg", "layers": 2, "head": "last"}),
]
# one of each function that builds them, the smallest
EACH = (
    *("single_frame", "late_fusion", "early_fusion", "slow_fusion", "c3d", "mc3_18", "i3d_resnet_tiny", "c2d_r50"),
    *("slow_tiny", "slowfast_tiny", "x3d_tiny", "csn_r101", "csn_tiny", "r2plus1d_tiny", "r2plus1d_34", "i3d_tiny"),
    *("s3d_tiny", "tsn_tiny", "tsm_tiny", "alternating3d", "inflated", "videomae_tiny", "timesformer_tiny"),
    *("vivit_tiny", "vivit_fe", "vjepa2_tiny", "timm_frames", "uniformerv2_tiny", "hiera_tiny", "movinet_tiny"),
    *("movinet_tiny_stream", "mvit_v2_s", "swin3d_t", "two_stream_tiny", "cnn_lstm_tiny", "feature_rnn_tiny"),
    *("st_lstm_tiny", "rcn_tiny", "convlstm_tiny", "convlstm_deformable_tiny", "convlstm_attention_tiny"),
    *("convlstm_dilated_tiny", "convlstm_hierarchical_tiny"),
)
NAMES = sampled(THIN, EACH)
CASES = sampled(
    VARIANTS,
    [
        (name, options)
        for name, options in VARIANTS
        if (options or name in EACH) and options.get("backbone") not in ("resnet18", "squeezenet1_1")
    ],
)


@functools.cache
def factory(name: str) -> Any:
    """The function of a model's YAML, with the YAML's values but those that come from the clip."""
    section = OmegaConf.to_container(model_section(name), resolve=False)
    assert isinstance(section, dict)
    module, _, function = section.pop("_target_").rpartition(".")
    given = {k: v for k, v in section.items() if k not in START_KEYS and not str(v).startswith("${")}
    return functools.partial(getattr(import_module(module), function), **given)


def build(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return factory(name)(**{"num_classes": 5, **THIN[name], **options})


@functools.cache
def built(name: str) -> nn.Module:
    """For tests that leave the model as it is."""
    return build(name).eval()


def clips(name: str, batch: int = 2) -> Any:
    """What the model reads: a tensor, or a dict of RGB and flow."""
    frames, *size = (4, 16, 16) if name.endswith("_18") else (THIN[name].get("num_frames", 8), 32, 32)
    generator = torch.Generator().manual_seed(1)
    rgb = torch.randn(batch, 3, frames, *size, generator=generator)
    if not name.startswith("two_stream"):
        return rgb
    return {"rgb": rgb, "flow": torch.rand(batch, 2, frames - 1, *size, generator=generator) * 2 - 1}


def test_each_function_is_in_the_sample() -> None:
    functions = {name: str(model_section(name)["_target_"]) for name in THIN}
    large = {functions["r3d_18"], functions["r2plus1d_18"]}
    assert {functions[name] for name in EACH} == set(functions.values()) - large
    elsewhere = {"probe", "segment_head"}  # test_probe.py, tests/tasks/test_detection.py
    assert {file.stem for file in CONF.glob("*.yaml")} == THIN.keys() | elsewhere


@pytest.mark.parametrize("name", [name for name in THIN if name not in EACH])
def test_every_other_preset_runs(name: str) -> None:
    """Once and forward alone; of r3d_18 and r2plus1d_18 without values, since drawing 33 M of them takes long."""
    device = "meta" if name in ("r3d_18", "r2plus1d_18") else "cpu"
    with torch.no_grad(), torch.device(device):
        model = build(name).eval()
        assert model(tree_map(lambda t: t.to(device), clips(name, 1))).shape == (1, 5)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_forward_and_backward(name: str, options: dict[str, Any]) -> None:
    model = build(name, **options)
    outputs = model(clips(name))
    logits = sum(outputs.values()) if isinstance(outputs, dict) else outputs  # of streams that learn by themselves
    assert logits.shape == (2, 5)
    assert logits.dtype == torch.float32
    nn.functional.cross_entropy(logits, torch.tensor([0, 4])).backward()
    for key, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
        assert parameter.grad is None or parameter.grad.isfinite().all(), key


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_clip_alone_and_in_a_batch(name: str, options: dict[str, Any]) -> None:
    model = build(name, **options).eval() if options else built(name)
    x = clips(name)
    with torch.no_grad():
        together, alone = model(x), torch.cat([model(tree_map(lambda t, n=n: t[n : n + 1], x)) for n in range(2)])
    assert (together - together[:1]).abs().max() > 1e-6  # the clips do differ
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_the_head_of_the_features_and_the_head_can_be_renewed(name: str) -> None:
    model = copy.deepcopy(built(name))
    x = clips(name)
    with torch.no_grad():
        before = model.forward_features(x)
        head = model.get_submodule(model.head_name)
        torch.testing.assert_close(model(x), head(before))
        assert before.shape == (2, model.num_features)
        model.to(torch.float64).reset_head(7)
        assert next(model.get_submodule(model.head_name).parameters()).dtype == torch.float64
        x = tree_map(torch.Tensor.double, x)
        assert model(x).shape == (2, 7)
        torch.testing.assert_close(model.forward_features(x).float(), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_round_trip(name: str) -> None:
    model = copy.deepcopy(built(name)).train()
    with torch.no_grad():
        model(clips(name))  # so that running means are not those of a fresh net
    other = copy.deepcopy(built(name))
    for tensor in other.parameters():
        nn.init.zeros_(tensor)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(model.eval()(clips(name)), other.eval()(clips(name)))


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_shape_is_named(name: str) -> None:
    for shape in [(2, 8, 3, 32, 32), (3, 8, 32, 32), (2, 1, 8, 32, 32)]:
        with pytest.raises(ConfigError, match=r"\(batch, 3, frames, height, width\)") as caught:
            built(name)(torch.zeros(shape))
        assert str(shape) in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_options_out_of_range(name: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.num_classes: got 0, expected 1 or more"):
        build(name, num_classes=0)
    with pytest.raises(ConfigError, match=r"model\.dropout: got 1\.5"):
        build(name, dropout=1.5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("late_fusion", {"fusion": "fcc"}, r"model\.fusion: got 'fcc' \(did you mean fc\?\), expected pool, fc"),
        ("late_fusion", {"pool": "mean"}, r"model\.pool: got 'mean', expected avg, max"),
        ("late_fusion", {"num_frames": 0}, r"model\.num_frames: got 0"),
        ("late_fusion", {"fusion": "fc", "hidden": 0}, r"model\.hidden: got 0"),
        ("early_fusion", {"num_frames": -1}, r"model\.num_frames: got -1"),
        ("slow_fusion", {"net": "tny"}, r"model\.net: got 'tny' \(did you mean tiny\?\), expected tiny, lecture"),
        ("slow_fusion", {"width": 0}, r"model\.width: got 0"),
        ("c3d", {"num_frames": 8}, r"model\.num_frames: got 8.* 16 or more: set sampler\.num_frames=16"),
        ("c3d", {"size": 8}, r"model\.size: got 8.* 16 or more: set transform\.size=16"),
        ("i3d_r50", {"depth": 18}, r"model\.depth: got 18, expected 14, 26, 50, 101, 152"),
        ("i3d_r50", {"stem_stride": 3}, r"model\.stem_stride: got 3, expected 1 or 2"),
        ("i3d_r50", {"temporal_kernels": [[3], [2], [3], [3]]}, r"model\.temporal_kernels: got 2, expected odd"),
        ("i3d_r50", {"temporal_kernels": [[3], [3]]}, r"model\.temporal_kernels: got .*, expected a list of"),
        ("i3d_r50", {"nonlocal_blocks": 7}, r"model\.nonlocal_blocks: got 7, expected null, 5, 10 or a list"),
        ("i3d_r50", {"nonlocal_blocks": 5}, r"model\.nonlocal_blocks: there is no layer2\.1 \(did you mean"),
        ("i3d_r50", {"nonlocal_mode": "dot"}, r"model\.nonlocal_mode: got 'dot'.*expected gaussian, embedded"),
        ("i3d_r50", {"nonlocal_pool": "both"}, r"model\.nonlocal_pool: got 'both', expected null, before, after"),
        ("slow_r50", {"width": 0}, r"model\.width: got 0"),
        ("c2d_r50", {"pool_padding": 2}, r"model\.pool_padding: got 2, expected 0 or 1"),
        ("slowfast_r50", {"beta": 3}, r"model\.beta: got 3, expected a divisor of model\.width=8"),
        ("slowfast_r50", {"alpha": 0}, r"model\.alpha: got 0"),
        ("slowfast_r50", {"fusion_kernel": 4}, r"model\.fusion_kernel: got 4, expected an odd"),
        ("slowfast_r50", {"draw": "linspce"}, r"model\.draw: got 'linspce' \(did you mean linspace\?\)"),
        ("x3d_m", {"width_factor": 0.0}, r"model\.width_factor: got 0\.0, expected more than 0"),
        ("csn_r101", {"kind": "is"}, r"model\.kind: got 'is'.*expected ir, ip"),
        ("csn_tiny", {"num_frames": 4}, r"model\.num_frames: got 4, expected 8 or more"),
        ("csn_tiny", {"fusion": "flat"}, r"model\.fusion: got 'flat'.*expected mean, flatten"),
    ],
)  # fmt: skip
def test_errors_say_what_is_allowed(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(name, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "shape", "message"),
    [
        ("late_fusion", {"fusion": "fc"}, (1, 3, 4, 32, 32), "clips of 4 frames, but .* built for 8"),
        ("late_fusion", {"fusion": "fc"}, (1, 3, 8, 32, 48), "32 x 48 pixels, but .* built for 32 x 32"),
        ("early_fusion", {}, (1, 3, 16, 32, 32), "clips of 16 frames, but .* built for 8"),
        ("c3d", {}, (1, 3, 16, 64, 64), r"64 x 64 pixels, but .* built for 32 x 32: set transform\.size=32"),
        ("slow_fusion", {"net": "lecture"}, (1, 3, 3, 32, 32), "3 x 32 x 32, needs 4 frames and 4 x 4 pixels"),
        ("single_frame", {"backbone": "lecture"}, (1, 3, 8, 2, 2), "2 x 2 pixels, this backbone needs 4 x 4"),
        ("i3d_r50", {}, (1, 3, 1, 32, 32), r"clips of 1 frames, it needs 2 or more: set sampler\.num_frames=2"),
        ("i3d_r50", {"stem_stride": 2, "pool_stride": 2}, (1, 3, 4, 32, 32), "clips of 4 frames, it needs 5 or more"),
        ("csn_tiny", {"fusion": "flatten"}, (1, 3, 16, 32, 32), "clips of 16 frames, but .* built for 8"),
        ("csn_tiny", {}, (1, 3, 8, 12, 32), "clips of 8 x 12 x 32, needs 8 frames and 31 x 31 pixels"),
    ],
)
def test_clips_that_do_not_fit(name: str, options: dict[str, Any], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(name, **options)(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 3, 5, 40, 24), (1, 3, 1, 17, 31)])
@pytest.mark.parametrize(
    "name",
    [
        *("single_frame", "late_fusion", "slow_fusion", "mc3_18", "slow_r50", "slowfast_r50", "x3d_m", "csn_r101"),
        *("r2plus1d_r50", "r2plus1d_34", "movinet_a0", "movinet_a0_stream"),
    ],
)
def test_pooling_models_take_any_clip(name: str, shape: tuple[int, ...]) -> None:
    with torch.no_grad():
        assert built(name)(torch.zeros(shape)).shape == (1, 5)
