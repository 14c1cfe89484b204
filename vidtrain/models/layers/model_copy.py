"""A copy of a model to be run once for its shapes: own hooks and modes, no second copy of the weights."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import torch
from torch import nn


def _twin(model: nn.Module, convert: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    # deepcopy asks `memo` before it copies anything: with the tensors already there, only the modules are copied,
    # and lists that hold parameters a second time (nn.LSTM's _flat_weights) are converted alike.
    memo: dict[int, object] = {}
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        twin = convert(tensor.detach())
        memo[id(tensor)] = nn.Parameter(twin, False) if isinstance(tensor, nn.Parameter) else twin
    return copy.deepcopy(model, memo).eval()


def _to(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return tensor.to(device=device, dtype=dtype)


def copy_on_meta(model: nn.Module) -> nn.Module:
    """The model on the meta device, in eval mode, float32: a forward pass computes shapes and nothing else."""
    return _twin(model, lambda tensor: _to(tensor, torch.device("meta")))


def copy_on_cpu(model: nn.Module) -> nn.Module:
    """The model in eval mode, float32, sharing its tensors where they are on the CPU (or meta) already."""
    return _twin(model, lambda tensor: tensor if tensor.is_meta else _to(tensor, torch.device("cpu")))
