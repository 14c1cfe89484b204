"""uint8 views -> what a model takes, on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vidtrain.errors import ConfigError


class ModelInput:
    """Moves uint8 to the device (a quarter of the bytes of float32) and normalises there.

    mean, std: three numbers each, for RGB in [0, 1].
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ConfigError(
                f"transform.mean={list(mean)}, transform.std={list(std)}: three numbers each, std above 0"
            )
        self.device = device
        scale = 255 * torch.tensor(std, device=device)
        self._scale = (1 / scale).view(3, 1, 1, 1)
        self._shift = (-255 * torch.tensor(mean, device=device) / scale).view(3, 1, 1, 1)

    def __call__(self, views: Tensor) -> Tensor:
        """uint8 (..., T, H, W, 3) -> float32 (N, 3, T, H, W), N = product of the leading sizes.

        The result keeps the frames' memory order, which is torch.channels_last_3d.
        """
        views = views.to(self.device, non_blocking=True).flatten(0, -5)
        return torch.addcmul(self._shift, views.permute(0, 4, 1, 2, 3).float(), self._scale)
