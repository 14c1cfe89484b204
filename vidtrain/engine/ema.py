"""The exponential moving average of the weights (Polyak and Juditsky 1992), which is what is tested and kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vidtrain.engine.devices.distributed import local
from vidtrain.errors import ConfigError


class EMA:
    """Follows the parameters of `model`: average = decay * average + (1 - decay) * weights, after each update.

    In the first updates the decay is (1 + n) / (10 + n) while that is smaller, so that the start is forgotten. An
    update that is skipped is none: neither the average nor n moves. Buffers, such as the statistics of BatchNorm, are
    those of the model itself.

    Args:
        model: on its device and in its final layout already.
        decay: above 0 and below 1; 0.9999 for long trainings.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ConfigError(f"trainer.ema={decay}: must lie above 0 and below 1 (0.9999, 0.999), or be null")
        self.decay = decay
        self._live: dict[str, Tensor] = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        self._average = {name: live.clone() for name, live in self._live.items()}
        device = next((live.device for live in self._live.values()), torch.device("cpu"))
        self._updates = torch.zeros((), dtype=torch.int64, device=device)

    @property
    def updates(self) -> int:
        """How many the average has followed. Waits for the device."""
        return int(self._updates)

    @updates.setter
    def updates(self, count: int) -> None:
        self._updates.fill_(count)

    @torch.no_grad()
    def update(self, skipped: Tensor) -> None:
        """skipped: bool () on the device of the weights, whose value nothing waits for: they have not moved."""
        self._updates += ~skipped
        # 1 - decay as one number: in float32, decay itself would lose what tells 0.9999 from 1
        weight = (9 / (10 + self._updates)).clamp_min(1 - self.decay) * ~skipped
        averages, lives = map(local, self._average.values()), map(local, self._live.values())
        for average, live in zip(averages, lives, strict=True):
            average.lerp_(live, weight.to(average.dtype))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights inside, and its own again afterwards."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, live in self._live.items():
            own = live.clone()
            live.copy_(self._average[name])
            self._average[name].copy_(own)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "average": self._average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        for name, average in self._average.items():
            average.copy_(state["average"][name])
