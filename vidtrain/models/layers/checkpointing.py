"""Activation checkpointing (Chen et al. 2016): blocks forget what they computed and compute it again for the gradient.

Memory for time: a step takes about a third longer and keeps only the inputs of the blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from vidtrain.errors import ConfigError


def checkpoint_activations(model: nn.Module) -> int:
    """Make every block of `model` recompute its activations in the backward pass. Returns how many there are.

    Blocks are those of `repeated_blocks`. Parameters, keys and results stay as they are: the
    recomputation leaves the statistics of BatchNorm alone and draws the same dropout.

    Raises:
        ConfigError: the model has no such block.
    """
    blocks = list(repeated_blocks(model))
    for block in blocks:
        block.forward = partial(_recomputed, block, block.forward)
    if not blocks:
        raise ConfigError(
            "trainer.checkpoint_activations: this model has no repeated blocks to checkpoint; set it to false"
        )
    return len(blocks)


def repeated_blocks(module: nn.Module, *, in_list: bool = False) -> Iterator[nn.Module]:
    """Modules inside an nn.Sequential or nn.ModuleList that hold two or more convolutions or linear layers, the
    outermost ones of that kind that are not themselves lists."""
    is_list = isinstance(module, (nn.Sequential, nn.ModuleList)) or getattr(module, "holds_blocks", False)
    if in_list and not is_list and _layers(module) >= 2:
        yield module
        return
    for child in module.children():
        yield from repeated_blocks(child, in_list=is_list)


def _layers(module: nn.Module) -> int:
    return sum(isinstance(part, (nn.modules.conv._ConvNd, nn.Linear)) for part in module.modules())


def _recomputed(block: nn.Module, forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not (block.training and torch.is_grad_enabled()):
        return forward(*args, **kwargs)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_kept(block)

    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """BatchNorm has counted this batch already, in the forward pass."""
    norms = [part for part in block.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
