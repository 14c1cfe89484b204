"""Starting a network that has torchvision's layers from torchvision's published weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TypeVar

from torch import nn
from torchvision.models import WeightsEnum

from vidtrain.errors import ConfigError, one_of
from vidtrain.models.layers.weights import downloading

_log = logging.getLogger(__name__)
Net = TypeVar("Net", bound=nn.Module)


def started(net: Net, name: str, published: Mapping[str, WeightsEnum], pretrained: str | None) -> Net:
    """`net` with the weights that the option model.pretrained names; the head only where the classes are as many."""
    if pretrained is None:
        return net
    if pretrained not in published:
        raise ConfigError(f"model.pretrained: got {pretrained!r}, expected null or {one_of(published)}")
    from vidtrain.models.weights.load import load_weights  # it knows the models, which import this module

    weights = published[pretrained]
    with downloading(name, weights):
        state = weights.get_state_dict(progress=False, check_hash=True)
    _log.info("%s", load_weights(net, state).to_text())
    return net
