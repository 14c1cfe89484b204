"""R(2+1)D-34: a basic-block ResNet whose every 3x3x3 convolution is one in space and one in time, with as many
parameters as the whole (Tran et al. 2018, "A Closer Look at Spatiotemporal Convolutions for Action Recognition"), in
the form of MMAction2's files: the stem is split as well and pooled, and so are the shortcuts."""

from __future__ import annotations

import torch
from torch import nn

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.classifier import ClipClassifier, check_at_least, check_clip
from vidtrain.models.layers.resnet3d import STAGES, Triple, conv3d

ENTRIES = {"r2plus1d_34": Entry(Family.FACTORISED, "Tran et al. 2018", (8, 224))}

_BLOCKS = (3, 4, 6, 3)
_STRIDES: tuple[Triple, ...] = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))


class _SpaceThenTime(nn.Module):
    """1 x K x K, BatchNorm, ReLU, K' x 1 x 1. Between the two are so many channels that both together have the
    parameters of one 3 x K x K convolution."""

    def __init__(self, channels: int, out: int, kernel: Triple, stride: Triple = (1, 1, 1)) -> None:
        super().__init__()
        area = kernel[1] * kernel[2]
        between = 3 * channels * out * area // (channels * area + 3 * out)
        self.space = conv3d(channels, between, (1, *kernel[1:]), stride=(1, *stride[1:]))
        self.bn = nn.BatchNorm3d(between)
        self.relu = nn.ReLU(inplace=True)
        self.time = conv3d(between, out, (kernel[0], 1, 1), stride=(stride[0], 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, channels, T, H, W) -> (B, out, T', H', W')."""
        y: torch.Tensor = self.time(self.relu(self.bn(self.space(x))))
        return y


class _BasicBlock(nn.Module):
    """Two split convolutions with BatchNorm, plus the shortcut."""

    def __init__(self, channels: int, out: int, stride: Triple) -> None:
        super().__init__()
        self.conv1 = _SpaceThenTime(channels, out, (3, 3, 3), stride)
        self.bn1 = nn.BatchNorm3d(out)
        self.conv2 = _SpaceThenTime(out, out, (3, 3, 3))
        self.bn2 = nn.BatchNorm3d(out)
        nn.init.zeros_(self.bn2.weight)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if channels != out or stride != (1, 1, 1):
            self.downsample = nn.Sequential(_SpaceThenTime(channels, out, (1, 1, 1), stride), nn.BatchNorm3d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, channels, T, H, W) -> (B, out, T', H', W')."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(y + shortcut)


class R2Plus1D34(ClipClassifier):
    """R(2+1)D with 34 layers. Any T, H and W.

    width: channels of the stem, 64 in the paper. dropout: before the head.
    """

    head_name = "fc"

    def __init__(self, *, num_classes: int, width: int = 64, dropout: float = 0.5) -> None:
        check_at_least("width", width, 1)
        super().__init__(num_features=8 * width, num_classes=num_classes, dropout=dropout)
        self.conv1 = _SpaceThenTime(3, width, (3, 7, 7), (1, 2, 2))
        self.bn1 = nn.BatchNorm3d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        channels = width
        for index, (name, blocks) in enumerate(zip(STAGES, _BLOCKS, strict=True)):
            stage = nn.Sequential()
            for block in range(blocks):
                stage.append(_BasicBlock(channels, width << index, _STRIDES[index] if block == 0 else (1, 1, 1)))
                channels = width << index
            setattr(self, name, stage)
        self.avgpool = nn.AdaptiveAvgPool3d(1)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, D)."""
        check_clip(x, "r2plus1d_34")
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in STAGES:
            x = getattr(self, name)(x)
        return self.avgpool(x).flatten(1)


r2plus1d_34 = R2Plus1D34
