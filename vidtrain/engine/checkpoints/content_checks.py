"""Whether what was read from a checkpoint is what a checkpoint holds, before anything relies on it."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from vidtrain import torch_files
from vidtrain.errors import CheckpointError, VidtrainError
from vidtrain.untrusted_data import check_plain

_SHARDS = re.compile(r"last\.\d+\.shards")  # a name, never a path
_SPARE_BYTES = 1 << 26
_FILLS = (torch.Tensor.normal_, nn.init.normal_, nn.init.trunc_normal_)
_STATE_OF = {
    torch.optim.SGD: ("momentum_buffer",),
    torch.optim.Adam: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"),
}


class Average(Protocol):
    """What a checkpoint keeps of an average of the weights."""

    updates: int

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def check_content(content: dict[str, Any]) -> None:
    """The parts that every reader of a checkpoint relies on. Raises ValueError."""
    if type(content["format"]) is not int:
        raise ValueError("its format is no number")
    if type(content["config"]) is not dict:
        raise ValueError("its config is no mapping")
    check_plain(content["config"], "config")
    check_plain(content.get("calibration"), "calibration")
    done = content.get("progress", {"update": 0, "epoch": 0})
    if type(done) is not dict or not all(
        type(done.get(k)) is int and 0 <= done[k] < 1 << 53 for k in ("update", "epoch")
    ):
        raise ValueError("its progress holds no update and epoch")
    weights, shards = content["model"], content.get("sharded")
    if type(weights) not in (dict, OrderedDict):
        raise ValueError("its model is no mapping of names to tensors")
    if not all(type(key) is str and isinstance(tensor, torch.Tensor) for key, tensor in weights.items()):
        raise ValueError("its model holds something else than named tensors")
    if shards is not None and not (isinstance(shards, str) and _SHARDS.fullmatch(shards)):
        raise ValueError("its sharded is no name of a folder of shards")


class _Unfilled(TorchFunctionMode):
    """nn.init leaves tensors as they are. On the meta device there is nothing to fill, and that normal_ is written in
    Python there costs the import of torch._dynamo, which takes as long as that of torch."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


@contextmanager
def on_meta() -> Iterator[None]:
    """Modules made in here are on the meta device: shapes without numbers."""
    with torch.device("meta"), _Unfilled():
        yield


def check_size(build: Callable[[], nn.Module], weights: dict[str, torch.Tensor], source: str) -> None:
    """Refuse a model that takes far more memory than the weights that are there for it, before it takes any.

    A billion channels fit a short file. The model is built once on the meta device, where it costs no memory, and
    given up when it has registered far more parts than the file has tensors.

    Raises:
        CheckpointError: such a model.
    """
    most = 100 * len(weights) + 10_000

    def count(module: nn.Module, name: str, part: Any) -> None:
        nonlocal most
        most -= 1
        if most < 0:
            raise CheckpointError(f"{source}: its model has far more layers than the file has weights for")

    hooks = [register_module_parameter_registration_hook(count), register_module_module_registration_hook(count)]
    try:
        with on_meta():
            model = build()
    finally:
        for hook in hooks:
            hook.remove()
    needed = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    held = torch_files.bytes_held(weights.values())
    if needed > 4 * held + _SPARE_BYTES:
        raise CheckpointError(f"{source}: its model takes {needed >> 20} MiB, its weights are {held >> 20} MiB")


def check_optimizer(optimizer: torch.optim.Optimizer, usual: list[dict[str, type]]) -> None:
    """Raise ValueError for settings of other types than the optimizer's own, or a state that does not fit the weights.

    Args:
        usual: for each group of its weights, the types of its settings.
    """
    numbers = (int, float)
    for group, types in zip(optimizer.param_groups, usual, strict=True):
        for key, kind in types.items():
            value = group[key]
            same = isinstance(value, kind) or (kind in numbers and type(value) in numbers)
            if not same and value is not None and kind is not type(None):
                raise ValueError(f"the optimizer's {key} is {type(value).__name__}, expected {kind.__name__}")
        needed = {*_STATE_OF.get(type(optimizer), ())}
        for weight in group["params"]:
            state = optimizer.state.get(weight, {})
            if state and not needed <= state.keys():
                raise ValueError(f"the optimizer's state holds {', '.join(map(str, state))[:100]}")
            for value in state.values():
                if isinstance(value, torch.Tensor) and value.numel() > 1 and value.shape != weight.shape:
                    raise ValueError("the optimizer's state has other shapes than the weights")


def rng_state(device: torch.device) -> dict[str, Any]:
    """State of torch's generators, which dropout and random frames draw from."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_rng(state: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


@contextmanager
def restoring(file: Path) -> Iterator[None]:
    """Errors in here are the file's: of another model or optimizer, or by a stranger."""
    try:
        yield
    except VidtrainError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{file}: this training cannot go on from it: {type(error).__name__}: {reason}"
        ) from error
