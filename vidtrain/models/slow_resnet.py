"""Slow: SlowFast's slow pathway alone, a ResNet that looks at time in its last two stages only (Feichtenhofer et al.
2019, "SlowFast Networks for Video Recognition"). At 400 classes and 8 x 224 x 224: 32.454M parameters, 41.74 GMAC."""

from __future__ import annotations

from vidtrain.models.layers.resnet3d import ResNet3d, Trunk, blocks_of, check_width, nonlocals_of, times_of

TIMES = ((1,), (1,), (3,), (3,))


def slow_r50(
    *,
    num_classes: int,
    depth: int = 50,
    width: int = 64,
    temporal_kernels: list[list[int]] | None = None,
    dropout: float = 0.5,
    nonlocal_blocks: int | list[str] | None = None,
    nonlocal_mode: str = "embedded_gaussian",
    nonlocal_pool: str | None = "before",
    nonlocal_scale: bool = True,
) -> ResNet3d:
    """Slow-only ResNet. Any T, H and W.

    depth: 50, 101 or 152 layers; 26 and 14 for small clips. width: channels of the stem, 64 in the paper.
    temporal_kernels: frames that the first convolution of each block covers, a list for each of the four stages that
        repeats over its blocks; None: [[1], [1], [3], [3]].
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
        times=times_of(temporal_kernels, TIMES, blocks),
        nonlocals=nonlocals_of(nonlocal_blocks, blocks, mode=nonlocal_mode, pool=nonlocal_pool, scale=nonlocal_scale),
    )
    return ResNet3d("slow_r50", trunk, num_classes=num_classes, dropout=dropout)
