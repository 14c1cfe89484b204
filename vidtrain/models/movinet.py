"""MoViNet: a small network for whole videos and, causal, for streams of frames (Kondratyuk et al. 2021, "MoViNets:
Mobile Video Networks for Efficient Video Recognition"). At 400 classes and 50 frames, base and stream:
A0 at 172 x 172 2.702M parameters, 2.63 GMAC and 3.338M, 2.43; A1 at 172 x 172 4.280M, 5.87 and 6.038M, 5.54;
A2 at 224 x 224 4.840M, 11.56 and 6.917M, 10.70.

A causal net never looks ahead, so it can be handed a video in pieces, frame by frame if need be:

    logits, state = model.eval().stream(first_frames)
    logits, state = model.stream(next_frames, state)  # as if all the frames had come at once
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_map_only

from vidtrain.errors import ConfigError
from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.classifier import check_choice, check_clip
from vidtrain.models.layers.layer_depth import LayerNumbers
from vidtrain.models.layers.recurrent import RecurrentClassifier, State
from vidtrain.models.layers.resnet3d import Triple, conv3d
from vidtrain.models.layers.same_padding import SameAvgPool, SameConv3d
from vidtrain.models.x3d import rounded

_PAPER = "Kondratyuk et al. 2021"
ENTRIES = {
    "movinet_a0": Entry(Family.FACTORISED, _PAPER, (50, 172)),
    "movinet_a1": Entry(Family.FACTORISED, _PAPER, (50, 172)),
    "movinet_a2": Entry(Family.FACTORISED, _PAPER, (50, 224)),
    "movinet_tiny": Entry(Family.FACTORISED, _PAPER, (16, 64)),
    "movinet_a0_stream": Entry(Family.FACTORISED, _PAPER, (50, 172)),
    "movinet_a1_stream": Entry(Family.FACTORISED, _PAPER, (50, 172)),
    "movinet_a2_stream": Entry(Family.FACTORISED, _PAPER, (50, 224)),
    "movinet_tiny_stream": Entry(Family.FACTORISED, _PAPER, (16, 64)),
}


@dataclass(frozen=True)
class Stage:
    """Blocks that give `out` channels, each with its own number of inner channels and its own kernel."""

    out: int
    inner: tuple[int, ...]
    kernels: tuple[Triple, ...]
    stride: int = 2
    """Of the first block, in space."""


@dataclass(frozen=True)
class Size:
    """The numbers of one MoViNet."""

    stem: int
    stages: tuple[Stage, ...]
    top: int
    """Channels that are averaged over the clip."""
    features: int = 2048
    """Length of what the last layer reads."""


_133, _155, _333, _533 = (1, 3, 3), (1, 5, 5), (3, 3, 3), (5, 3, 3)
SIZES = {
    "a0": Size(
        stem=8,
        stages=(
            Stage(8, (24,), (_155,)),
            Stage(32, (80, 80, 80), (_333,) * 3),
            Stage(56, (184, 112, 184), (_533, _333, _333)),
            Stage(56, (184,) * 4, (_533, _333, _333, _333), stride=1),
            Stage(104, (384, 280, 280, 344), (_533, _155, _155, _155)),
        ),
        top=480,
    ),
    "a1": Size(
        stem=16,
        stages=(
            Stage(16, (40, 40), (_155, _333)),
            Stage(40, (96, 120, 96, 96), (_333,) * 4),
            Stage(64, (216, 128, 216, 168, 216), (_533, *(_333,) * 4)),
            Stage(64, (216, 216, 216, 128, 128, 216), (_533, _333, _333, _333, _155, _333), stride=1),
            Stage(136, (456, 360, 360, 360, 456, 456, 544), (_533, *(_155,) * 4, _333, _133)),
        ),
        top=600,
    ),
    "a2": Size(
        stem=16,
        stages=(
            Stage(16, (40, 40, 64), (_155, _333, _333)),
            Stage(40, (96, 120, 96, 96, 120), (_333,) * 5),
            Stage(72, (240, 160, 240, 192, 240), (_533, *(_333,) * 4)),
            Stage(72, (240, 240, 240, 240, 144, 240), (_533, _333, _333, _333, _155, _333), stride=1),
            Stage(144, (480, 384, 384, 480, 480, 480, 576), (_533, *(_155,) * 4, _333, _133)),
        ),
        top=640,
    ),
    "tiny": Size(
        stem=8,
        stages=(
            Stage(8, (24,), (_155,)),
            Stage(16, (48, 48), (_333, _333)),
            Stage(32, (96, 96), (_533, _333)),
        ),
        top=96,
        features=128,
    ),
}
CONVOLUTIONS = ("3d", "2plus1d")


def _continued(x: torch.Tensor, past: torch.Tensor | None, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, C, T, H, W) behind the `frames` before it, zeros where there was nothing, and the last `frames` of both."""
    joined = F.pad(x, (0, 0, 0, 0, frames, 0)) if past is None else torch.cat([past, x], 2)
    return joined, joined[:, :, -frames:]


def _running_mean(x: torch.Tensor, seen: torch.Tensor, total: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, C, T, 1, 1) -> at each step the mean over it and all steps before, and the sum (B, C, 1, 1, 1) so far.

    seen, total: the number of steps before x, int64 (), and their sum.
    """
    sums = x.cumsum(2, dtype=torch.promote_types(x.dtype, torch.float32))
    if total is not None:
        sums = sums + total
    counts = seen + torch.arange(1, x.shape[2] + 1, device=x.device).view(-1, 1, 1)
    return (sums / counts).to(x.dtype), sums[:, :, -1:]


class _HardSigmoid(nn.Module):
    """Keras' hard sigmoid, steeper than PyTorch's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (0.2 * x + 0.5).clamp(0, 1)


@dataclass(frozen=True)
class _Kind:
    """How the layers of a net are built."""

    causal: bool
    conv: str

    @property
    def split(self) -> bool:
        """Space first, then time."""
        return self.conv == "2plus1d"

    @property
    def activation(self) -> Callable[[], nn.Module]:
        return nn.Hardswish if self.split else nn.SiLU

    @property
    def gate(self) -> Callable[[], nn.Module]:
        return _HardSigmoid if self.split else nn.Sigmoid


class _Conv(nn.Module):
    """Convolution, BatchNorm, activation; where the kind splits a kernel, the same again over time. Each frame reads
    as many of those before as after it, or if causal, only those before."""

    def __init__(
        self,
        kind: _Kind,
        channels: int,
        out: int,
        kernel: Triple = (1, 1, 1),
        *,
        stride: int = 1,
        groups: int = 1,
        active: bool = True,
    ) -> None:
        super().__init__()
        frames = kernel[0] - 1
        split = kind.split and frames > 0
        self.conv = SameConv3d(
            channels,
            out,
            (1, *kernel[1:]) if split else kernel,
            (1, stride, stride),
            groups=groups,
            pad_time=not kind.causal,
        )
        self.norm = nn.BatchNorm3d(out, eps=1e-3)
        self.act = kind.activation() if active else nn.Identity()
        self.before = frames if kind.causal else 0
        self.time_conv = self.time_norm = None
        if split:
            self.time_conv = SameConv3d(out, out, (kernel[0], 1, 1), groups=groups, pad_time=not kind.causal)
            self.time_norm = nn.BatchNorm3d(out, eps=1e-3)

    def forward(self, x: torch.Tensor, past: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, channels, T, H, W) -> (B, out, T, H', W'). past: the frames before it that the kernel reads; the next
        such ones come back."""
        if self.before and self.time_conv is None:
            x, past = _continued(x, past, self.before)
        x = self.act(self.norm(self.conv(x)))
        if self.time_conv is not None and self.time_norm is not None:
            if self.before:
                x, past = _continued(x, past, self.before)
            x = self.act(self.time_norm(self.time_conv(x)))
        return x, past


class _SqueezeExcite(nn.Module):
    """Scale each channel by what all of them are on average: over the clip, or if causal, over the frames so far and
    over this one."""

    def __init__(self, kind: _Kind, channels: int) -> None:
        super().__init__()
        self.causal = kind.causal
        parts = 2 if kind.causal else 1
        squeezed = rounded(channels // 4 * parts)
        self.fc1 = conv3d(channels * parts, squeezed, (1, 1, 1), bias=True)
        self.act = kind.activation()
        self.fc2 = conv3d(squeezed, channels, (1, 1, 1), bias=True)
        self.gate = kind.gate()

    def forward(
        self, x: torch.Tensor, seen: torch.Tensor, total: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, C, T, H, W) -> the same, and the sum over time so far."""
        means = x.mean((3, 4), keepdim=True)
        if self.causal:
            so_far, total = _running_mean(means, seen, total)
            means = torch.cat([so_far, means], 1)
        else:
            means = means.mean(2, keepdim=True)
        return x * self.gate(self.fc2(self.act(self.fc1(means)))), total


class _Block(nn.Module):
    """1x1x1 up, depthwise, squeeze and excitation, 1x1x1 down, times `alpha`, plus the shortcut. alpha starts at zero,
    so that the block begins as its shortcut."""

    def __init__(self, kind: _Kind, channels: int, inner: int, out: int, kernel: Triple, stride: int) -> None:
        super().__init__()
        self.expand = _Conv(kind, channels, inner)
        self.deep = _Conv(kind, inner, inner, kernel, stride=stride, groups=inner)
        self.se = _SqueezeExcite(kind, inner)
        self.project = _Conv(kind, inner, out, active=False)
        self.alpha = nn.Parameter(torch.zeros(1))  # (1,) rather than (): FSDP shards no scalars
        self.pool = SameAvgPool() if stride > 1 else nn.Identity()
        self.shortcut = _Conv(kind, channels, out, active=False) if stride > 1 or channels != out else None

    def forward(self, x: torch.Tensor, seen: torch.Tensor, past: State) -> tuple[torch.Tensor, State]:
        """(B, channels, T, H, W) -> (B, out, T, H', W'). past: what `deep` and `se` know of the frames before."""
        y, frames = self.deep(self.expand(x)[0], past[0])
        y, total = self.se(y, seen, past[1])
        y = self.project(y)[0]
        if self.shortcut is not None:
            x = self.shortcut(self.pool(x))[0]
        return x + self.alpha * y, (frames, total)


class MoViNet(LayerNumbers, RecurrentClassifier):
    """A MoViNet. Any T, H and W: time is never reduced before the end. Padding is TensorFlow's, as the published
    weights need it.

    variant: a0, a1, a2 or tiny. causal: no frame reads a later one, so that videos can be streamed.
    conv: "3d" with swish, or "2plus1d", space and then time, with hard swish and a hard gate. The published stream
        nets are causal and 2plus1d, the base nets neither.
    dropout: before the head.
    """

    after_blocks = ("top.", "fc1.", "head.")

    def __init__(
        self, *, num_classes: int, variant: str = "a0", causal: bool = False, conv: str = "3d", dropout: float = 0.2
    ) -> None:
        check_choice("variant", variant, SIZES)
        check_choice("conv", conv, CONVOLUTIONS)
        size = SIZES[variant]
        super().__init__(num_features=size.features, num_classes=num_classes, dropout=dropout)
        kind = _Kind(causal, conv)
        self.causal = causal
        self.stem = _Conv(kind, 3, size.stem, (1, 3, 3), stride=2)
        width, blocks = size.stem, OrderedDict[str, nn.Module]()
        for i, stage in enumerate(size.stages):
            for j, (inner, kernel) in enumerate(zip(stage.inner, stage.kernels, strict=True)):
                blocks[f"b{i}_l{j}"] = _Block(kind, width, inner, stage.out, kernel, 1 if j else stage.stride)
                width = stage.out
        self.blocks = nn.Sequential(blocks)  # a list with names: each block is also handed what it remembers
        self.top = _Conv(kind, width, size.top)
        self.fc1 = nn.Linear(size.top, size.features)
        nn.init.kaiming_normal_(self.fc1.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc1.bias)

    def block_names(self) -> Sequence[tuple[str, ...]]:
        return [(f"blocks.{name}.",) for name, _ in self.blocks.named_children()]

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, D): after the layer that widens the pooled features."""
        return self._read(x, None)[0]

    def stream_features(self, x: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """(B, 3, T, H, W) -> (B, D), and the state: what the videos are, frames so far, what the blocks remember of
        them, and the sum of the top."""
        if not self.causal:
            raise ConfigError("model.causal: got false, but a stream has no later frames to look at: set it to true")
        features, state = self._read(x, state)
        # without the clip that they are the end of
        return features, tree_map_only(torch.Tensor, torch.clone, state)

    def _read(self, x: torch.Tensor, state: State | None) -> tuple[torch.Tensor, State]:
        check_clip(x, "movinet")
        videos = (x.shape[0], x.shape[3], x.shape[4])
        none = torch.zeros((), dtype=torch.int64, device=x.device)
        known, seen, past, total = state or (videos, none, ((None, None),) * len(self.blocks), None)
        if known != videos:
            raise ConfigError(f"state: it belongs to {_said(known)}, got {_said(videos)}")
        after: list[Any] = []
        x = self.stem(x)[0]
        for block, memory in zip(self.blocks, past, strict=True):
            x, memory = block(x, seen, memory)
            after.append(memory)
        means, steps = self.top(x)[0].mean((3, 4), keepdim=True), x.shape[2]
        so_far, total = _running_mean(means, seen, total)
        features = F.silu(self.fc1(so_far[:, :, -1].flatten(1)))
        return features, (videos, seen + steps, tuple(after), total)


def _said(videos: tuple[int, int, int]) -> str:
    return "{} videos of {} x {} pixels".format(*videos)


movinet = MoViNet
