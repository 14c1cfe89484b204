"""Layers of inflated 2D nets. Frames stand in the batch: (B T, C, H, W), the T frames of a clip one after the other.

So everything between the layers of the 2D net, whatever it is (flattening, channel shuffles, attention over channels,
heads), goes on working per frame, and only what has a kernel looks into the neighbouring frames. Where the memory
format is channels_last, stacking the frames of a clip costs nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from vidtrain.errors import ConfigError
from vidtrain.models.layers.classifier import check_choice

TAPS = ("mean", "centre")
PADDINGS = ("replicate", "zeros")


def check_inflation(time_kernel: int, taps: str, padding: str) -> None:
    """Refuse values that inflation does not know."""
    if time_kernel < 1 or time_kernel % 2 == 0:
        raise ConfigError(f"model.time_kernel: got {time_kernel}, expected an odd number")
    check_choice("taps", taps, TAPS)
    check_choice("padding", padding, PADDINGS)


def inflate_weight(weight: torch.Tensor, time_kernel: int, taps: str = "mean") -> torch.Tensor:
    """(O, I, kh, kw) -> (O, I, Kt, kh, kw) whose sum over Kt is the 2D weight.

    taps: "mean" puts a Kt-th of the weight on each tap, "centre" all of it on the middle one.
    """
    if taps == "mean":
        return weight.unsqueeze(2).repeat(1, 1, time_kernel, 1, 1) / time_kernel
    wide = weight.new_zeros(*weight.shape[:2], time_kernel, *weight.shape[2:])
    wide[:, :, time_kernel // 2] = weight
    return wide


class Clock:
    """How many frames of one clip follow each other in the batch: set by the net before it runs, read by its layers."""

    def __init__(self) -> None:
        self.frames = 1

    def stack(self, x: torch.Tensor) -> torch.Tensor:
        """(B T, C, H, W) -> (B, C, T, H, W)."""
        return x.unflatten(0, (-1, self.frames)).transpose(1, 2)


def unstack(x: torch.Tensor) -> torch.Tensor:
    """(B, C, T, H, W) -> (B T, C, H, W)."""
    return x.transpose(1, 2).flatten(0, 1)


def repeat_ends(x: torch.Tensor, times: int) -> torch.Tensor:
    """(B, C, T, H, W) -> (B, C, T + 2 times, H, W): replicate padding of time alone.

    nn.Conv3d's padding_mode="replicate" would pad height and width in the same way.
    """
    return torch.cat([*[x[:, :, :1]] * times, x, *[x[:, :, -1:]] * times], 2) if times else x


class InflatedConv(nn.Conv3d):
    """A Conv2d as Kt x kh x kw; the number of frames stays. Its weight is (O, I, Kt, kh, kw)."""

    def __init__(self, conv: nn.Conv2d, clock: Clock, *, time_kernel: int, taps: str, padding: str) -> None:
        (height, width), by_hand = conv.kernel_size, isinstance(conv.padding, str) or conv.padding_mode != "zeros"
        self._repeats = time_kernel // 2 if padding == "replicate" else 0
        ends = time_kernel // 2 - self._repeats
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            (time_kernel, height, width),
            stride=(1, *conv.stride),  # type: ignore[arg-type]  # nn.Conv2d keeps its sizes as tuples of any length
            padding=(ends, 0, 0) if by_hand else (ends, *conv.padding),
            dilation=(1, *conv.dilation),  # type: ignore[arg-type]
            groups=conv.groups,
            bias=conv.bias is not None,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )
        # "same" and padding that is not zeros, as Conv2d keeps them for F.pad
        self._space_pad = list(conv._reversed_padding_repeated_twice) if by_hand else None
        self._space_mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        self.clock = clock
        with torch.no_grad():
            self.weight.copy_(inflate_weight(conv.weight, time_kernel, taps))
            if conv.bias is not None and self.bias is not None:
                self.bias.copy_(conv.bias)
        self.weight.requires_grad_(conv.weight.requires_grad)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._space_pad is not None:
            x = F.pad(x, self._space_pad, self._space_mode)
        return unstack(super().forward(repeat_ends(self.clock.stack(x), self._repeats)))


class InflatedMaxPool(nn.MaxPool3d):
    """A MaxPool2d as Kt x kh x kw with stride 1 in time. A maximum ignores what is not there, so no end is repeated."""

    def __init__(self, pool: nn.MaxPool2d, clock: Clock, *, time_kernel: int) -> None:
        super().__init__(
            (time_kernel, *_pair(pool.kernel_size)),
            stride=(1, *_pair(pool.stride)),
            padding=(time_kernel // 2, *_pair(pool.padding)),
            dilation=(1, *_pair(pool.dilation)),
            ceil_mode=pool.ceil_mode,
        )
        self.clock = clock

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return unstack(super().forward(self.clock.stack(x)))


class InflatedAvgPool(nn.AvgPool3d):
    """An AvgPool2d as Kt x kh x kw with stride 1 in time."""

    def __init__(self, pool: nn.AvgPool2d, clock: Clock, *, time_kernel: int, padding: str) -> None:
        self._repeats = time_kernel // 2 if padding == "replicate" else 0
        super().__init__(
            (time_kernel, *_pair(pool.kernel_size)),
            stride=(1, *_pair(pool.stride)),
            padding=(time_kernel // 2 - self._repeats, *_pair(pool.padding)),
            ceil_mode=pool.ceil_mode,
            count_include_pad=pool.count_include_pad,
            divisor_override=None if pool.divisor_override is None else pool.divisor_override * time_kernel,
        )
        self.clock = clock

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return unstack(super().forward(repeat_ends(self.clock.stack(x), self._repeats)))


def _pair(size: int | tuple[int, ...]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
