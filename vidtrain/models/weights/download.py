"""Downloads from torchvision's weight registry, with an error that says what to do without a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pickle import UnpicklingError

import torch
from torchvision.models import WeightsEnum

from vidtrain.errors import ConfigError


@contextmanager
def downloading(name: str, weights: WeightsEnum, key: str = "model.pretrained") -> Iterator[None]:
    """Around code that fetches `weights` for the net called `name`, as the option `key` asks."""
    try:
        yield
    # URLError is an OSError; a wrong checksum is a RuntimeError; the others: a file in the cache that is damaged
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise ConfigError(
            f"{key}: the weights of {name} could not be had from {weights.url} ({error}): download the "
            f"file elsewhere and put it into {torch.hub.get_dir()}/checkpoints, or set {key}=null"
        ) from error
