"""PySlowFast's .pyth files: C2D, I3D, Slow, SlowFast and X3D, with their non-local blocks.

s1 is the stem, s2 to s5 are the stages; each pathway has its number in every name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from vidtrain.models.layers.nonlocal_block import NonLocalBlock
from vidtrain.models.slowfast import SlowFast
from vidtrain.models.weights.expected_clips import SLOWFAST, Expects, by_model
from vidtrain.models.weights.layout import Fit, Layout, Shapes, State, any_key, rename, translated_shapes
from vidtrain.models.weights.metadata import Beside, Said
from vidtrain.models.weights.resnet_fits import CLIPS, fit_resnet, flat, match_shortcut, shortcut_notes

_MODES = {"softmax": "embedded_gaussian", "dot_product": "dot_product"}
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
    fit = fit_resnet(translated_shapes(shapes, _renamed))
    if fit is not None and "nonlocal_blocks" in fit[1] and fit[0] in ("slow_r50", "slowfast_r50"):
        fit[1].setdefault("nonlocal_mode", "dot_product")  # what the zoo's have; SlowFast 8x8 besides, rather than 4x16
        fit[1].pop("alpha", None)
    return fit


def _translate(state: State, model: nn.Module) -> State:
    return match_shortcut(_renamed(state), model)


def _notes(state: Mapping[str, torch.Tensor], model: nn.Module) -> Sequence[str]:
    names = _renamed(state)
    notes = [*shortcut_notes(names, model)]
    if isinstance(model, SlowFast) and names["lateral.0.conv.weight"].shape[2] == 5:
        notes.append(
            "the file does not tell how many fast frames there are for a slow one: assumed is "
            f"model.alpha={model.alpha}; published are 8 (4x16) and 4 (8x8, 101 layers)"
        )
    blocks = next((module for module in model.modules() if isinstance(module, NonLocalBlock)), None)
    if blocks is not None and any("nonlocal" in key for key in state):
        notes.append(
            "the file does not tell how its non-local blocks weigh positions: assumed is "
            f"model.nonlocal_mode={blocks.mode}; published are embedded_gaussian (C2D, I3D) and dot_product (Slow, "
            "SlowFast)"
        )
    return notes


def stated_clips(said: Said, name: str) -> tuple[dict[str, Any], Expects]:
    """What the configuration in a checkpoint of PySlowFast, or of code made from it, says of its clips."""
    cfg = said.get("cfg", Beside("cfg", {}))
    data, size = cfg.inner("DATA"), cfg.inner("DATA").whole("TEST_CROP_SIZE")
    scales = data.values.get("TRAIN_JITTER_SCALES")
    resize = size
    if cfg.inner("TEST").whole("NUM_SPATIAL_CROPS") == 1 and isinstance(scales, list) and scales:
        resize = Beside(data.name, {"TRAIN_JITTER_SCALES": scales[0]}).whole("TRAIN_JITTER_SCALES")
    return {}, Expects(
        mean=data.numbers("MEAN"),
        std=data.numbers("STD"),
        size=size,
        resize=resize,
        num_frames=data.whole("NUM_FRAMES"),
        stride=data.whole("SAMPLING_RATE"),
    )


def _stated(said: Said, name: str) -> tuple[dict[str, Any], Expects]:
    cfg = said.get("cfg", Beside("cfg", {}))
    options: dict[str, Any] = {}
    alpha, mode = cfg.inner("SLOWFAST").whole("ALPHA"), cfg.inner("NONLOCAL").text("INSTANTIATION")
    if name.startswith("slowfast") and alpha is not None:
        options["alpha"] = alpha
    if mode in _MODES and _any_number(cfg.inner("NONLOCAL").values.get("LOCATION")):
        options["nonlocal_mode"] = _MODES[mode]
    return options, stated_clips(said, name)[1]


def _any_number(location: Any) -> bool:
    """Whether some block of some pathway of some stage is named: [[[], []], [[1, 3], []], ...]."""
    return any(map(_any_number, location)) if isinstance(location, list) else isinstance(location, int)


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        name="PySlowFast",
        matches=lambda shapes: any_key(shapes, r"s[2-5]\.pathway0_res\d+\.branch2\.a\."),
        model=_model,
        translate=_translate,
        notes=_notes,
        stated=_stated,
        expects=by_model(SLOWFAST | Expects(protocol="pyslowfast"), CLIPS),
    ),
)
