"""TensorFlow's SAME padding: ceil(n / stride) outputs, and where the padding is odd, the extra zero comes last.

PyTorch pads both ends alike, which moves every window of a layer with stride 2 by a pixel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from vidtrain.models.layers.resnet3d import Triple


def pad_same(x: torch.Tensor, kernel: Triple, stride: Triple) -> torch.Tensor:
    """(B, C, T, H, W) with the zeros that a window of `kernel` needs at `stride`."""
    pad: list[int] = []
    for n, k, s in reversed(list(zip(x.shape[2:], kernel, stride, strict=True))):
        total = max((-(-n // s) - 1) * s + k - n, 0)
        pad += [total // 2, total - total // 2]
    return F.pad(x, pad) if any(pad) else x


class SameConv3d(nn.Conv3d):
    """Conv3d with SAME padding, without bias. Where the stride is 1 both ends are alike and nothing is copied.

    pad_time: False where what comes before the first frame is put there by the caller.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: Triple,
        stride: Triple = (1, 1, 1),
        *,
        groups: int = 1,
        pad_time: bool = True,
    ) -> None:
        window = kernel if pad_time else (1, *kernel[1:])
        alike = stride == (1, 1, 1) and all(k % 2 for k in window)
        padding = tuple(k // 2 for k in window) if alike else (0, 0, 0)
        super().__init__(channels, out, kernel, stride, padding, groups=groups, bias=False)  # type: ignore[arg-type]
        self._pads = None if alike else (window, stride)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x if self._pads is None else pad_same(x, *self._pads))


class SameAvgPool(nn.Module):
    """The average of 1 x 3 x 3 at stride 2 in space, over the pixels that are there."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, T, H, W) -> (B, C, T, ceil(H / 2), ceil(W / 2))."""
        height, width = (
            (min(n, 3), n % 2 if n > 2 else 0) for n in x.shape[3:]
        )  # an even side lacks a pixel at its end
        kernel, padding = zip((1, 0), height, width, strict=True)
        return F.avg_pool3d(x, kernel, (1, 2, 2), padding, ceil_mode=True, count_include_pad=False)


class SameMaxPool3d(nn.MaxPool3d):
    """MaxPool3d with SAME padding, for features that are not negative: it pads with zeros."""

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__(kernel, stride)
        self._pads = (kernel, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = super().forward(pad_same(x, *self._pads))
        return out
