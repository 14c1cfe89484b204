"""R(2+1)D on a bottleneck ResNet: the 3x3x3 convolution of each block split into time and space (Tran et al. 2018, "A
Closer Look at Spatiotemporal Convolutions for Action Recognition"). At 400 classes and 16 x 224 x 224: 28.108M
parameters, 57.53 GMAC. The published 50-layer net convolves time first, unlike the 18-layer one."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.resnet3d import ResNet3d, ResNetOptions, Triple, conv3d
from vidtrain.ranges import takes

ENTRIES = {
    "r2plus1d_r50": Entry(Family.FACTORISED, "Tran et al. 2018", (16, 224), 76.01, "16x4, 10x3, PyTorchVideo"),
    "r2plus1d_tiny": Entry(Family.FACTORISED, "Tran et al. 2018", (16, 64)),
}

_TIMES = ((1,), (1,), (1,), (1,))
_STRIDES = ((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2))


class _TimeThenSpace(nn.Module):
    """3x1x1, BatchNorm, ReLU, 1x3x3; each takes its part of the stride."""

    def __init__(self, channels: int, stride: Triple) -> None:
        super().__init__()
        self.time = conv3d(channels, channels, (3, 1, 1), stride=(stride[0], 1, 1))
        self.bn = nn.BatchNorm3d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.space = conv3d(channels, channels, (1, 3, 3), stride=(1, stride[1], stride[2]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, T, H, W) -> (B, C, T', H', W')."""
        y: torch.Tensor = self.space(self.relu(self.bn(self.time(x))))
        return y


@takes(ResNetOptions)
def r2plus1d_r50(**options: Any) -> ResNet3d:
    """R(2+1)D-ResNet. Any T, H and W."""
    shared = ResNetOptions(**options)
    return shared.net("r2plus1d_r50", _TIMES, stem_kernel=1, pool=None, strides=_STRIDES, conv2=_TimeThenSpace)
