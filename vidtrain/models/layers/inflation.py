"""2D CNNs made 3D (Carreira and Zisserman 2017; Feichtenhofer et al. 2016): inflate() turns any 2D net into a 3D one.

A kernel of K x K becomes Kt x K x K with the weights repeated Kt times and divided by Kt (or on the middle tap), so
that a clip of equal frames gives what the 2D net gives for one.
"""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from vidtrain.errors import ConfigError, one_of
from vidtrain.models.layers.inflated_layers import (
    Clock,
    InflatedAvgPool,
    InflatedConv,
    InflatedMaxPool,
    check_inflation,
)

_log = logging.getLogger(__name__)


class Inflated(nn.Module):
    """A 2D net over clips: (B, C, T, H, W) -> its output with the frames in the third place.

    Logits (N, K) of the 2D net become (B, K, T), maps (N, D, H', W') become (B, D, T, H', W').
    """

    def __init__(self, net: nn.Module, clock: Clock) -> None:
        super().__init__()
        self.net = net
        self.clock = clock

    def forward(self, x: torch.Tensor) -> Any:
        if x.ndim != 5:
            raise ConfigError(f"an inflated net takes (batch, channels, frames, height, width), got {tuple(x.shape)}")
        self.clock.frames = x.shape[2]
        out = self.net(x.transpose(1, 2).flatten(0, 1))
        return tree_map_only(torch.Tensor, self._with_time, out)

    def _with_time(self, out: torch.Tensor) -> torch.Tensor:
        return out.unflatten(0, (-1, self.clock.frames)).transpose(1, 2)


def inflate(net: nn.Module, *, time_kernel: int = 3, taps: str = "mean", padding: str = "replicate") -> Inflated:
    """A 3D copy of a 2D CNN: any nn.Module of (N, C, H, W), of torchvision, timm or one's own. `net` stays as it is.

    Every Conv2d, MaxPool2d and AvgPool2d with a kernel above 1 becomes time_kernel x K x K with stride 1 in time;
    norms, activations, global pools and heads work per frame, as 1 x 1 x 1. Pools that the net's forward calls as
    functions, and convolutions of a class of their own (weight standardisation, ...), stay spatial; the latter are
    logged.

    Args:
        time_kernel: Kt, odd.
        taps: "mean": the weight / Kt on each tap; "centre": all of it on the middle one.
        padding: in time. "replicate": the first and the last frame repeated, so that a still clip gives the 2D net's
            output in every frame; "zeros": as in published nets, which is exact only away from the ends.

    Raises:
        ConfigError: an option out of its range, or a net that has nothing to inflate.
    """
    check_inflation(time_kernel, taps, padding)
    copied = copy.deepcopy(net)
    if not list(copied.children()):
        copied = nn.Sequential(copied)  # a single layer, which cannot be replaced within itself
    clock = inflate_layers(copied, time_kernel=time_kernel, taps=taps, padding=padding)
    return Inflated(copied, clock)


def inflate_layers(net: nn.Module, *, time_kernel: int, taps: str, padding: str) -> Clock:
    """Inflate the layers of `net` in place; who calls it has to set the clock to T and to fold T into the batch."""
    clock = Clock()
    convs, foreign = 0, []
    done: dict[nn.Module, nn.Module] = {}  # a layer that stands at two places is one layer
    for path, module in list(net.named_modules(remove_duplicate=False)):
        if module in done:
            new: nn.Module = done[module]
        elif isinstance(module, nn.Conv2d) and _above_one(module.kernel_size):
            if not _is_plain(type(module)):
                foreign.append(f"{path} ({type(module).__name__})")
                continue
            new = InflatedConv(module, clock, time_kernel=time_kernel, taps=taps, padding=padding)
            convs += 1
        elif isinstance(module, nn.MaxPool2d) and _above_one(module.kernel_size) and not module.return_indices:
            new = InflatedMaxPool(module, clock, time_kernel=time_kernel)
        elif isinstance(module, nn.AvgPool2d) and _above_one(module.kernel_size):
            new = InflatedAvgPool(module, clock, time_kernel=time_kernel, padding=padding)
        else:
            continue
        done[module] = new
        parent, _, name = path.rpartition(".")
        setattr(net.get_submodule(parent), name, new.train(module.training))
    if not convs:
        why = f"its convolutions are of a class of their own: {one_of(foreign, 2)}" if foreign else "it is no 2D CNN"
        raise ConfigError(f"inflate: {type(net).__name__} has no plain Conv2d with a kernel above 1: {why}")
    if foreign:
        _log.warning("inflate: %d convolutions of their own class stay 2D: %s", len(foreign), one_of(foreign, 3))
    return clock


def _is_plain(kind: type[nn.Conv2d]) -> bool:
    """Whether a subclass of Conv2d convolves as Conv2d does."""
    return kind.forward is nn.Conv2d.forward and kind._conv_forward is nn.Conv2d._conv_forward


def _above_one(kernel: int | tuple[int, ...]) -> bool:
    return max(kernel) > 1 if isinstance(kernel, tuple) else kernel > 1
