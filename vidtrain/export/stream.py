"""Networks with a state as files that are asked frame by frame: one frame and the state -> logits and the next state.

A file takes one stream. Its state is a list of arrays; the first frame comes with those that the metadata says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vidtrain.errors import ConfigError
from vidtrain.export.contract import StateArray
from vidtrain.export.network import Deployable
from vidtrain.export.parity import Parity, parity_of

State = list[npt.NDArray[Any]]
RunStep = Callable[[npt.NDArray[np.uint8], State], tuple[npt.NDArray[np.float32], State]]
"""Frames (1, T, H, W, 3) and the state before them -> logits (1, K) and the state after them."""


class SteppedNetwork(nn.Module):
    """A network that takes the frames of a stream, uint8, as they are decoded; a clip is a stream that begins with it.

    Attributes:
        clip: frames of one call, see `samples_at_once`.
    """

    takes_frames = True
    inputs = ("rgb",)

    def __init__(self, step: int, source: str) -> None:
        super().__init__()
        self.clip, self.source = step, source

    def stream(self, frames: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """uint8 (1, `clip`, H, W, 3), and the state before, None at the start -> logits (1, K) and the state after."""
        raise NotImplementedError

    def check_frames(self, frames: int) -> None:
        """Raises ConfigError for a number that is no multiple of `clip`."""
        if not frames or frames % self.clip:
            raise ConfigError(
                f"sampler.num_frames={frames}: {self.source} takes {self.clip} frames of a stream at once: set a "
                f"multiple, such as {max(1, -(-frames // self.clip)) * self.clip}"
            )

    def answers(self, frames: Tensor) -> Tensor:
        """uint8 (T, H, W, 3), a stream from its start -> the logits after each step, (T / clip, K).

        Raises:
            ConfigError: see `check_frames`.
        """
        self.check_frames(len(frames))
        found, state = [], None
        for part in frames.split(self.clip):
            logits, state = self.stream(part[None], state)
            found.append(logits)
        return torch.cat(found)

    def forward(self, frames: Tensor | Mapping[str, Tensor]) -> Tensor:
        """uint8 (N, T, H, W, 3), or a mapping with them as "rgb" -> the logits at the end of each, float32 (N, K)."""
        clips = frames["rgb"] if isinstance(frames, Mapping) else frames
        return torch.stack([self.answers(clip)[-1] for clip in clips])


class OriginalStream(SteppedNetwork):
    """The network that is exported, in PyTorch."""

    def __init__(self, network: Deployable, step: int) -> None:
        super().__init__(step, type(network.model).__name__)
        self._network = network

    def stream(self, frames: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        logits, state = self._network.model.stream(self._network.ready(frames), state)  # type: ignore[operator]
        return logits, state


class ExportedStream(SteppedNetwork):
    """A file in its place."""

    def __init__(self, run: RunStep, shape: Sequence[int], state: Sequence[StateArray], source: str) -> None:
        """shape: of the frames, (T, H, W, 3)."""
        super().__init__(shape[0], source)
        self.shape = tuple(shape)
        self._run = run
        self._start = [np.full(one.shape, one.start, one.dtype) for one in state]

    def stream(self, frames: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        if tuple(frames.shape) != (1, *self.shape):
            raise ConfigError(
                f"{self.source}: takes {self.shape[0]} frames of {self.shape[1]} x {self.shape[2]} of one stream, got "
                f"{tuple(frames.shape)}: export the checkpoint again with that size"
            )
        logits, state = self._run(frames.cpu().contiguous().numpy(), self._start if state is None else state)
        return torch.from_numpy(logits), state


@torch.inference_mode()
def compare_streams(
    original: SteppedNetwork, exported: SteppedNetwork, clips: Mapping[str, Tensor], *, multi_label: bool
) -> Parity:
    """All answers to two streams: the first of the clips, and the others one behind the other, so that the state is
    carried on for long."""
    frames = clips["rgb"]
    streams = [frames[0]] + ([frames[1:].flatten(0, 1)] if len(frames) > 1 else [])
    wanted, found = (torch.cat([network.answers(one) for one in streams]) for network in (original, exported))
    return parity_of(wanted.float(), found, multi_label=multi_label, unit="answers")
