"""Reading what any layer of any model gives as (N, C, positions...)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def first_tensor(output: Any) -> torch.Tensor | None:
    """The first tensor of a layer's output: an LSTM gives (sequence, state), some nets give dicts."""
    if isinstance(output, torch.Tensor):
        return output
    parts = output.values() if isinstance(output, dict) else output if isinstance(output, (tuple, list)) else ()
    return next((tensor for tensor in map(first_tensor, parts) if tensor is not None), None)


def channels_second(module: nn.Module, output: torch.Tensor) -> torch.Tensor:
    """View `output` of `module` as (N, C, positions...): channels-last layers and sequence-first layers are turned."""
    if output.ndim < 3:
        return output
    if isinstance(module, (nn.RNNBase, nn.MultiheadAttention)) and not module.batch_first:
        output = output.transpose(0, 1)
    return output.movedim(-1, 1) if _channels_last(module, output) else output


def _channels_last(module: nn.Module, output: torch.Tensor) -> bool:
    # a subclass of nn.LayerNorm may norm maps
    if isinstance(module, (nn.Linear, nn.RNNBase, nn.MultiheadAttention)) or type(module) is nn.LayerNorm:
        return True
    if isinstance(module, (nn.modules.conv._ConvNd, nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd)):
        return False
    # A layer of the model's own, or a norm: its last layer with weights says how many channels there are, and where
    # that many stand at one end only they are there. A Swin block is (N, T, H, W, C), its linear layers lie deeper.
    width = _width(module)
    first, last = output.shape[1] == width, output.shape[-1] == width
    if first != last:
        return last
    # else tokens (N, L, C), or a map as its parts read it
    children = list(module.children())
    has_linear = any(isinstance(child, nn.Linear) for child in children)
    has_conv = any(isinstance(child, nn.modules.conv._ConvNd) for child in children)
    return has_linear and not has_conv if output.ndim > 3 else not has_conv


def _width(module: nn.Module) -> int | None:
    """Channels that the last of the module's layers gives, in the order in which they were made; None: it has none."""
    for layer in reversed(list(module.modules())):
        if isinstance(layer, nn.Linear):
            return layer.out_features
        if isinstance(layer, nn.modules.conv._ConvNd):
            return layer.out_channels
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            return layer.num_features
        if isinstance(layer, nn.LayerNorm):
            return layer.normalized_shape[-1]
    return None
