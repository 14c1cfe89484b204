"""The order of a network's numbers in memory: channels last, where convolutions are quicker that way."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

_FORMATS = {5: torch.channels_last_3d, 4: torch.channels_last}


def benefits_from_channels_last(model: nn.Module, device: torch.device) -> bool:
    """Whether channels last makes a training step faster: on a CUDA device, for networks with convolutions.

    Tensor cores read the channels of a position together. On the CPU the kernels choose an order of their own: measured
    (docs/speed.md), it makes no difference with bf16 and costs up to a seventh with fp32.
    """
    return device.type == "cuda" and any(isinstance(part, _ConvNd) for part in model.modules())


@torch.no_grad()
def to_channels_last(model: nn.Module) -> None:
    """Turn 5-d parameters to channels_last_3d and 4-d ones to channels_last, in place; their values stay.

    `model.to(memory_format=...)` refuses networks that have both. The parameters stay the same objects; the optimizer
    must not have taken a step yet, see `match_layout`.
    """
    for parameter in model.parameters():
        if parameter.ndim in _FORMATS:
            parameter.data = parameter.data.contiguous(memory_format=_FORMATS[parameter.ndim])


@torch.no_grad()
def match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Give the state of each parameter the parameter's order in memory; call it after `load_state_dict`.

    A fused optimizer walks through parameter, gradient and state by address: where a checkpoint's momentum stands in
    another order than the weights here, it would add numbers of other places to them, and say nothing.
    """
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            belongs = isinstance(value, torch.Tensor) and value.shape == parameter.shape
            if belongs and value.stride() != parameter.stride():
                state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
