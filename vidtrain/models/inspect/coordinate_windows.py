"""What operators with windows do to coordinates (see receptive_field.py): convolutions, pools, padding."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._pytree import tree_map_only

from vidtrain.models.inspect.meta_shapes import run_on_meta

NOTHING = float("-inf")


class UnknownOperatorError(Exception):
    """There is no rule for an operator, or not for this use of it."""


def is_spread(x: torch.Tensor) -> bool:
    """Some of its elements share memory."""
    return any(stride == 0 and extent > 1 for extent, stride in zip(x.shape, x.stride(), strict=True))


def lean(x: torch.Tensor, dims: Sequence[int] | None = None) -> torch.Tensor:
    """Cut each spread dimension (among `dims`) to one element."""
    for dim in range(x.ndim) if dims is None else dims:
        if x.stride(dim) == 0 and x.shape[dim] > 1:
            x = x.narrow(dim, 0, 1)
    return x


def meta_run(func: Any, *args: Any, **kwargs: Any) -> Any:
    """The operator's outputs without values, for their shapes."""
    args, kwargs = tree_map_only(torch.Tensor, lambda x: x.to("meta"), (args, kwargs))
    return run_on_meta(func, args, kwargs)


def constant_pad(func: Any, x: torch.Tensor, pad: Sequence[int], value: float = 0) -> torch.Tensor:
    padded = len(pad) // 2
    out = F.pad(lean(x, range(x.ndim - padded)), list(pad), value=NOTHING)
    return out.expand(*x.shape[: x.ndim - padded], *out.shape[x.ndim - padded :])


def _slide(x: torch.Tensor, dim: int, kernel: int, stride: int, pad: int, dilation: int, out: int) -> torch.Tensor:
    """Maximum over a sliding window along one dimension. A box is slid one axis after the other."""
    if (kernel, stride, pad) == (1, 1, 0):
        return x
    last = (out - 1) * stride + 1
    missing = max(0, last + (kernel - 1) * dilation - x.shape[dim] - pad)  # on the right; more than pad if ceil_mode
    x = F.pad(x, [0, 0] * (x.ndim - 1 - dim % x.ndim) + [pad, missing], value=NOTHING)
    index: list[slice] = [slice(None)] * x.ndim

    def taps() -> Iterator[torch.Tensor]:
        for tap in range(kernel):
            index[dim] = slice(tap * dilation, tap * dilation + last, stride)
            yield x[tuple(index)]

    return functools.reduce(torch.maximum, taps())


def _windows(
    x: torch.Tensor, out: Sequence[int], kernel: Any, stride: Any, padding: Any, dilation: Any
) -> torch.Tensor:
    """Slide along the last len(out) dimensions."""
    n = len(out)
    kernel, stride, padding, dilation = (
        list(v) * (n if len(v) == 1 else 1) for v in (kernel, stride, padding, dilation)
    )
    for i in range(n):
        x = _slide(x, i - n, kernel[i], stride[i], padding[i], dilation[i], out[i])
    return x


def convolution(
    func: Any, x: torch.Tensor, weight: torch.Tensor, bias: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> torch.Tensor:  # fmt: skip
    if transposed or not (lean(weight) == NOTHING).all():
        raise UnknownOperatorError("a transposed convolution, or one whose weights come from the input")
    shape = meta_run(func, x, weight, None, stride, padding, dilation, transposed, output_padding, groups).shape
    x = lean(x, [1])
    if groups > 1 and x.shape[1] > 1:
        x = x.unflatten(1, (groups, -1)).amax(2)
    else:
        x, groups = x.amax(1, keepdim=True), 1
    x = _windows(x, shape[2:], weight.shape[2:], stride, padding, dilation)
    return x.repeat_interleave(shape[1] // groups, 1) if groups > 1 else x.expand(shape)


def max_pool(
    func: Any,
    x: torch.Tensor,
    kernel: Any,
    stride: Any = (),
    padding: Any = (0,),
    dilation: Any = (1,),
    ceil: bool = False,
) -> Any:
    values, _ = meta_run(func, x, kernel, stride, padding, dilation, ceil)
    return _pool(x, values, kernel, stride, padding, dilation), torch.empty(0)


def avg_pool(
    func: Any, x: torch.Tensor, kernel: Any, stride: Any = (), padding: Any = (0,), *args: Any
) -> torch.Tensor:
    return _pool(x, meta_run(func, x, kernel, stride, padding, *args), kernel, stride, padding, (1,))


def _pool(x: torch.Tensor, out: torch.Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any) -> torch.Tensor:
    axes = 3 if x.ndim == 5 else 2
    x = lean(x, range(x.ndim - axes))
    return _windows(x, out.shape[-axes:], kernel, stride or kernel, padding, dilation).expand(out.shape)


def adaptive_pool(func: Any, x: torch.Tensor, size: Sequence[int]) -> Any:
    """Output i of n reads the inputs from floor(i L / n) to ceil((i + 1) L / n)."""
    out = x
    for dim, n in zip(range(-len(size), 0), size, strict=True):
        length = x.shape[dim]
        bins = [(i * length // n, -(-(i + 1) * length // n)) for i in range(n)]
        out = torch.cat([out.narrow(dim, a, b - a).amax(dim, keepdim=True) for a, b in bins], dim)
    return (out, torch.empty(0)) if isinstance(meta_run(func, x, size), tuple) else out
