"""Files of image networks under other names than those of the network that they are for: EfficientNet-PyTorch's, and
those that timm itself renames (the authors' DINOv3, Perception Encoder, ConvNeXt, ...)."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

import torch
from torch import nn

from vidtrain.errors import CheckpointError
from vidtrain.models.layers.backbone2d import ImageBackbone, TimmBackbone
from vidtrain.models.weights.layout import Rule, State, rename

_FIRST: tuple[Rule, ...] = (
    ("_depthwise_conv", "conv_dw"),
    ("_project_conv", "conv_pw"),
    ("_bn1", "bn1"),
    ("_bn2", "bn2"),
)
_EXPANDED: tuple[Rule, ...] = (
    ("_expand_conv", "conv_pw"),
    ("_depthwise_conv", "conv_dw"),
    ("_project_conv", "conv_pwl"),
    *((f"_bn{number}", f"bn{number + 1}") for number in range(3)),
)
_OUTSIDE: tuple[Rule, ...] = (
    ("^_conv_stem", "conv_stem"),
    ("^_bn0", "bn1"),
    ("^_conv_head", "conv_head"),
    ("^_bn1", "bn2"),
    ("^_fc", "classifier"),
)


def named_for(backbone: ImageBackbone, state: Mapping[str, torch.Tensor]) -> State:
    """The tensors of an image file under the names of a backbone's network, without a classifier where it is timm's.

    Raises:
        CheckpointError: timm's own conversion does not get along with the file.
    """
    if not isinstance(backbone, TimmBackbone):
        return dict(state)
    net = backbone.net
    if "_conv_stem.weight" in state:
        state = _efficientnet(state, net)
    convert = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        try:
            state = convert(dict(state), net)
        except Exception as error:  # whatever a stranger's tensors make of code that expects others
            raise CheckpointError(
                f"timm's {backbone.source} cannot read it: {type(error).__name__}: {error}"
            ) from error
    classifiers = net.pretrained_cfg.get("classifier") or ()  # type: ignore[union-attr, operator]
    heads = tuple(f"{name}." for name in ((classifiers,) if isinstance(classifiers, str) else classifiers))
    return {key: tensor for key, tensor in state.items() if not heads or not key.startswith(heads)}


def _efficientnet(state: Mapping[str, torch.Tensor], net: nn.Module) -> State:
    """EfficientNet-PyTorch numbers its blocks through, timm by stage."""
    own = sorted(
        {tuple(map(int, re.findall(r"\d+", key)[:2])) for key in net.state_dict() if key.startswith("blocks.")}
    )
    named: State = {}
    for key, tensor in state.items():
        found = re.match(r"_blocks\.(\d{1,4})\.(.*)", key)
        if found is None:
            named |= rename({key: tensor}, _OUTSIDE)
        elif int(found[1]) < len(own):
            stage, block = own[int(found[1])]
            rules = _EXPANDED if f"_blocks.{found[1]}._expand_conv.weight" in state else _FIRST
            named |= rename({f"blocks.{stage}.{block}.{found[2]}": tensor}, (*rules, ("_se_", "se.conv_")))
        else:
            named[key] = tensor
    return named
