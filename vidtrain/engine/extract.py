"""Running a frozen network over clips for what it makes of them, not for its verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from vidtrain.engine.preprocess import ModelRunner
from vidtrain.errors import ConfigError

_MIXED = 0.05
"""By how much, relative to the features, a clip may depend on its batch: bf16 alone makes about a tenth of that."""


class Clips(Protocol):
    """views: uint8 (N, T, H, W, 3), N may be 0."""

    @property
    def views(self) -> Tensor: ...

    def __len__(self) -> int: ...


_Clips = TypeVar("_Clips", bound=Clips)


def encode(network: ModelRunner, batches: Iterable[_Clips], dtype: torch.dtype) -> Iterator[tuple[_Clips, Tensor]]:
    """Each batch with its features (N, D) of `dtype` on the CPU; leaves the network in eval mode.

    Args:
        network: (N, 3, T, H, W) -> (N, D).

    Raises:
        ConfigError: a number does not fit into dtype, or a clip's features depend on the other clips of the batch.
    """

    def run(clips: Tensor) -> Tensor:
        found: Tensor = network({"rgb": clips})
        return found

    network.model.eval()
    checked = False
    for batch in batches:
        if not len(batch):
            yield batch, torch.empty(0, 0, dtype=dtype)
            continue
        with torch.inference_mode():
            x = network.ready({"rgb": batch.views})["rgb"]
            features = run(x).float()
            if not checked and len(x) > 1:
                _check_alone(run, x, features)
                checked = True
            found = features.to(dtype).cpu()
        if not found.isfinite().all():
            what = "are not finite" if not features.isfinite().all() else f"are beyond {dtype}: give dtype=float32"
            raise ConfigError(f"features {what} (largest: {features.abs().max().item():g})")
        yield batch, found


def _check_alone(run: Callable[[Tensor], Tensor], x: Tensor, together: Tensor) -> None:
    """A layer may lay out its batch in a way that cannot be seen from its shape: its clips would be mixed up."""
    alone = torch.cat([run(x[:1]), run(x[-1:])]).float()
    both = together[[0, -1]]
    if (alone - both).norm() > _MIXED * both.norm():
        raise ConfigError(
            "this layer's output for a clip depends on the other clips of its batch: choose another layer"
        )


class ViewFeatures:
    """Keeps what a network finds in each view, where a task would keep its verdict: see tasks.task.Predicts."""

    def predict(self, network: Callable[[Mapping[str, Any]], Any], inputs: Mapping[str, Any]) -> Tensor:
        features: Tensor = network(inputs)
        return features.float()

    def columns(self, views: Tensor, targets: Tensor, average: str) -> dict[str, Tensor]:
        return {"features": views}
