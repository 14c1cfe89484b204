"""MoViNets as Atze00/MoViNet-pytorch keeps them, base and stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from vidtrain.models.layers.resnet3d import Triple
from vidtrain.models.movinet import SIZES, Size, Stage
from vidtrain.models.weights.expected_clips import Expects
from vidtrain.models.weights.layout import (
    Fit,
    Layout,
    Rule,
    Shapes,
    State,
    any_key,
    classes,
    count,
    rename,
    translated_shapes,
)

_RULES: tuple[Rule, ...] = (
    (r"^conv1\.", "stem."),
    (r"^conv7\.", "top."),
    (r"^classifier\.0\.conv_1\.conv[23]d\.", "fc1."),
    (r"^classifier\.3\.conv_1\.conv[23]d\.", "head."),
    (r"\.res\.\d+\.", ".shortcut."),
    (r"\.se\.(fc\d)\.conv_1\.conv[23]d\.", r".se.\1."),
    (r"\.conv_1\.conv[23]d\.", ".conv."),
    (r"\.conv_1\.norm\.", ".norm."),
    (r"\.conv_2\.conv2d\.", ".time_conv."),
    (r"\.conv_2\.norm\.", ".time_norm."),
)


def _ours(state: Mapping[str, torch.Tensor]) -> State:
    """Every convolution in three dimensions, the two linear layers in none, `alpha` as one number in a row."""
    ours = rename(state, _RULES)
    for key, tensor in ours.items():
        if key.endswith("alpha"):
            ours[key] = tensor.reshape(1)
        elif key.startswith(("fc1.", "head.")):
            ours[key] = tensor.flatten(1) if tensor.ndim > 1 else tensor
        elif tensor.ndim == 4:
            ours[key] = tensor.unsqueeze(-1 if key.endswith("time_conv.weight") else 2)
    return ours


def _stage(ours: Shapes, stage: int, strided: Sequence[int]) -> Stage:
    stems = [f"blocks.b{stage}_l{i}." for i in range(count(ours, rf"blocks\.b{stage}_l(\d+)\."))]
    kernels: list[Triple] = []
    for stem in stems:
        time, height, width = ours[f"{stem}deep.conv.weight"][2:]
        kernels.append((ours.get(f"{stem}deep.time_conv.weight", (0, 0, time))[2], height, width))
    return Stage(
        out=ours[f"{stems[0]}project.conv.weight"][0],
        inner=tuple(ours[f"{stem}deep.conv.weight"][0] for stem in stems),
        kernels=tuple(kernels),
        stride=2 if stage in strided else 1,
    )


def _model(shapes: Shapes) -> Fit | None:
    ours = translated_shapes(shapes, _ours)
    # where a shortcut is pooled, the pool is its number 0 and the convolution its number 1
    stages = range(count(ours, r"blocks\.b(\d+)_"))
    strided = [i for i in stages if f"blocks.b{i}_l0.res.1.conv_1.norm.bias" in shapes]
    size = Size(
        stem=ours["stem.conv.weight"][0],
        stages=tuple(_stage(ours, i, strided) for i in stages),
        top=ours["top.conv.weight"][0],
        features=ours["fc1.weight"][0],
    )
    variant = next((name for name, known in SIZES.items() if known == size), None)
    if variant is None:
        return None
    causal = ours["blocks.b0_l0.se.fc1.weight"][1] == 2 * ours["blocks.b0_l0.deep.conv.weight"][0]
    split = any_key(shapes, r"conv1\.conv_1\.conv2d\.")
    name, options = f"movinet_{variant}", dict[str, Any]()
    if causal and split:
        name += "_stream"
    elif causal:
        options["causal"] = True
    elif split:
        options["conv"] = "2plus1d"
    return name, {**options, **classes(ours, "head.weight")}


def _expects(name: str, options: Mapping[str, Any]) -> Expects:
    """RGB in [0, 1] as it is; ten seconds at once."""
    size = 224 if name.startswith("movinet_a2") else 172
    return Expects(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), num_frames=50, fps=5.0, size=size, resize=size)


def _notes(state: Mapping[str, torch.Tensor], model: nn.Module) -> list[str]:
    return ["the file does not tell how it was padded: assumed is tf_like=True, as all published weights need it"]


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        name="MoViNet-pytorch",
        matches=lambda shapes: any_key(shapes, r"conv1\.conv_1\.conv[23]d\.") and any_key(shapes, r"blocks\.b0_l0\."),
        model=_model,
        translate=lambda state, model: _ours(state),
        notes=_notes,
        expects=_expects,
    ),
)
