"""A ConvLSTM cell of deformable convolutions."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import conv_flop_count, register_flop_formula
from torchvision.ops import deform_conv2d

from vidtrain.errors import ConfigError
from vidtrain.models.layers.conv_rnn import ConvLSTMCell, Maps


@register_flop_formula(torch.ops.torchvision.deform_conv2d)
def _deform_flops(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """The multiply-adds of the convolution; those of the interpolation are few beside them and not counted."""
    return conv_flop_count(x, weight, out_shape)


class DeformableConvLSTMCell(ConvLSTMCell):
    """ConvLSTMCell whose kernels read at x + offset: a convolution of the input gives two numbers (dy, dx) for each
    position, tap and group, and the convolutions of input and state both follow them. They start at zero, which is
    the plain cell.

    groups: of channels, each with offsets of its own.
    """

    one_operator = False

    def __init__(self, in_channels: int, channels: int, *, groups: int = 1, **options: Any) -> None:
        super().__init__(in_channels, channels, **options)
        for key, width in (("stem", in_channels), ("hidden", channels)):
            if width % groups:
                raise ConfigError(f"model.groups: got {groups}, which does not divide the {width} channels of {key}")
        conv = self.conv_x
        taps = conv.kernel_size[0] * conv.kernel_size[1]
        self.offset = nn.Conv2d(
            in_channels,
            2 * taps * groups,
            conv.kernel_size,  # type: ignore[arg-type]  # nn.Conv2d keeps its sizes as tuples of any length
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
        )
        nn.init.zeros_(self.offset.weight)
        assert self.offset.bias is not None
        nn.init.zeros_(self.offset.bias)

    def inputs(self, x: torch.Tensor) -> Maps:
        offset = self.offset(x)
        return self.norm(_deform(self.conv_x, x, offset)), offset

    def hidden(self, h: torch.Tensor, now: Maps) -> torch.Tensor:
        return _deform(self.conv_h, h, now[1])


def _deform(conv: nn.Conv2d, x: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = deform_conv2d(
        x, offset.to(x.dtype), conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation
    )
    return out
