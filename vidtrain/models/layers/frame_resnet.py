"""torchvision's 2D ResNets over the frames of clips, with the temporal shift of TSM where it is wanted.

Frames stand in the batch: (B T, C, H, W), the T frames of a clip one after the other. Layers are called as in
torchvision, so its ImageNet weights fit by their names.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from vidtrain.errors import ConfigError, did_you_mean, one_of
from vidtrain.models.layers.nonlocal_block import NonLocal, NonLocalBlock


class Spec(NamedTuple):
    """What torchvision builds a ResNet from, and the width of its first stage."""

    bottleneck: bool
    depths: tuple[int, int, int, int]
    groups: int = 1
    width_per_group: int = 64
    width: int = 64


RESNETS: Mapping[str, Spec] = {
    "resnet18": Spec(False, (2, 2, 2, 2)),
    "resnet34": Spec(False, (3, 4, 6, 3)),
    "resnet50": Spec(True, (3, 4, 6, 3)),
    "resnet101": Spec(True, (3, 4, 23, 3)),
    "resnet152": Spec(True, (3, 8, 36, 3)),
    "resnext50_32x4d": Spec(True, (3, 4, 6, 3), 32, 4),
    "resnext101_32x8d": Spec(True, (3, 4, 23, 3), 32, 8),
    "resnext101_64x4d": Spec(True, (3, 4, 23, 3), 64, 4),
    "wide_resnet50_2": Spec(True, (3, 4, 6, 3), 1, 128),
    "wide_resnet101_2": Spec(True, (3, 4, 23, 3), 1, 128),
    "tiny": Spec(False, (1, 1, 1, 1), width=16),
}
"""`tiny` is ours: a ResNet-10 of a quarter of the width, to train on a CPU."""
MOBILENET = "mobilenet_v2"
"""The one backbone of TSN and TSM that is no ResNet: layers/frame_mobilenet.py."""


def find_resnet(name: str) -> Spec:
    """The spec called `name`.

    Raises:
        ConfigError: there is none.
    """
    if name not in RESNETS:
        known = (*RESNETS, MOBILENET)
        raise ConfigError(f"model.backbone: got {name!r}{did_you_mean(name, known)}, expected {one_of(known, 20)}")
    return RESNETS[name]


def temporal_shift(x: torch.Tensor, frames: int, fold: int) -> torch.Tensor:
    """(B T, C, H, W): the first `fold` channels come from the next frame, the second `fold` from the one before.

    What would come from outside the clip is zero; the other channels stay.
    """
    if fold == 0:
        return x
    channels = x.shape[1]
    later, earlier, rest = x.split([fold, fold, channels - 2 * fold], 1)
    # moved as (B, C, T, H, W): in channels_last that is how they lie in memory, and the parts can be joined as they are
    moved = [
        F.pad(part.unflatten(0, (-1, frames)).transpose(1, 2)[:, :, cut], (0, 0, 0, 0, *pad))
        for part, cut, pad in ((later, slice(1, None), (0, 1)), (earlier, slice(None, -1), (1, 0)))
    ]
    return torch.cat([*(part.transpose(1, 2).flatten(0, 1) for part in moved), rest], 1)


class Shift(NamedTuple):
    """TSM's options: 1 / n_div of the channels move each way, before every `every`-th block's first convolution.

    whole_block: what moves is the input of the whole block, shortcut and all (the paper's "in-place" shift), instead
    of the residual branch's alone.
    """

    n_div: int
    whole_block: bool = False
    every: int = 1


class _Block(nn.Module):
    """Layers in the order of torchvision's blocks: the random weights of a seed depend on it."""

    expansion = 1
    downsample: nn.Module | None

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.fold = 0
        self.whole_block = False

    def add(self, residual: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.relu(residual + (x if self.downsample is None else self.downsample(x)))
        return out


class _Basic(_Block):
    def __init__(self, channels: int, planes: int, stride: int, spec: Spec) -> None:
        super().__init__()
        shortcut = _shortcut(channels, planes, stride)
        self.conv1 = nn.Conv2d(channels, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = shortcut

    def forward(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        shifted = temporal_shift(x, frames, self.fold)
        out = self.relu(self.bn1(self.conv1(shifted)))
        return self.add(self.bn2(self.conv2(out)), shifted if self.whole_block else x)


class _Bottleneck(_Block):
    """The stride is the 3 x 3 convolution's, as in torchvision's weights ("ResNet V1.5")."""

    expansion = 4

    def __init__(self, channels: int, planes: int, stride: int, spec: Spec) -> None:
        super().__init__()
        shortcut = _shortcut(channels, planes * self.expansion, stride)
        width = planes * spec.width_per_group // 64 * spec.groups
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, groups=spec.groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.downsample = shortcut

    def forward(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        shifted = temporal_shift(x, frames, self.fold)
        out = self.relu(self.bn1(self.conv1(shifted)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.add(self.bn3(self.conv3(out)), shifted if self.whole_block else x)


def _shortcut(channels: int, out: int, stride: int) -> nn.Module | None:
    if stride == 1 and channels == out:
        return None
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))


class _Stage(nn.Sequential):
    """Blocks, and after some of them a non-local block over the whole clip."""

    def forward(self, x: torch.Tensor, frames: int) -> torch.Tensor:  # type: ignore[override]
        for block in self:
            if isinstance(block, NonLocalBlock):
                clips = x.unflatten(0, (-1, frames)).transpose(1, 2)
                x = block(clips).transpose(1, 2).flatten(0, 1)
            else:
                x = block(x, frames)
        return x


class FrameResNet(nn.Module):
    """(B T, C, H, W) -> (B T, D, H / 32, W / 32), D = out_channels.

    source: a ResNet of torchvision by name, or `tiny`; its published 2D weights start this net.
    shift: None for a plain 2D net. A non-local block after block 0 of a stage is layer2.nonlocal0.
    """

    def __init__(
        self, source: str, *, in_channels: int = 3, shift: Shift | None = None, nonlocals: NonLocal | None = None
    ) -> None:
        super().__init__()
        self.source = source
        self.in_channels = in_channels
        spec = self.spec = find_resnet(source)
        self.shift = shift
        self.nonlocals = NonLocal(frozenset()) if nonlocals is None else nonlocals
        self.conv1 = nn.Conv2d(in_channels, spec.width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(spec.width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.out_channels = spec.width
        self.layer1, self.layer2, self.layer3, self.layer4 = (self._stage(number) for number in range(4))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x, frames)
        return x

    def _stage(self, stage: int) -> _Stage:
        kind = _Bottleneck if self.spec.bottleneck else _Basic
        planes = self.spec.width << stage
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number in range(self.spec.depths[stage]):
            stride = 2 if stage > 0 and number == 0 else 1
            block = kind(self.out_channels, planes, stride, self.spec)
            if self.shift is not None and number % self.shift.every == 0:
                block.fold = self.out_channels // self.shift.n_div
                block.whole_block = self.shift.whole_block
            layers[str(number)] = block
            self.out_channels = planes * kind.expansion
            if f"layer{stage + 1}.{number}" in self.nonlocals.after:
                layers[f"nonlocal{number}"] = self.nonlocals.block(self.out_channels)
        return _Stage(layers)


def block_names(spec: Spec) -> list[str]:
    """layer1.0, layer1.1, ...: after which a non-local block can stand."""
    return [f"layer{stage}.{number}" for stage, depth in enumerate(spec.depths, 1) for number in range(depth)]
