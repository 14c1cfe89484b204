"""I3D on a ResNet: an image ResNet inflated in time (Carreira and Zisserman 2017, "Quo Vadis, Action Recognition?";
the ResNet of Wang et al. 2018, "Non-local Neural Networks"). At 400 classes and 8 x 224 x 224: 28.043M parameters and
28.41 GMAC, with five non-local blocks 35.402M and 36.54."""

from __future__ import annotations

from vidtrain.errors import ConfigError
from vidtrain.models.layers.resnet3d import ResNet3d, Trunk, blocks_of, check_width, nonlocals_of, times_of

TIMES = ((3,), (3, 1), (3, 1), (1, 3))
"""Every second block looks at its neighbour frames, in the first stage every block."""


def i3d_r50(
    *,
    num_classes: int,
    depth: int = 50,
    width: int = 64,
    temporal_kernels: list[list[int]] | None = None,
    stem_stride: int = 1,
    pool_stride: int = 1,
    time_pool: bool = True,
    dropout: float = 0.5,
    nonlocal_blocks: int | list[str] | None = None,
    nonlocal_mode: str = "embedded_gaussian",
    nonlocal_pool: str | None = "before",
    nonlocal_scale: bool = True,
) -> ResNet3d:
    """I3D-ResNet. Any T from 2 on, any H and W.

    depth: 50, 101 or 152 layers; 26 and 14 for small clips. width: channels of the stem, 64 in the paper.
    temporal_kernels: frames that the first convolution of each block covers, a list for each of the four stages that
        repeats over its blocks; None: [[3], [3, 1], [3, 1], [1, 3]].
    stem_stride, pool_stride: steps in time of the first convolution and the first pooling: 1, or 2 for clips at a
        high frame rate (MMAction2's 32 frames). time_pool: halve the time once more after the first stage.
    dropout: before the head.
    nonlocal_blocks: None, 5 or 10, or the names of the blocks each followed by a non-local block (layer2.1, ...).
    nonlocal_mode, nonlocal_pool, nonlocal_scale: see layers/nonlocal_block.py.
    """
    check_width(width)
    for key, got in (("stem_stride", stem_stride), ("pool_stride", pool_stride)):
        if got not in (1, 2):
            raise ConfigError(f"model.{key}: got {got}, expected 1 or 2")
    blocks = blocks_of(depth)
    trunk = Trunk(
        blocks=blocks,
        width=width,
        stem_kernel=5,
        stem_stride=stem_stride,
        pool=(pool_stride, 2, 2),
        times=times_of(temporal_kernels, TIMES, blocks),
        nonlocals=nonlocals_of(nonlocal_blocks, blocks, mode=nonlocal_mode, pool=nonlocal_pool, scale=nonlocal_scale),
    )
    return ResNet3d("i3d_r50", trunk, num_classes=num_classes, dropout=dropout, time_pool=time_pool)
