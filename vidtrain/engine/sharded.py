"""Checkpoints of a model whose weights are spread over several processes (FSDP2): each writes its part.

Written by torch.distributed.checkpoint, which puts the parts together again for any number of processes.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from vidtrain.engine.distributed import World
from vidtrain.engine.ema import EMA
from vidtrain.errors import CheckpointError

SUFFIX = ".shards"


def full_weights(model: nn.Module) -> dict[str, Any]:
    """All weights on the CPU of the main process; nothing in the others. To be called by all."""
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def save_shards(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, ema: EMA | None, world: World
) -> None:
    """Write `folder`, complete or not at all. To be called by all."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    if world.is_main:
        shutil.rmtree(temporary, ignore_errors=True)
    world.any(True)
    problem = ""
    try:
        _quietly(dcp.save, _state(model, optimizer, ema), checkpoint_id=temporary)
    except Exception as error:  # torch wraps what went wrong in any process
        problem = str(error).strip().splitlines()[-1]
    problem = next((text for text in world.gather(problem) if text), "")
    if problem:
        raise CheckpointError(f"cannot write {folder}: {problem}")
    if world.is_main:
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    world.any(True)


def load_shards(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, ema: EMA | None) -> None:
    """Read what `save_shards` wrote, with this or another number of processes. To be called by all."""
    state = _state(model, optimizer, ema)
    try:
        _quietly(dcp.load, state, checkpoint_id=folder)
    except Exception as error:
        raise CheckpointError(f"{folder}: cannot be read: {str(error).strip().splitlines()[-1]}") from error
    set_model_state_dict(model, state["model"])
    set_optimizer_state_dict(model, optimizer, state["optimizer"])


def _state(model: nn.Module, optimizer: torch.optim.Optimizer, ema: EMA | None) -> dict[str, Any]:
    state: dict[str, Any] = {
        "model": get_model_state_dict(model),
        "optimizer": get_optimizer_state_dict(model, optimizer),
    }
    if ema is not None:
        state["average"] = ema.state_dict()["average"]  # read in place
    return state


def _quietly(call: Any, *args: Any, **kwargs: Any) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        call(*args, **kwargs)
