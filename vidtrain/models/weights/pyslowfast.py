"""PySlowFast's .pyth files: C2D, I3D, Slow, SlowFast and X3D, with their non-local blocks.

s1 is the stem, s2 to s5 are the stages; each pathway has its number in every name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from vidtrain.models.weights.expects import SLOWFAST, Expects, by_model
from vidtrain.models.weights.layout import Fit, Layout, Shapes, State, any_key, rename
from vidtrain.models.weights.resnet_fits import CLIPS, fit_resnet, flat, match_shortcut, shortcut_notes

_PATHS = ((r"^pathway0\.", "slow."), (r"^pathway1\.", "fast."))
_ONE_PATH = ((r"^pathway0\.", ""),)
_RULES = (
    (r"^s1\.pathway(\d)_stem\.conv_xy\.", r"pathway\1.conv1_s."),
    (r"^s1\.pathway(\d)_stem\.conv\.", r"pathway\1.conv1."),
    (r"^s1\.pathway(\d)_stem\.bn\.", r"pathway\1.bn1."),
    (r"^s1_fuse\.conv_f2s\.", "lateral.0.conv."),
    (r"^s1_fuse\.bn\.", "lateral.0.bn."),
    *(
        rule
        for s in (2, 3, 4, 5)
        for rule in (
            (rf"^s{s}\.pathway(\d)_res(\d+)\.", rf"pathway\1.layer{s - 1}.\2."),
            (rf"^s{s}\.pathway(\d)_nonlocal(\d+)\.(?:conv_)?", rf"pathway\1.layer{s - 1}.nonlocal\2."),
            (rf"^s{s}_fuse\.conv_f2s\.", f"lateral.{s - 1}.conv."),
            (rf"^s{s}_fuse\.bn\.", f"lateral.{s - 1}.bn."),
        )
    ),
    (r"(\.nonlocal\d+)\.norm\.", r"\1.bn."),
    (r"\.branch1_bn\.", ".downsample.1."),
    (r"\.branch1\.", ".downsample.0."),
    (r"\.branch2\.a\.", ".conv1."),
    (r"\.branch2\.a_bn\.", ".bn1."),
    (r"\.branch2\.b\.", ".conv2."),
    (r"\.branch2\.b_bn\.", ".bn2."),
    (r"\.branch2\.c\.", ".conv3."),
    (r"\.branch2\.c_bn\.", ".bn3."),
    (r"\.branch2\.se\.", ".se."),
    (r"^head\.conv_5\.", "conv5."),
    (r"^head\.conv_5_bn\.", "bn5."),
    (r"^head\.lin_5\.", "fc1."),
    (r"^head\.projection\.", "fc."),
)


def _renamed(state: Mapping[str, torch.Tensor]) -> State:
    two = any(key.startswith("s1.pathway1_") for key in state)
    names = rename(dict(state), [*_RULES, *(_PATHS if two else _ONE_PATH)])
    if "conv1_s.weight" in names:  # X3D: what follows the convolution in space is the one in time
        names = rename(names, [(r"^conv1\.", "conv1_t.")])
    return flat(names, "fc1.weight")


def _model(shapes: Shapes) -> Fit | None:
    names = _renamed({key: torch.empty(shape, device="meta") for key, shape in shapes.items()})
    return fit_resnet({key: tuple(tensor.shape) for key, tensor in names.items()})


def _translate(state: State, model: nn.Module) -> State:
    return match_shortcut(_renamed(state), model)


def _notes(state: Mapping[str, torch.Tensor], model: nn.Module) -> Sequence[str]:
    notes = list(shortcut_notes(_renamed(state), model))
    if any("nonlocal" in key for key in state):
        notes.append(
            "the file does not say how its non-local blocks weigh positions: embedded_gaussian is its softmax, "
            "PySlowFast's other form is model.nonlocal_mode=dot_product"
        )
    return notes


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        name="PySlowFast",
        matches=lambda shapes: any_key(shapes, r"s[2-5]\.pathway0_res\d+\.branch2\.a\."),
        model=_model,
        translate=_translate,
        notes=_notes,
        expects=by_model(SLOWFAST | Expects(protocol="pyslowfast"), CLIPS),
    ),
)
