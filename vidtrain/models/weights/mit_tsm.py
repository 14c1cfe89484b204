"""TSN and TSM on ResNets as mit-han-lab/temporal-shift-module keeps them.

Where a convolution (place=residual) or a block (place=block) is shifted, its keys have one `.net` more than ours.
With dropout 0 their head is base_model.fc instead of new_fc. A block that a non-local block follows is wrapped into
`.block` and `.nl`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from vidtrain.errors import CheckpointError
from vidtrain.models.layers.frame_mobilenet import FrameMobileNet
from vidtrain.models.layers.frame_resnet import RESNETS, FrameResNet, Spec
from vidtrain.models.layers.nonlocal_block import NonLocal
from vidtrain.models.tsm import NONLOCAL_5 as _PRESET
from vidtrain.models.weights.expected_clips import IMAGENET, Expects
from vidtrain.models.weights.layout import Fit, Layout, Rule, Shapes, State, any_key, classes, count, rename

_BLOCK = r"base_model\.layer[1-4]\.\d+\."
_STEM = "base_model.conv1.weight"
_RULES = (
    (r"^base_model\.fc\.", "new_fc."),
    (rf"^({_BLOCK})block\.", r"\1"),
    (rf"^({_BLOCK})net\.", r"\1"),
    (rf"^({_BLOCK})conv1\.net\.", r"\1conv1."),
    (r"^(base_model\.layer[1-4]\.)(\d+)\.nl\.", r"\1nonlocal\2."),
    (r"(\.nonlocal\d+\.(?:g|phi))\.0\.", r"\1."),
    (r"(\.nonlocal\d+)\.W\.0\.", r"\1.out."),
    (r"(\.nonlocal\d+)\.W\.1\.", r"\1.bn."),
)
_NONLOCAL = {"mode": "embedded_gaussian", "pool": "after", "scale": False}
"""What the authors' non-local blocks are."""
_KINETICS = 400


def _place(keys: Iterable[str]) -> str | None:
    """Where the file's net shifts; None for TSN."""
    shapes = dict.fromkeys(keys, ())
    if any_key(shapes, rf"{_BLOCK}(block\.)?net\."):
        return "block"
    return "residual" if any_key(shapes, rf"{_BLOCK}(block\.)?conv1\.net\.") else None


def _spec(shapes: Shapes) -> Spec:
    """Depths, groups and width that the tensors of a plain ResNet tell."""
    first = "base_model.layer1.0."
    bottleneck = f"{first}conv3.weight" in shapes
    out, inputs = shapes[f"{first}conv2.weight"][:2]
    stem = shapes[_STEM][0]
    depths = tuple(count(shapes, rf"base_model\.layer{n}\.(\d+)\.conv1") for n in (1, 2, 3, 4))
    groups = out // inputs
    per_group = out * 64 // groups // stem if bottleneck else 64
    return Spec(bottleneck, depths, groups, per_group, stem)  # type: ignore[arg-type]  # four of them


def _model(shapes: Shapes) -> Fit | None:
    place = _place(shapes)
    plain = {new: shapes[old] for old, new in new_names(shapes, _RULES).items()}
    spec = _spec(plain)
    backbone = next((name for name, known in RESNETS.items() if known == spec), None)
    if backbone is None:
        return None
    options: dict[str, Any] = classes(plain, "new_fc.weight")
    if backbone != "resnet50":
        options["backbone"] = backbone
    if plain[_STEM][1] != 3:
        options["in_channels"] = plain[_STEM][1]
    if place == "block":
        options["place"] = place
    places = {f"{m[1]}.{m[2]}" for m in map(re.compile(r"base_model\.(layer\d)\.nonlocal(\d+)\.").match, plain) if m}
    if places:
        published = set(_PRESET) == places
        options["nonlocal_blocks"] = len(_PRESET) if published else sorted(places)
        if not any(key.endswith(".theta.weight") for key in plain):
            options["nonlocal_mode"] = "gaussian"
        if place is None:
            options["n_div"] = None
    return "tsm_r50" if place or places else "tsn_r50", options


def new_names(names: Iterable[str], rules: Iterable[Rule]) -> dict[str, str]:
    """The file's names -> ours."""
    rules = tuple(rules)
    return {old: next(iter(rename({old: torch.empty(0)}, rules))) for old in names}


def _translate(state: State, model: nn.Module) -> State:
    net = getattr(model, "base_model", None)
    if isinstance(net, FrameResNet) and net.nonlocals.after:
        _check_nonlocal(net.nonlocals)
    return translated(state, model)


def translated(state: State, model: nn.Module) -> State:
    """The state under our names, whichever non-local blocks it has."""
    place = _place(state)
    if place is not None:
        check_shift(model, place)
    return rename(state, _RULES)


def check_shift(model: nn.Module, place: str) -> None:
    """Whether a TSN or TSM shifts where the file's network does.

    Raises:
        CheckpointError: it does not.
    """
    net = getattr(model, "base_model", None)
    if not isinstance(net, (FrameResNet, FrameMobileNet)):
        return
    shift = net.shift
    if shift is None:
        raise CheckpointError("they are of a net with temporal shift, and this one has none: take model=tsm_r50")
    if shift.whole_block != (place == "block"):
        raise CheckpointError(f"they are of a net that shifts at another place: set model.place={place}")


def _check_nonlocal(blocks: NonLocal) -> None:
    for key, value in _NONLOCAL.items():
        if getattr(blocks, key) != value:
            setting = f"model.nonlocal_{key}={str(value).lower()}"
            raise CheckpointError(f"their non-local blocks are of another kind than this net's: set {setting}")


def expects(name: str, options: Mapping[str, Any]) -> Expects:
    """TSM on Kinetics saw 8 of 64 source frames, on other datasets and as TSN one frame from each of 8 segments."""
    dense = name.startswith("tsm") and options.get("num_classes") == _KINETICS
    time = Expects(window=64) if dense else Expects(mode="segments")
    colours = IMAGENET if options.get("in_channels", 3) == 3 else Expects()
    return colours | time | Expects(num_frames=8, size=224, resize=256, protocol="tsm")


def _notes(state: Mapping[str, torch.Tensor], model: nn.Module) -> Sequence[str]:
    return shift_notes(_place(state) is not None, model)


def shift_notes(shifted: bool, model: nn.Module) -> Sequence[str]:
    """What is to be said of a file whose network shifts, or not, in a TSN or TSM."""
    net = getattr(model, "base_model", None)
    if isinstance(net, (FrameResNet, FrameMobileNet)) and net.shift is not None and not shifted:
        return ("the file's net has no temporal shift, this one has: its accuracy starts lower than the file's",)
    return ()


def _refuse_bn_inception(state: State, model: nn.Module) -> State:
    raise CheckpointError("the file holds a TSN or TSM on BN-Inception, and there is no such model here yet")


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        name="mit-han-lab TSN/TSM",
        matches=lambda shapes: _STEM in shapes and any_key(shapes, r"base_model\.layer1\.0\."),
        model=_model,
        translate=_translate,
        notes=_notes,
        expects=expects,
    ),
    Layout(
        name="mit-han-lab TSN/TSM on BN-Inception",
        matches=lambda shapes: any_key(shapes, r"base_model\.conv1_7x7_s2\."),
        model=lambda shapes: None,
        translate=_refuse_bn_inception,
    ),
)
