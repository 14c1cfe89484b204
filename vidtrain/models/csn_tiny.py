"""The channel-separated 3D net of document 000, section 4.2 (called S3D there): a 3D convolution as the encoder, then
depthwise and pointwise convolutions, then all positions joined: averaged, or flattened as in the document."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from vidtrain.errors import ConfigError
from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.classifier import ClipClassifier, check_at_least, check_choice, check_clip
from vidtrain.models.layers.resnet3d import conv3d

ENTRIES = {"csn_tiny": Entry(Family.FACTORISED, "document 000, section 4.2", (16, 64))}

_FUSIONS = ("mean", "flatten")
_STAGES = 3
_LEAST_FRAMES = 2**_STAGES
_LEAST_SIZE = 4 * 2**_STAGES - 1


class SeparableConv(nn.Module):
    """000's two steps, each with its bias: y = w_c * x_c + b_c channel by channel over M x N x O positions, then
    y'_c = sum_c' w'_cc' y_c' + b'_c at each position. The size stays."""

    def __init__(self, channels: int, out: int, kernel: tuple[int, int, int] = (3, 3, 3)) -> None:
        super().__init__()
        self.depthwise = conv3d(channels, channels, kernel, groups=channels, bias=True)
        # One input channel for each filter: He's fan_out would count all channels and start it far too small.
        nn.init.kaiming_normal_(self.depthwise.weight, mode="fan_in", nonlinearity="linear")
        self.pointwise = conv3d(channels, out, (1, 1, 1), bias=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, channels, T, H, W) -> (B, out, T, H, W)."""
        y: torch.Tensor = self.pointwise(self.depthwise(x))
        return y


def _grid(num_frames: int, height: int, width: int) -> tuple[int, int, int]:
    """(T', H', W') of the last maps: halved by each stage's pool, and space before that twice by the encoder."""
    return num_frames >> _STAGES, -(-height // 2) // 2 >> _STAGES, -(-width // 2) // 2 >> _STAGES


class CSNTiny(ClipClassifier):
    """Document 000's net, small enough for a CPU: an encoder and three stages of a separable convolution, BatchNorm,
    ReLU and 2x2x2 max pooling.

    num_frames, size: the clip, 8 frames of 31 x 31 pixels or more; fusion=flatten accepts no other.
    width: channels of the encoder; the stages have 2, 4 and 8 times as many.
    fusion: "mean" (the average over time and space: any clip) or "flatten" (as in the document: every position has
        weights of its own in the head, which takes far longer to learn).
    dropout: before the head.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        num_frames: int,
        size: int,
        width: int = 32,
        fusion: str = "mean",
        dropout: float = 0.0,
    ) -> None:
        check_at_least("width", width, 1)
        check_at_least("num_frames", num_frames, _LEAST_FRAMES)
        check_at_least("size", size, _LEAST_SIZE)
        check_choice("fusion", fusion, _FUSIONS)
        channels = [width << stage for stage in range(_STAGES + 1)]
        time, high, wide = _grid(num_frames, size, size) if fusion == "flatten" else (1, 1, 1)
        super().__init__(num_features=channels[-1] * time * high * wide, num_classes=num_classes, dropout=dropout)
        self.clip = (num_frames, size) if fusion == "flatten" else (None, None)
        self.encoder = nn.Sequential(
            conv3d(3, channels[0], (3, 3, 3), stride=(1, 2, 2)),
            nn.BatchNorm3d(channels[0]),
            nn.ReLU(inplace=True),
            nn.MaxPool3d((1, 2, 2)),
        )
        self.stages = nn.Sequential(
            *(
                nn.Sequential(SeparableConv(a, b), nn.BatchNorm3d(b), nn.ReLU(inplace=True), nn.MaxPool3d(2))
                for a, b in itertools.pairwise(channels)
            )
        )
        self.pool = nn.Identity() if fusion == "flatten" else nn.AdaptiveAvgPool3d(1)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, D)."""
        num_frames, size = self.clip
        check_clip(x, "csn_tiny", num_frames=num_frames, size=size)
        if min(_grid(*x.shape[2:])) < 1:
            raise ConfigError(
                f"csn_tiny: got clips of {x.shape[2]} x {x.shape[3]} x {x.shape[4]}, needs {_LEAST_FRAMES} frames and "
                f"{_LEAST_SIZE} x {_LEAST_SIZE} pixels or more"
            )
        return self.pool(self.stages(self.encoder(x))).flatten(1)


csn_tiny = CSNTiny
