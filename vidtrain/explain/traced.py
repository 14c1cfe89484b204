"""The outputs of a network's layers as maps of the clip: which of them have positions, which the class depends on."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from vidtrain.errors import ConfigError, did_you_mean, one_of
from vidtrain.explain.score import ClassScore, Inputs, clip_shape
from vidtrain.models.layers.layer_outputs import channels_second, first_tensor

Grid = tuple[int, int, int]
OTHER_TOKENS = 5
"""Tokens before those of the patches, at most: a class token and four registers."""
_ATTENTION = ("SoftmaxBackward", "ScaledDotProduct")
_SIDE = 4
"""Positions of a side that a map should have: fewer show where in the clip something is too coarsely."""


@dataclass
class LayerOutput:
    """What a layer gave for a clip, call by call. Frames may be its batch, or come one per call."""

    name: str
    module: nn.Module
    calls: list[Tensor] = field(default_factory=list)

    def grid(self, clip: Grid, patches: Grid | None) -> Grid | None:
        """The positions (T', H', W') that it has; None: it has none. patches: of the net's first layer."""
        maps = self.as_map(self.calls, clip, patches)
        return None if maps is None else (maps.shape[1], maps.shape[2], maps.shape[3])

    def as_map(self, calls: list[Tensor], clip: Grid, patches: Grid | None) -> Tensor | None:
        """Tensors in the shape of the layer's own, such as their gradients, as (C, T', H', W')."""
        if len({call.shape for call in calls}) > 1:
            return None
        parts = [_one_call(channels_second(self.module, call), clip, patches) for call in calls]
        found = [part for part in parts if part is not None]
        return torch.cat(found, 1) if len(found) == len(parts) else None


def _one_call(output: Tensor, clip: Grid, patches: Grid | None) -> Tensor | None:
    """(N, C, positions...) -> (C, T', H', W'), N being 1, or frames."""
    grid = output.shape[2:]
    if output.ndim == 5 and len(output) == 1:
        maps: Tensor | None = output[0]
    elif output.ndim == 4 and len(output) <= clip[0]:
        maps = output.transpose(0, 1)
    elif output.ndim == 3 and patches is not None:
        maps = _of_tokens(output, patches)
    else:
        return None
    fits = maps is not None and all(own <= whole for own, whole in zip(grid[-2:], clip[1:], strict=False))
    return maps if fits or output.ndim == 3 else None


def _of_tokens(tokens: Tensor, patches: Grid) -> Tensor | None:
    """(N, C, L) -> (C, T', H', W'): the last tokens of the L are those of the patches, or of each fourth of them, ...

    N is 1 and L those of the whole clip, or N is time steps and L those of each.
    """
    steps, height, width = patches
    per_frame = len(tokens) == steps and steps > 1
    if len(tokens) != 1 and not per_frame:
        return None
    for factor in (1, 2, 4, 8, 16):
        high, wide = -(-height // factor), -(-width // factor)
        count = high * wide * (1 if per_frame else steps)
        if count <= tokens.shape[2] <= count + OTHER_TOKENS:
            own = tokens[:, :, tokens.shape[2] - count :]
            if per_frame:
                return own.unflatten(2, (high, wide)).transpose(0, 1)
            return own[0].unflatten(1, (steps, high, wide))
    return None


class TracedPass:
    """One pass of a clip through a network, with what its layers gave and the gradient of a class's logit.

    Attributes:
        layers: those with weights, in the order in which they were last called. patches: (T', H', W') of the first of
            them that has positions, which a transformer's tokens stand for.
    """

    def __init__(self, score: ClassScore, inputs: Inputs) -> None:
        self.clip = clip_shape(inputs)
        self.layers: dict[str, LayerOutput] = {}
        self.patches: Grid | None = None
        names = {module: name for name, module in score.model.named_modules() if name}
        handles = [
            module.register_forward_hook(lambda module, _, output: self._keep(names[module], module, output))
            for module in names
            if next(module.parameters(), None) is not None
        ]
        # where the clip requires a gradient, layers whose weights are frozen pass one on, too
        self._inputs = {name: value.detach().requires_grad_() for name, value in inputs.items()}
        try:
            with torch.enable_grad(), recurrent_gradients(score.model):
                self.logit = score.logit(self._inputs)
        finally:
            for handle in handles:
                handle.remove()

    def _keep(self, name: str, module: nn.Module, output: object) -> None:
        tensor = first_tensor(output)
        if tensor is None or not tensor.is_floating_point():
            return
        known = self.layers.pop(name, None) or LayerOutput(name, module)
        known.calls.append(tensor)
        self.layers[name] = known
        if self.patches is None:
            self.patches = known.grid(self.clip, None)

    def gradient(self, layer: LayerOutput) -> list[Tensor] | None:
        """Of the logit by what the layer gave; None: it does not depend on it, or no gradient passes."""
        if not self.logit.requires_grad or not self._depends_on(layer):
            return None
        found = torch.autograd.grad(self.logit.sum(), layer.calls, retain_graph=True, allow_unused=True)
        return [torch.zeros_like(call) if g is None else g for g, call in zip(found, layer.calls, strict=True)]

    def named(self, name: str, model: nn.Module) -> LayerOutput:
        """The layer of this name; raises ConfigError where it has no map."""
        if name not in dict(model.named_modules()):
            has = [key for key, layer in self.layers.items() if layer.grid(self.clip, self.patches) is not None]
            raise ConfigError(
                f"layer={name}: {type(model).__name__} has none{did_you_mean(name, has)}; with maps: {one_of(has, 40)}"
            )
        if name not in self.layers or self.layers[name].grid(self.clip, self.patches) is None:
            raise ConfigError(f"layer={name}: its output has no positions in the clip: choose a layer before it")
        return self.layers[name]

    def last_maps(self, tower: str = "") -> Iterator[LayerOutput]:
        """Layers with maps, the preferred first. Those through which all of the clip reaches the class come before side
        branches, as gates and queries are; of these the later the better, if the map has four positions a side, and two
        in time before those that have one; where none has four, those with the most.

        tower: only parts of this module, one of several side by side.
        """
        found = []
        for number, (name, layer) in enumerate(self.layers.items()):
            grid = layer.grid(self.clip, self.patches) if _is_below(name, tower) else None
            if grid is not None and self._depends_on(layer):
                found.append(((min(*grid[1:], _SIDE), grid[0] > 1, number), layer))
        found.sort(key=lambda item: item[0], reverse=True)
        others = [call for name, layer in self.layers.items() if not _is_below(name, tower) for call in layer.calls]
        beside = others if tower else []
        side_branches = []
        for _, layer in found:
            if self._all_passes([*layer.calls, *beside]):
                yield layer
            else:
                side_branches.append(layer)
        yield from side_branches

    def maps_of_all(self) -> Iterator[LayerOutput]:
        """Layers with maps through which all of the clip reaches the class, the last first, each output once."""
        seen: set[int] = set()
        for layer in self.last_maps():
            if id(layer.calls[-1]) not in seen and self._all_passes(layer.calls):
                seen.add(id(layer.calls[-1]))
                yield layer

    def has_attention(self) -> bool:
        """Whether a softmax lies between the clip and the logit."""
        return any(node.name().startswith(_ATTENTION) for node in self._nodes_before(()))

    def _depends_on(self, layer: LayerOutput) -> bool:
        return all(call.requires_grad for call in layer.calls)

    def _all_passes(self, calls: list[Tensor]) -> bool:
        """Whether every way from the logit back to the clip leads through one of these outputs."""
        clips = list(self._inputs.values())
        nodes = self._nodes_before({call.grad_fn for call in calls})
        return not any(getattr(node, "variable", None) is clip for node in nodes for clip in clips)

    def _nodes_before(self, stops: Collection[Node | None]) -> Iterator[Node]:
        """What the logit was computed by, back to the clip or to one of `stops`, which are not among them."""
        seen = set(stops)
        waiting = [self.logit.grad_fn]
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            yield node
            waiting += [before for before, _ in node.next_functions]


def _is_below(name: str, module: str) -> bool:
    return not module or f"{name}.".startswith(f"{module}.")


@contextmanager
def recurrent_gradients(model: nn.Module) -> Iterator[None]:
    """cuDNN gives no gradient of an LSTM or a GRU in eval mode; PyTorch's own kernels do."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    with torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext():
        yield
