"""Shapes that come of shapes, on the meta device, where tensors have no values.

PyTorch's own functions for that are written in Python and import its compiler at the first call: two seconds of
processor time. The rules here do for the operators of nearly all networks; what has none, is unusual or does not fit is
left to PyTorch, which raises its own errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

_Shape = Sequence[int]


def run_on_meta(func: Any, args: Any, kwargs: Any) -> Any:
    """What an operator gives for tensors without values, on the meta device."""
    out = _by_rule(func, args, kwargs)
    return func(*args, **kwargs) if out is None else out


def _by_rule(func: Any, args: Any, kwargs: Any) -> Any:
    """None where there is no rule."""
    name = func._schema.name.removeprefix("aten::")
    if name == "arange":
        made = func(*args, **kwargs | {"device": "cpu"})
        return made.to("meta") if kwargs.get("device") == torch.device("meta") else None
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if not tensors or not all(tensor.is_meta for tensor in tensors if tensor.ndim):
        return None
    if torch.Tag.pointwise in func.tags:
        return _pointwise(func, args, kwargs, [tensor.shape for tensor in tensors])
    usual = {"pin_memory": False, "dtype": tensors[0].dtype}
    if name not in _RULES or kwargs.items() - usual.items() or not all(x.is_floating_point() for x in tensors):
        return None
    return _RULES[name](*args)


def _pointwise(func: Any, args: Any, kwargs: Any, shapes: Sequence[torch.Size]) -> Tensor | None:
    """Of the type that comes of single values."""
    try:
        shape = np.broadcast_shapes(*shapes)  # PyTorch's own is one of those functions
    except ValueError:
        return None
    if func._schema.is_mutable:
        return args[0] if tuple(args[0].shape) == shape else None
    args, kwargs = tree_map_only(Tensor, lambda x: torch.ones((1,) * x.ndim, dtype=x.dtype), (args, kwargs))
    return torch.empty(shape, dtype=func(*args, **kwargs).dtype, device="meta")


def _same(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


def _product(a: Tensor, b: Tensor) -> Tensor | None:
    """(..., M, K), (..., K, N) -> (..., M, N)."""
    fits = a.ndim == b.ndim and a.shape[:-2] == b.shape[:-2] and a.shape[-1] == b.shape[-2]
    return a.new_empty((*a.shape[:-1], b.shape[-1])) if fits else None


def _convolution(x: Tensor, weight: Tensor, _: Any, *how: Any) -> Tensor | None:
    stride, padding, dilation, transposed, _, groups = how
    if transposed or x.ndim != weight.ndim or x.shape[1] != weight.shape[1] * groups:
        return None
    windows = [far * (n - 1) + 1 for n, far in zip(weight.shape[2:], _each(dilation, weight.ndim - 2), strict=True)]
    return _slid(x, len(weight), windows, stride, padding)


def _slid(
    x: Tensor, channels: int, windows: _Shape, stride: _Shape, padding: _Shape, *, ceil: bool = False
) -> Tensor | None:
    """(N, C, extents...) -> (N, channels, positions of a window...); None where it does not fit once, or N is missing.

    ceil: a window may reach over the end, where it begins before it.
    """
    dims = len(windows)
    if x.ndim != dims + 2:
        return None
    extents = zip(x.shape[2:], windows, _each(stride, dims), _each(padding, dims), strict=True)
    positions = []
    for n, window, step, pad in extents:
        rest = n + 2 * pad - window
        more = ceil and rest % step > 0 and (rest // step + 1) * step < n + pad
        positions.append(rest // step + 1 + more)
    return x.new_empty((len(x), channels, *positions)) if min(positions) > 0 else None


def _each(numbers: _Shape, dims: int) -> _Shape:
    return [*numbers] * dims if len(numbers) == 1 else numbers


def _averaged(x: Tensor, window: _Shape, stride: _Shape = (), padding: _Shape = (0,), *how: Any) -> Tensor | None:
    """how: ceil_mode, and what changes no shape."""
    if any(n < w for n, w in zip(x.shape[-len(window) :], window, strict=True)):  # wrong in 3D, whatever the padding
        return None
    return _slid(x, x.shape[1], window, stride or window, padding, ceil=any(how[:1]))


def _largest(x: Tensor, window: _Shape, *how: Any) -> tuple[Tensor, Tensor] | None:
    """how: stride, padding, dilation, ceil_mode."""
    usual: tuple[Any, ...] = ((), (0,), (1,), False)
    stride, padding, dilation, ceil = how + usual[len(how) :]
    if set(dilation) != {1} or any(pad > w // 2 for w, pad in zip(window, _each(padding, len(window)), strict=True)):
        return None
    out = _slid(x, x.shape[1], window, stride or window, padding, ceil=ceil)
    return None if out is None else (out, torch.empty(out.shape, dtype=torch.int64, device="meta"))


def _reduced(x: Tensor, dims: _Shape | None = None, keepdim: bool = False) -> Tensor:
    gone = {dim % max(1, x.ndim) for dim in dims or range(x.ndim)}
    return x.new_empty([1 if dim in gone else n for dim, n in enumerate(x.shape) if keepdim or dim not in gone])


def _joined(tensors: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    first = tensors[0]
    rest = {(*x.shape[: dim % first.ndim], *x.shape[dim % first.ndim + 1 :]) for x in tensors}
    if len(rest) > 1 or len({x.ndim for x in tensors}) > 1:
        return None
    shape = list(first.shape)
    shape[dim] = sum(x.shape[dim] for x in tensors)
    return first.new_empty(shape)


def _stacked(tensors: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    shapes = {tuple(x.shape) for x in tensors}
    if len(shapes) > 1:
        return None
    shape = list(shapes.pop())
    shape.insert(dim % (len(shape) + 1), len(tensors))
    return tensors[0].new_empty(shape)


def _layer_norm(x: Tensor, over: _Shape, *_: Any) -> tuple[Tensor, Tensor, Tensor] | None:
    if [*x.shape[-len(over) :]] != [*over]:
        return None
    statistics = x.new_empty((*x.shape[: -len(over)], *[1] * len(over)))
    return _same(x), statistics, statistics


def _repeated(x: Tensor, times: _Shape) -> Tensor:
    shape = (*[1] * (len(times) - x.ndim), *x.shape)
    return x.new_empty([math.prod(pair) for pair in zip(shape, times, strict=True)])


_RULES: Final[dict[str, Callable[..., Any]]] = {
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax", "cumsum", "roll", "zeros_like", "hardswish"), _same),
    **dict.fromkeys(("mean", "sum", "amax", "logsumexp"), _reduced),
    **dict.fromkeys(("mm", "bmm"), _product),
    "addmm": lambda _, a, b: _product(a, b),
    "convolution": _convolution,
    **dict.fromkeys(("max_pool2d_with_indices", "max_pool3d_with_indices"), _largest),
    **dict.fromkeys(("avg_pool2d", "avg_pool3d"), _averaged),
    "native_layer_norm": _layer_norm,
    "cat": _joined,
    "stack": _stacked,
    "repeat": _repeated,
}
"""By operator, of its positional arguments."""
