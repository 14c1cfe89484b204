"""The 3D ResNets, SlowFast, X3D and CSN: published size and cost, what each does with time, what the documents say."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import vidtrain
from tests.sampled import sampled
from vidtrain.models.c2d_resnet import c2d_r50
from vidtrain.models.csn import csn_r101
from vidtrain.models.csn_tiny import SeparableConv, csn_tiny
from vidtrain.models.i3d_resnet import i3d_r50
from vidtrain.models.layers.resnet3d import Bottleneck, ResNet3d
from vidtrain.models.r2plus1d_34 import r2plus1d_34
from vidtrain.models.r2plus1d_resnet import r2plus1d_r50
from vidtrain.models.slow_resnet import slow_r50
from vidtrain.models.slowfast import SlowFast, slowfast_r50
from vidtrain.models.x3d import x3d_m

# name -> options, parameters at 400 and at 101 classes to the unit, clip, GMAC of one clip: third-party code's figures
PUBLISHED: dict[str, tuple[dict[str, Any], int, int | None, tuple[int, int], float]] = {
    "i3d_r50": ({}, 28_043_472, 27_430_821, (8, 224), 28.41),
    "c2d_r50": ({}, 24_327_632, 23_714_981, (8, 224), 19.49),
    "slow_r50": ({}, 32_454_096, 31_841_445, (8, 224), 41.74),
    "i3d_r50_nonlocal": ({}, 35_401_936, None, (8, 224), 36.54),
    "slowfast_r50": ({}, 34_566_488, 33_877_293, (32, 224), 50.31),
    "slowfast_4x16_r50": ({}, 34_480_216, None, (32, 224), 27.64),
    "slowfast_r101": ({}, 62_826_968, None, (32, 224), 96.40),
    "x3d_xs": ({}, 3_794_274, 3_181_623, (4, 160), 0.605),
    "x3d_s": ({}, 3_794_274, 3_181_623, (13, 160), 1.963),
    "x3d_m": ({"shortcut_norm": True}, 3_794_322, 3_181_671, (16, 224), 4.732),
    "x3d_l": ({}, 6_153_384, None, (16, 312), 18.37),
    "csn_r101": ({}, 22_213_776, 21_601_125, (32, 224), 56.47),
    "r2plus1d_r50": ({}, 28_107_600, 27_494_949, (16, 224), 57.53),
}
TINY = ("i3d_resnet_tiny", "slow_tiny", "slowfast_tiny", "x3d_tiny", "r2plus1d_tiny", "csn_tiny")


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def gmac(model: nn.Module, frames: int, size: int) -> float:
    """Of a model that may be changed: its BatchNorms, which count for nothing and take most of the time on meta, go."""
    for part in list(model.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.BatchNorm3d):
                setattr(part, name, nn.Identity())
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.eval()(torch.empty(1, 3, frames, size, size, device="meta"))
    return float(counter.get_total_flops()) / 2e9


@pytest.mark.parametrize("name", sampled(PUBLISHED, ["i3d_r50", "slowfast_r50", "x3d_m", "csn_r101"]))
def test_parameters_and_multiply_adds(name: str) -> None:
    options, params, params_101, (frames, size), cost = PUBLISHED[name]
    with torch.device("meta"):
        model = vidtrain.create_model(name, num_classes=400, **options)
    assert count(model) == params
    if params_101 is not None:
        small = copy.deepcopy(model)
        small.reset_head(101)
        assert count(small) == params_101
    assert gmac(model, frames, size) == pytest.approx(cost, rel=5e-3)


@pytest.mark.parametrize("name", TINY)
def test_tiny_ones_suit_a_cpu(name: str) -> None:
    with torch.device("meta"):
        model = vidtrain.create_model(name, num_classes=8, num_frames=16, size=64)
    assert count(model) <= 1.1e6
    assert gmac(model, 16, 64) <= 0.3


@pytest.mark.slow
@pytest.mark.parametrize("name", [*PUBLISHED, "r2plus1d_34"])
def test_the_default_clip_fits_all(name: str) -> None:
    with torch.device("meta"):
        model = vidtrain.create_model(name, num_classes=5).eval()
        assert model(torch.empty(2, 3, 16, 112, 112)).shape == (2, 5)


# ---------------------------------------------------------------- how time is looked at


def time_kernels(model: nn.Module) -> list[list[int]]:
    return [
        [b.conv1.kernel_size[0] for b in getattr(model, stage) if isinstance(b, Bottleneck)]
        for stage in ("layer1", "layer2", "layer3", "layer4")
    ]


def test_where_the_resnets_look_at_time() -> None:
    with torch.device("meta"):
        i3d, slow, c2d = (f(num_classes=2, width=4) for f in (i3d_r50, slow_r50, c2d_r50))
        deep = i3d_r50(num_classes=2, depth=101, width=4)
    assert time_kernels(i3d) == [[3, 3, 3], [3, 1, 3, 1], [3, 1, 3, 1, 3, 1], [1, 3, 1]]
    assert time_kernels(slow) == [[1] * 3, [1] * 4, [3] * 6, [3] * 3]
    assert time_kernels(c2d) == [[1] * 3, [1] * 4, [1] * 6, [1] * 3]
    assert time_kernels(deep)[2] == [3, 1] * 11 + [3]


def thin(factory: Any, **options: Any) -> Any:
    torch.manual_seed(0)
    model = factory(num_classes=5, width=8, dropout=0.0, **options)
    for key, tensor in model.state_dict().items():
        if key.endswith("running_mean"):
            nn.init.normal_(tensor, std=0.2)
        elif key.endswith((".bn3.weight", ".bn2.weight")):
            nn.init.uniform_(tensor, 0.6, 1.4)
    return model.eval()


@pytest.mark.parametrize(
    ("factory", "options", "blind"),
    [
        (c2d_r50, {"depth": 14}, True),
        (i3d_r50, {"depth": 14}, False),
        (slow_r50, {"depth": 14}, False),
        (csn_r101, {"depth": 14}, False),
        (r2plus1d_r50, {"depth": 14}, False),
        (r2plus1d_34, {}, False),
        (slowfast_r50, {"depth": 14, "beta": 4}, False),
    ],
)
def test_only_c2d_is_blind_to_the_direction_of_time(factory: Any, options: dict[str, Any], blind: bool) -> None:
    model = thin(factory, **options)
    x = torch.randn(1, 3, 8, 48, 48)
    with torch.no_grad():
        forward, backward = model(x), model(x.flip(2))
    change = (forward - backward).norm() / forward.norm()
    assert change < 1e-5 if blind else change > 1e-3


def test_the_stem_of_r2plus1d_r50_convolves_time_before_space() -> None:
    with torch.device("meta"):
        model = r2plus1d_r50(num_classes=2, width=4, depth=14)
    conv = model.layer1[0].conv2
    assert [name for name, _ in conv.named_children()] == ["time", "bn", "relu", "space"]
    assert (conv.time.kernel_size, conv.space.kernel_size) == ((3, 1, 1), (1, 3, 3))


def test_csn_mixes_channels_in_1x1x1_convolutions_only() -> None:
    for kind in ("ir", "ip"):
        with torch.device("meta"):
            model = csn_r101(num_classes=2, kind=kind, depth=14)
        for name, conv in model.named_modules():
            if isinstance(conv, nn.Conv3d) and name != "conv1":
                assert conv.kernel_size == (1, 1, 1) or conv.groups == conv.in_channels, name


# ---------------------------------------------------------------- SlowFast


@pytest.mark.parametrize("alpha", [2, 4, 8])
def test_slow_frames_are_those_of_pyslowfast(alpha: int) -> None:
    model = SlowFast.__new__(SlowFast)
    object.__setattr__(model, "alpha", alpha)
    object.__setattr__(model, "draw", "linspace")
    for frames in range(alpha, 257, alpha):
        drawn = model.slow_frames(frames, torch.device("cpu"))
        assert drawn.tolist() == np.linspace(0, frames - 1, frames // alpha).astype(int).tolist()
    object.__setattr__(model, "draw", "stride")
    assert model.slow_frames(9, torch.device("cpu")).tolist() == list(range(0, 9, alpha))


def test_the_last_frame_is_seen_by_the_slow_pathway() -> None:
    model = thin(slowfast_r50, depth=14, beta=4)
    seen: list[torch.Tensor] = []
    model.slow.conv1.register_forward_hook(lambda _, inputs, out: seen.append(inputs[0]))
    x = torch.randn(1, 3, 32, 32, 32)
    with torch.no_grad():
        model(x)
    assert seen[0].shape[2] == 8
    assert torch.equal(seen[0][:, :, -1], x[:, :, -1])
    assert torch.equal(seen[0][:, :, 0], x[:, :, 0])


@pytest.mark.parametrize("frames", [1, 3, 8, 17])
def test_slowfast_takes_any_number_of_frames(frames: int) -> None:
    with torch.device("meta"):
        model = slowfast_r50(num_classes=5, depth=14, width=8).eval()
        assert model(torch.empty(1, 3, frames, 32, 32)).shape == (1, 5)


def test_features_are_slow_then_fast() -> None:
    model = thin(slowfast_r50, depth=14, beta=4)
    x = torch.randn(1, 3, 8, 32, 32)
    maps: dict[str, torch.Tensor] = {}
    for path in ("slow", "fast"):
        layer = model.get_submodule(f"{path}.layer4")
        layer.register_forward_hook(lambda _, __, out, path=path: maps.__setitem__(path, out.mean((2, 3, 4))))
    with torch.no_grad():
        features = model.forward_features(x)
    torch.testing.assert_close(features, torch.cat([maps["slow"], maps["fast"]], 1))
    assert maps["slow"].shape[1] == 4 * maps["fast"].shape[1]


# ---------------------------------------------------------------- X3D


def test_x3d_widths_blocks_and_squeezes() -> None:
    with torch.device("meta"):
        model = x3d_m(num_classes=2)
    stages = [model.layer1, model.layer2, model.layer3, model.layer4]
    assert [len(stage) for stage in stages] == [3, 5, 11, 7]
    assert [stage[0].conv3.out_channels for stage in stages] == [24, 48, 96, 192]
    assert [stage[0].conv2.out_channels for stage in stages] == [54, 108, 216, 432]
    assert [hasattr(block.se, "fc1") for block in model.layer2] == [True, False, True, False, True]
    assert [stage[0].se.fc1.out_channels for stage in stages] == [8, 8, 16, 32]


def test_x3d_keeps_all_frames_to_the_end() -> None:
    with torch.device("meta"):
        model = x3d_m(num_classes=2).eval()
        x = torch.empty(1, 3, 7, 64, 64)
        for name in ("conv1_s", "conv1_t", "layer1", "layer2", "layer3", "layer4"):
            x = model.get_submodule(name)(x)
        assert x.shape == (1, 192, 7, 2, 2)


# ---------------------------------------------------------------- document 000's net


def test_separable_convolution_is_the_documents_two_equations() -> None:
    """000, 4.2: the sum over the window of one channel plus b_c, then the sum over the channels plus b'_c."""
    torch.manual_seed(0)
    conv = SeparableConv(3, 4).double()
    for parameter in conv.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(1, 3, 4, 5, 6, dtype=torch.float64)
    got = conv(x)
    padded = F.pad(x, (1, 1, 1, 1, 1, 1))
    w, b, v, c = conv.depthwise.weight, conv.depthwise.bias, conv.pointwise.weight, conv.pointwise.bias
    for i, j, k in [(0, 0, 0), (3, 4, 5), (1, 2, 3)]:
        window = padded[0, :, i : i + 3, j : j + 3, k : k + 3]
        y = torch.stack([(window[ch] * w[ch, 0]).sum() + b[ch] for ch in range(3)])
        expected = torch.stack([(v[out, :, 0, 0, 0] * y).sum() + c[out] for out in range(4)])
        torch.testing.assert_close(got[0, :, i, j, k], expected)


def test_flatten_keeps_positions_and_mean_does_not() -> None:
    flat = csn_tiny(num_classes=5, num_frames=8, size=64, width=4, fusion="flatten").eval()
    mean = csn_tiny(num_classes=5, num_frames=8, size=64, width=4).eval()
    x = torch.randn(1, 3, 8, 64, 64)
    with torch.no_grad():
        maps = flat.stages(flat.encoder(x))
        assert torch.equal(flat.forward_features(x), maps.flatten(1))
        assert flat.num_features == maps[0].numel() == 32 * 1 * 2 * 2
        assert mean.forward_features(x).shape == (1, 32)
        assert mean(torch.randn(1, 3, 9, 40, 31)).shape == (1, 5)


# ---------------------------------------------------------------- tools that look at the graph

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "i3d_r50": {"depth": 14, "width": 4, "nonlocal_blocks": ["layer2.0"]},
    "i3d_r50_nonlocal": {
        "depth": 14, "width": 4, "nonlocal_blocks": ["layer2.0"], "nonlocal_mode": "concatenation"
    },
    "slowfast_r50": {"depth": 14, "width": 8},
    "x3d_m": {"depth_factor": 0.4, "width_factor": 0.5, "features": 16},
    "csn_r101": {"depth": 14, "width": 4, "kind": "ip"},
    "csn_tiny": {"num_frames": 8, "size": 32, "width": 4},
    "r2plus1d_r50": {"depth": 14, "width": 4},
    "r2plus1d_34": {"width": 8},
}  # fmt: skip


@pytest.mark.parametrize("name", sampled(ARCHITECTURES, ["csn_tiny"]))
def test_exports_in_one_graph(name: str) -> None:
    """torch.export stops at what would break a compiled graph too."""
    model = vidtrain.create_model(name, num_classes=5, **ARCHITECTURES[name]).eval()
    x = torch.randn(2, 3, 8, 32, 32)
    program = torch.export.export(model, (x,))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_channels_last_gives_the_same(name: str) -> None:
    torch.manual_seed(0)
    model = vidtrain.create_model(name, num_classes=5, **ARCHITECTURES[name]).eval()
    x = torch.randn(2, 3, 8, 32, 32)
    with torch.no_grad():
        expected = model(x)
        got = model.to(memory_format=torch.channels_last_3d)(x.to(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_blocks_start_as_their_shortcuts() -> None:
    torch.manual_seed(0)
    model = slow_r50(num_classes=5, depth=26, width=4).eval()
    assert isinstance(model, ResNet3d)
    block = model.layer1[1]
    x = torch.rand(1, 16, 2, 4, 4)
    with torch.no_grad():
        assert torch.equal(block(x), x)
