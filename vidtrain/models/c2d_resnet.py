"""C2D: a 2D ResNet on every frame, joined in time only by pooling (Wang et al. 2018, "Non-local Neural Networks").
At 400 classes and 8 x 224 x 224: 24.328M parameters, 19.49 GMAC."""

from __future__ import annotations

from typing import Any

from vidtrain.errors import ConfigError
from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.resnet3d import ResNet3d, ResNetOptions
from vidtrain.ranges import takes

ENTRIES = {
    "c2d_r50": Entry(Family.FRAMES, "Wang et al. 2018", (8, 224), 71.46, "8x8, 10x3, PyTorchVideo"),
}

_TIMES = ((1,), (1,), (1,), (1,))


@takes(ResNetOptions)
def c2d_r50(*, time_pool: bool = True, pool_padding: int = 1, **options: Any) -> ResNet3d:
    """C2D-ResNet, blind to the order of the frames but for which two are pooled. Any T from 2 on, any H and W.

    time_pool: the maximum of every two frames after the first stage.
    pool_padding: of the max pooling after the stem: 1, or 0 as in MMAction2.
    """
    if pool_padding not in (0, 1):
        raise ConfigError(f"model.pool_padding: got {pool_padding}, expected 0 or 1")
    shared = ResNetOptions(**options)
    return shared.net("c2d_r50", _TIMES, time_pool=time_pool, stem_kernel=1, pool_padding=pool_padding)
