"""A ConvLSTM cell of deformable convolutions."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vidtrain.errors import ConfigError
from vidtrain.models.layers.conv_rnn import ConvLSTMCell, Maps


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
    if x.is_cuda:
        from torchvision.ops import deform_conv2d

        out: torch.Tensor = deform_conv2d(
            x, offset.to(x.dtype), conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation
        )
        return out
    return _sampled_conv(conv, x, offset)


def _sampled_conv(conv: nn.Conv2d, x: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """deform_conv2d as grid_sample and a product of matrices: maps (B, C, H, W) and offsets (B, groups taps 2, H', W')
    -> (B, D, H', W').

    torchvision's operator is written for GPUs: forward and backward take four to nine times as long with it on a CPU.
    These operators are also ones that torch.export and ONNX know.
    """
    batch, channels, height, width = x.shape
    taps, rows, columns = conv.kernel_size[0] * conv.kernel_size[1], *offset.shape[2:]
    groups = offset.shape[1] // (2 * taps)
    exact = torch.promote_types(x.dtype, torch.float32)  # half precision would put a tap beside its pixel
    offset = offset.to(exact).view(batch * groups, *conv.kernel_size, 2, rows, columns)
    down = offset[:, :, :, 0] + _tap_positions(conv, 0, rows, x.device)[:, None, :, None]
    right = offset[:, :, :, 1] + _tap_positions(conv, 1, columns, x.device)[None, :, None, :]
    # grid_sample counts from the outer edge of the first pixel, -1, to that of the last, 1
    grid = torch.stack(((2 * right + 1) / width - 1, (2 * down + 1) / height - 1), -1)
    found = nn.functional.grid_sample(
        x.to(exact).reshape(batch * groups, channels // groups, height, width),
        grid.view(batch * groups, taps * rows, columns, 2),
        align_corners=False,
    )
    weight = conv.weight.view(conv.out_channels, channels * taps, 1, 1)
    found = found.view(batch, channels * taps, rows, columns).to(x.dtype)
    return nn.functional.conv2d(found, weight, conv.bias)


def _tap_positions(conv: nn.Conv2d, axis: int, length: int, device: torch.device) -> torch.Tensor:
    """Where the taps of a convolution read along an axis, in pixels, for every output: (kernel, length)."""
    first = torch.arange(length, device=device) * conv.stride[axis] - int(conv.padding[axis])
    return first + torch.arange(conv.kernel_size[axis], device=device)[:, None] * conv.dilation[axis]
