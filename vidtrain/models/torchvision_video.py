"""torchvision's 18-layer video ResNets (Tran et al. 2018, "A Closer Look at Spatiotemporal Convolutions for Action
Recognition"): its own layers and its own state_dict keys, with the interface of our classifiers."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.video.resnet import (
    BasicBlock,
    BasicStem,
    Conv2Plus1D,
    Conv3DNoTemporal,
    Conv3DSimple,
    R2Plus1dStem,
    VideoResNet,
)

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.classifier import Headed, check_at_least, check_clip, check_dropout

ENTRIES = {
    "r3d_18": Entry(Family.CONV3D, "Tran et al. 2018", (16, 112), 63.2, "16 frames at 15 fps, 5x1, torchvision"),
    "mc3_18": Entry(Family.CONV3D, "Tran et al. 2018", (16, 112), 63.96, "16 frames at 15 fps, 5x1, torchvision"),
    "r2plus1d_18": Entry(
        Family.FACTORISED, "Tran et al. 2018", (16, 112), 67.46, "16 frames at 15 fps, 5x1, torchvision"
    ),
}


class VideoResNet18(Headed, VideoResNet):
    """An 18-layer net with this kind of convolution in each stage. Any T, H and W."""

    head_name = "fc"

    def __init__(
        self, name: str, *, conv: list[type[nn.Module]], stem: type[nn.Module], num_classes: int, dropout: float
    ) -> None:
        check_at_least("num_classes", num_classes, 1)
        check_dropout(dropout)
        super().__init__(BasicBlock, conv, [2, 2, 2, 2], stem, num_classes=num_classes)
        self.name = name
        self.num_features = self.fc.in_features
        self.dropout = nn.Dropout(dropout)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, 512)."""
        check_clip(x, self.name)
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return self.avgpool(x).flatten(1)


def r3d_18(*, num_classes: int, dropout: float = 0.0) -> VideoResNet18:
    """ResNet-18 with 3x3x3 convolutions throughout. 33.371M parameters, 40.70 GMAC at 16 x 112 x 112.

    dropout: before the head.
    """
    return VideoResNet18("r3d_18", conv=[Conv3DSimple] * 4, stem=BasicStem, num_classes=num_classes, dropout=dropout)


def mc3_18(*, num_classes: int, dropout: float = 0.0) -> VideoResNet18:
    """Mixed convolutions: 3x3x3 in the first stage, 1x3x3 above. 11.695M parameters, 43.34 GMAC at 16 x 112 x 112.

    Options as for r3d_18.
    """
    conv = [Conv3DSimple, Conv3DNoTemporal, Conv3DNoTemporal, Conv3DNoTemporal]
    return VideoResNet18("mc3_18", conv=conv, stem=BasicStem, num_classes=num_classes, dropout=dropout)


def r2plus1d_18(*, num_classes: int, dropout: float = 0.0) -> VideoResNet18:
    """Each 3D convolution as 1x3x3 and then 3x1x1. 31.505M parameters, 40.52 GMAC at 16 x 112 x 112.

    Options as for r3d_18.
    """
    return VideoResNet18(
        "r2plus1d_18", conv=[Conv2Plus1D] * 4, stem=R2Plus1dStem, num_classes=num_classes, dropout=dropout
    )
