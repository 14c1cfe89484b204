"""PyTorchVideo's hub files: C2D, I3D, Slow, SlowFast, X3D, CSN and R(2+1)D on ResNets.

blocks.0 is the stem, the last block the head, and the stages lie between; where a net pools time after its first
stage (C2D, I3D), that pool has a number too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from vidtrain.models.weights.expected_clips import SLOWFAST, Expects, by_model
from vidtrain.models.weights.layout import Fit, Layout, Shapes, State, any_key, rename, translated_shapes
from vidtrain.models.weights.resnet_fits import CLIPS, fit_resnet, flat, match_shortcut, shortcut_notes

_STAGE = re.compile(r"blocks\.(\d{1,4})\.(?:multipathway_blocks\.\d+\.)?res_blocks\.")
_RULES = (
    (r"^blocks\.(\d+)\.multipathway_fusion\.conv_fast_to_slow\.", r"lateral.\1.conv."),
    (r"^blocks\.(\d+)\.multipathway_fusion\.norm\.", r"lateral.\1.bn."),
    (r"^blocks\.0\.multipathway_blocks\.(\d)\.", r"path\1.blocks.0."),
    (r"blocks\.0\.conv\.conv_t\.", "conv1_s."),  # X3D's stem: called time there, it is the convolution in space
    (r"blocks\.0\.conv\.conv_xy\.", "conv1_t."),
    (r"blocks\.0\.conv\.", "conv1."),
    (r"blocks\.0\.norm\.", "bn1."),
    (r"branch1_conv\.", "downsample.0."),
    (r"branch1_norm\.", "downsample.1."),
    (r"branch2\.conv_b\.conv_t\.", "conv2.time."),
    (r"branch2\.conv_b\.norm\.", "conv2.bn."),
    (r"branch2\.conv_b\.conv_xy\.", "conv2.space."),
    (r"branch2\.conv_a\.", "conv1."),
    (r"branch2\.conv_b\.", "conv2."),
    (r"branch2\.conv_c\.", "conv3."),
    (r"branch2\.norm_b\.0\.", "bn2."),
    (r"branch2\.norm_b\.1\.block\.0\.", "se.fc1."),
    (r"branch2\.norm_b\.1\.block\.2\.", "se.fc2."),
    (r"branch2\.norm_a\.", "bn1."),
    (r"branch2\.norm_b\.", "bn2."),
    (r"branch2\.norm_c\.", "bn3."),
    (r"^blocks\.\d+\.pool\.pre_conv\.", "conv5."),
    (r"^blocks\.\d+\.pool\.pre_norm\.", "bn5."),
    (r"^blocks\.\d+\.pool\.post_conv\.", "fc1."),
    (r"^blocks\.\d+\.proj\.", "fc."),
    (r"^path0\.", "slow."),
    (r"^path1\.", "fast."),
)


def _stages(keys: Sequence[str]) -> list[int]:
    return sorted({int(match[1]) for match in map(_STAGE.match, keys) if match})


def _renamed(state: Mapping[str, torch.Tensor]) -> State:
    stages = _stages(list(state))
    numbered = [(rf"^blocks\.{number}\.res_blocks\.", f"layer{i + 1}.") for i, number in enumerate(stages)]
    in_path = [
        (rf"^blocks\.{number}\.multipathway_blocks\.(\d)\.res_blocks\.", rf"path\1.layer{i + 1}.")
        for i, number in enumerate(stages)
    ]
    return flat(rename(dict(state), [*numbered, *in_path, *_RULES]), "fc1.weight")


def _model(shapes: Shapes) -> Fit | None:
    stages = _stages(list(shapes))
    return fit_resnet(translated_shapes(shapes, _renamed), time_pool=len(stages) > 1 and stages[1] == 3)


def _translate(state: State, model: nn.Module) -> State:
    return match_shortcut(_renamed(state), model)


def _notes(state: Mapping[str, torch.Tensor], model: nn.Module) -> Sequence[str]:
    return shortcut_notes(_renamed(state), model)


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        name="PyTorchVideo",
        matches=lambda shapes: any_key(shapes, _STAGE.pattern),
        model=_model,
        translate=_translate,
        notes=_notes,
        expects=by_model(SLOWFAST | Expects(protocol="pytorchvideo_0_1_5"), CLIPS),
    ),
)
