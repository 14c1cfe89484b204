"""R(2+1)D on a bottleneck ResNet: the 3x3x3 convolution of each block split into time and space (Tran et al. 2018, "A
Closer Look at Spatiotemporal Convolutions for Action Recognition"). At 400 classes and 16 x 224 x 224: 28.108M
parameters, 57.53 GMAC. The published 50-layer net convolves time first, unlike the 18-layer one."""

from __future__ import annotations

import torch
from torch import nn

from vidtrain.models.layers.resnet3d import (
    ResNet3d,
    Triple,
    Trunk,
    blocks_of,
    check_width,
    conv3d,
    nonlocals_of,
    times_of,
)

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


def r2plus1d_r50(
    *,
    num_classes: int,
    depth: int = 50,
    width: int = 64,
    dropout: float = 0.5,
    nonlocal_blocks: int | list[str] | None = None,
    nonlocal_mode: str = "embedded_gaussian",
    nonlocal_pool: str | None = "before",
    nonlocal_scale: bool = True,
) -> ResNet3d:
    """R(2+1)D-ResNet. Any T, H and W.

    depth: 50, 101 or 152 layers; 26 and 14 for small clips. width: channels of the stem, 64 in the published net.
    dropout: before the head.
    nonlocal_blocks: None, 5 or 10, or the names of the blocks each followed by a non-local block (layer2.1, ...).
    nonlocal_mode, nonlocal_pool, nonlocal_scale: see layers/nonlocal_block.py.
    """
    check_width(width)
    blocks = blocks_of(depth)
    trunk = Trunk(
        blocks=blocks,
        width=width,
        stem_kernel=1,
        pool=None,
        times=times_of(None, _TIMES, blocks),
        strides=_STRIDES,
        conv2=_TimeThenSpace,
        nonlocals=nonlocals_of(nonlocal_blocks, blocks, mode=nonlocal_mode, pool=nonlocal_pool, scale=nonlocal_scale),
    )
    return ResNet3d("r2plus1d_r50", trunk, num_classes=num_classes, dropout=dropout)
