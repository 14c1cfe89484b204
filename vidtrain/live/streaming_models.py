"""Networks with a state, which take each sample of a stream once: `stream` of models/layers/recurrent.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vidtrain.errors import ConfigError
from vidtrain.live.settings import StateName


def why_no_state(model: nn.Module, size: int) -> str | None:
    """Why a network cannot take the frames of a stream one by one; None where it can."""
    stream = getattr(model, "stream", None)
    if stream is None:
        return f"{type(model).__name__} has no state"
    parameter = next(model.parameters())
    with torch.inference_mode():
        try:
            stream(torch.zeros(1, 3, samples_at_once(model), size, size, device=parameter.device))
        except ConfigError as error:
            return str(error)
    return None


def samples_at_once(model: nn.Module) -> int:
    """How many samples one call takes: those of a clip, where a network is run over clips."""
    return int(getattr(model, "clip", 1))


class CarriedState(nn.Module):
    """A network that is called with the next samples of a stream, and answers for all that its state has seen.

    endless: one state from the start of the stream on. renewed: states that begin a clip apart and live for two; the
    older of the two that are alive answers, so that an answer is for one to two clips.

    Args:
        clip: samples of a clip, as the network was trained.

    Attributes:
        seen: samples that the last answer is for. start: what `now` was when its state began. now: set by the caller.
    """

    def __init__(self, model: nn.Module, mode: StateName, clip: int) -> None:
        super().__init__()
        self.model = model
        self._renews = mode is StateName.renewed
        self._clip, self._samples = clip, samples_at_once(model)
        self.now = 0.0
        self.restart()

    def restart(self) -> None:
        """Nothing that was seen belongs to what comes."""
        self._alive: list[tuple[Any, int, float]] = []  # state, samples, start; the oldest first
        self.seen, self.start = 0, 0.0

    @property
    def answers(self) -> bool:
        """Whether a clip has been seen."""
        return self.seen >= self._clip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The next samples, `samples_at_once` of them, as the network takes them -> (1, K)."""
        if not self._alive or (self._renews and self._alive[-1][1] >= self._clip):
            self._alive.append((None, 0, self.now))
        found = [(*self._step(x, state), seen + self._samples, start) for state, seen, start in self._alive]
        self._alive = [(state, seen, start) for _, state, seen, start in found]
        logits, _, self.seen, self.start = found[0]
        if self._renews and self.seen >= 2 * self._clip:
            del self._alive[0]
        return logits

    def _step(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        logits, state = self.model.stream(x, state)  # type: ignore[operator]
        return logits, state
