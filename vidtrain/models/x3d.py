"""X3D: a ResNet of depthwise 3x3x3 convolutions grown axis by axis (Feichtenhofer 2020, "X3D: Expanding Architectures
for Efficient Video Recognition"). At 400 classes: XS, S and M are one net of 3.794M parameters at 4 x 160 x 160 (0.605
GMAC), 13 x 160 x 160 (1.963) and 16 x 224 x 224 (4.732); L has 6.153M at 16 x 312 x 312 (18.37)."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vidtrain.errors import ConfigError
from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.classifier import ClipClassifier, check_at_least, check_clip
from vidtrain.models.layers.nonlocal_block import NonLocalOptions
from vidtrain.models.layers.resnet3d import STAGES, conv3d, nonlocals_of
from vidtrain.ranges import takes

ENTRIES = {
    "x3d_xs": Entry(Family.FACTORISED, "Feichtenhofer 2020", (4, 160), 69.5, "4x12, 10x3, PySlowFast"),
    "x3d_s": Entry(Family.FACTORISED, "Feichtenhofer 2020", (13, 160), 73.5, "13x6, 10x3, PySlowFast"),
    "x3d_m": Entry(Family.FACTORISED, "Feichtenhofer 2020", (16, 224), 76.2, "16x5, 10x3, PySlowFast"),
    "x3d_l": Entry(Family.FACTORISED, "Feichtenhofer 2020", (16, 312), 77.5, "16x5, 10x3, PySlowFast"),
    "x3d_tiny": Entry(Family.FACTORISED, "Feichtenhofer 2020", (16, 64)),
}

BLOCKS = (1, 2, 5, 3)
CHANNELS = (12, 24, 48, 96)
_SQUEEZE = 1 / 16


def rounded(channels: float) -> int:
    """To the nearest multiple of 8, at least 8, never below 90 %."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


class _SqueezeExcite(nn.Module):
    """Scale each channel by what all of them are on average."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = rounded(channels * _SQUEEZE)
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.fc1 = conv3d(channels, squeezed, (1, 1, 1), bias=True)
        self.fc2 = conv3d(squeezed, channels, (1, 1, 1), bias=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, T, H, W) -> the same."""
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(self.pool(x)))))


class _ShiftedConv(nn.Conv3d):
    """1x1x1 with a constant per channel, which is no parameter: 0, or what a published BatchNorm adds (weights/)."""

    shift: torch.Tensor

    def __init__(self, channels: int, out: int, stride: tuple[int, int, int]) -> None:
        super().__init__(channels, out, 1, stride=stride, bias=False)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.register_buffer("shift", torch.zeros(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.weight, self.shift)


class _Block(nn.Module):
    """1x1x1 up, depthwise 3x3x3, squeeze and excitation in every second block, 1x1x1 down, plus the shortcut."""

    def __init__(
        self, channels: int, inner: int, out: int, *, stride: tuple[int, int, int], squeeze: bool, shortcut_norm: bool
    ) -> None:
        super().__init__()
        self.conv1 = conv3d(channels, inner, (1, 1, 1))
        self.bn1 = nn.BatchNorm3d(inner)
        self.conv2 = conv3d(inner, inner, (3, 3, 3), stride=stride, groups=inner)
        self.bn2 = nn.BatchNorm3d(inner)
        self.se = _SqueezeExcite(inner) if squeeze else nn.Identity()
        self.swish = nn.SiLU(inplace=True)
        self.conv3 = conv3d(inner, out, (1, 1, 1))
        self.bn3 = nn.BatchNorm3d(out)
        nn.init.zeros_(self.bn3.weight)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if channels != out or shortcut_norm:
            self.downsample = nn.Sequential(conv3d(channels, out, (1, 1, 1), stride=stride), nn.BatchNorm3d(out))
        elif stride != (1, 1, 1):
            self.downsample = nn.Sequential(_ShiftedConv(channels, out, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, channels, T, H, W) -> (B, out, T, H', W')."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.swish(self.se(self.bn2(self.conv2(y))))
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(y + shortcut)


class X3D(ClipClassifier):
    """X3D. Any T, H and W: time is never reduced before the end, space is halved five times. XS, S and M differ in
    their clips alone.

    depth_factor: times 1, 2, 5, 3 blocks in the stages, rounded up. width_factor: times 12, 24, 48, 96 channels.
    expansion: inner channels of a block over its own. features: length of the features that the head reads.
    shortcut_norm: BatchNorm on the shortcut of the very first block, 48 parameters more: PySlowFast and MMAction2
        have it, PyTorchVideo does not. Either kind of file can be loaded into either net.
    dropout: before the head.
    """

    head_name = "fc"

    @takes(NonLocalOptions)
    def __init__(
        self,
        *,
        num_classes: int,
        depth_factor: float = 2.2,
        width_factor: float = 2.0,
        expansion: float = 2.25,
        features: int = 2048,
        shortcut_norm: bool = False,
        dropout: float = 0.5,
        **options: Any,
    ) -> None:
        for key, factor in (("depth_factor", depth_factor), ("width_factor", width_factor), ("expansion", expansion)):
            if factor <= 0:
                raise ConfigError(f"model.{key}: got {factor}, expected more than 0")
        check_at_least("features", features, 1)
        blocks = [math.ceil(depth_factor * count) for count in BLOCKS]
        channels = [rounded(width_factor * channels) for channels in CHANNELS]
        nonlocals = nonlocals_of(NonLocalOptions(**options), blocks)
        super().__init__(num_features=features, num_classes=num_classes, dropout=dropout)
        width = channels[0]
        self.conv1_s = conv3d(3, width, (1, 3, 3), stride=(1, 2, 2))
        self.conv1_t = conv3d(width, width, (5, 1, 1), groups=width)
        self.bn1 = nn.BatchNorm3d(width)
        self.relu = nn.ReLU(inplace=True)
        stages = []
        for index, (count, out) in enumerate(zip(blocks, channels, strict=True)):
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            for block in range(count):
                layers[str(block)] = _Block(
                    width,
                    int(expansion * out),
                    out,
                    stride=(1, 2, 2) if block == 0 else (1, 1, 1),
                    squeeze=block % 2 == 0,
                    shortcut_norm=shortcut_norm and block == 0,
                )
                width = out
                if f"{STAGES[index]}.{block}" in nonlocals.after:
                    layers[f"nonlocal{block}"] = nonlocals.block(out)
            stages.append(nn.Sequential(layers))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        inner = int(expansion * width)
        self.conv5 = conv3d(width, inner, (1, 1, 1))
        self.bn5 = nn.BatchNorm3d(inner)
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.fc1 = nn.Linear(inner, features, bias=False)
        nn.init.kaiming_normal_(self.fc1.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, D): after the layer that widens the pooled features."""
        check_clip(x, "x3d")
        x = self.relu(self.bn1(self.conv1_t(self.conv1_s(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = self.avgpool(self.relu(self.bn5(self.conv5(x)))).flatten(1)
        return F.relu(self.fc1(x))


x3d_m = X3D
