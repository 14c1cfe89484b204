"""torchvision's MobileNetV2 (Sandler et al. 2018) over the frames of clips, with TSM's temporal shift.

Frames stand in the batch: (B T, C, H, W), the T frames of a clip one after the other. Layers are called as in
torchvision, so its ImageNet weights fit by their names.
"""

from __future__ import annotations

import torch
from torch import nn

from vidtrain.models.layers.frame_resnet import MOBILENET, Shift, temporal_shift
from vidtrain.models.layers.nonlocal_block import NonLocal

_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks and the first one's stride, of each stage: the paper's table 2."""
BLOCKS = tuple(blocks for _, _, blocks, _ in _STAGES)
_STEM, _LAST = 32, 1280


def _conv_norm(channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU6(inplace=True))


class _InvertedResidual(nn.Module):
    """fold: channels that move each way in front of the block's convolutions; what goes around them stays."""

    def __init__(self, channels: int, out: int, stride: int, expansion: int, n_div: int | None) -> None:
        super().__init__()
        inner = channels * expansion
        wider = [_conv_norm(channels, inner)] if expansion > 1 else []
        narrower = [nn.Conv2d(inner, out, 1, bias=False), nn.BatchNorm2d(out)]
        self.conv = nn.Sequential(*wider, _conv_norm(inner, inner, 3, stride, groups=inner), *narrower)
        self.residual = stride == 1 and channels == out
        self.fold = channels // n_div if n_div is not None and self.residual else 0

    def forward(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        out: torch.Tensor = self.conv(temporal_shift(x, frames, self.fold))
        return x + out if self.residual else out


class FrameMobileNet(nn.Module):
    """(B T, C, H, W) -> (B T, 1280, H / 32, W / 32).

    shift: None for a plain 2D net; else part of the channels moves in front of every residual branch, ten of the
    seventeen blocks.
    """

    source = MOBILENET
    out_channels = _LAST
    nonlocals = NonLocal(frozenset())

    def __init__(self, *, in_channels: int = 3, shift: Shift | None = None) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.shift = shift
        n_div = None if shift is None else shift.n_div
        layers: list[nn.Module] = [_conv_norm(in_channels, _STEM, 3, 2)]
        channels = _STEM
        for expansion, out, blocks, first in _STAGES:
            for number in range(blocks):
                layers.append(_InvertedResidual(channels, out, 1 if number else first, expansion, n_div))
                channels = out
        self.features = nn.Sequential(*layers, _conv_norm(channels, _LAST))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # PyTorch counts all channels as the fan-out of a depthwise one
                depthwise = module.groups > 1
                nn.init.kaiming_normal_(module.weight, mode="fan_in" if depthwise else "fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        for layer in self.features:
            x = layer(x, frames) if isinstance(layer, _InvertedResidual) else layer(x)
        return x
