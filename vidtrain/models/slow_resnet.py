"""Slow: SlowFast's slow pathway alone, a ResNet that looks at time in its last two stages only (Feichtenhofer et al.
2019, "SlowFast Networks for Video Recognition"). At 400 classes and 8 x 224 x 224: 32.454M parameters, 41.74 GMAC."""

from __future__ import annotations

from typing import Any

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.resnet3d import ResNet3d, ResNetOptions
from vidtrain.ranges import takes

ENTRIES = {
    "slow_r50": Entry(Family.CONV3D, "Feichtenhofer et al. 2019", (8, 224), 74.58, "8x8, 10x3, PyTorchVideo"),
    "slow_tiny": Entry(Family.CONV3D, "Feichtenhofer et al. 2019", (16, 64)),
}

TIMES = ((1,), (1,), (3,), (3,))


@takes(ResNetOptions)
def slow_r50(*, temporal_kernels: list[list[int]] | None = None, **options: Any) -> ResNet3d:
    """Slow-only ResNet. Any T, H and W.

    temporal_kernels: frames that the first convolution of each block covers, a list for each of the four stages that
        repeats over its blocks; None: [[1], [1], [3], [3]].
    """
    return ResNetOptions(**options).net("slow_r50", TIMES, temporal_kernels=temporal_kernels, stem_kernel=1)
