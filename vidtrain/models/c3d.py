"""C3D: eight 3x3x3 convolutions and three fully connected layers (Tran et al. 2015, "Learning Spatiotemporal
Features with 3D Convolutional Networks"). 79.63M parameters at 400 classes, 38.549 GMAC at 16 x 112 x 112."""

from __future__ import annotations

import torch
from torch import nn

from vidtrain.errors import ConfigError
from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.classifier import ClipClassifier, check_at_least, check_clip

ENTRIES = {"c3d": Entry(Family.CONV3D, "Tran et al. 2015", (16, 112), 66.6, "from scratch")}

_LEAST_FRAMES = 16  # time is halved four times
_LEAST_SIZE = 16


def _conv(channels: int, out: int) -> nn.Conv3d:
    # There is no normalisation, so the variance has to be kept from layer to layer by the initial weights alone.
    conv = nn.Conv3d(channels, out, 3, padding=1)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def _fc(features: int, out: int) -> nn.Linear:
    fc = nn.Linear(features, out)
    nn.init.kaiming_normal_(fc.weight, nonlinearity="relu")
    nn.init.zeros_(fc.bias)
    return fc


def _grid(num_frames: int, size: int) -> tuple[int, int]:
    """(T', H') after the five pools: time floors four times, space five, the last with one pixel of padding."""
    return num_frames // 16, (size // 16 + 2) // 2


class C3D(ClipClassifier):
    """C3D for clips of num_frames x size x size. Layer names are those of the published checkpoints: conv1 ... fc8.

    num_frames, size: 16 and 112 in the paper (fc6 then reads 8192 values, and published weights fit). Any
        num_frames >= 16 and size >= 16 can be built; fc6 is made to fit, and clips of another shape are refused.
    width: channels of conv1, the others are 2, 4 and 8 times that. hidden: width of fc6 and
        fc7. dropout: after each of these two.
    """

    head_name = "fc8"

    def __init__(
        self,
        *,
        num_classes: int,
        num_frames: int,
        size: int,
        width: int = 64,
        hidden: int = 4096,
        dropout: float = 0.5,
    ) -> None:
        for key, got, least, setting in (
            ("num_frames", num_frames, _LEAST_FRAMES, "sampler.num_frames"),
            ("size", size, _LEAST_SIZE, "transform.size"),
        ):
            if got < least:
                raise ConfigError(
                    f"model.{key}: got {got}, c3d halves it four times and needs {least} or more: set {setting}={least}"
                )
        check_at_least("width", width, 1)
        check_at_least("hidden", hidden, 1)
        super().__init__(num_features=hidden, num_classes=num_classes, dropout=dropout)
        self.num_frames = num_frames
        self.size = size
        w1, w2, w3, w4 = width, 2 * width, 4 * width, 8 * width
        self.conv1 = _conv(3, w1)
        self.pool1 = nn.MaxPool3d((1, 2, 2))
        self.conv2 = _conv(w1, w2)
        self.pool2 = nn.MaxPool3d(2)
        self.conv3a = _conv(w2, w3)
        self.conv3b = _conv(w3, w3)
        self.pool3 = nn.MaxPool3d(2)
        self.conv4a = _conv(w3, w4)
        self.conv4b = _conv(w4, w4)
        self.pool4 = nn.MaxPool3d(2)
        self.conv5a = _conv(w4, w4)
        self.conv5b = _conv(w4, w4)
        self.pool5 = nn.MaxPool3d(2, padding=(0, 1, 1))
        time, side = _grid(num_frames, size)
        self.fc6 = _fc(w4 * time * side * side, hidden)
        self.fc7 = _fc(hidden, hidden)
        self.relu = nn.ReLU(inplace=True)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, hidden): fc6 after its ReLU, the paper's clip descriptor."""
        check_clip(x, "c3d", num_frames=self.num_frames, size=self.size)
        x = self.pool1(self.relu(self.conv1(x)))
        x = self.pool2(self.relu(self.conv2(x)))
        x = self.pool3(self.relu(self.conv3b(self.relu(self.conv3a(x)))))
        x = self.pool4(self.relu(self.conv4b(self.relu(self.conv4a(x)))))
        x = self.pool5(self.relu(self.conv5b(self.relu(self.conv5a(x)))))
        return self.relu(self.fc6(x.flatten(1)))

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, hidden): fc7 after its ReLU."""
        return self.relu(self.fc7(self.dropout(self.embed(x))))


c3d = C3D
