"""uint8 views -> what a model takes, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vidtrain.errors import ConfigError
from vidtrain.sequences import Sequences

# 8-bit flow, as data/flow.py writes it: what stands still, and the codes from there to the longest motion
_STILL, _LEVELS = 128, 127


def reads_flow(model: nn.Module) -> bool:
    """Whether a model takes {"rgb": ..., "flow": ...} and says so by `inputs`; its views then have 5 channels."""
    return "flow" in getattr(model, "inputs", ())


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

    def __call__(self, views: Tensor | Sequences) -> Any:
        """uint8 (..., T, H, W, 3) -> float32 (N, 3, T, H, W), N = product of the leading sizes.

        The result keeps the frames' memory order, which is torch.channels_last_3d. Sequences of features are packed.
        Views with flow, uint8 (..., T, H, W, 5), become {"rgb": (N, 3, T, H, W), "flow": (N, 2, T - 1, H, W)}: the
        flow from each frame but the last, in [-1, 1], which is data/flow.py's LIMIT of 20 pixels each way.
        """
        if isinstance(views, Sequences):
            return views.to(self.device, non_blocking=True).pack()
        views = views.to(self.device, non_blocking=True).flatten(0, -5)
        if views.shape[-1] == 5:
            flow = (views[:, :-1, ..., 3:].permute(0, 4, 1, 2, 3).float() - _STILL) / _LEVELS
            return {"rgb": self._normalised(views[..., :3].contiguous()), "flow": flow}
        return self._normalised(views)

    def _normalised(self, views: Tensor) -> Tensor:
        return torch.addcmul(self._shift, views.permute(0, 4, 1, 2, 3).float(), self._scale)
