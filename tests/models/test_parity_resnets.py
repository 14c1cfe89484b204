"""The 3D ResNets from the files of torchvision, PyTorchVideo, PySlowFast and MMAction2: third-party logits, every key
layout of these families, and the variants that have no target."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

import vidtrain
from tests.models import parity
from tests.sampled import sampled
from vidtrain.errors import CheckpointError
from vidtrain.models.weights.load import describe_weights, load_weights

TOLERANCE = 1e-4  # ten times stricter than what counts as the same; measured 2.3e-6 at most

QUICK = {"tv_mc3_18": "mc3_18", "ptv_x3d_xs": "x3d_xs"}
SLOW = {"tv_r3d_18": "r3d_18", "tv_r2plus1d_18": "r2plus1d_18"} | {
    f"ptv_{name}": name
    for name in ("x3d_s", "c2d_r50", "i3d_r50", "slow_r50", "slowfast_r50", "csn_r101", "r2plus1d_r50")
}


@pytest.mark.parametrize("target", sampled(QUICK, ["tv_mc3_18"]))  # x3d_xs: the next test
def test_third_party_logits(target: str) -> None:
    assert parity.error_of(target, QUICK[target]) <= TOLERANCE


@pytest.mark.parametrize("options", [{"shortcut_norm": True}, {"shortcut_norm": False}])
def test_both_variants_of_x3d_take_a_file_without_the_norm(options: dict[str, Any]) -> None:
    assert parity.error_of("ptv_x3d_xs", "x3d_xs", **options) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("target", SLOW)
def test_third_party_logits_of_large_nets(target: str) -> None:
    assert parity.error_of(target, SLOW[target]) <= TOLERANCE


LAYOUTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "tv_r3d_18": ("torchvision video ResNet", "r3d_18", {}),
    "tv_mc3_18": ("torchvision video ResNet", "mc3_18", {}),
    "tv_r2plus1d_18": ("torchvision video ResNet", "r2plus1d_18", {}),
    "ptv_c2d_r50": ("PyTorchVideo", "c2d_r50", {}),
    "ptv_i3d_r50": ("PyTorchVideo", "i3d_r50", {}),
    "ptv_slow_r50": ("PyTorchVideo", "slow_r50", {}),
    "ptv_slowfast_r50": ("PyTorchVideo", "slowfast_r50", {}),
    "ptv_slowfast_r101": ("PyTorchVideo", "slowfast_r50", {"depth": 101, "fusion_kernel": 5}),
    "ptv_csn_r101": ("PyTorchVideo", "csn_r101", {}),
    "ptv_r2plus1d_r50": ("PyTorchVideo", "r2plus1d_r50", {}),
    "ptv_x3d_xs": ("PyTorchVideo", "x3d_m", {}),
    "ptv_x3d_s": ("PyTorchVideo", "x3d_m", {}),
    "ptv_x3d_m": ("PyTorchVideo", "x3d_m", {}),
    "ptv_x3d_l": ("PyTorchVideo", "x3d_m", {"depth_factor": 5.0}),
    "psf_X3D_XS": ("PySlowFast", "x3d_m", {"shortcut_norm": True}),
    "psf_I3D_NLN_8x8_R50": ("PySlowFast", "i3d_r50", {"nonlocal_blocks": 5}),
}


@pytest.mark.filterwarnings("ignore:.*which is a no-op")  # nothing is copied on the meta device
@pytest.mark.parametrize(
    "name",
    sampled(LAYOUTS, ["tv_mc3_18", "ptv_i3d_r50", "ptv_slowfast_r50", "ptv_x3d_m", "psf_X3D_XS"]),
)
def test_a_published_layout_says_what_it_is_and_fits(name: str) -> None:
    state = parity.key_layout(name)
    info = describe_weights({"model_state": state})
    assert (info.layout, info.model, info.options) == LAYOUTS[name]
    assert info.num_classes == 101
    assert info.model is not None
    with torch.device("meta"):
        model = vidtrain.create_model(info.model, num_classes=5, **info.options)
    report = load_weights(model, {f"module.{key}": value for key, value in state.items()})
    assert report.head == "checkpoint has 101 classes, model has 5"
    assert all(why == "another last layer" for _, why in report.left_out)
    shifts = sum(key.endswith(".shift") for key in model.state_dict())
    assert report.loaded == len(state) - 2 + shifts


# ---------------------------------------------------------------- layouts without a target: our net under their names


def thin(name: str, **options: Any) -> nn.Module:
    model = vidtrain.create_model(name, num_classes=7, **options).eval()
    parity.drawn_weights(model)
    for key, tensor in model.state_dict().items():
        if key.endswith(".shift"):
            tensor.zero_()
    return model


def renamed(model: nn.Module, rules: list[tuple[str, str]]) -> dict[str, torch.Tensor]:
    state = {}
    for key, tensor in model.state_dict().items():
        if not key.endswith(".shift"):
            for pattern, new in rules:
                key = re.sub(pattern, new, key)
            state[key] = tensor.clone()
    return state


BLOCKS_PSF = [
    (r"layer(\d)\.(\d+)\.downsample\.0\.", lambda m: f"s{int(m[1]) + 1}.PATH_res{m[2]}.branch1."),
    (r"layer(\d)\.(\d+)\.downsample\.1\.", lambda m: f"s{int(m[1]) + 1}.PATH_res{m[2]}.branch1_bn."),
    (r"layer(\d)\.(\d+)\.se\.", lambda m: f"s{int(m[1]) + 1}.PATH_res{m[2]}.branch2.se."),
    (
        r"layer(\d)\.(\d+)\.(conv|bn)(\d)\.",
        lambda m: f"s{int(m[1]) + 1}.PATH_res{m[2]}.branch2.{' abc'[int(m[4])]}{'_bn' if m[3] == 'bn' else ''}.",
    ),
    (
        r"layer(\d)\.nonlocal(\d+)\.(theta|phi|g|out|bn)\.",
        lambda m: f"s{int(m[1]) + 1}.PATH_nonlocal{m[2]}.{m[3] if m[3] == 'bn' else 'conv_' + m[3]}.",
    ),
]
PSF: list[tuple[str, Any]] = [
    *BLOCKS_PSF,
    (r"lateral\.(\d)\.conv\.", lambda m: f"s{int(m[1]) + 1}_fuse.conv_f2s."),
    (r"lateral\.(\d)\.bn\.", lambda m: f"s{int(m[1]) + 1}_fuse.bn."),
    (r"^((?:slow\.|fast\.)?)conv1_s\.", r"\1s1.PATH_stem.conv_xy."),
    (r"^((?:slow\.|fast\.)?)conv1(_t)?\.", r"\1s1.PATH_stem.conv."),
    (r"^((?:slow\.|fast\.)?)bn1\.", r"\1s1.PATH_stem.bn."),
    (r"^slow\.(.*)PATH", r"\1pathway0"),
    (r"^fast\.(.*)PATH", r"\1pathway1"),
    (r"PATH", "pathway0"),
    (r"^conv5\.", "head.conv_5."),
    (r"^bn5\.", "head.conv_5_bn."),
    (r"^fc1\.", "head.lin_5."),
    (r"^fc\.", "head.projection."),
]
MMA: list[tuple[str, Any]] = [
    (r"(layer\d\.\d+)\.downsample\.0\.", r"\1.downsample.conv."),
    (r"(layer\d\.\d+)\.downsample\.1\.", r"\1.downsample.bn."),
    (r"(layer\d\.\d+)\.conv(\d)\.", r"\1.conv\2.conv."),
    (r"(layer\d\.\d+)\.bn(\d)\.", r"\1.conv\2.bn."),
    (r"(layer\d\.\d+)\.se\.", r"\1.se_module."),
    (r"(layer\d)\.nonlocal(\d+)\.(g|phi)\.", r"\1.\2.non_local_block.\3.0.conv."),
    (r"(layer\d)\.nonlocal(\d+)\.theta\.", r"\1.\2.non_local_block.theta.conv."),
    (r"(layer\d)\.nonlocal(\d+)\.out\.", r"\1.\2.non_local_block.conv_out.conv."),
    (r"(layer\d)\.nonlocal(\d+)\.bn\.", r"\1.\2.non_local_block.conv_out.bn."),
    (r"^((?:slow\.|fast\.)?)bn1\.", r"\1conv1.bn."),
    (r"^((?:slow\.|fast\.)?)conv1\.(?!bn)", r"\1conv1.conv."),
    (r"^lateral\.0\.", "slow_path.conv1_lateral."),
    (r"^lateral\.(\d)\.", r"slow_path.layer\1_lateral."),
    (r"^slow\.", "slow_path."),
    (r"^fast\.", "fast_path."),
    (r"^fc\.", "cls_head.fc_cls."),
    (r"^(?!cls_head)", "backbone."),
]
MMA_X3D = [
    (r"^conv1\.bn\.", "conv1_t.bn."),
    (r"^bn1\.", "conv1_t.bn."),
    (r"^conv1_([st])\.(?!bn)", r"conv1_\1.conv."),
    (r"^bn5\.", "conv5.bn."),
    (r"^conv5\.(?!bn)", "conv5.conv."),
    (r"^fc\.", "cls_head.fc2."),
    (r"^fc1\.", "cls_head.fc1."),
    *MMA[:5],
    (r"^(?!cls_head)", "backbone."),
]
OUTER = [
    *[rule for rule in MMA if rule[0] != r"(layer\d\.\d+)\.conv(\d)\."],
    (r"(layer\d\.\d+)\.conv([13])\.(?!bn)", r"\1.conv\2.conv."),
]
MMA_CSN = [(r"(layer\d\.\d+)\.(conv|bn)2\.", r"\1.conv2.0.\2."), *OUTER]
MMA_CSN_IP = [
    (r"\.conv2\.mix\.", ".conv2.0.conv."),
    (r"\.conv2\.bn\.", ".conv2.0.bn."),
    (r"\.conv2\.depthwise\.", ".conv2.1.conv."),
    (r"(layer\d\.\d+)\.bn2\.", r"\1.conv2.1.bn."),
    *OUTER,
]
MMA_R2PLUS1D = [
    (r"\.space\.", ".conv_s."),
    (r"\.time\.", ".conv_t."),
    (r"(conv\d|downsample\.0)\.bn\.", r"\1.bn_s."),
    *MMA,
]
SMALL = {"depth": 14, "width": 8}
SMALL_X3D = {"depth_factor": 0.4, "width_factor": 0.5, "features": 16}
CASES: dict[str, tuple[str, list[Any], str, dict[str, Any]]] = {
    "psf c2d": ("PySlowFast", PSF, "c2d_r50", SMALL),
    "psf slow": ("PySlowFast", PSF, "slow_r50", {**SMALL, "temporal_kernels": [[1], [3], [3], [1]]}),
    "psf i3d": ("PySlowFast", PSF, "i3d_r50", {"depth": 26, "width": 8}),
    "psf i3d nonlocal": (
        "PySlowFast", PSF, "i3d_r50", {"depth": 26, "width": 8, "nonlocal_blocks": ["layer2.1", "layer3.0"]},
    ),
    "psf slowfast": ("PySlowFast", PSF, "slowfast_r50", SMALL),
    "psf slowfast 4x16": (
        "PySlowFast", PSF, "slowfast_r50",
        {**SMALL, "alpha": 8, "fusion_kernel": 5},
    ),
    "psf slowfast nonlocal 8x8": (
        "PySlowFast", PSF, "slowfast_r50",
        {**SMALL, "alpha": 4, "fusion_kernel": 5, "nonlocal_blocks": ["layer3.0"], "nonlocal_mode": "dot_product"},
    ),
    "psf x3d": ("PySlowFast", PSF, "x3d_m", {**SMALL_X3D, "shortcut_norm": True}),
    "mma i3d": ("MMAction2", MMA, "i3d_r50", {**SMALL, "stem_stride": 2, "pool_stride": 2}),
    "mma i3d nonlocal": (
        "MMAction2", MMA, "i3d_r50",
        {**SMALL, "stem_stride": 2, "pool_stride": 2, "nonlocal_blocks": ["layer2.0"], "nonlocal_pool": "after",
         "nonlocal_scale": False},
    ),
    "mma slow": ("MMAction2", MMA, "slow_r50", SMALL),
    "mma slowfast": ("MMAction2", MMA, "slowfast_r50", {**SMALL, "draw": "stride", "lateral_norm": False}),
    "mma csn": ("MMAction2", MMA_CSN, "csn_r101", SMALL),
    "mma csn ip": ("MMAction2", MMA_CSN_IP, "csn_r101", {**SMALL, "kind": "ip"}),
    "mma x3d": ("MMAction2", MMA_X3D, "x3d_m", {**SMALL_X3D, "shortcut_norm": True}),
    "mma r2plus1d": ("MMAction2", MMA_R2PLUS1D, "r2plus1d_34", {"width": 8}),
}  # fmt: skip


def as_they_compute(case: str, model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """What another code base does that no key shows: undone in the file, so that our net is what the file means."""
    eps = {key: 1e-3 for key in state if "csn" in case or ("r2plus1d" in case and ".bn_s." not in key)}
    for key in [key for key in state if key.endswith("running_var") and key in eps]:
        state[key] -= 1e-3 - 1e-5
    if case == "mma slowfast":  # their head reads the fast features first
        slow = 32 * SMALL["width"]
        weight = state["cls_head.fc_cls.weight"]
        state["cls_head.fc_cls.weight"] = torch.cat([weight[:, slow:], weight[:, :slow]], 1)
    if case == "psf x3d":  # a convolution there
        state["head.lin_5.weight"] = state["head.lin_5.weight"][:, :, None, None, None]
    for key in [key for key in state if key.endswith("conv_out.conv.bias")]:  # none there
        model.get_parameter("layer2.nonlocal0.out.bias").data.zero_()
        del state[key]


@pytest.mark.parametrize("case", CASES)
def test_other_layouts_are_read_whole(case: str) -> None:
    layout, rules, name, options = CASES[case]
    model = thin(name, **options)
    state = renamed(model, rules)
    as_they_compute(case, model, state)
    info = describe_weights({"state_dict": state})
    assert (info.layout, info.num_classes) == (layout, 7)
    assert info.model is not None
    copy = vidtrain.create_model(info.model, num_classes=7, **{**info.options, "dropout": 0.0}).eval()
    report = load_weights(copy, state)
    assert report.head is None
    assert not report.left_out
    x = torch.randn(1, 3, 16, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(copy(x), model(x), rtol=1e-4, atol=1e-4)


def test_c3d_of_mmaction2() -> None:
    model = vidtrain.create_model("c3d", num_classes=7, num_frames=16, size=32, width=4, hidden=16).eval()
    parity.drawn_weights(model, 1.0)
    rules = [(r"^conv([12])\.", r"conv\1a.conv."), (r"^conv(\d[ab])\.(?!conv)", r"conv\1.conv."),
             (r"^fc8\.", "cls_head.fc_cls."), (r"^(?!cls_head)", "backbone.")]  # fmt: skip
    state = renamed(model, rules)
    assert describe_weights(state).model == "c3d"
    copy = vidtrain.create_model("c3d", num_classes=7, num_frames=16, size=32, width=4, hidden=16).eval()
    load_weights(copy, state)
    x = torch.randn(1, 3, 16, 32, 32)
    with torch.no_grad():
        assert torch.equal(copy(x), model(x))


# ---------------------------------------------------------------- X3D's two variants and BatchNorm's epsilon


def x3d_file() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    model = thin("x3d_m", **SMALL_X3D, shortcut_norm=True)
    state = renamed(model, PSF)
    state["head.lin_5.weight"] = state["head.lin_5.weight"][:, :, None, None, None]
    return model, state


def test_a_file_with_the_norm_gives_the_same_logits_in_the_net_without() -> None:
    model, state = x3d_file()
    other = vidtrain.create_model("x3d_m", num_classes=7, **SMALL_X3D).eval()
    report = load_weights(other, state)
    assert "folded into its convolution" in report.notes[0]
    x = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(other(x), model(x), rtol=1e-4, atol=1e-4)
        shift = other.get_buffer("layer1.0.downsample.0.shift")
        assert shift.abs().max() > 0.1
        again = vidtrain.create_model("x3d_m", num_classes=7, **SMALL_X3D).eval()
        again.load_state_dict(other.state_dict())  # what was folded is kept in our own checkpoints
        assert torch.equal(again(x), other(x))


def test_what_no_tensor_shows_is_said() -> None:
    """MMAction2's strides in time stand in no tensor: the report says so where they differ."""
    model = thin("i3d_r50", **SMALL)
    report = load_weights(vidtrain.create_model("i3d_r50", num_classes=7, **SMALL), renamed(model, MMA))
    assert "model.stem_stride=2 model.pool_stride=2" in report.to_text()
    fitting = vidtrain.create_model("i3d_r50", num_classes=7, **SMALL, stem_stride=2, pool_stride=2)
    assert not load_weights(fitting, renamed(model, MMA)).notes


# ---------------------------------------------------------------- what does not fit


def test_another_net_of_the_family_is_named() -> None:
    state = renamed(thin("slow_r50", **SMALL), PSF)
    i3d = vidtrain.create_model("i3d_r50", num_classes=7, **SMALL)
    before = {key: tensor.clone() for key, tensor in i3d.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(i3d, state)
    message = str(caught.value)
    assert "\n" not in message
    assert "conv1.weight is (8, 3, 1, 7, 7), here (8, 3, 5, 7, 7)" in message
    assert "create_model('slow_r50', depth=14, width=8, num_classes=7)" in message
    assert "model=slow_r50 model.depth=14 model.width=8" in message
    assert all(torch.equal(tensor, before[key]) for key, tensor in i3d.state_dict().items())


def test_missing_lateral_norms_are_an_error() -> None:
    options = {**SMALL, "draw": "stride"}
    state = renamed(thin("slowfast_r50", **options, lateral_norm=False), MMA)
    with pytest.raises(CheckpointError, match=r"16 missing \(lateral\.0\.bn\.weight.*model\.lateral_norm=false"):
        load_weights(vidtrain.create_model("slowfast_r50", num_classes=7, **options), state)


def test_half_a_file_is_an_error() -> None:
    model = thin("slow_r50", **SMALL)
    state = renamed(model, PSF)
    del state["s4.pathway0_res0.branch2.b.weight"]
    state["s4.pathway0_res0.branch2.d.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"1 missing \(layer3\.0\.conv2\.weight\); 1 unexpected \(.*branch2\.d"):
        load_weights(model, state)


def test_image_weights_point_to_inflation() -> None:
    with torch.device("meta"):
        net = torchvision.models.resnet50(num_classes=7)
    state = net.state_dict()
    with pytest.raises(CheckpointError, match=r"a 2D net: start from it with model\.inflate_from"):
        load_weights(vidtrain.create_model("slow_r50", num_classes=7), state)
    with pytest.raises(CheckpointError, match=r"for images; model\.inflate_from"):
        load_weights(vidtrain.create_model("x3d_xs", num_classes=7), state)
