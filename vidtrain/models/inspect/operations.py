"""Multiply-adds of a pass on the meta device, where nothing is computed."""

from __future__ import annotations

from typing import Any

from torch.utils.flop_counter import flop_registry

from vidtrain.dispatch import DispatchMode
from vidtrain.models.inspect.meta_shapes import run_on_meta


class OperationCounter(DispatchMode):
    """While it is entered, operators on meta tensors are counted by the formulas of torch.utils.flop_counter.

    Attributes:
        macs: multiply-adds so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = run_on_meta(func, args, kwargs)
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self.macs += formula(*args, **kwargs, out_val=out) // 2
        return out
