"""What a loader gives -> what a model takes, on the device: one function per input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from vidtrain.engine.precision import Precision
from vidtrain.errors import ConfigError, one_of
from vidtrain.sequences import Sequences

# 8-bit flow, as data/flow/codes.py writes it: what stands still, and the codes from there to the longest motion
_STILL, _LEVELS = 128, 127


def model_inputs(model: nn.Module) -> tuple[str, ...]:
    """The names of what a model reads, by its attribute `inputs`; a model that does not say reads "rgb"."""
    return tuple(getattr(model, "inputs", ("rgb",)))


class Preprocess:
    """Moves an input to the device, uint8 as uint8 (a quarter of the bytes of float32), and makes it ready there.

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
        self._of: dict[str, Callable[[Any], Any]] = {"rgb": self._rgb, "flow": _flow, "features": _features}

    def __call__(self, inputs: Mapping[str, Any], names: Sequence[str] = ("rgb",)) -> dict[str, Any]:
        """Those of the inputs of a Batch that are named, N = product of the leading sizes.

        "rgb": float32 (N, 3, T, H, W), normalised. "flow": float32 (N, 2, T - 1, H, W), in [-1, 1], which is
        data/flow/codes.py's LIMIT of 20 pixels each way. Both keep the frames' memory order, which is
        torch.channels_last_3d. "features": packed, float32.
        """
        for name in names:
            if name not in inputs or name not in self._of:
                raise ConfigError(f"the model reads {name}, the data has {one_of(inputs)}")
        return {name: self._of[name](inputs[name].to(self.device, non_blocking=True)) for name in names}

    def _rgb(self, views: Tensor) -> Tensor:
        return torch.addcmul(self._shift, _channels_first(views), self._scale)


def _flow(views: Tensor) -> Tensor:
    return (_channels_first(views) - _STILL) / _LEVELS


def _features(sequences: Sequences) -> PackedSequence:
    return sequences.pack()


def _channels_first(views: Tensor) -> Tensor:
    """uint8 (..., T, H, W, C) -> float32 (N, C, T, H, W) in the same memory order."""
    return views.flatten(0, -5).permute(0, 4, 1, 2, 3).float()


class ModelRunner:
    """A model as a task and the loop see it: called with inputs by name, in the arithmetic of the run.

    Args:
        called: what is called in place of the model, such as a wrapper that averages gradients over processes.
    """

    def __init__(
        self, model: nn.Module, preprocess: Preprocess, precision: Precision, called: nn.Module | None = None
    ) -> None:
        self.model = model
        self.preprocess = preprocess
        self.precision = precision
        self.called = model if called is None else called
        self.inputs = model_inputs(model)

    def ready(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What the model reads of the inputs of a Batch, see Preprocess; a model with `takes_frames`, as an exported
        file is, gets them as they are decoded, uint8 (N, T, H, W, C), and normalises by itself."""
        if getattr(self.model, "takes_frames", False):
            return {name: inputs[name].flatten(0, -5) for name in self.inputs}
        return self.preprocess(inputs, self.inputs)

    def __call__(self, ready: Mapping[str, Any]) -> Any:
        """What the model makes of inputs that are ready: it is given the only one it reads, or a dict of several."""
        with self.precision.autocast():
            return self.called({n: ready[n] for n in self.inputs} if len(self.inputs) > 1 else ready[self.inputs[0]])
