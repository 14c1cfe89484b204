"""Low-rank updates of frozen weights (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models").

A weight W, seen as a matrix (out, rest), becomes W + scale * B A with A (rank, rest), B (out, rank) and B = 0 at first.
A layer keeps its name, its type and its weight; A and B stand beside it as NAME_lora_a and NAME_lora_b. Whoever reads
its weight, a functional convolution for instance, gets the sum.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

_A, _B = "_lora_a", "_lora_b"


def weight_names(layer: nn.Module) -> list[str]:
    """The weights of a layer that can have an update: `weight`, or those of all steps of an nn.LSTM, nn.GRU, nn.RNN."""
    own = dict(layer.named_parameters(recurse=False))
    if isinstance(layer, nn.RNNBase):
        return [name for name in own if name.startswith("weight_")]
    return ["weight"] if "weight" in own and own["weight"].ndim > 1 and not isinstance(layer, nn.Embedding) else []


def add_low_rank(layer: nn.Module, rank: int, alpha: float) -> None:
    """Give each of the layer's weights A and B, which are trained; scale = alpha / rank. It computes what it did."""
    kind: Any = type(layer)
    layer.__class__ = _with_update(kind)
    layer.lora_scale = alpha / rank  # type: ignore[assignment]
    for name in weight_names(layer):
        weight = layer._parameters[name]
        assert weight is not None
        a = weight.new_empty(rank, weight[0].numel())
        nn.init.kaiming_uniform_(a, a=math.sqrt(5))
        layer.register_parameter(name + _A, nn.Parameter(a))
        layer.register_parameter(name + _B, nn.Parameter(weight.new_zeros(len(weight), rank)))


def has_low_rank(weights: Mapping[str, Any]) -> bool:
    return any(name.endswith(_A) for name in weights)


def merged(weights: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """The state of a network with updates -> that of the plain network that computes the same.

    Raises:
        KeyError, ValueError, ...: an update without its weight, or of another shape.
    """
    plain = {name: tensor for name, tensor in weights.items() if not name.endswith((_A, _B))}
    for name in weights:
        if name.endswith(_A):
            weight, a, b = name.removesuffix(_A), weights[name], weights[name.removesuffix(_A) + _B]
            if (len(b), a.shape[1]) != (len(plain[weight]), plain[weight][0].numel()):
                raise ValueError(f"{name}: got {tuple(a.shape)} and {tuple(b.shape)}")  # before a huge product is made
            plain[weight] = _sum(plain[weight], a, b, alpha / len(a))
    return plain


def _sum(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    return weight + (scale * (b @ a)).view(weight.shape)


class _Updated(nn.Module):
    """Any layer that reads self.weight."""

    lora_scale: float

    def full_weight(self, name: str) -> Tensor:
        own: dict[str, Any] = self._parameters
        return _sum(own[name], own[name + _A], own[name + _B], self.lora_scale)

    @property
    def weight(self) -> Tensor:
        own: Any = self._parameters["weight"]
        # FSDP asks for the parameter itself, between the passes, in which alone it has its parts together
        return own if hasattr(own, "full_tensor") else self.full_weight("weight")


class _UpdatedLinear(_Updated):
    """Two thin products, and no gradient of the size of the weight."""

    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        own: dict[str, Any] = self._parameters
        update = F.linear(F.linear(x, own["weight" + _A]), own["weight" + _B])
        return F.linear(x, own["weight"], self.bias) + self.lora_scale * update


class _UpdatedRecurrent(_Updated):
    """nn.RNNBase hands a list of its weights to the kernel."""

    _flat_weights_names: list[str]
    _flat_weights: list[Any]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        kept, self._flat_weights = self._flat_weights, [self._full(name) for name in self._flat_weights_names]
        try:
            return super().forward(*args, **kwargs)
        finally:
            self._flat_weights = kept

    def _full(self, name: str) -> Any:
        return self.full_weight(name) if name + _A in self._parameters else self._parameters[name]


@functools.cache
def _with_update(kind: type[nn.Module]) -> type[nn.Module]:
    base: type[nn.Module] = _Updated
    if issubclass(kind, nn.RNNBase):
        base = _UpdatedRecurrent
    elif issubclass(kind, nn.Linear) and kind.forward is nn.Linear.forward:
        base = _UpdatedLinear
    return type(f"LowRank{kind.__name__}", (base, kind), {})
