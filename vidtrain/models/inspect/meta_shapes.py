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
        if kwargs.get("device") != torch.device("meta"):
            return None
        return func(*args, **kwargs | {"device": "cpu"}).to("meta")
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    # single numbers on the CPU have values: PyTorch computes with them where no other operand is on meta
    if not any(x.is_meta for x in tensors) or not all(x.is_meta for x in tensors if x.ndim):
        return None
    if torch.Tag.pointwise in func.tags:
        return _pointwise(func, args, kwargs, [tensor.shape for tensor in tensors])
    usual = {"pin_memory": False, "dtype": tensors[0].dtype}
    if name not in _RULES or kwargs.items() - usual.items():
        return None
    plain = all(x.numel() and x.is_floating_point() for x in tensors)
    return _RULES[name](*args) if plain and len({x.dtype for x in tensors}) == 1 else None


def _pointwise(func: Any, args: Any, kwargs: Any, shapes: Sequence[torch.Size]) -> Tensor | None:
    """Of the type, and in the order in memory, that comes of tensors of a few values."""
    try:
        shape = np.broadcast_shapes(*shapes)  # PyTorch's own is one of those functions
        few = func(*tree_map_only(Tensor, _few, args), **tree_map_only(Tensor, _few, kwargs))
    except (ValueError, RuntimeError):
        return None
    if func._schema.is_mutable:
        return args[0] if tuple(args[0].shape) == shape else None
    if not isinstance(few, Tensor):
        return None
    return torch.empty_permuted(shape, _order(few), dtype=few.dtype, device="meta")


def _few(x: Tensor) -> Tensor:
    """On the CPU, no longer than 2 in any dimension, in memory in the order of `x`."""
    order = _order(x)
    sides = [min(n, 2) for n in x.shape]
    stored = [sides[dim] if x.stride(dim) else min(sides[dim], 1) for dim in order]
    few = torch.ones(stored, dtype=x.dtype).permute([order.index(dim) for dim in range(x.ndim)])
    return few.expand(sides)


def _order(x: Tensor) -> list[int]:
    """The dimensions from the one with the longest step in memory to that with the shortest."""
    return sorted(range(x.ndim), key=x.stride, reverse=True)


def _is_channels_last(x: Tensor) -> bool:
    """Some operators keep that."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.ndim in formats and x.is_contiguous(memory_format=formats[x.ndim]) and not x.is_contiguous()


def _same(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


def _along(x: Tensor, dims: int | _Shape, *_: Any) -> Tensor | None:
    return None if _dims(x.ndim, [dims] if isinstance(dims, int) else dims) is None else _same(x)


def _dims(ndim: int, dims: _Shape) -> list[int] | None:
    """Without negative ones; None where one is out of range or there twice."""
    fits = all(-ndim <= dim < ndim for dim in dims)
    found = [dim % ndim for dim in dims] if fits else []
    return found if fits and len({*found}) == len(found) else None


def _product(a: Tensor, b: Tensor) -> Tensor | None:
    """(..., M, K), (..., K, N) -> (..., M, N)."""
    fits = a.ndim == b.ndim and a.shape[:-2] == b.shape[:-2] and a.shape[-1] == b.shape[-2]
    return a.new_empty((*a.shape[:-1], b.shape[-1])) if fits else None


def _product_and(bias: Tensor, a: Tensor, b: Tensor) -> Tensor | None:
    """A bias that is broadcast is added."""
    out = _product(a, b)
    if out is None or bias.ndim > out.ndim:
        return None
    ends = out.shape[out.ndim - bias.ndim :]
    return out if all(n in (1, end) for n, end in zip(bias.shape, ends, strict=True)) else None


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


def _pads(window: _Shape, padding: _Shape) -> bool:
    """Whether a pool allows it."""
    return all(0 <= pad <= w // 2 for w, pad in zip(window, _each(padding, len(window)), strict=True))


def _averaged(x: Tensor, window: _Shape, stride: _Shape = (), padding: _Shape = (0,), *how: Any) -> Tensor | None:
    """how: ceil_mode, and what changes no shape."""
    if any(n < w for n, w in zip(x.shape[-len(window) :], window, strict=True)):  # wrong in 3D, whatever the padding
        return None
    if not _pads(window, padding):
        return None
    return _slid(x, x.shape[1], window, stride or window, padding, ceil=any(how[:1]))


def _largest(x: Tensor, window: _Shape, *how: Any) -> tuple[Tensor, Tensor] | None:
    """how: stride, padding, dilation, ceil_mode."""
    usual: tuple[Any, ...] = ((), (0,), (1,), False)
    stride, padding, dilation, ceil = how + usual[len(how) :]
    if set(dilation) != {1} or not _pads(window, padding) or _is_channels_last(x):
        return None
    out = _slid(x, x.shape[1], window, stride or window, padding, ceil=ceil)
    return None if out is None else (out, torch.empty(out.shape, dtype=torch.int64, device="meta"))


def _reduced(x: Tensor, dims: _Shape | None = None, keepdim: bool = False) -> Tensor | None:
    gone = [*range(x.ndim)] if dims is None else _dims(x.ndim, dims)
    if gone is None or dims == []:  # not the same for all of them
        return None
    return x.new_empty([1 if dim in gone else n for dim, n in enumerate(x.shape) if keepdim or dim not in gone])


def _joined(tensors: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    first = tensors[0]
    rest = {(*x.shape[: dim % first.ndim], *x.shape[dim % first.ndim + 1 :]) for x in tensors}
    if len(rest) > 1 or len({x.ndim for x in tensors}) > 1 or any(map(_is_channels_last, tensors)):
        return None
    shape = list(first.shape)
    shape[dim] = sum(x.shape[dim] for x in tensors)
    return first.new_empty(shape)


def _stacked(tensors: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    at, shapes = _dims(tensors[0].ndim + 1, [dim]), {tuple(x.shape) for x in tensors}
    if at is None or len(shapes) > 1:
        return None
    shape = list(shapes.pop())
    shape.insert(at[0], len(tensors))
    return tensors[0].new_empty(shape)


def _layer_norm(
    x: Tensor, over: _Shape, weight: Tensor | None, bias: Tensor | None, _: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    shapes = [x.shape[-len(over) :], *(learned.shape for learned in (weight, bias) if learned is not None)]
    if any([*shape] != [*over] for shape in shapes):
        return None
    statistics = x.new_empty((*x.shape[: -len(over)], *[1] * len(over)))
    return _same(x), statistics, statistics


def _repeated(x: Tensor, times: _Shape) -> Tensor:
    shape = (*[1] * (len(times) - x.ndim), *x.shape)
    return x.new_empty([math.prod(pair) for pair in zip(shape, times, strict=True)])


_RULES: Final[dict[str, Callable[..., Any]]] = {
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax"), _same),
    **dict.fromkeys(("zeros_like", "hardswish"), torch.empty_like),
    "cumsum": _along,
    "roll": lambda x, shifts, dims=(): _along(x, dims) if len(shifts) == max(1, len(dims)) else None,
    **dict.fromkeys(("mean", "sum", "amax", "logsumexp"), _reduced),
    **dict.fromkeys(("mm", "bmm"), _product),
    "addmm": _product_and,
    "convolution": _convolution,
    **dict.fromkeys(("max_pool2d_with_indices", "max_pool3d_with_indices"), _largest),
    **dict.fromkeys(("avg_pool2d", "avg_pool3d"), _averaged),
    "native_layer_norm": _layer_norm,
    "cat": _joined,
    "stack": _stacked,
    "repeat": _repeated,
}
"""By operator, of its positional arguments."""
