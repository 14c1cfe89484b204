"""Starting a network of the catalogue, or its 2D backbones, from the weights of a 2D image network."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from vidtrain.errors import CheckpointError, ConfigError, did_you_mean
from vidtrain.models.layers.backbone2d import ImageBackbone, TimmBackbone, image_networks
from vidtrain.models.layers.frame_mobilenet import FrameMobileNet
from vidtrain.models.layers.frame_resnet import FrameResNet
from vidtrain.models.weights.download import downloading
from vidtrain.models.weights.expected_clips import NOTHING, Expects
from vidtrain.models.weights.from_2d import start_from_2d
from vidtrain.models.weights.image_network_names import named_for
from vidtrain.models.weights.load import LoadReport
from vidtrain.models.weights.read import Weights, read_weights, without_prefix
from vidtrain.remote import is_url


class _Colours(NamedTuple):
    mean: tuple[float, ...]
    std: tuple[float, ...]


_USUAL = _Colours((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = _Colours((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_CONVERT_INSIDE = ("googlenet", "inception_v3")
"""torchvision's nets that take the usual colours and turn them into _HALF before their first layer."""


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
    head = "the image network's has other classes"
    return _fill(model, weights, layout, f"model.inflate_from={source}", getattr(model, "taps", "mean"), head)


def start_backbones(model: nn.Module, file: str | Path | None) -> list[LoadReport]:
    """Start every 2D backbone in `model` from 2D weights; the rest stays as it is.

    Args:
        file: of 2D weights under torchvision's (or timm's) names. None: what is published for each backbone, fetched
            on first use.

    Raises:
        ConfigError: the model has no 2D backbone, nothing is published for it, or no network to fetch it.
        CheckpointError: the file cannot be read, or it is of another net than the backbone.
    """
    backbones = [
        module for module in model.modules() if isinstance(module, (ImageBackbone, FrameResNet, FrameMobileNet))
    ]
    key = "model.pretrained" if file is None else f"model.backbone_weights={file}"
    if not backbones:
        raise ConfigError(f"{key}: {type(model).__name__} has no 2D backbone: expected null")
    found = {b.source: _published(b) if file is None else _weights_2d(file) for b in backbones}
    taps = getattr(model, "taps", "mean")
    return [_fill(backbone, *found[backbone.source], key, taps, None) for backbone in backbones]


def _fill(model: nn.Module, weights: Weights, layout: str, key: str, taps: str, head: str | None) -> LoadReport:
    try:
        state = named_for(model, weights.state) if isinstance(model, ImageBackbone) else weights.state
        start = start_from_2d(state, model, taps)
    except CheckpointError as error:
        raise CheckpointError(f"{key}: {error}") from error
    model.load_state_dict(start.state, strict=False)
    notes = list(start.notes)
    if layout == "2D" and "inception3a.branch1.conv.weight" in weights.state:
        notes.append("torchvision's own googlenet weights expect other colours: take them as inflate_from=googlenet")
    left_out = (*weights.left_out, *((key, "the image network's last layers") for key in start.unused))
    colours = Expects(*model.colours) if isinstance(model, TimmBackbone) else NOTHING
    return LoadReport(weights.source, layout, len(start.state), head, left_out, tuple(notes), colours)


def _published(backbone: ImageBackbone | FrameResNet | FrameMobileNet) -> tuple[Weights, str]:
    """The ImageNet weights of torchvision or timm for a backbone."""
    name = backbone.source
    if name.startswith("timm:"):
        return _timm(name.removeprefix("timm:")), "timm"
    if name not in image_networks():
        raise ConfigError(
            f"model.pretrained: there are no published weights for backbone {name}: set model.pretrained=null, or "
            "model.backbone=resnet18"
        )
    return _torchvision(name, "model.pretrained"), "torchvision ImageNet"


def _timm(name: str) -> Weights:
    import timm  # the backbone was made by it

    try:
        net = timm.create_model(name, pretrained=True, num_classes=0)
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"model.pretrained: timm could not fetch the weights of {name} ({error}): without a network set "
            "model.pretrained=null, or model.backbone_weights=FILE"
        ) from error
    return Weights(f"timm:{name}", dict(net.state_dict()))


def _weights_2d(source: str | Path) -> tuple[Weights, str]:
    path = Path(os.path.expanduser(source))  # noqa: PTH111 - Path.expanduser raises for ~x without a user x
    if is_url(source) or path.exists():
        weights = read_weights(source)
        while (shorter := without_prefix(weights.state)).keys() != weights.state.keys():
            weights = replace(weights, state=shorter)
        return weights, "2D"
    name = str(source)
    known = image_networks()
    if name not in known:
        raise ConfigError(
            f"model.inflate_from: {name} is neither a file nor a 2D CNN of torchvision{did_you_mean(name, known)}: "
            "expected a path, or a name such as resnet50"
        )
    return _torchvision(name, "model.inflate_from"), "torchvision ImageNet"


def _torchvision(name: str, key: str) -> Weights:
    """The newest ImageNet weights of a CNN of torchvision, for the usual colours."""
    from torchvision.models import get_model_weights

    entry = get_model_weights(name).DEFAULT
    with downloading(name, entry, key):
        state = entry.get_state_dict(progress=False, check_hash=True)
    wanted = _HALF if name in _CONVERT_INSIDE else entry.transforms()
    state = _for_usual_colours(dict(state), torch.tensor(wanted.mean), torch.tensor(wanted.std))
    return Weights(f"{name} ({entry})", state)


def _for_usual_colours(
    state: dict[str, torch.Tensor], mean: torch.Tensor, std: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Weights of a net that expects colours of another mean and deviation than ImageNet's, for ImageNet's: the first
    convolution and the mean of its batch norm convert them, exactly but for the border, where padding has a colour."""
    usual_mean, usual_std = torch.tensor(_USUAL.mean), torch.tensor(_USUAL.std)
    if torch.equal(mean, usual_mean) and torch.equal(std, usual_std):
        return state
    conv = next(key for key, tensor in state.items() if tensor.ndim == 4)
    norm = next(key for key in state if key.endswith("running_mean"))
    weight = state[conv]
    offset = (weight * ((usual_mean - mean) / std)[:, None, None]).sum((1, 2, 3))
    return {**state, conv: weight * (usual_std / std)[:, None, None], norm: state[norm] - offset}
