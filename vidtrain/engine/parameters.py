"""Parameters: in groups for an optimizer, learning rates by depth, weight decay where it helps; which are frozen, which
are not finite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from vidtrain.engine.devices.distributed import local
from vidtrain.errors import ConfigError


@runtime_checkable
class Layered(Protocol):
    """A network that knows the depth of its parameters."""

    num_layers: int
    """Layers, the embedding and the head counted."""

    def layer_of(self, name: str) -> int:
        """From 0, the embedding, to num_layers - 1, the head."""
        ...


@runtime_checkable
class Grid(Protocol):
    """A network of members that are trained side by side, each with a learning rate and a decay of its own, of which
    the one that validated best answers alone."""

    members: Sequence[str]
    chosen: Tensor
    """int64 (): the one that answers, a buffer."""

    def factors_of(self, name: str) -> tuple[float, float]:
        """Of a parameter: its share of the learning rate, and of the weight decay."""
        ...

    def answers_of_all(self, x: Any) -> Tensor:
        """The answers of all of the G members, (N, G, ...)."""
        ...


def parameter_groups(
    model: nn.Module, *, lr: float, weight_decay: float, layer_decay: float | None = None, decay_norms: bool = True
) -> list[dict[str, Any]]:
    """Groups of the trainable parameters, each with its `lr` and `weight_decay`.

    Args:
        layer_decay: the learning rate of a layer is that of the layer above it times this (Clark et al. 2020; BEiT,
            VideoMAE); the head has `lr`. None: all have `lr`.
        decay_norms: False leaves vectors (biases, the scales of norms) and tables of positions without weight decay.

    Raises:
        ConfigError: layer_decay is not in (0, 1], decay_norms is no bool, or the model does not know its layers.
    """
    if not isinstance(decay_norms, bool):
        raise ConfigError(f"optimizer.decay_norms={decay_norms!r}: must be true or false")
    if layer_decay is not None:
        if not isinstance(layer_decay, int | float) or not 0 < layer_decay <= 1:
            raise ConfigError(f"optimizer.layer_decay={layer_decay!r}: must be above 0 and at most 1, or null")
        if not isinstance(model, Layered):
            raise ConfigError(
                f"optimizer.layer_decay={layer_decay}: {type(model).__name__} does not number its layers "
                "(the video transformers do); set it to null"
            )
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter, exempt in _named(model):
        decay = 0.0 if exempt and not decay_norms else weight_decay
        rate = lr
        if layer_decay is not None and isinstance(model, Layered):
            rate *= layer_decay ** (model.num_layers - 1 - model.layer_of(name))
        if isinstance(model, Grid):
            rate, decay = (value * factor for value, factor in zip((rate, decay), model.factors_of(name), strict=True))
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": parameters, "lr": rate, "weight_decay": decay} for (rate, decay), parameters in groups.items()]


def _named(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, bool]]:
    """Name, parameter, and whether it is a vector, or a table or token that is added to features."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            last = name.rsplit(".", 1)[-1]
            yield name, parameter, parameter.ndim <= 1 or (last not in ("weight", "bias") and parameter.ndim == 3)


def train_mode(model: nn.Module) -> None:
    """Training mode, but a part whose parameters are all frozen is in eval mode: BatchNorm keeps its statistics, and
    nothing is dropped out."""
    model.train()
    for part in model.modules():
        frozen = [not parameter.requires_grad for parameter in part.parameters()]
        if frozen and all(frozen):
            part.eval()


def first_not_finite(model: nn.Module) -> str | None:
    """The first parameter that holds nan or inf, of what this process keeps of it. Waits for the device."""
    weights = dict(model.named_parameters())
    if not weights:
        return None
    finite = torch.stack([local(parameter.detach()).isfinite().all() for parameter in weights.values()]).tolist()
    return next((name for name, whole in zip(weights, finite, strict=True) if not whole), None)
