"""Which 3D ResNet of the catalogue a file is, by its tensors under our names; and the adjustments that make a
file of one variant give the same logits in another. Shared by the layouts of PyTorchVideo, PySlowFast and MMAction2."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import nn

from vidtrain.models import c2d_resnet, csn, i3d_resnet, r2plus1d_resnet, slow_resnet, slowfast, x3d
from vidtrain.models.layers.resnet3d import DEPTHS, PRESETS, STAGES
from vidtrain.models.weights.expected_clips import Expects, clips
from vidtrain.models.weights.layout import Fit, Shapes, State, classes, count

_EPS = 1e-5  # of every BatchNorm here

CLIPS: dict[str, Expects] = {
    **dict.fromkeys(("c2d_r50", "i3d_r50", "i3d_r50_nonlocal", "slow_r50"), clips(8, 8, 256)),
    **dict.fromkeys(("slowfast_r50", "slowfast_4x16_r50", "slowfast_r101", "csn_r101"), clips(32, 2, 256)),
    "r2plus1d_r50": clips(16, 4, 256),
    "x3d_xs": clips(4, 12, 182),
    "x3d_s": clips(13, 6, 182),
    "x3d_m": clips(16, 5, 256),
    "x3d_l": clips(16, 5, 356),
}
"""Of PySlowFast and PyTorchVideo: TEST_CROP_SIZE is the short side, for three crops of the whole frame."""


def fit_resnet(shapes: Shapes, **unseen: Any) -> Fit | None:
    """The model and options for tensors under our names.

    unseen: options that the tensors do not show but the layout knows; those the model does not have are dropped.
    """
    if "slow.conv1.weight" in shapes:
        found = _slowfast(shapes)
    elif "conv1_s.weight" in shapes:
        found = _x3d(shapes)
    else:
        found = _resnet(shapes)
    if found is None:
        return None
    module, name, options = found
    defaults = {key: p.default for key, p in inspect.signature(getattr(module, name)).parameters.items()}
    options |= {key: value for key, value in unseen.items() if key in defaults and key not in options}
    differing = {key: value for key, value in options.items() if value != defaults[key]}
    return name, {**differing, **classes(shapes, "fc.weight")}


Found = tuple[ModuleType, str, dict[str, Any]]
"""The module of a model, its function or class there, by the model's name, and options."""


def _resnet(shapes: Shapes) -> Found | None:
    blocks = _blocks(shapes)
    depth = _depth(blocks)
    if depth is None or shapes.get("conv1.weight", ())[1:2] != (3,):
        return None
    options: dict[str, Any] = {"depth": depth, "width": shapes["conv1.weight"][0], **_nonlocals(shapes)}
    middle = shapes.get("layer1.0.conv2.weight", ())
    if "layer1.0.conv2.time.weight" in shapes:
        return r2plus1d_resnet, "r2plus1d_r50", options
    if "layer1.0.conv2.depthwise.weight" in shapes or middle[1:] == (1, 3, 3, 3):
        return csn, "csn_r101", {**options, "kind": "ip" if not middle else "ir"}
    if len(middle) != 5:
        return None  # basic blocks, or a 2D net
    stem, times = shapes["conv1.weight"][2], _times(shapes, blocks)
    if stem == 5:
        return i3d_resnet, "i3d_r50", {**options, "temporal_kernels": _pattern(times, i3d_resnet.TIMES)}
    if stem != 1:
        return None
    if all(time == 1 for stage in times for time in stage):
        return c2d_resnet, "c2d_r50", options
    return slow_resnet, "slow_r50", {**options, "temporal_kernels": _pattern(times, slow_resnet.TIMES)}


def _slowfast(shapes: Shapes) -> Found | None:
    slow, fast = (_under(shapes, path) for path in ("slow.", "fast."))
    lateral = shapes.get("lateral.0.conv.weight")
    slow_blocks, fast_blocks = _blocks(slow), _blocks(fast)
    depth, fast_depth = _depth(slow_blocks), _depth(fast_blocks)
    if depth is None or fast_depth is None or lateral is None or lateral[0] != 2 * lateral[1]:
        return None
    width, thin = slow["conv1.weight"][0], fast["conv1.weight"][0]
    if width % thin:
        return None
    options = {
        "depth": depth,
        "fast_depth": None if fast_depth == depth else fast_depth,
        "width": width,
        "beta": width // thin,
        "fusion_kernel": lateral[2],
        "lateral_norm": "lateral.0.bn.weight" in shapes,
        "slow_temporal_kernels": _pattern(_times(slow, slow_blocks), slowfast.SLOW_TIMES),
        "fast_temporal_kernels": _pattern(_times(fast, fast_blocks), slowfast.FAST_TIMES),
        **_nonlocals(slow),
    }
    # alpha is in no tensor: published nets with 7 frames in a lateral convolution have 4, those with 5 have 8, but for
    # those of 101 layers, which have 4
    return slowfast, "slowfast_r50", {**options, "alpha": 8 if lateral[2] == 5 and depth != 101 else 4}


def _x3d(shapes: Shapes) -> Found | None:
    blocks = _blocks(shapes)
    channels = [shapes.get(f"{stage}.0.conv3.weight", (0,))[0] for stage in STAGES]
    inner = shapes.get("layer4.0.conv3.weight", (0, 0))[1]
    depth_factor, width_factor = blocks[2] / 5, channels[3] / 96
    if blocks != [math.ceil(depth_factor * n) for n in x3d.BLOCKS]:
        return None
    if channels != [x3d.rounded(width_factor * n) for n in x3d.CHANNELS]:
        return None
    options: dict[str, Any] = {
        "depth_factor": depth_factor,
        "width_factor": width_factor,
        "expansion": inner / channels[3],
        "shortcut_norm": "layer1.0.downsample.1.weight" in shapes,
        **_nonlocals(shapes),
    }
    if "fc1.weight" in shapes:
        options["features"] = shapes["fc1.weight"][0]
    return x3d, "x3d_m", options


def _under(shapes: Shapes, path: str) -> Shapes:
    return {key[len(path) :]: shape for key, shape in shapes.items() if key.startswith(path)}


def _blocks(shapes: Shapes) -> list[int]:
    return [count(shapes, rf"{stage}\.(\d+)\.conv1\.weight") for stage in STAGES]


def _depth(blocks: Sequence[int]) -> int | None:
    return next((depth for depth, known in DEPTHS.items() if known == tuple(blocks)), None)


def _times(shapes: Shapes, blocks: Sequence[int]) -> list[list[int]]:
    return [
        [shapes[f"{stage}.{block}.conv1.weight"][2] for block in range(number)]
        for stage, number in zip(STAGES, blocks, strict=True)
    ]


def _pattern(times: list[list[int]], published: Sequence[Sequence[int]]) -> list[list[int]] | None:
    """The option temporal_kernels as short as it can be said; None where it is what the model has anyway."""
    usual = [[stage[i % len(stage)] for i in range(len(t))] for stage, t in zip(published, times, strict=True)]
    return None if times == usual else [_period(stage) for stage in times]


def _period(times: list[int]) -> list[int]:
    """[3, 1, 3, 1] -> [3, 1]."""
    for length in range(1, len(times)):
        if all(time == times[i % length] for i, time in enumerate(times)):
            return times[:length]
    return times


def _nonlocals(shapes: Shapes) -> dict[str, Any]:
    names = [
        f"{stage}.{block}" for stage in STAGES for block in range(64) if f"{stage}.nonlocal{block}.g.weight" in shapes
    ]
    if not names:
        return {"nonlocal_blocks": None}
    first = names[0].replace(".", ".nonlocal")
    mode = "embedded_gaussian"
    if f"{first}.theta.weight" not in shapes:
        mode = "gaussian"
    elif f"{first}.pair.weight" in shapes:
        mode = "concatenation"
    preset = next((number for number, known in PRESETS.items() if list(known) == names), None)
    return {"nonlocal_blocks": preset or names, "nonlocal_mode": mode}


# ---------------------------------------------------------------- one variant's file in another variant's net


def match_shortcut(state: State, model: nn.Module) -> State:
    """X3D's first shortcut has BatchNorm in some files and none in others: fold it into the convolution, or add one
    that does nothing, as the model requires it. Exact in eval."""
    wanted = model.state_dict().keys()
    for name in [key.removesuffix("0.weight") for key in state if key.endswith(".downsample.0.weight")]:
        shift, norm = f"{name}0.shift", f"{name}1."
        has_norm = f"{norm}weight" in state
        if shift in wanted and not has_norm:
            state[shift] = torch.zeros(len(state[f"{name}0.weight"]))
        elif shift in wanted:
            parts = {key: state.pop(key).double() for key in list(state) if key.startswith(norm)}
            factor = parts[f"{norm}weight"] / torch.sqrt(parts[f"{norm}running_var"] + _EPS)
            weight = state[f"{name}0.weight"]
            state[shift] = (parts[f"{norm}bias"] - parts[f"{norm}running_mean"] * factor).to(weight)
            state[f"{name}0.weight"] = (weight * factor.view(-1, 1, 1, 1, 1)).to(weight)
        elif f"{norm}weight" in wanted and not has_norm:
            ones = torch.ones(len(state[f"{name}0.weight"]))
            state |= {f"{norm}weight": ones, f"{norm}bias": 0 * ones}
            state |= {f"{norm}running_mean": 0 * ones, f"{norm}running_var": ones - _EPS}
    return state


def shortcut_notes(before: Mapping[str, torch.Tensor], model: nn.Module) -> Sequence[str]:
    """What match_shortcut did, given the file's tensors under our names."""
    has_norm = "layer1.0.downsample.1.weight" in before
    wanted = model.state_dict().keys()
    if has_norm and "layer1.0.downsample.0.shift" in wanted:
        return (
            "the file's BatchNorm on the first shortcut was folded into its convolution (the same logits); "
            "model.shortcut_norm=true keeps it",
        )
    if not has_norm and "layer1.0.downsample.1.weight" in wanted:
        return (
            "the file has no BatchNorm on the first shortcut: the model's starts as one that changes nothing; "
            "model.shortcut_norm=false leaves it out",
        )
    return ()


def match_eps(state: State, model: nn.Module) -> State:
    """For a file whose BatchNorms add 1e-3 to the variance: shift the variances by what this model's add less. Exact
    in eval."""
    modules = dict(model.named_modules())
    for key in [key for key in state if key.endswith(".running_var")]:
        module = modules.get(key.removesuffix(".running_var"))
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            state[key] = state[key] + (1e-3 - module.eps)
    return state


def flat(state: State, *keys: str) -> State:
    """1x1x1 convolutions that are linear layers here: (K, D, 1, 1, 1) -> (K, D)."""
    for key in keys:
        if key in state and state[key].ndim > 2 and all(n == 1 for n in state[key].shape[2:]):
            state[key] = state[key].flatten(1)
    return state
