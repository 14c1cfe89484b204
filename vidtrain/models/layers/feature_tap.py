"""What any network, as it stands, finds in a clip: one vector, or the tokens of a layer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from vidtrain.errors import ConfigError, did_you_mean, one_of
from vidtrain.models.layers.layer_outputs import channels_second, first_tensor

LAYERS = ("features", "embed")
"""What models offer by themselves; every other layer is named by its module."""


class FeatureTap(nn.Module):
    """(N, 3, T, H, W) -> (N, D): a layer of `model`, averaged over the space and time that are left.

    tokens: (N, P, D) instead: nothing is averaged, the P positions stand in the layer's own order, frame by frame.

    Args:
        layer: features (what the head classifies), embed (c3d's fc6), or the name of a module, such as "layer3" or
            "net.5", whose output is taken; a module that runs several times in a pass gives their mean.
            None: embed where the model has it, else features.

    Raises:
        ConfigError: the model has no such layer.
    """

    def __init__(self, model: nn.Module, layer: str | None = None, *, tokens: bool = False) -> None:
        super().__init__()
        self.model = model
        own = {"features": "forward_features", "embed": "embed"}
        offered = [name for name, method in own.items() if callable(getattr(model, method, None))]
        if layer is None:
            layer = "embed" if "embed" in offered else "features"
        modules = dict(model.named_modules())
        if layer not in offered and (layer not in modules or not layer):
            allowed = [*offered, *(name for name in modules if name)]
            hint = did_you_mean(layer, allowed)
            raise ConfigError(f"layer={layer}: {type(model).__name__} has none{hint}; it has: {one_of(allowed, 40)}")
        self.layer = layer
        self.tokens = tokens

    def forward(self, x: torch.Tensor | Mapping[str, torch.Tensor]) -> torch.Tensor:
        """x: what the model is called with, a clip or a dict of several inputs."""
        if self.layer == "features":
            return self._read(self.model.forward_features(x), _clips(x))  # type: ignore[operator]
        if self.layer == "embed":
            return self._read(self.model.embed(x), _clips(x))  # type: ignore[operator]
        return self._hooked(x, _clips(x))

    def _hooked(self, x: torch.Tensor | Mapping[str, torch.Tensor], clips: int) -> torch.Tensor:
        found: list[torch.Tensor] = []

        def keep(module: nn.Module, _: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is not None and tensor.is_floating_point():
                read = self._read(channels_second(module, tensor), clips)
                found.append(read.clone() if self.tokens else read)  # a layer after it may work in place

        # for this call only: a copy of this module then has no hook that writes here
        handle = self.model.get_submodule(self.layer).register_forward_hook(keep)
        try:
            self.model(x)
        finally:
            handle.remove()
        if not found:
            raise ConfigError(f"layer={self.layer}: it gives nothing when {type(self.model).__name__} is run")
        if len({part.shape for part in found}) > 1:
            shapes = ", ".join(str(tuple(part.shape)) for part in found)
            raise ConfigError(
                f"layer={self.layer}: it runs several times, with tokens of {shapes}: choose another layer"
            )
        return found[0] if len(found) == 1 else torch.stack(found).mean(0)

    def _read(self, output: torch.Tensor, clips: int) -> torch.Tensor:
        return _tokens(output, clips) if self.tokens else _vectors(output, clips)


_Own = TypeVar("_Own", bound="OnFrozenNetwork")


class OnFrozenNetwork(nn.Module):
    """A model that reads what a layer of a frozen network makes of clips, or features that are the data."""

    network: FeatureTap | None

    def freeze(self, network: FeatureTap | None) -> None:
        """Take the network that is run over the clips; None where features are the data."""
        self.network = network
        if network is not None:
            network.eval().requires_grad_(False)

    @property
    def frozen_network(self) -> nn.Module | None:
        """The network that is run over the clips, whole; None where features are the data."""
        return None if self.network is None else self.network.model

    def train(self: _Own, mode: bool = True) -> _Own:
        super().train(mode)
        if self.network is not None:
            self.network.eval()
        return self


def last_positions(model: nn.Module, x: torch.Tensor | Mapping[str, torch.Tensor]) -> str:
    """The name of the last layer, of those that run once, that gives several positions per clip, with more than one
    channel: what a head with attention can read. Runs the model on x, once.

    Raises:
        ConfigError: there is none.
    """
    runs: dict[str, list[torch.Tensor]] = {}

    def note(name: str, module: nn.Module, _: Any, output: Any) -> None:
        tensor = first_tensor(output)
        if tensor is not None:
            runs.setdefault(name, []).append(tensor)

    handles = [m.register_forward_hook(partial(note, name)) for name, m in model.named_modules() if name]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    once = {name: outputs[0] for name, outputs in runs.items() if len(outputs) == 1}
    several = [name for name, tensor in once.items() if _has_positions(model.get_submodule(name), tensor, _clips(x))]
    if not several:
        raise ConfigError(f"{type(model).__name__} has no layer with several positions per clip: take pooling=mean")
    # a container gives what its last part gives, whose type says how it is laid out
    same = [name for name in several if once[name] is once[several[-1]]]
    parts = [name for name in same if not any(model.get_submodule(name).children())]
    return parts[-1] if parts else same[0]


def _has_positions(module: nn.Module, output: torch.Tensor, clips: int) -> bool:
    output = channels_second(module, output)
    if output.ndim < 3 or len(output) % clips:
        return False
    return output.shape[1] > 1 and len(output) // clips * output[0, 0].numel() > 1


def _clips(x: torch.Tensor | Mapping[str, torch.Tensor]) -> int:
    return len(x if isinstance(x, torch.Tensor) else next(iter(x.values())))


def _tokens(output: torch.Tensor, clips: int) -> torch.Tensor:
    """As `_vectors`, without the mean: (clips, P, D), P = frames in the batch x positions."""
    if output.ndim < 3 and len(output) == clips:
        raise ConfigError("tokens=true: this layer gives one vector per clip: name one before the mean by layer=...")
    tokens = output.float().flatten(2).transpose(1, 2) if output.ndim > 2 else output.float()[:, None]
    if len(tokens) % clips:
        raise ConfigError(f"a layer that gives {tuple(output.shape)} for {clips} clips has no tokens per clip")
    return tokens.unflatten(0, (clips, -1)).flatten(1, 2)


def _vectors(output: torch.Tensor, clips: int) -> torch.Tensor:
    """(N, D, ...) -> (clips, D), float32 or float64; with frames in the batch N = clips x frames, clip by clip."""
    output = output if output.dtype == torch.float64 else output.float()  # bf16 would round sums
    if output.ndim < 2 or len(output) % clips:
        raise ConfigError(f"a layer that gives {tuple(output.shape)} for {clips} clips has no vector per clip")
    vectors = output.flatten(2).mean(2) if output.ndim > 2 else output
    return vectors if len(output) == clips else vectors.unflatten(0, (clips, -1)).mean(1)
