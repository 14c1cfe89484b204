"""S3D and S3D-G: Inception-v1 with its 3D convolutions separated into space and time (Xie et al. 2018, "Rethinking
Spatiotemporal Feature Learning: Speed-Accuracy Trade-offs in Video Classification").

s3d: 8.320M parameters at 400 classes, 17.98 GMAC at 16 x 224 x 224. s3dg adds self-gating after each temporal
convolution: 9.086M parameters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.classifier import ClipClassifier, check_at_least, check_clip
from vidtrain.models.layers.inception import FULL_WIDTH, InceptionWidths, inception_blocks, scaled
from vidtrain.models.layers.resnet3d import Triple, conv3d

ENTRIES = {
    "s3d": Entry(Family.FACTORISED, "Xie et al. 2018", (16, 224), 68.4, "128 frames at 15 fps, 1x1, torchvision"),
    "s3d_tiny": Entry(Family.FACTORISED, "Xie et al. 2018", (16, 64)),
    "s3dg": Entry(Family.FACTORISED, "Xie et al. 2018", (16, 224), 74.7, "the paper"),
}

_BN_EPS = 1e-3  # of the published nets
_WINDOW = (2, 7, 7)


class _ConvNorm(nn.Sequential):
    """Convolution that keeps the size at stride 1, batch norm, ReLU."""

    def __init__(self, channels: int, out: int, kernel: Triple = (1, 1, 1), stride: Triple = (1, 1, 1)) -> None:
        conv = conv3d(channels, out, kernel, stride=stride)
        super().__init__(conv, nn.BatchNorm3d(out, eps=_BN_EPS), nn.ReLU(inplace=True))


class SelfGate(nn.Module):
    """x * sigmoid(W mean(x) + b): channels weighed by what the whole clip shows. (B, C, T, H, W) stays that shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(self.fc(x.mean((2, 3, 4))))
        return x * gate[:, :, None, None, None]


class _Separable(nn.Sequential):
    """k x k in space, k in time, and the gate."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, gating: bool) -> None:
        space = _ConvNorm(channels, out, (1, kernel, kernel), (1, stride, stride))
        time = _ConvNorm(out, out, (kernel, 1, 1), (stride, 1, 1))
        super().__init__(space, time, *([SelfGate(out)] if gating else []))


class _Mixed(nn.Module):
    """An Inception block with separable convolutions."""

    def __init__(self, channels: int, block: InceptionWidths, gating: bool) -> None:
        super().__init__()
        self.branch0 = _ConvNorm(channels, block.b0)
        self.branch1 = nn.Sequential(
            _ConvNorm(channels, block.b1_mid), _Separable(block.b1_mid, block.b1, 3, 1, gating)
        )
        self.branch2 = nn.Sequential(
            _ConvNorm(channels, block.b2_mid), _Separable(block.b2_mid, block.b2, 3, 1, gating)
        )
        self.branch3 = nn.Sequential(nn.MaxPool3d(3, 1, 1), _ConvNorm(channels, block.b3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.branch0(x), self.branch1(x), self.branch2(x), self.branch3(x)], 1)


class _HalvingPool(nn.MaxPool3d):
    """Max over 2 x 2 x 2. A side of length 1, as small clips have it here, stays."""

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel = [min(2, n) for n in x.shape[2:]]
        return F.max_pool3d(x, kernel, 2)


class S3D(ClipClassifier):
    """S3D. Keys of the layers are torchvision's. Any T, H and W.

    The head reads windows of 2 x 7 x 7 positions of the last map and averages their logits, as torchvision does: at
    16 x 224 x 224 that is the average of the map, in larger clips its border counts less. Maps that are smaller than
    the window, which torchvision refuses, are averaged.

    width: channels of the first convolution, the others are in proportion; published weights need 64.
    gating: S3D-G's self-gating after each temporal convolution. dropout: before the head.
    """

    head_name = "classifier"

    def __init__(
        self, *, num_classes: int, width: int = FULL_WIDTH, gating: bool = False, dropout: float = 0.2
    ) -> None:
        check_at_least("width", width, 1)
        blocks = list(inception_blocks(width))
        super().__init__(num_features=blocks[-1][2].out, num_classes=num_classes, dropout=dropout)
        w2, w3 = scaled(64, width), scaled(192, width)
        layers: list[nn.Module] = [
            _Separable(3, w2, 7, 2, gating),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            _ConvNorm(w2, w2),
            _Separable(w2, w3, 3, 1, gating),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        ]
        for name, channels, block in blocks:
            if name == "4b":
                layers.append(nn.MaxPool3d(3, 2, 1))
            if name == "5b":
                layers.append(_HalvingPool())
            layers.append(_Mixed(channels, block, gating))
        self.features = nn.Sequential(*layers)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, 1024)."""
        check_clip(x, "s3d")
        x = self.features(x)
        window = [min(k, n) for k, n in zip(_WINDOW, x.shape[2:], strict=True)]
        return F.avg_pool3d(x, window, 1).mean((2, 3, 4))


s3d = S3D
