"""CSN: a ResNet whose 3x3x3 convolutions are depthwise, channels meet in 1x1x1 convolutions only (Tran et al. 2019,
"Video Classification with Channel-Separated Convolutional Networks"). At 400 classes and 32 x 224 x 224 with 101
layers: 22.214M parameters, 56.47 GMAC."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import nn

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.classifier import check_choice
from vidtrain.models.layers.resnet3d import ResNet3d, ResNetOptions, Triple, conv3d
from vidtrain.ranges import takes

ENTRIES = {
    "csn_r101": Entry(Family.FACTORISED, "Tran et al. 2019", (32, 224), 77.0, "32x2, 10x3, PyTorchVideo"),
}

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


@takes(ResNetOptions, depth=101)
def csn_r101(*, kind: str = "ir", **options: Any) -> ResNet3d:
    """Channel-separated ResNet. Any T, H and W.

    kind: "ir" (interaction-reduced: depthwise alone) or "ip" (interaction-preserved: a 1x1x1 convolution before it).
    """
    check_choice("kind", kind, _KINDS)
    return ResNetOptions(**options).net("csn_r101", _TIMES, stem_kernel=3, strides=_STRIDES, conv2=_KINDS[kind])
