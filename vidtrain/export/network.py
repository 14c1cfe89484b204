"""A network on the way out, and an exported file in the place of the network that it was made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from vidtrain.engine.preprocess import Preprocess, model_inputs
from vidtrain.errors import ConfigError
from vidtrain.export.contract import StateArray
from vidtrain.models.layers.recurrent import state_at_start

Arrays = Mapping[str, npt.NDArray[np.uint8]]
Shapes = Mapping[str, tuple[int, ...]]
"""Of inputs by name, (T, H, W, C): without the clips."""
Run = Callable[[Arrays], npt.NDArray[np.float32]]
"""Inputs by name, (N, T, H, W, C) each -> logits (N, K)."""
_GIVEN: Final = "given"
_DTYPES: Final = {torch.float32: "float32", torch.int64: "int64"}


class Deployable(nn.Module):
    """What is exported: the network with its preprocessing before it, and the probabilities after it.

    Args:
        model: in eval mode. mean, std: see Preprocess. multi_label: probabilities by sigmoid, not softmax.
        background: softmax over the classes and nothing, whose logit is 0: task.activation=softmax of task=segments.
    """

    def __init__(
        self,
        model: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        multi_label: bool,
        background: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.inputs = model_inputs(model)
        self.multi_label, self.background = multi_label, background
        self._preprocess = Preprocess(mean, std, torch.device("cpu"))

    def forward(self, *frames: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (N, T, H, W, C) of each of `inputs` -> logits and probabilities, float32 (N, K)."""
        return self.answers(self.model(self.ready(*frames)))

    def ready(self, *frames: Tensor) -> Any:
        """What the model takes: the only input that it reads, or several by name."""
        ready = self._preprocess(dict(zip(self.inputs, frames, strict=True)), self.inputs)
        return ready if len(self.inputs) > 1 else ready[self.inputs[0]]

    def answers(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The logits, and their probabilities."""
        if self.background:
            return logits, torch.cat([logits, torch.zeros_like(logits[:, :1])], 1).softmax(-1)[:, :-1]
        return logits, logits.sigmoid() if self.multi_label else logits.softmax(-1)


class DeployableStream(nn.Module):
    """What is exported: as Deployable, with the state as further inputs and outputs.

    Args:
        frames: uint8 (1, T, H, W, 3), of the first step, from which the state's form is taken.

    Attributes:
        start: the tensors of the state before the first frame.
    """

    def __init__(self, network: Deployable, frames: Tensor) -> None:
        super().__init__()
        self.network = network
        with torch.no_grad():
            _, state = network.model.stream(network.ready(frames))  # type: ignore[operator]
        leaves, self._form = tree_flatten(state_at_start(state))
        self.start = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        self._leaves = [_GIVEN if isinstance(leaf, Tensor) else leaf for leaf in leaves]  # the rest are constants

    def forward(self, frames: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """-> logits and probabilities, float32 (1, K), and the state after the frames."""
        given = iter(state)
        before = tree_unflatten([next(given) if leaf is _GIVEN else leaf for leaf in self._leaves], self._form)
        logits, after = self.network.model.stream(self.network.ready(frames), before)  # type: ignore[operator]
        leaves = tree_flatten(after)[0]
        if [_GIVEN if isinstance(leaf, Tensor) else leaf for leaf in leaves] != self._leaves:
            raise ValueError("its state has numbers that change from step to step")
        return *self.network.answers(logits), *(leaf for leaf in leaves if isinstance(leaf, Tensor))

    def described(self) -> list[StateArray]:
        """The arrays of the state, as the metadata has them."""
        return [
            StateArray(f"state_{n}", f"next_state_{n}", tuple(one.shape), _DTYPES[one.dtype], _value(one))
            for n, one in enumerate(self.start)
        ]


def _value(tensor: Tensor) -> float:
    """Of all elements of a tensor of the start."""
    found = set(tensor.flatten().tolist())
    assert len(found) == 1, "0 or -inf"
    return float(found.pop())


class OriginalNetwork(nn.Module):
    """The network that is exported, called as an ExportedNetwork is."""

    takes_frames = True

    def __init__(self, network: Deployable) -> None:
        super().__init__()
        self.inputs = network.inputs
        self._network = network

    def forward(self, frames: Tensor | Mapping[str, Tensor]) -> Tensor:
        given = frames if isinstance(frames, Mapping) else {self.inputs[0]: frames}
        logits: Tensor = self._network(*(given[name] for name in self.inputs))[0]
        return logits


class ExportedNetwork(nn.Module):
    """An exported file as the commands ask a network: it has no parameters, and takes frames as they are decoded.

    Args:
        run: asks the file.
        shapes: of its inputs by name, (T, H, W, C).
        source: for messages.
    """

    takes_frames = True
    """Its graph normalises: engine/preprocess.py hands the frames on as they are."""

    def __init__(self, run: Run, shapes: Shapes, source: str) -> None:
        super().__init__()
        self.inputs = tuple(shapes)
        self.shapes = dict(shapes)
        self.source = source
        self._run = run

    def forward(self, frames: Tensor | Mapping[str, Tensor]) -> Tensor:
        """uint8 (N, T, H, W, 3), or a mapping of several such inputs -> logits float32 (N, K) on the CPU.

        Raises:
            ConfigError: clips of another shape than the file was exported for.
        """
        given = frames if isinstance(frames, Mapping) else {self.inputs[0]: frames}
        for name, shape in self.shapes.items():
            if (got := tuple(given[name].shape[1:])) != shape:
                raise ConfigError(
                    f"{self.source}: takes {name} of {shape[0]} frames of {shape[1]} x {shape[2]}, got {got[0]} of "
                    f"{got[1]} x {got[2]}: export the checkpoint again with that clip"
                )
        return torch.from_numpy(self._run({name: given[name].cpu().contiguous().numpy() for name in self.inputs}))


def check_has_layers(model: nn.Module) -> None:
    """Raise ConfigError for an exported file, whose layers and gradients nobody can ask for."""
    if isinstance(model, ExportedNetwork):
        raise ConfigError(f"{model.source}: an ONNX file has no layers to look into: take the checkpoint")


def required(module: str, what: str, extra: str) -> Any:
    """A module of an optional package.

    Raises:
        ConfigError: it is not there. what: that requires it. extra: of vidtrain, that brings it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise ConfigError(f"{what} requires {name} ({error}): pip install 'vidtrain[{extra}]'") from None
