"""2D weights under the names of our 3D nets: which tensor of an image network starts which of a video network.

Most of our nets have torchvision's names behind a prefix, so a 2D ResNet fits name by name. Inception-v1
(torchvision's googlenet) is put into words for I3D and S3D.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from vidtrain.errors import CheckpointError, one_of
from vidtrain.models.layers.inflated_layers import inflate_weight
from vidtrain.models.weights.layout import Rule, State, rename

_FITTING = (
    "model=i3d_r50, c2d_r50, slow_r50, tsn_r50 and tsm_r50 start from a ResNet, i3d and s3d from googlenet, "
    "model=inflated model.backbone=NAME from any 2D CNN"
)
_MIXED = {"3a": "3b", "3b": "3c", **{f"4{a}": f"4{b}" for a, b in zip("abcde", "bcdef", strict=True)},
          "5a": "5b", "5b": "5c"}  # fmt: skip
_S3D_PLACES = {"3a": 5, "3b": 6, "4a": 8, "4b": 9, "4c": 10, "4d": 11, "4e": 12, "5a": 14, "5b": 15}
_FRESH = re.compile(r"(^|\.)(nonlocal\d+|NonLocal_\w+)\.|^features\..*\.2\.fc\.|num_batches_tracked$")
"""What a 2D net has nothing for and what starts as good as the identity: non-local blocks, S3D-G's gates, counters."""


@dataclass
class Start:
    """What a 2D state starts in a 3D net."""

    state: State
    """Tensors under our names, in our shapes."""
    unused: list[str]
    """Keys of the 2D state that are left over: its head."""
    notes: list[str] = field(default_factory=list)


def start_from_2d(state: Mapping[str, torch.Tensor], model: nn.Module, taps: str) -> Start:
    """Inflate the weights of an image network for `model`.

    Raises:
        CheckpointError: they do not fill it.
    """
    _refuse_other_stems(model)
    own = model.state_dict()
    if "stages.0.blocks.0.conv_dw.weight" in state and "stages.0.blocks.0.mlp.fc1.weight" in state:
        state = _timm_convnext(state) if not any("conv_dw." in key for key in own) else state
    if "inception3a.branch1.conv.weight" in state and "Mixed_3b.b0.conv3d.weight" in own:
        renamed = rename(state, _I3D)
    elif "inception3a.branch1.conv.weight" in state and "features.5.branch0.0.weight" in own:
        renamed = {**rename(state, _S3D), **_temporal_identity(own, taps)}
    else:
        prefix = _prefix(state, own)
        renamed = {prefix + key: tensor for key, tensor in state.items()}
    origin = dict(zip(renamed, state, strict=False))
    fitted = {key: _fit(tensor, own[key], model, taps) for key, tensor in renamed.items() if key in own}
    head = f"{getattr(model, 'head_name', 'head')}."
    fitted = {key: tensor for key, tensor in fitted.items() if not key.startswith(head)}
    unused = [key for key in renamed if key not in fitted]
    _refuse_half(own, fitted, unused, head)
    notes = ["S3D-G's gates are re-initialised"] if any(".2.fc." in key for key in own) else []
    return Start(fitted, [origin.get(key, key) for key in unused], notes)


def _timm_convnext(state: Mapping[str, torch.Tensor]) -> State:
    """timm's ConvNeXt under torchvision's names; its scales are vectors, torchvision's have the two axes of a map."""
    names = rename(state, _CONVNEXT)
    return {key: t[:, None, None] if key.endswith(".layer_scale") and t.ndim == 1 else t for key, t in names.items()}


def _refuse_other_stems(model: nn.Module) -> None:
    """Nets whose tensors have the shapes of a 2D net's, but not its resolution: half a start, that would go unseen."""
    stem, pool = getattr(model, "stem", None), getattr(model, "maxpool", None)
    if isinstance(stem, nn.Sequential) or isinstance(pool, nn.Identity):
        raise CheckpointError(
            f"{getattr(model, 'name', type(model).__name__)} has no max pooling after its stem, so its layers see "
            f"another resolution than those of an image ResNet and nothing is loaded; {_FITTING}"
        )


def _prefix(state: Mapping[str, torch.Tensor], own: State) -> str:
    """What stands before a 2D net's names here: '', 'base_model.', 'backbone.net.', ..."""
    first = next((key for key, tensor in state.items() if tensor.ndim == 4), None)
    if first is None:
        raise CheckpointError("there is no 2D convolution in it")
    found = [key.removesuffix(first) for key in own if key == first or key.endswith(f".{first}")]
    return min(found, key=len, default="")


def _fit(tensor: torch.Tensor, own: torch.Tensor, model: nn.Module, taps: str) -> torch.Tensor:
    """The 2D tensor in the shape of ours where it can be brought into it; else as it is."""
    if tensor.ndim < 4 or own.ndim < 4:
        return tensor
    if tensor.shape[1] == 3 and hasattr(model, "in_channels"):
        tensor = fit_input(tensor, own.shape[1], getattr(model, "stacked", "flow"))
    return inflate_weight(tensor, own.shape[2], taps) if own.ndim == 5 and tensor.ndim == 4 else tensor


def fit_input(weight: torch.Tensor, channels: int, stacked: str) -> torch.Tensor:
    """The first convolution's weight (O, 3, ...) for another number of input channels.

    stacked: "frames": repeated T times and divided by T, so that T equal frames give the features of one. "flow": the
        mean over the colours for each channel (Wang et al. 2015, "Towards Good Practices for Very Deep Two-Stream
        ConvNets").

    Raises:
        CheckpointError: frames that are not of 3 channels.
    """
    if weight.shape[1] == channels:
        return weight
    ones = [1] * (weight.ndim - 2)
    if stacked == "flow":
        return weight.mean(1, keepdim=True).repeat(1, channels, *ones)
    if channels % 3:
        raise CheckpointError(f"weights for RGB fit 3 T input channels, this model has {channels}")
    return weight.repeat(1, channels // 3, *ones) * (3 / channels)


def _temporal_identity(own: State, taps: str) -> State:
    """S3D's convolutions in time, with their batch norm, as the identity on clips that stand still."""
    state: State = {}
    for key, weight in own.items():
        if not (key.startswith("features.") and weight.ndim == 5 and weight.shape[2] > 1):
            continue
        channels, time = weight.shape[0], weight.shape[2]
        eye = torch.eye(channels)[:, :, None, None]
        state[key] = inflate_weight(eye, time, taps)
        norm = f"{key.rpartition('.')[0].rpartition('.')[0]}.1."
        state[f"{norm}weight"], state[f"{norm}bias"] = torch.ones(channels), torch.zeros(channels)
        state[f"{norm}running_mean"] = torch.zeros(channels)
        state[f"{norm}running_var"] = torch.full((channels,), 1 - 1e-3)  # which its epsilon makes 1
    return state


def _refuse_half(own: State, fitted: State, unused: list[str], head: str) -> None:
    missing = [k for k in own if k not in fitted and not k.startswith(head) and not _FRESH.search(k)]
    wrong = [f"{k}: {tuple(t.shape)}, here {tuple(own[k].shape)}" for k, t in fitted.items() if t.shape != own[k].shape]
    # What belongs to a part that was used, such as layer3.5 of a deeper net, is no head.
    used = {_part(key) for key in fitted}
    extra = [key for key in unused if _part(key) in used and not key.endswith("num_batches_tracked")]
    if len(missing) > len(own) // 2:  # another kind of net: what else differs says nothing
        wrong, extra = [], []
    kinds = (("has nothing for", missing), ("has another shape for", wrong), ("has too many tensors", extra))
    trouble = "; ".join(f"it {what}: {one_of(keys, 2)}" for what, keys in kinds if keys)
    if trouble:
        raise CheckpointError(f"it is not the 2D net of this model, and nothing is loaded: {trouble}. {_FITTING}")


def _part(key: str) -> str:
    """layer3.0.conv1.weight -> layer3; behind a prefix likewise."""
    found = re.match(r"((?:base_model\.|backbone\.|net\.)*\w+)", key)
    return found[1] if found else key


_BRANCHES_I3D = {"1.": "b0.", "2.0.": "b1a.", "2.1.": "b1b.", "3.0.": "b2a.", "3.1.": "b2b.", "4.1.": "b3b."}
_BRANCHES_S3D = {"1.": "0.", "2.0.": "1.0.", "2.1.": "1.1.0.", "3.0.": "2.0.", "3.1.": "2.1.0.", "4.1.": "3.1."}
_I3D: tuple[Rule, ...] = (
    *((rf"^inception{old}\.branch", f"Mixed_{new}.branch") for old, new in _MIXED.items()),
    *((rf"^(Mixed_\w+\.)branch{re.escape(old)}(?=conv|bn)", rf"\g<1>{new}") for old, new in _BRANCHES_I3D.items()),
    (r"^conv1\.", "Conv3d_1a_7x7."),
    (r"^conv2\.", "Conv3d_2b_1x1."),
    (r"^conv3\.", "Conv3d_2c_3x3."),
    (r"^((?:Mixed|Conv3d)_\S+\.)conv\.", r"\g<1>conv3d."),
)
_S3D: tuple[Rule, ...] = (
    *((rf"^inception{old}\.branch", f"features.{new}.branch") for old, new in _S3D_PLACES.items()),
    *(
        (rf"^(features\.\d+\.)branch{re.escape(old)}(?=conv|bn)", rf"\g<1>branch{new}")
        for old, new in _BRANCHES_S3D.items()
    ),
    (r"^conv1\.", "features.0.0."),
    (r"^conv2\.", "features.2."),
    (r"^conv3\.", "features.3.0."),
    (r"^(features\.\S+\.)conv\.", r"\g<1>0."),
    (r"^(features\.\S+\.)bn\.", r"\g<1>1."),
)
_CONVNEXT: tuple[Rule, ...] = (
    (r"^stem\.", "features.0."),
    *((rf"^stages\.{n}\.downsample\.", f"features.{2 * n}.") for n in range(1, 4)),
    *((rf"^stages\.{n}\.blocks\.", f"features.{2 * n + 1}.") for n in range(4)),
    (r"^(features\.\d+\.\d+)\.conv_dw\.", r"\1.block.0."),
    (r"^(features\.\d+\.\d+)\.norm\.", r"\1.block.2."),
    (r"^(features\.\d+\.\d+)\.mlp\.fc1\.", r"\1.block.3."),
    (r"^(features\.\d+\.\d+)\.mlp\.fc2\.", r"\1.block.5."),
    (r"\.gamma$", ".layer_scale"),
    (r"^head\.norm\.", "classifier.0."),
    (r"^head\.fc\.", "classifier.2."),
)
