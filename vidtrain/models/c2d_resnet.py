"""C2D: a 2D ResNet on every frame, joined in time only by pooling (Wang et al. 2018, "Non-local Neural Networks").
At 400 classes and 8 x 224 x 224: 24.328M parameters, 19.49 GMAC."""

from __future__ import annotations

from vidtrain.errors import ConfigError
from vidtrain.models.layers.resnet3d import ResNet3d, Trunk, blocks_of, check_width, nonlocals_of, times_of

_TIMES = ((1,), (1,), (1,), (1,))


def c2d_r50(
    *,
    num_classes: int,
    depth: int = 50,
    width: int = 64,
    time_pool: bool = True,
    pool_padding: int = 1,
    dropout: float = 0.5,
    nonlocal_blocks: int | list[str] | None = None,
    nonlocal_mode: str = "embedded_gaussian",
    nonlocal_pool: str | None = "before",
    nonlocal_scale: bool = True,
) -> ResNet3d:
    """C2D-ResNet, blind to the order of the frames but for which two are pooled. Any T from 2 on, any H and W.

    depth: 50, 101 or 152 layers; 26 and 14 for small clips. width: channels of the stem, 64 in the paper.
    time_pool: the maximum of every two frames after the first stage.
    pool_padding: of the max pooling after the stem: 1, or 0 as in MMAction2.
    dropout: before the head.
    nonlocal_blocks: None, 5 or 10, or the names of the blocks each followed by a non-local block (layer2.1, ...).
    nonlocal_mode, nonlocal_pool, nonlocal_scale: see layers/nonlocal_block.py.
    """
    check_width(width)
    if pool_padding not in (0, 1):
        raise ConfigError(f"model.pool_padding: got {pool_padding}, expected 0 or 1")
    blocks = blocks_of(depth)
    trunk = Trunk(
        blocks=blocks,
        width=width,
        stem_kernel=1,
        pool_padding=pool_padding,
        times=times_of(None, _TIMES, blocks),
        nonlocals=nonlocals_of(nonlocal_blocks, blocks, mode=nonlocal_mode, pool=nonlocal_pool, scale=nonlocal_scale),
    )
    return ResNet3d("c2d_r50", trunk, num_classes=num_classes, dropout=dropout, time_pool=time_pool)
