"""SlowFast: a slow pathway on few frames and a thin fast one on all, joined by lateral connections (Feichtenhofer et
al. 2019, "SlowFast Networks for Video Recognition"). At 400 classes and 32 fast frames of 224 x 224: slowfast_r50
(8 x 8) 34.566M parameters and 50.31 GMAC, slowfast_4x16_r50 34.480M and 27.64, slowfast_r101 62.827M and 96.40."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vidtrain.errors import ConfigError
from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.classifier import ClipClassifier, check_at_least, check_choice, check_clip
from vidtrain.models.layers.nonlocal_block import NonLocalOptions
from vidtrain.models.layers.resnet3d import (
    STAGES,
    Trunk,
    add_trunk,
    blocks_of,
    conv3d,
    nonlocals_of,
    temporal_kernel_sizes,
)
from vidtrain.ranges import takes

ENTRIES = {
    "slowfast_4x16_r50": Entry(Family.PATHWAYS, "Feichtenhofer et al. 2019", (32, 224), 75.6, "4x16, 10x3, PySlowFast"),
    "slowfast_r50": Entry(Family.PATHWAYS, "Feichtenhofer et al. 2019", (32, 224), 77.0, "8x8, 10x3, PySlowFast"),
    "slowfast_r101": Entry(Family.PATHWAYS, "Feichtenhofer et al. 2019", (32, 224), 77.9, "8x8, 10x3, PyTorchVideo"),
    "slowfast_tiny": Entry(Family.PATHWAYS, "Feichtenhofer et al. 2019", (16, 64)),
}

SLOW_TIMES = ((1,), (1,), (3,), (3,))
FAST_TIMES = ((3,), (3,), (3,), (3,))
_DRAWS = ("linspace", "stride")
_LATERAL = 2
"""A lateral connection doubles the fast pathway's channels."""


class _Pathway(nn.Module):
    """A trunk that is walked stage by stage."""

    conv1: nn.Module
    bn1: nn.Module
    relu: nn.Module
    maxpool: nn.Module

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        add_trunk(self, trunk)

    def stem(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return y

    def stage(self, name: str, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = getattr(self, name)(x)
        return y


class _Lateral(nn.Module):
    """Fast features at the slow pathway's frame rate."""

    def __init__(self, channels: int, *, kernel: int, alpha: int, norm: bool) -> None:
        super().__init__()
        self.conv = conv3d(channels, _LATERAL * channels, (kernel, 1, 1), stride=(alpha, 1, 1))
        self.bn = nn.BatchNorm3d(_LATERAL * channels) if norm else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, fast: torch.Tensor) -> torch.Tensor:
        """(B, C, T, H, W) -> (B, 2C, T / alpha, H, W)."""
        y: torch.Tensor = self.conv(fast)
        return y if self.bn is None else self.relu(self.bn(y))


class SlowFast(ClipClassifier):
    """(B, 3, T, H, W), the fast pathway's clip -> (B, K). The features are the slow pathway's, then the fast one's.

    The slow pathway sees T / alpha of the frames (rounded up), drawn here.
    """

    head_name = "fc"
    towers = ("slow", "fast")
    """Networks side by side, of which each has its own last blocks."""

    def __init__(
        self,
        slow: Trunk,
        fast: Trunk,
        *,
        num_classes: int,
        alpha: int,
        draw: str,
        fusion_kernel: int,
        lateral_norm: bool,
        dropout: float,
    ) -> None:
        features = slow.out_channels + fast.out_channels
        super().__init__(num_features=features, num_classes=num_classes, dropout=dropout)
        self.alpha = alpha
        self.draw = draw
        self.slow = _Pathway(slow)
        self.fast = _Pathway(fast)
        self.lateral = nn.ModuleList(
            _Lateral(channels, kernel=fusion_kernel, alpha=alpha, norm=lateral_norm) for channels in _ends(fast.width)
        )
        self.avgpool = nn.AdaptiveAvgPool3d(1)

    def slow_frames(self, num_frames: int, device: torch.device) -> torch.Tensor:
        """int64 (ceil(T / alpha),): which frames the slow pathway sees.

        "linspace": evenly from the first to the last, truncated; "stride": every alpha-th from the first.
        """
        count = -(-num_frames // self.alpha)
        steps = torch.arange(count, device=device)
        if self.draw == "stride":
            return steps * self.alpha
        return torch.div(steps * (num_frames - 1), max(count - 1, 1), rounding_mode="floor")

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, D)."""
        check_clip(x, "slowfast")
        slow = self.slow.stem(x.index_select(2, self.slow_frames(x.shape[2], x.device)))
        fast = self.fast.stem(x)
        for stage, lateral in zip(STAGES, self.lateral, strict=True):
            slow = self.slow.stage(stage, torch.cat([slow, lateral(fast)], dim=1))
            fast = self.fast.stage(stage, fast)
        return torch.cat([self.avgpool(slow).flatten(1), self.avgpool(fast).flatten(1)], dim=1)


def _ends(width: int) -> tuple[int, int, int, int]:
    """Channels of a trunk after the stem and after the first three stages."""
    return width, 4 * width, 8 * width, 16 * width


@takes(NonLocalOptions)
def slowfast_r50(
    *,
    num_classes: int,
    depth: int = 50,
    fast_depth: int | None = None,
    width: int = 64,
    alpha: int = 4,
    beta: int = 8,
    fusion_kernel: int = 7,
    lateral_norm: bool = True,
    draw: str = "linspace",
    slow_temporal_kernels: list[list[int]] | None = None,
    fast_temporal_kernels: list[list[int]] | None = None,
    dropout: float = 0.5,
    **options: Any,
) -> SlowFast:
    """SlowFast. Any T, H and W; at T frames the slow pathway sees T / alpha.

    depth: 50, 101 or 152 layers of the slow pathway; 26 and 14 for small clips. fast_depth: of the fast one; None:
        the same. width: channels of the slow stem, 64 in the paper.
    alpha: fast frames for one slow frame. beta: the fast pathway has 1 / beta of the channels.
    fusion_kernel: frames that a lateral convolution covers: 7 in the 8 x 8 net, 5 in the others.
    lateral_norm: BatchNorm and ReLU after it; most of MMAction2's files have none.
    draw: the slow pathway's frames: "linspace" (first to last, PySlowFast) or "stride" (every alpha-th, MMAction2).
    slow_temporal_kernels, fast_temporal_kernels: frames that the first convolution of each block covers, a list for
        each of the four stages that repeats over its blocks; None: [[1], [1], [3], [3]] and [[3], [3], [3], [3]].
    dropout: before the head.
    nonlocal_blocks: in the slow pathway.
    """
    check_at_least("width", width, 1)
    check_at_least("alpha", alpha, 1)
    if beta < 1 or width % beta:
        raise ConfigError(f"model.beta: got {beta}, expected a divisor of model.width={width}")
    if fusion_kernel < 1 or fusion_kernel % 2 == 0:
        raise ConfigError(f"model.fusion_kernel: got {fusion_kernel}, expected an odd number of frames")
    check_choice("draw", draw, _DRAWS)
    blocks, fast_blocks = blocks_of(depth), blocks_of(depth if fast_depth is None else fast_depth)
    slow_times = temporal_kernel_sizes(slow_temporal_kernels, SLOW_TIMES, blocks, "slow_temporal_kernels")
    fast_times = temporal_kernel_sizes(fast_temporal_kernels, FAST_TIMES, fast_blocks, "fast_temporal_kernels")
    thin = width // beta
    nonlocals = nonlocals_of(NonLocalOptions(**options), blocks)
    extra = [_LATERAL * channels for channels in _ends(thin)]
    return SlowFast(
        Trunk(blocks=blocks, width=width, stem_kernel=1, times=slow_times, extra=extra, nonlocals=nonlocals),
        Trunk(blocks=fast_blocks, width=thin, stem_kernel=5, times=fast_times),
        num_classes=num_classes,
        alpha=alpha,
        draw=draw,
        fusion_kernel=fusion_kernel,
        lateral_norm=lateral_norm,
        dropout=dropout,
    )
