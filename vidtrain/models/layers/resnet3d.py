"""What the 3D ResNets share: bottleneck blocks, stages, and the trunk from the stem to the last stage.

Names are those of torchvision's 2D ResNets (conv1, bn1, layer1.0.conv2, layer1.0.downsample.0, ..., fc), so that an
image network is inflated into a trunk name by name. A non-local block after block 1 of a stage is layer2.nonlocal1.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vidtrain.errors import ConfigError, one_of
from vidtrain.models.layers.classifier import ClipClassifier, check_at_least, check_clip
from vidtrain.models.layers.nonlocal_block import NOWHERE, NonLocal, NonLocalOptions

Triple = tuple[int, int, int]
Conv2 = Callable[[int, Triple], nn.Module]
"""(channels, stride) -> the middle convolution of a bottleneck, as many channels out as in."""

DEPTHS: dict[int, tuple[int, int, int, int]] = {
    14: (1, 1, 1, 1),
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Layers -> bottleneck blocks per stage. 14 and 26 are for small clips."""

STAGES = ("layer1", "layer2", "layer3", "layer4")
_EXPANSION = 4


def conv3d(
    channels: int, out: int, kernel: Triple, *, stride: Triple = (1, 1, 1), groups: int = 1, bias: bool = False
) -> nn.Conv3d:
    """A convolution that keeps the size where the stride is 1, with He's initial weights."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    conv = nn.Conv3d(channels, out, kernel, stride=stride, padding=padding, groups=groups, bias=bias)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def spatial_conv(channels: int, stride: Triple) -> nn.Module:
    """1x3x3: the middle convolution of I3D-ResNet, C2D, Slow and SlowFast."""
    return conv3d(channels, channels, (1, 3, 3), stride=stride)


class Bottleneck(nn.Module):
    """conv1 (time x 1 x 1) -> conv2 -> conv3 (1x1x1), each with BatchNorm, plus the shortcut. The last BatchNorm
    starts with gamma 0, so that the block begins as its shortcut."""

    def __init__(self, channels: int, inner: int, out: int, *, time: int, conv2: Conv2, stride: Triple) -> None:
        super().__init__()
        self.conv1 = conv3d(channels, inner, (time, 1, 1))
        self.bn1 = nn.BatchNorm3d(inner)
        self.conv2 = conv2(inner, stride)
        self.bn2 = nn.BatchNorm3d(inner)
        self.conv3 = conv3d(inner, out, (1, 1, 1))
        self.bn3 = nn.BatchNorm3d(out)
        nn.init.zeros_(self.bn3.weight)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if channels != out or stride != (1, 1, 1):
            self.downsample = nn.Sequential(conv3d(channels, out, (1, 1, 1), stride=stride), nn.BatchNorm3d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, channels, T, H, W) -> (B, out, T', H', W')."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(y + shortcut)


@dataclass(frozen=True)
class Trunk:
    """The numbers of a 3D ResNet up to its last stage."""

    blocks: Sequence[int]
    """Blocks of the four stages."""
    width: int
    """Channels of the stem; stage i has 4 * 2^i times as many."""
    stem_kernel: int
    """Frames that the stem's convolution covers; it is 7 x 7 in space."""
    times: Sequence[Sequence[int]]
    """Frames that conv1 covers, block by block in each stage."""
    strides: Sequence[Triple] = ((1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2))
    stem_stride: int = 1
    """In time; 2 in space."""
    pool: Triple | None = (1, 2, 2)
    """Stride of the 1x3x3 max pooling after the stem; None: there is none."""
    pool_padding: int = 1
    conv2: Conv2 = spatial_conv
    extra: Sequence[int] = (0, 0, 0, 0)
    """Channels that are added to each stage's input from elsewhere (SlowFast)."""
    nonlocals: NonLocal = NOWHERE

    @property
    def out_channels(self) -> int:
        return 8 * _EXPANSION * self.width


def add_trunk(net: nn.Module, trunk: Trunk) -> None:
    """Give `net` the layers conv1, bn1, relu, maxpool, layer1, ..., layer4."""
    width = trunk.width
    net.conv1 = conv3d(3, width, (trunk.stem_kernel, 7, 7), stride=(trunk.stem_stride, 2, 2))
    net.bn1 = nn.BatchNorm3d(width)
    net.relu = nn.ReLU(inplace=True)
    side = trunk.pool_padding
    net.maxpool = nn.MaxPool3d((1, 3, 3), trunk.pool, (0, side, side)) if trunk.pool else nn.Identity()
    channels = width
    for index, stage in enumerate(STAGES):
        inner = width << index
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels += trunk.extra[index]
        for block in range(trunk.blocks[index]):
            layers[str(block)] = Bottleneck(
                channels,
                inner,
                _EXPANSION * inner,
                time=trunk.times[index][block],
                conv2=trunk.conv2,
                stride=trunk.strides[index] if block == 0 else (1, 1, 1),
            )
            channels = _EXPANSION * inner
            if f"{stage}.{block}" in trunk.nonlocals.after:
                layers[f"nonlocal{block}"] = trunk.nonlocals.block(channels)
        setattr(net, stage, nn.Sequential(layers))


class ResNet3d(ClipClassifier):
    """A trunk, averaged over time and space, and a linear head. Any H and W; any T from `least_frames` on."""

    head_name = "fc"
    conv1: nn.Module
    bn1: nn.Module
    relu: nn.Module
    maxpool: nn.Module
    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module

    def __init__(self, name: str, trunk: Trunk, *, num_classes: int, dropout: float, time_pool: bool = False) -> None:
        """time_pool: take the maximum of every two frames after the first stage."""
        super().__init__(num_features=trunk.out_channels, num_classes=num_classes, dropout=dropout)
        self.name = name
        add_trunk(self, trunk)
        self.time_pool = nn.MaxPool3d((2, 1, 1)) if time_pool else nn.Identity()
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        step = trunk.stem_stride * (trunk.pool[0] if trunk.pool else 1)
        self.steps = step > 1
        """Whether the stem and its pooling leave frames out."""
        self.least_frames = step + 1 if time_pool else 1  # what time_pool reads has to have two frames

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, D)."""
        check_clip(x, self.name)
        if x.shape[2] < self.least_frames:
            raise ConfigError(
                f"{self.name}: got clips of {x.shape[2]} frames, it needs {self.least_frames} or more: "
                f"set sampler.num_frames={self.least_frames}"
            )
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.time_pool(self.layer1(x))
        x = self.layer4(self.layer3(self.layer2(x)))
        return self.avgpool(x).flatten(1)


# ---------------------------------------------------------------- options that several factories have


def blocks_of(depth: int) -> tuple[int, int, int, int]:
    """The option model.depth as blocks per stage."""
    if depth not in DEPTHS:
        raise ConfigError(f"model.depth: got {depth}, expected {one_of(map(str, DEPTHS))}")
    return DEPTHS[depth]


def temporal_kernel_sizes(
    value: Sequence[Sequence[int]] | None, published: Sequence[Sequence[int]], blocks: Sequence[int],
    key: str = "temporal_kernels",
) -> list[list[int]]:  # fmt: skip
    """The option model.temporal_kernels: for each stage a list that repeats over its blocks."""
    stages = published if value is None else value
    if len(stages) != 4 or not all(isinstance(s, Sequence) and not isinstance(s, str) and len(s) for s in stages):
        raise ConfigError(f"model.{key}: got {value}, expected a list of numbers for each of the four stages")
    for time in (time for stage in stages for time in stage):
        if not isinstance(time, int) or time < 1 or time % 2 == 0:
            raise ConfigError(f"model.{key}: got {time}, expected odd numbers of frames")
    return [[stage[i % len(stage)] for i in range(count)] for stage, count in zip(stages, blocks, strict=True)]


PRESETS = {
    5: ("layer2.1", "layer2.3", "layer3.1", "layer3.3", "layer3.5"),
    10: (*(f"layer2.{i}" for i in range(4)), *(f"layer3.{i}" for i in range(6))),
}
"""model.nonlocal_blocks as a number: every second block of layer2 and layer3 of a ResNet-50, or every one."""


def nonlocals_of(options: NonLocalOptions, blocks: Sequence[int]) -> NonLocal:
    """The non-local blocks of a network with these blocks per stage."""
    places = [f"{stage}.{block}" for stage, count in zip(STAGES, blocks, strict=True) for block in range(count)]
    return options.nonlocals(places, PRESETS)


@dataclass(frozen=True, kw_only=True)
class ResNetOptions(NonLocalOptions):
    """Options of every 3D ResNet of bottlenecks."""

    num_classes: int
    depth: int = 50
    """50, 101 or 152 layers; 26 and 14 for small clips."""
    width: int = 64
    """Channels of the stem, 64 in the published nets."""
    dropout: float = 0.5
    """Before the head."""

    def net(
        self,
        name: str,
        published_times: Sequence[Sequence[int]],
        *,
        temporal_kernels: Sequence[Sequence[int]] | None = None,
        time_pool: bool = False,
        **numbers: Any,
    ) -> ResNet3d:
        """The network; `numbers` are the further ones of its Trunk."""
        check_at_least("width", self.width, 1)
        blocks = blocks_of(self.depth)
        times, nonlocals = temporal_kernel_sizes(temporal_kernels, published_times, blocks), nonlocals_of(self, blocks)
        trunk = Trunk(blocks=blocks, width=self.width, times=times, nonlocals=nonlocals, **numbers)
        return ResNet3d(name, trunk, num_classes=self.num_classes, dropout=self.dropout, time_pool=time_pool)
