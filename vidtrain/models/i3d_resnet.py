"""I3D on a ResNet: an image ResNet inflated in time (Carreira and Zisserman 2017, "Quo Vadis, Action Recognition?";
the ResNet of Wang et al. 2018, "Non-local Neural Networks"). At 400 classes and 8 x 224 x 224: 28.043M parameters and
28.41 GMAC, with five non-local blocks 35.402M and 36.54."""

from __future__ import annotations

from typing import Any

from vidtrain.errors import ConfigError
from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.resnet3d import ResNet3d, ResNetOptions
from vidtrain.ranges import takes

ENTRIES = {
    "i3d_r50": Entry(Family.CONV3D, "Wang et al. 2018", (8, 224), 73.5, "8x8, 10x3, PySlowFast"),
    "i3d_r50_nonlocal": Entry(Family.CONV3D, "Wang et al. 2018", (8, 224), 74.9, "32 frames, 10 clips, the paper"),
    "i3d_resnet_tiny": Entry(Family.CONV3D, "Wang et al. 2018", (16, 64)),
}

TIMES = ((3,), (3, 1), (3, 1), (1, 3))
"""Every second block looks at its neighbour frames, in the first stage every block."""


@takes(ResNetOptions)
def i3d_r50(
    *,
    temporal_kernels: list[list[int]] | None = None,
    stem_stride: int = 1,
    pool_stride: int = 1,
    time_pool: bool = True,
    **options: Any,
) -> ResNet3d:
    """I3D-ResNet. Any T from 2 on, any H and W.

    temporal_kernels: frames that the first convolution of each block covers, a list for each of the four stages that
        repeats over its blocks; None: [[3], [3, 1], [3, 1], [1, 3]].
    stem_stride, pool_stride: steps in time of the first convolution and the first pooling: 1, or 2 for clips at a
        high frame rate (MMAction2's 32 frames). time_pool: halve the time once more after the first stage.
    """
    for key, got in (("stem_stride", stem_stride), ("pool_stride", pool_stride)):
        if got not in (1, 2):
            raise ConfigError(f"model.{key}: got {got}, expected 1 or 2")
    return ResNetOptions(**options).net(
        "i3d_r50",
        TIMES,
        temporal_kernels=temporal_kernels,
        time_pool=time_pool,
        stem_kernel=5,
        stem_stride=stem_stride,
        pool=(pool_stride, 2, 2),
    )
