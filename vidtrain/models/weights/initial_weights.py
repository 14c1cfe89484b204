"""Where a model's first weights come from. A model is built first and knows nothing of this; its start is carried out
here, from the keys that every `model` section takes:

    weights           a published file, or a checkpoint of vidtrain
    inflate_from      a 2D network for a 3D one: a file, or a name of torchvision
    pretrained        what torchvision (or timm) publishes for this model: kinetics400, or imagenet for its 2D backbone
    backbone_weights  a file of 2D weights for its backbone
    network_weights   a file for the frozen network of model=feature_rnn
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from torch import nn

from vidtrain.errors import ConfigError, one_of
from vidtrain.models.weights.expected_clips import IMAGENET, Expects

if TYPE_CHECKING:
    from vidtrain.models.weights.load import LoadReport

_PUBLISHED: Final[Mapping[str, Mapping[str, str]]] = {
    "r3d_18": {"kinetics400": "R3D_18_Weights.KINETICS400_V1"},
    "mc3_18": {"kinetics400": "MC3_18_Weights.KINETICS400_V1"},
    "r2plus1d_18": {"kinetics400": "R2Plus1D_18_Weights.KINETICS400_V1"},
    "mvit_v1_b": {"kinetics400": "MViT_V1_B_Weights.KINETICS400_V1"},
    "mvit_v2_s": {"kinetics400": "MViT_V2_S_Weights.KINETICS400_V1"},
    "swin3d_t": {"kinetics400": "Swin3D_T_Weights.KINETICS400_V1"},
    "swin3d_s": {"kinetics400": "Swin3D_S_Weights.KINETICS400_V1"},
    "swin3d_b": {
        "kinetics400": "Swin3D_B_Weights.KINETICS400_V1",
        "kinetics400_imagenet22k": "Swin3D_B_Weights.KINETICS400_IMAGENET22K_V1",
    },
}
"""Name of a model -> value of `pretrained` -> the name of torchvision's weights."""


def initialise(model: nn.Module, keys: Mapping[str, Any]) -> list[LoadReport]:
    """Fill `model` with the weights that `keys` (of START_KEYS; None says nothing) name.

    Raises:
        ConfigError: two of them at once, or one that this model has no use for.
        CheckpointError: a file that cannot be read or does not fit; the model is then as it was.
    """
    given = {key: value for key, value in keys.items() if value is not None}
    if len(given) > 1:
        named = " and ".join(f"model.{key}={value}" for key, value in given.items())
        raise ConfigError(f"{named}: a model starts from one of them")
    if not given:
        return []
    # imported here: a network that a checkpoint fills, the most frequent one, needs none of it
    from vidtrain.models.weights.inflate_from import inflate_from, start_backbones
    from vidtrain.models.weights.load import load_weights

    (key, value), frozen = next(iter(given.items())), getattr(model, "frozen_network", None)
    if key == "weights":
        return [load_weights(model, str(value))]
    if key == "inflate_from":
        return [inflate_from(model, value)]
    if key == "network_weights":
        if frozen is None:
            raise ConfigError(f"model.network_weights={value}: {type(model).__name__} has no frozen network: set null")
        return [load_weights(frozen, str(value))]
    if key == "backbone_weights":
        return start_backbones(model, str(value))
    return _pretrained(model if frozen is None else frozen, str(value))


def torchvision_clips(name: object, pretrained: object) -> Expects | None:
    """What torchvision's weights of a video network expect, or those of a 2D backbone, which say the colours alone."""
    from vidtrain.models.weights import mvit, swin3d, torchvision_video

    if pretrained == "imagenet":
        return IMAGENET
    if str(pretrained) not in _PUBLISHED.get(str(name), {}):
        return None
    of_family = {"mvit": mvit.LAYOUTS, "swin3d": swin3d.LAYOUTS}
    own = of_family.get(str(name).partition("_")[0], torchvision_video.LAYOUTS)  # torchvision's is the first
    return own[0].expects(str(name), {})


def timm_colours(name: str) -> Expects | None:
    """Mean and deviation that timm's published weights of a network expect; None: timm is absent, or does not know."""
    try:
        from timm.models import get_pretrained_cfg
    except ImportError:
        return None
    found = get_pretrained_cfg(name)
    if found is None:
        return None
    (red, green, blue), (r, g, b) = found.mean, found.std
    return Expects(mean=(red, green, blue), std=(r, g, b))


def _pretrained(model: nn.Module, choice: str) -> list[LoadReport]:
    from vidtrain.models.weights.download import downloading
    from vidtrain.models.weights.inflate_from import start_backbones
    from vidtrain.models.weights.load import describe_weights, load_weights

    name = describe_weights(model.state_dict()).model or ""  # which published network this is: its tensors say it
    published = _PUBLISHED.get(name, {})
    if choice in published:
        from torchvision.models import get_weight

        weights = get_weight(published[choice])
        with downloading(name, weights):
            state = weights.get_state_dict(progress=False, check_hash=True)
        return [load_weights(model, state)]
    allowed = [*published] or ["imagenet"]
    if choice not in allowed:
        raise ConfigError(f"model.pretrained: got {choice!r}, expected null or {one_of(allowed)}")
    return start_backbones(model, None)
