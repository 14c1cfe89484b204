"""Inception I3D: Inception-v1 with every filter inflated to 3D (Carreira and Zisserman 2017, "Quo Vadis, Action
Recognition?"). 12.697M parameters at 400 classes, 111.15 GMAC at 64 x 224 x 224. RGB, or flow with two channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.classifier import ClipClassifier, check_at_least, check_clip
from vidtrain.models.layers.inception import BLOCK_NAMES, FULL_WIDTH, InceptionWidths, inception_blocks, scaled
from vidtrain.models.layers.nonlocal_block import NonLocalOptions
from vidtrain.models.layers.same_padding import SameConv3d, SameMaxPool3d
from vidtrain.ranges import takes

ENTRIES = {
    "i3d": Entry(Family.CONV3D, "Carreira and Zisserman 2017", (64, 224), 71.1, "RGB, test set, the paper"),
    "i3d_tiny": Entry(Family.CONV3D, "Carreira and Zisserman 2017", (16, 64)),
}

_BN_EPS = 1e-3  # of the published nets
_POOL_BEFORE = {
    "3b": ("MaxPool3d_3a_3x3", (1, 3, 3), (1, 2, 2)),
    "4b": ("MaxPool3d_4a_3x3", (3, 3, 3), (2, 2, 2)),
    "5b": ("MaxPool3d_5a_2x2", (2, 2, 2), (2, 2, 2)),
}


class _Unit(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, channels: int, out: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = SameConv3d(channels, out, (kernel,) * 3, (stride,) * 3)
        self.bn = nn.BatchNorm3d(out, eps=_BN_EPS)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.relu(self.bn(self.conv3d(x)))
        return out


class _Mixed(nn.Module):
    """An Inception block: 1x1x1; 1x1x1 and 3x3x3, twice; pool and 1x1x1."""

    def __init__(self, channels: int, block: InceptionWidths) -> None:
        super().__init__()
        self.b0 = _Unit(channels, block.b0)
        self.b1a = _Unit(channels, block.b1_mid)
        self.b1b = _Unit(block.b1_mid, block.b1, 3)
        self.b2a = _Unit(channels, block.b2_mid)
        self.b2b = _Unit(block.b2_mid, block.b2, 3)
        self.b3a = nn.MaxPool3d(3, 1, 1)
        self.b3b = _Unit(channels, block.b3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], 1)


class I3D(ClipClassifier):
    """Layer names are those of the published checkpoints. Any T, H and W; space and time are pooled at the end.

    The published net averages the logits of windows of two steps in time, so the first and the last step of a map
    with more than two count half. Space is averaged as a whole, which is the published 7 x 7 window at 224 pixels.

    in_channels: 3 for RGB, 2 for optical flow (x and y). width: channels of the first convolution, the others are in
    proportion; published weights need 64. dropout: before the head.
    nonlocal_blocks: None, 5 (after each of Mixed_4b to Mixed_4f), or names (Mixed_3c, ...).
    """

    head_name = "logits"

    holds_blocks = True
    """Its layers can be checkpointed one by one although they stand in no list: see layers/checkpointing.py."""

    @takes(NonLocalOptions)
    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int = 3,
        width: int = FULL_WIDTH,
        dropout: float = 0.5,
        **options: Any,
    ) -> None:
        check_at_least("in_channels", in_channels, 1)
        check_at_least("width", width, 1)
        names = [f"Mixed_{name}" for name in BLOCK_NAMES]
        nonlocals = NonLocalOptions(**options).nonlocals(names, {5: names[2:7]})
        blocks = list(inception_blocks(width))
        super().__init__(num_features=blocks[-1][2].out, num_classes=num_classes, dropout=dropout)
        self.in_channels = in_channels
        w2, w3 = scaled(64, width), scaled(192, width)
        layers: dict[str, nn.Module] = {
            "Conv3d_1a_7x7": _Unit(in_channels, w2, 7, 2),
            "MaxPool3d_2a_3x3": SameMaxPool3d((1, 3, 3), (1, 2, 2)),
            "Conv3d_2b_1x1": _Unit(w2, w2),
            "Conv3d_2c_3x3": _Unit(w2, w3, 3),
        }
        for name, channels, block in blocks:
            if name in _POOL_BEFORE:
                pool_name, kernel, stride = _POOL_BEFORE[name]
                layers[pool_name] = SameMaxPool3d(kernel, stride)
            layers[f"Mixed_{name}"] = _Mixed(channels, block)
            if f"Mixed_{name}" in nonlocals.after:
                layers[f"NonLocal_{name}"] = nonlocals.block(block.out)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._order = tuple(layers)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, T, H, W) -> (B, 1024)."""
        check_clip(x, "i3d", channels=self.in_channels)
        for name in self._order:
            x = getattr(self, name)(x)
        x = x.mean((3, 4))
        if x.shape[2] > 1:
            x = (x[:, :, :-1] + x[:, :, 1:]) / 2
        return x.mean(2)


i3d = I3D
