"""The running statistics of BatchNorm: kept from what is not finite, and measured again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_T = TypeVar("_T")


class NormStatistics:
    """Undoes what a batch that is not finite has done to the running means and variances."""

    def __init__(self, model: nn.Module) -> None:
        self._live = [
            buffer
            for norm in _norms(model)
            for buffer in (norm.running_mean, norm.running_var)
            if isinstance(buffer, Tensor)
        ]
        self._kept = [buffer.clone() for buffer in self._live]

    def remember(self) -> None:
        if self._live:
            torch._foreach_copy_(self._kept, self._live)

    @torch.no_grad()
    def restore_if(self, condition: Tensor) -> None:
        """condition: bool (). On a GPU nothing waits for its value."""
        if condition.device.type == "cpu" and not condition:
            return
        for live, kept in zip(self._live, self._kept, strict=True):
            live.copy_(torch.where(condition, kept, live))


@contextmanager
def kept_statistics(model: nn.Module) -> Iterator[None]:
    """Whatever is measured inside, BatchNorm's statistics are as before afterwards."""
    kept = [(buffer, buffer.clone()) for norm in _norms(model) for buffer in norm.buffers()]
    try:
        yield
    finally:
        for buffer, before in kept:
            buffer.copy_(before)


@torch.no_grad()
def measure_statistics(model: nn.Module, batches: Iterable[_T], call: Callable[[_T], object]) -> int:
    """Precise BatchNorm (Wu and Johnson 2021): the plain mean over `batches` in place of the moving average.

    The weights stay as they are, and all other layers are in eval mode. Returns the number of batches that were seen.

    Args:
        call: runs the model on a batch.
    """
    norms = list(_norms(model))
    if not norms:
        return 0
    seen = 0
    with _averaging(model, norms):
        for batch in batches:
            call(batch)
            seen += 1
    return seen


def _norms(model: nn.Module) -> Iterator[_BatchNorm]:
    return (part for part in model.modules() if isinstance(part, _BatchNorm) and part.track_running_stats)


@contextmanager
def _averaging(model: nn.Module, norms: list[_BatchNorm]) -> Iterator[None]:
    """Only the norms in training mode, and counting from none on, every batch with the same weight."""
    training = {part: part.training for part in model.modules()}
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        if training[norm]:  # a frozen part keeps what it has
            norm.train()
            norm.reset_running_stats()
            norm.momentum = None
    try:
        yield
    finally:
        for part, before in training.items():
            part.training = before
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
