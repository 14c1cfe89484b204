"""CSN: a ResNet whose 3x3x3 convolutions are depthwise, channels meet in 1x1x1 convolutions only (Tran et al. 2019,
"Video Classification with Channel-Separated Convolutional Networks"). At 400 classes and 32 x 224 x 224 with 101
layers: 22.214M parameters, 56.47 GMAC."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from vidtrain.errors import ConfigError, did_you_mean
from vidtrain.models.layers.resnet3d import (
    ResNet3d,
    Triple,
    Trunk,
    blocks_of,
    check_width,
    conv3d,
    nonlocals_of,
    times_of,
)

_TIMES = ((1,), (1,), (1,), (1,))
_STRIDES = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))


def _depthwise(channels: int, stride: Triple) -> nn.Module:
    return conv3d(channels, channels, (3, 3, 3), stride=stride, groups=channels)


def _mixed_depthwise(channels: int, stride: Triple) -> nn.Module:
    """1x1x1 and BatchNorm before the depthwise convolution: the interaction that is preserved."""
    return nn.Sequential(
        OrderedDict(
            mix=conv3d(channels, channels, (1, 1, 1)),
            bn=nn.BatchNorm3d(channels),
            depthwise=_depthwise(channels, stride),
        )
    )


_KINDS = {"ir": _depthwise, "ip": _mixed_depthwise}


def csn_r101(
    *,
    num_classes: int,
    kind: str = "ir",
    depth: int = 101,
    width: int = 64,
    dropout: float = 0.5,
    nonlocal_blocks: int | list[str] | None = None,
    nonlocal_mode: str = "embedded_gaussian",
    nonlocal_pool: str | None = "before",
    nonlocal_scale: bool = True,
) -> ResNet3d:
    """Channel-separated ResNet. Any T, H and W.

    kind: "ir" (interaction-reduced: depthwise alone) or "ip" (interaction-preserved: a 1x1x1 convolution before it).
    depth: 50, 101 or 152 layers; 26 and 14 for small clips. width: channels of the stem, 64 in the paper.
    dropout: before the head.
    nonlocal_blocks: None, 5 or 10, or the names of the blocks each followed by a non-local block (layer2.1, ...).
    nonlocal_mode, nonlocal_pool, nonlocal_scale: see layers/nonlocal_block.py.
    """
    check_width(width)
    if kind not in _KINDS:
        raise ConfigError(f"model.kind: got {kind!r}{did_you_mean(kind, _KINDS)}, expected ir or ip")
    blocks = blocks_of(depth)
    trunk = Trunk(
        blocks=blocks,
        width=width,
        stem_kernel=3,
        times=times_of(None, _TIMES, blocks),
        strides=_STRIDES,
        conv2=_KINDS[kind],
        nonlocals=nonlocals_of(nonlocal_blocks, blocks, mode=nonlocal_mode, pool=nonlocal_pool, scale=nonlocal_scale),
    )
    return ResNet3d("csn_r101", trunk, num_classes=num_classes, dropout=dropout)
