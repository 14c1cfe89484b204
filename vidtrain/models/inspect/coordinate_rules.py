"""What each operator does to coordinates (see receptive_field.py): the maximum over everything it reads.

A rule takes the operator and its arguments, tensors as plain coordinates, and returns plain coordinates. Dimensions
along which all values are equal are kept spread (stride 0), so that a map of 512 channels takes the memory of one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves, tree_map_only

from vidtrain.models.inspect.coordinate_windows import (
    NOTHING,
    UnknownOperatorError,
    adaptive_pool,
    avg_pool,
    constant_pad,
    convolution,
    lean,
    max_pool,
    meta_run,
)


def no_rule(func: Any, *args: Any, **kwargs: Any) -> Any:
    raise UnknownOperatorError(str(func))


def _same(func: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Activations, casts: each position reads itself."""
    return x


def _copy(func: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    return x.clone(memory_format=torch.contiguous_format)  # in full: models clone in order to write into parts


def _norm(func: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
    return _same(func, x), torch.empty(0), torch.empty(0)


def _layer_norm(func: Any, x: torch.Tensor, shape: Sequence[int], *args: Any) -> tuple[torch.Tensor, ...]:
    out = _along(x, [-1]) if len(shape) == 1 else x  # over the channels only: no statistics of the map
    return _norm(func, out)


def _move(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Views, permutes, concatenation, repetition: values are moved, not computed."""
    return func(*args, **kwargs)


def _cat(func: Any, parts: Sequence[torch.Tensor], dim: int = 0) -> torch.Tensor:
    dim %= parts[0].ndim
    same = [d for d in range(parts[0].ndim) if d != dim and all(x.ndim > d and x.stride(d) == 0 for x in parts)]
    shape = list(parts[0].shape)
    out = torch.cat([lean(x, same) for x in parts], dim)
    shape[dim] = out.shape[dim]
    return out.expand(shape)


def _view(func: Any, x: torch.Tensor, shape: Any) -> torch.Tensor:
    """A reshape. Blocks of dimensions that are spread in whole stay so, even where it has to copy."""
    if isinstance(shape, torch.dtype):
        raise UnknownOperatorError("a view as another dtype")
    full = torch.empty(x.shape, device="meta").view(shape).shape
    small = list(full)
    for old, new in _blocks(x.shape, full):
        if all(x.stride(d) == 0 or x.shape[d] == 1 for d in old):
            x = lean(x, old)
            small[new.start : new.stop] = [1] * len(new)
    return x.reshape(small).expand(full)


def _blocks(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[range, range]]:
    """Runs of dimensions of two shapes over the same elements: (6, 4, 8), (24, 2, 4) -> (0 1 | 0), (2 | 1 2)."""
    i = j = 0
    while i < len(old) or j < len(new):
        start_i, start_j = i, j
        a, i = (old[i], i + 1) if i < len(old) else (1, i)
        b, j = (new[j], j + 1) if j < len(new) else (1, j)
        while a != b:
            if a < b:
                a, i = a * old[i], i + 1
            else:
                b, j = b * new[j], j + 1
        yield range(start_i, i), range(start_j, j)


def _index(func: Any, x: torch.Tensor, *args: Any) -> torch.Tensor:
    if any(isinstance(leaf, torch.Tensor) and leaf.is_floating_point() for leaf in tree_leaves(args)):
        raise UnknownOperatorError("an index computed from the input")
    out: torch.Tensor = func(x, *args)
    return out


def _join(func: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Elementwise operators: the maximum of the operands."""
    parts = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    shape = np.broadcast_shapes(*(x.shape for x in parts))
    floats = [lean(x) for x in parts if x.is_floating_point()]  # masks select, they carry no coordinates
    return functools.reduce(torch.maximum, floats).expand(shape)


def _fill(func: Any, x: torch.Tensor, *args: Any) -> torch.Tensor:
    return torch.full((), NOTHING).expand(x.shape)


def _assign(func: Any, x: torch.Tensor, source: torch.Tensor, *args: Any) -> torch.Tensor:
    return source.expand(x.shape)


def _along(x: torch.Tensor, dims: Sequence[int]) -> torch.Tensor:
    """Every position reads all positions along `dims` (softmax)."""
    return lean(x).amax(list(dims), keepdim=True).expand(x.shape)


def _softmax(func: Any, x: torch.Tensor, dim: int, *args: Any) -> torch.Tensor:
    return _along(x, [dim])


def _reduce(func: Any, x: torch.Tensor, dim: Any = None, *args: Any, **kwargs: Any) -> Any:
    """mean, sum, max, var ...: the maximum over what is reduced, in as many outputs as the operator has."""
    return _reduced(func, x, dim, meta_run(func, x, dim, *args, **kwargs))


def _vector_norm(func: Any, x: torch.Tensor, order: Any = 2, dim: Any = None, *args: Any, **kwargs: Any) -> Any:
    return _reduced(func, x, dim, meta_run(func, x, order, dim, *args, **kwargs))


def _reduced(func: Any, x: torch.Tensor, dim: Any, outputs: Any) -> Any:
    dims = {d % x.ndim for d in ([dim] if isinstance(dim, int) else dim or ())}
    if not dims:
        raise UnknownOperatorError(f"{func} over everything, the batch included")
    largest = lean(x).amax(sorted(dims), keepdim=True)
    largest = largest.expand([1 if d in dims else n for d, n in enumerate(x.shape)])
    return tree_map_only(torch.Tensor, lambda out: largest.reshape(out.shape), outputs)


def _cumulate(func: Any, x: torch.Tensor, dim: int, **kwargs: Any) -> torch.Tensor:
    return x.cummax(dim).values


def _matmul(func: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """mm, bmm: element (m, n) reads row m of a and column n of b."""
    rows, columns = lean(a).amax(-1, keepdim=True), lean(b).amax(-2, keepdim=True)
    shape = (*a.shape[:-1], b.shape[-1])
    return _join(func, _spread_equal(rows, -2).expand(shape), _spread_equal(columns, -1).expand(shape))


def _spread_equal(x: torch.Tensor, dim: int) -> torch.Tensor:
    """x, cut to one element along `dim` if all are equal: tokens that see everything make no large matrices."""
    first = x.narrow(dim, 0, 1)
    return first if torch.equal(first.expand(x.shape), x) else x


def _add_matmul(func: Any, bias: torch.Tensor, a: torch.Tensor, b: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    return _join(func, bias, _matmul(func, a, b))


def _attention(func: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """softmax(q k^T) v in one operator: a query reads itself, all keys and all values."""
    if any(arg is True for arg in args) or any(kwargs.get(key) is not None for key in ("is_causal", "attn_mask")):
        raise UnknownOperatorError("attention that does not read everything")
    shape = (*q.shape[:-1], v.shape[-1])
    keys = lean(k).amax((-2, -1), keepdim=True).expand(*k.shape[:-2], 1, 1)
    out = _join(func, _along(q, [-1])[..., :1].expand(shape), keys, _along(v, [-2])[..., :1, :].expand(shape))
    rest = func._schema.returns[1:]
    return (out, *(torch.empty(0) for _ in rest)) if rest else out


_NAMES: dict[Callable[..., Any], str] = {
    _same: """relu relu6 gelu silu mish sigmoid log_sigmoid hardtanh hardswish hardsigmoid leaky_relu elu celu selu
        softplus tanh clamp clamp_min clamp_max neg abs exp log sqrt rsqrt reciprocal square erf sin cos sign floor
        round _to_copy native_dropout""",
    _copy: "clone",
    _norm: """native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training
        native_group_norm""",
    _layer_norm: "native_layer_norm",
    _move: """permute transpose t unsqueeze squeeze select slice expand split split_with_sizes unsafe_split
        unsafe_split_with_sizes unbind narrow diagonal unfold alias detach lift_fresh stack repeat flip roll
        pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle upsample_nearest1d
        upsample_nearest2d upsample_nearest3d replication_pad1d replication_pad2d replication_pad3d
        reflection_pad1d reflection_pad2d reflection_pad3d slice_scatter select_scatter""",
    _cat: "cat",
    _view: "view _unsafe_view _reshape_alias reshape",
    _index: "index index_select gather",
    _join: """add sub rsub mul div maximum minimum where masked_fill lerp addcmul addcdiv pow fmod remainder atan2
        gt ge lt le eq ne""",
    _fill: "fill zero",
    _assign: "copy",
    _softmax: "_softmax _log_softmax _safe_softmax",
    _reduce: "mean sum amax amin max min argmax argmin var std var_mean std_mean logsumexp prod",
    _vector_norm: "norm linalg_vector_norm",
    _cumulate: "cumsum",
    _matmul: "mm bmm",
    _add_matmul: "addmm baddbmm",
    _attention: """_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention
        _scaled_dot_product_efficient_attention _scaled_dot_product_attention_math""",
    constant_pad: "constant_pad_nd",
    convolution: "convolution",
    max_pool: "max_pool2d_with_indices max_pool3d_with_indices",
    avg_pool: "avg_pool2d avg_pool3d",
    adaptive_pool: "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d",
}

RULES: dict[str, Callable[..., Any]] = {name: rule for rule, names in _NAMES.items() for name in names.split()}
"""By the operator's name in aten; in-place variants (relu_) have the rule of the operator."""
