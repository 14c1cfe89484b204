"""MMAction2's files, 0.x and 1.x: I3D, Slow-only, SlowFast, CSN, R(2+1)D, X3D, C3D, and C2D, TSN and TSM on 2D ResNets.

Every convolution stands with its BatchNorm in one module (`conv1.conv`, `conv1.bn`). What the tensors do not show, and
the layout therefore has to know: BatchNorm adds 1e-3 in CSN and R(2+1)D, SlowFast's head reads the fast features
first, non-local blocks pool after their convolutions, I3D steps over frames in the stem and its pooling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from vidtrain.models.layers.nonlocal_block import NonLocalBlock
from vidtrain.models.layers.resnet3d import ResNet3d
from vidtrain.models.slowfast import SlowFast
from vidtrain.models.weights import mit_tsm
from vidtrain.models.weights.expected_clips import IMAGENET, KINETICS, SLOWFAST, Expects, by_model, clips
from vidtrain.models.weights.layout import Fit, Layout, Shapes, State, any_key, classes, rename, shapes_of
from vidtrain.models.weights.resnet_fits import fit_resnet, flat, match_eps, match_shortcut, shortcut_notes

_BLOCK = r"(layer\d\.\d+\.(?:block\.)?(?:net\.)?)"
_FRAMES = next(layout for layout in mit_tsm.LAYOUTS if "TSN/TSM" in layout.name)
_ALIKE = ("dot_product", "embedded_gaussian")
_DEPTHS = {"resnet50": 50, "resnet101": 101, "resnet152": 152}
_UNWRAP = ((r"^backbone\.", ""), (r"^cls_head\.", ""))
_RULES = (
    (r"^slow_path\.conv1_lateral\.", "lateral.0."),
    *((rf"^slow_path\.layer{n}_lateral\.", f"lateral.{n}.") for n in (1, 2, 3)),
    (r"^slow_path\.", "slow."),
    (r"^fast_path\.", "fast."),
    (rf"{_BLOCK}non_local_block\.(g|phi|theta)\.(?:0\.)?conv\.", r"\1non_local_block.\2."),
    (rf"{_BLOCK}non_local_block\.conv_out\.conv\.", r"\1non_local_block.out."),
    (rf"{_BLOCK}non_local_block\.conv_out\.bn\.", r"\1non_local_block.bn."),
    (rf"{_BLOCK}non_local_block\.concat_project\.conv\.", r"\1non_local_block.pair."),
    (r"(layer\d)\.(\d+)\.non_local_block\.", r"\1.nonlocal\2."),
    (rf"{_BLOCK}downsample\.conv\.", r"\1downsample.0."),
    (rf"{_BLOCK}downsample\.bn\.", r"\1downsample.1."),
    (rf"{_BLOCK}se_module\.", r"\1se."),
    (rf"{_BLOCK}conv2\.0\.(conv|bn)\.", r"\1conv2.\2."),  # CSN ir; ip is recognised before
    (rf"{_BLOCK}conv(\d)\.bn\.", r"\1bn\2."),
    (rf"{_BLOCK}conv(\d)\.conv\.", r"\1conv\2."),
    (r"^((?:slow\.|fast\.)?)conv1\.bn\.", r"\1bn1."),
    (r"^((?:slow\.|fast\.)?)conv1\.conv\.", r"\1conv1."),
    (r"^conv1_([st])\.conv\.", r"conv1_\1."),
    (r"^conv1_t\.bn\.", "bn1."),
    (r"^conv5\.bn\.", "bn5."),
    (r"^conv5\.conv\.", "conv5."),
    (r"\.conv_s\.", ".space."),
    (r"\.conv_t\.", ".time."),
    (r"\.bn_s\.", ".bn."),
    (r"^fc_cls\.", "fc."),
    (r"^fc2\.", "fc."),  # X3D's second; its first is fc1 here too
)
_MIXED = (  # CSN ip: 1x1x1 and the depthwise convolution in one list
    (rf"{_BLOCK}conv2\.0\.conv\.", r"\1conv2.mix."),
    (rf"{_BLOCK}conv2\.0\.bn\.", r"\1conv2_norm."),
    (rf"{_BLOCK}conv2\.1\.conv\.", r"\1conv2.depthwise."),
    (rf"{_BLOCK}conv2\.1\.bn\.", r"\1bn2."),
)
_C3D = (
    (r"^conv([12])a\.conv\.", r"conv\1."),
    (r"^conv(\d[ab])\.conv\.", r"conv\1."),
    (r"^fc_cls\.", "fc8."),
)


def _renamed(state: Mapping[str, torch.Tensor]) -> State:
    names = rename(dict(state), _UNWRAP)
    if any(key.startswith("conv1a.") for key in names):
        return rename(names, _C3D)
    if any(".conv2.1.conv." in key for key in names):
        names = rename(rename(names, [*_MIXED, *_RULES]), [(r"\.conv2_norm\.", ".conv2.bn.")])
    else:
        names = rename(names, _RULES)
    for key in [key for key in names if key.endswith(".pair.weight")]:
        names[key] = names[key].flatten(1)
    return flat(names, "fc1.weight")


def _is_image(shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether it is a 2D net over frames: C2D, TSN or TSM."""
    return len(shapes.get("conv1.weight", ())) == 4


def _mit(state: State) -> State:
    """TSN and TSM as mit-han-lab names them; its layout knows the rest."""
    return rename(state, [(r"^(conv1|bn1|layer\d)\.", r"base_model.\1."), (r"^fc\.", "new_fc.")])


def _model(shapes: Shapes) -> Fit | None:
    names = _renamed({key: torch.empty(shape, device="meta") for key, shape in shapes.items()})
    ours = shapes_of(names)
    if "conv3a.weight" in ours:
        return "c3d", {"num_frames": 16, "size": 112, **classes(ours, "fc8.weight")}
    if _is_image(ours):
        return _FRAMES.model(shapes_of(_mit(names)))
    if len(ours.get("layer1.0.conv2.space.weight", ())) == 5 and "layer1.0.conv3.weight" not in ours:
        width = ours["bn1.weight"][0]
        return "r2plus1d_34", {**({} if width == 64 else {"width": width}), **classes(ours, "fc.weight")}
    return fit_resnet(ours, draw="stride", **_unseen(shapes, ours))


def _is_i3d(ours: Shapes) -> bool:
    return ours.get("conv1.weight", (0, 0, 0))[2:3] == (5,)


def _steps(ours: Shapes) -> bool:
    """Whether the net takes every other frame in its stem: I3D, but for the "heavy" one, inflated in every block."""
    return _is_i3d(ours) and any(s[2] == 1 for key, s in ours.items() if key.endswith(".conv1.weight"))


def _unseen(shapes: Shapes, ours: Shapes) -> dict[str, Any]:
    """Options that the published configurations have and no tensor shows."""
    options: dict[str, Any] = {}
    if _steps(ours):
        options |= {"stem_stride": 2, "pool_stride": 2}
    if any("nonlocal" in key for key in ours):
        pooled = any(".non_local_block.g.0." in key for key in shapes)
        options |= {"nonlocal_pool": "after" if pooled else None, "nonlocal_scale": not _is_i3d(ours)}
    return options


def _translate(state: State, model: nn.Module) -> State:
    names = _renamed(state)
    for key in [key for key in names if ".nonlocal" in key and key.endswith(".out.weight")]:
        names.setdefault(key.replace("weight", "bias"), torch.zeros(len(names[key])))  # BatchNorm follows: none there
    if _is_image(shapes_of(names)):
        if not isinstance(model, ResNet3d):
            return mit_tsm.translated(_mit(names), model)
        names = {key: tensor.unsqueeze(2) if tensor.ndim == 4 else tensor for key, tensor in names.items()}
    own = model.state_dict()
    if isinstance(model, SlowFast) and "fc.weight" in names and "fc.weight" in own:
        fast = 32 * len(names.get("fast.bn1.weight", ()))
        names["fc.weight"] = torch.cat([names["fc.weight"][:, fast:], names["fc.weight"][:, :fast]], dim=1)
    return match_shortcut(_match_eps(names, model), model)


def _match_eps(names: State, model: nn.Module) -> State:
    if ".space." in "".join(names):  # R(2+1)D: those between the two halves of a convolution add the usual 1e-5
        halves = {key: names.pop(key) for key in list(names) if ".bn.running_var" in key}
        return {**match_eps(names, model), **halves}
    depthwise = names.get("layer1.0.conv2.weight", names.get("layer1.0.conv2.depthwise.weight"))
    is_csn = depthwise is not None and depthwise.shape[1:] == (1, 3, 3, 3) and "conv1_s.weight" not in names
    return match_eps(names, model) if is_csn else names


def _notes(state: Mapping[str, torch.Tensor], model: nn.Module) -> Sequence[str]:
    names = _renamed(state)
    if "conv1_s.weight" in names:
        return shortcut_notes(names, model)
    notes: list[str] = []
    if _is_image(shapes_of(names)) and not isinstance(model, ResNet3d):
        notes += _FRAMES.notes(_mit(names), model)
        if _others(_model(shapes_of(state))):
            notes.append(
                "MMAction2's TSN and C2D have the very same tensors: assumed is the one that was named, model=tsn_r50, "
                "or model=c2d_r50 model.pool_padding=0 for C2D with pooling in time"
            )
    if _is_image(shapes_of(names)):
        notes.append(
            "MMAction2's C2D with pooling in time has no padding in the pooling after its stem (model.pool_padding=0); "
            "its C2D without has, and needs model.time_pool=false"
        )
    if _steps(shapes_of(names)) and isinstance(model, ResNet3d) and not model.steps:
        notes.append(
            "MMAction2's I3D steps over every other frame in the stem and again in the pooling: "
            "its accuracy needs model.stem_stride=2 model.pool_stride=2"
        )
    if any(".nonlocal" in key for key in names):
        notes.append(
            "MMAction2's non-local blocks pool after their convolutions (model.nonlocal_pool=after), and those of its "
            "I3D do not scale (model.nonlocal_scale=false)"
        )
    if any(".nonlocal" in key for key in names) and _mode(model) in _ALIKE:
        notes.append(f"{_ALIKE[0]} and {_ALIKE[1]} look alike in a file: assumed is model.nonlocal_mode={_mode(model)}")
    if isinstance(model, SlowFast) and model.draw != "stride":
        notes.append("MMAction2's SlowFast sees every alpha-th frame in its slow pathway: model.draw=stride")
    return notes


_SEGMENTS = Expects(mode="segments", num_frames=8, size=224, resize=256)
_CLIPS = {
    **dict.fromkeys(("c2d_r50", "slow_r50", "r2plus1d_34"), clips(8, 8, 256)),
    **dict.fromkeys(("i3d_r50", "i3d_r50_nonlocal", "slowfast_r50", "slowfast_4x16_r50"), clips(32, 2, 256)),
    "slowfast_r101": clips(32, 2, 256),
    "csn_r101": KINETICS | clips(32, 2, 256),
    "x3d_s": SLOWFAST | clips(13, 6, 182),
    "x3d_m": SLOWFAST | clips(16, 5, 256),
    # 104, 117 and 128 off the bytes, which are not scaled
    "c3d": Expects(mean=(104 / 255, 117 / 255, 128 / 255), std=(1 / 255,) * 3) | clips(16, 1, 112, 128),
    **dict.fromkeys(("tsn_r50", "tsm_r50"), _SEGMENTS),
}


def _mode(model: nn.Module) -> str:
    return next((module.mode for module in model.modules() if isinstance(module, NonLocalBlock)), "none")


def _others(fit: Fit | None) -> Sequence[Fit]:
    """C2D with pooling in time, of whose tensors TSN on a ResNet of bottlenecks has all."""
    name, options = fit or ("", {})
    depth = _DEPTHS.get(options.get("backbone", "resnet50"))
    if name != "tsn_r50" or depth is None or "in_channels" in options:
        return ()
    kept = {key: value for key, value in options.items() if key == "num_classes"}
    return (("c2d_r50", {**({} if depth == 50 else {"depth": depth}), "pool_padding": 0, **kept}),)


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        name="MMAction2",
        matches=lambda shapes: any_key(
            shapes, r"(backbone\.)?((slow_path\.)?conv1\.conv\.|conv1_s\.conv\.|conv1a\.conv\.)"
        ),
        model=_model,
        translate=_translate,
        notes=_notes,
        others=_others,
        expects=by_model(IMAGENET | Expects(protocol="mmaction2"), _CLIPS),
    ),
)
