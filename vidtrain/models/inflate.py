"""2D CNNs made 3D (Carreira and Zisserman 2017; Feichtenhofer et al. 2016): inflate() turns any 2D net into a 3D one.

A kernel of K x K becomes Kt x K x K with the weights repeated Kt times and divided by Kt (or on the middle tap), so
that a clip of equal frames gives what the 2D net gives for one. inflate_from() starts a 3D net of the catalogue from
2D weights.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from torch import nn
from torch.utils._pytree import tree_map_only

from vidtrain.errors import CheckpointError, ConfigError, did_you_mean, one_of
from vidtrain.models.layers.inflated_layers import (
    Clock,
    InflatedAvgPool,
    InflatedConv,
    InflatedMaxPool,
    check_inflation,
)
from vidtrain.models.layers.weights import downloading
from vidtrain.models.weights.from_2d import start_from_2d
from vidtrain.models.weights.load import LoadReport
from vidtrain.models.weights.read import Weights, read_weights, without_prefix

_log = logging.getLogger(__name__)


class _Colours(NamedTuple):
    mean: tuple[float, ...]
    std: tuple[float, ...]


_USUAL = _Colours((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = _Colours((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_CONVERT_INSIDE = ("googlenet", "inception_v3")
"""torchvision's nets that take the usual colours and turn them into _HALF before their first layer."""


class Inflated(nn.Module):
    """A 2D net over clips: (B, C, T, H, W) -> its output with the frames in the third place.

    Logits (N, K) of the 2D net become (B, K, T), maps (N, D, H', W') become (B, D, T, H', W').
    """

    def __init__(self, net: nn.Module, clock: Clock) -> None:
        super().__init__()
        self.net = net
        self.clock = clock

    def forward(self, x: torch.Tensor) -> Any:
        if x.ndim != 5:
            raise ConfigError(f"an inflated net takes (batch, channels, frames, height, width), got {tuple(x.shape)}")
        self.clock.frames = x.shape[2]
        out = self.net(x.transpose(1, 2).flatten(0, 1))
        return tree_map_only(torch.Tensor, self._with_time, out)

    def _with_time(self, out: torch.Tensor) -> torch.Tensor:
        return out.unflatten(0, (-1, self.clock.frames)).transpose(1, 2)


def inflate(net: nn.Module, *, time_kernel: int = 3, taps: str = "mean", padding: str = "replicate") -> Inflated:
    """A 3D copy of a 2D CNN: any nn.Module of (N, C, H, W), of torchvision, timm or one's own. `net` stays as it is.

    Every Conv2d, MaxPool2d and AvgPool2d with a kernel above 1 becomes time_kernel x K x K with stride 1 in time;
    norms, activations, global pools and heads work per frame, as 1 x 1 x 1. Pools that the net's forward calls as
    functions, and convolutions of a class of their own (weight standardisation, ...), stay spatial; the latter are
    logged.

    Args:
        time_kernel: Kt, odd.
        taps: "mean": the weight / Kt on each tap; "centre": all of it on the middle one.
        padding: in time. "replicate": the first and the last frame repeated, so that a still clip gives the 2D net's
            output in every frame; "zeros": as in published nets, which is exact only away from the ends.

    Raises:
        ConfigError: an option out of its range, or a net that has nothing to inflate.
    """
    check_inflation(time_kernel, taps, padding)
    copied = copy.deepcopy(net)
    if not list(copied.children()):
        copied = nn.Sequential(copied)  # a single layer, which cannot be replaced within itself
    clock = inflate_layers(copied, time_kernel=time_kernel, taps=taps, padding=padding)
    return Inflated(copied, clock)


def inflate_layers(net: nn.Module, *, time_kernel: int, taps: str, padding: str) -> Clock:
    """Inflate the layers of `net` in place; who calls it has to set the clock to T and to fold T into the batch."""
    clock = Clock()
    convs, foreign = 0, []
    done: dict[nn.Module, nn.Module] = {}  # a layer that stands at two places is one layer
    for path, module in list(net.named_modules(remove_duplicate=False)):
        if module in done:
            new: nn.Module = done[module]
        elif isinstance(module, nn.Conv2d) and _above_one(module.kernel_size):
            if not _is_plain(type(module)):
                foreign.append(f"{path} ({type(module).__name__})")
                continue
            new = InflatedConv(module, clock, time_kernel=time_kernel, taps=taps, padding=padding)
            convs += 1
        elif isinstance(module, nn.MaxPool2d) and _above_one(module.kernel_size) and not module.return_indices:
            new = InflatedMaxPool(module, clock, time_kernel=time_kernel)
        elif isinstance(module, nn.AvgPool2d) and _above_one(module.kernel_size):
            new = InflatedAvgPool(module, clock, time_kernel=time_kernel, padding=padding)
        else:
            continue
        done[module] = new
        parent, _, name = path.rpartition(".")
        setattr(net.get_submodule(parent), name, new.train(module.training))
    if not convs:
        why = f"its convolutions are of a class of their own: {one_of(foreign, 2)}" if foreign else "it is no 2D CNN"
        raise ConfigError(f"inflate: {type(net).__name__} has no plain Conv2d with a kernel above 1: {why}")
    if foreign:
        _log.warning("inflate: %d convolutions of their own class stay 2D: %s", len(foreign), one_of(foreign, 3))
    return clock


def _is_plain(kind: type[nn.Conv2d]) -> bool:
    """Whether a subclass of Conv2d convolves as Conv2d does."""
    return kind.forward is nn.Conv2d.forward and kind._conv_forward is nn.Conv2d._conv_forward


def _above_one(kernel: int | tuple[int, ...]) -> bool:
    return max(kernel) > 1 if isinstance(kernel, tuple) else kernel > 1


# ---------------------------------------------------------------- starting a net of the catalogue from a 2D one


def inflate_from(model: nn.Module, source: str | Path) -> LoadReport:
    """Start a 3D net of the catalogue from the weights of a 2D one; its head stays as it is.

    A 3D net's K x K kernels get the 2D weights repeated over time and divided by their number of frames, 2D parts get
    them as they are. Either the whole net below the head is filled or nothing is changed.

    Args:
        source: a 2D CNN of torchvision by name, whose ImageNet weights are fetched on first use, or a file of 2D
            weights under torchvision's (or timm's) names.

    Raises:
        ConfigError: neither a file nor a name of torchvision, or no network to fetch the weights.
        CheckpointError: the file cannot be read, or it is not the 2D net of this model.
    """
    weights, layout = _weights_2d(source)
    try:
        start = start_from_2d(weights.state, model, getattr(model, "taps", "mean"))
    except CheckpointError as error:
        raise CheckpointError(f"model.inflate_from={source}: {error}") from error
    model.load_state_dict(start.state, strict=False)
    notes = list(start.notes)
    if layout == "2D" and "inception3a.branch1.conv.weight" in weights.state:
        notes.append("torchvision's own googlenet weights want other colours: take them as inflate_from=googlenet")
    left_out = (*weights.left_out, *((key, "the image network's last layers") for key in start.unused))
    head = "the image network's has other classes"
    return LoadReport(weights.source, layout, len(start.state), head, left_out, tuple(notes))


def _weights_2d(source: str | Path) -> tuple[Weights, str]:
    path = Path(source).expanduser()
    if path.exists():
        weights = read_weights(path)
        while (shorter := without_prefix(weights.state)).keys() != weights.state.keys():
            weights = replace(weights, state=shorter)
        return weights, "2D"
    name = str(source)
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise ConfigError(
            f"model.inflate_from: {name} is neither a file nor a 2D CNN of torchvision{did_you_mean(name, known)}: "
            "expected a path, or a name such as resnet50"
        )
    entry = torchvision.models.get_model_weights(name).DEFAULT
    with downloading(name, entry, "model.inflate_from"):
        state = entry.get_state_dict(progress=False, check_hash=True)
    wanted = _HALF if name in _CONVERT_INSIDE else entry.transforms()
    state = _for_usual_colours(dict(state), torch.tensor(wanted.mean), torch.tensor(wanted.std))
    return Weights(f"{name} ({entry})", state), "torchvision ImageNet"


def _for_usual_colours(
    state: dict[str, torch.Tensor], mean: torch.Tensor, std: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Weights of a net that wants colours of another mean and deviation than ImageNet's, for ImageNet's: the first
    convolution and the mean of its batch norm convert them, exactly but for the border, where padding has a colour."""
    usual_mean, usual_std = torch.tensor(_USUAL.mean), torch.tensor(_USUAL.std)
    if torch.equal(mean, usual_mean) and torch.equal(std, usual_std):
        return state
    conv = next(key for key, tensor in state.items() if tensor.ndim == 4)
    norm = next(key for key in state if key.endswith("running_mean"))
    weight = state[conv]
    offset = (weight * ((usual_mean - mean) / std)[:, None, None]).sum((1, 2, 3))
    return {**state, conv: weight * (usual_std / std)[:, None, None], norm: state[norm] - offset}
