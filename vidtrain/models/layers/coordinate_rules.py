"""What each operator does to coordinates (see models/receptive_field.py): the maximum over everything it reads.

A rule takes the operator and its arguments, tensors as plain coordinates, and returns plain coordinates. Dimensions
along which all values are equal are kept spread (stride 0), so that a map of 512 channels takes the memory of one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._pytree import tree_leaves, tree_map_only

NOTHING = float("-inf")


class UnknownOperatorError(Exception):
    """There is no rule for an operator, or not for this use of it."""


def no_rule(func: Any, *args: Any, **kwargs: Any) -> Any:
    raise UnknownOperatorError(str(func))


def is_spread(x: torch.Tensor) -> bool:
    """Some of its elements share memory."""
    return any(stride == 0 and extent > 1 for extent, stride in zip(x.shape, x.stride(), strict=True))


def lean(x: torch.Tensor, dims: Sequence[int] | None = None) -> torch.Tensor:
    """Cut each spread dimension (among `dims`) to one element."""
    for dim in range(x.ndim) if dims is None else dims:
        if x.stride(dim) == 0 and x.shape[dim] > 1:
            x = x.narrow(dim, 0, 1)
    return x


def _is_nothing(x: torch.Tensor) -> bool:
    return bool((lean(x) == NOTHING).all())


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


def _split_off(func: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """The splits inside recurrent layers: by contract no views, writing to one changes nothing else."""
    return func(x, *args, **kwargs)


def _view(func: Any, x: torch.Tensor, shape: Any) -> torch.Tensor:
    if isinstance(shape, torch.dtype):
        raise UnknownOperatorError("a view as another dtype")
    return x.reshape(shape)


def _index(func: Any, x: torch.Tensor, *args: Any) -> torch.Tensor:
    if any(isinstance(leaf, torch.Tensor) and leaf.is_floating_point() for leaf in tree_leaves(args)):
        raise UnknownOperatorError("an index computed from the input")
    out: torch.Tensor = func(x, *args)
    return out


def _join(func: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Elementwise operators: the maximum of the operands."""
    parts = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    shape = torch.broadcast_shapes(*(x.shape for x in parts))
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
    return _reduced(func, x, dim, _meta_run(func, x, dim, *args, **kwargs))


def _vector_norm(func: Any, x: torch.Tensor, order: Any = 2, dim: Any = None, *args: Any, **kwargs: Any) -> Any:
    return _reduced(func, x, dim, _meta_run(func, x, order, dim, *args, **kwargs))


def _reduced(func: Any, x: torch.Tensor, dim: Any, outputs: Any) -> Any:
    dims = {d % x.ndim for d in ([dim] if isinstance(dim, int) else dim or ())}
    if not dims:
        raise UnknownOperatorError(f"{func} over everything, the batch included")
    largest = lean(x).amax(sorted(dims), keepdim=True)
    largest = largest.expand([1 if d in dims else n for d, n in enumerate(x.shape)])
    return tree_map_only(torch.Tensor, lambda out: largest.reshape(out.shape), outputs)


def _cumulate(func: Any, x: torch.Tensor, dim: int, **kwargs: Any) -> torch.Tensor:
    return x.cummax(dim).values


def _meta_run(func: Any, *args: Any, **kwargs: Any) -> Any:
    """The operator's outputs without values, for their shapes."""
    args, kwargs = tree_map_only(torch.Tensor, lambda x: x.to("meta"), (args, kwargs))
    return func(*args, **kwargs)


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
    outputs = _meta_run(func, q, k, v, *args, **kwargs)
    return out if isinstance(outputs, torch.Tensor) else (out, *(torch.empty(0) for _ in outputs[1:]))


def _pad(func: Any, x: torch.Tensor, pad: Sequence[int], value: float = 0) -> torch.Tensor:
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


def _convolution(
    func: Any, x: torch.Tensor, weight: torch.Tensor, bias: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> torch.Tensor:  # fmt: skip
    if transposed or not _is_nothing(weight):
        raise UnknownOperatorError("a transposed convolution, or one whose weights come from the input")
    shape = _meta_run(func, x, weight, None, stride, padding, dilation, transposed, output_padding, groups).shape
    x = lean(x, [1])
    if groups > 1 and x.shape[1] > 1:
        x = x.unflatten(1, (groups, -1)).amax(2)
    else:
        x, groups = x.amax(1, keepdim=True), 1
    x = _windows(x, shape[2:], weight.shape[2:], stride, padding, dilation)
    return x.repeat_interleave(shape[1] // groups, 1) if groups > 1 else x.expand(shape)


def _max_pool(
    func: Any,
    x: torch.Tensor,
    kernel: Any,
    stride: Any = (),
    padding: Any = (0,),
    dilation: Any = (1,),
    ceil: bool = False,
) -> Any:
    values, _ = _meta_run(func, x, kernel, stride, padding, dilation, ceil)
    return _pool(x, values, kernel, stride, padding, dilation), torch.empty(0)


def _avg_pool(
    func: Any, x: torch.Tensor, kernel: Any, stride: Any = (), padding: Any = (0,), *args: Any
) -> torch.Tensor:
    return _pool(x, _meta_run(func, x, kernel, stride, padding, *args), kernel, stride, padding, (1,))


def _pool(x: torch.Tensor, out: torch.Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any) -> torch.Tensor:
    axes = 3 if x.ndim == 5 else 2
    x = lean(x, range(x.ndim - axes))
    return _windows(x, out.shape[-axes:], kernel, stride or kernel, padding, dilation).expand(out.shape)


def _adaptive_pool(func: Any, x: torch.Tensor, size: Sequence[int]) -> Any:
    """Output i of n reads the inputs from floor(i L / n) to ceil((i + 1) L / n)."""
    out = x
    for dim, n in zip(range(-len(size), 0), size, strict=True):
        length = x.shape[dim]
        bins = [(i * length // n, -(-(i + 1) * length // n)) for i in range(n)]
        out = torch.cat([out.narrow(dim, a, b - a).amax(dim, keepdim=True) for a, b in bins], dim)
    return (out, torch.empty(0)) if isinstance(_meta_run(func, x, size), tuple) else out


_NAMES: dict[Callable[..., Any], str] = {
    _same: """relu relu6 gelu silu mish sigmoid log_sigmoid hardtanh hardswish hardsigmoid leaky_relu elu celu selu
        softplus tanh clamp clamp_min clamp_max neg abs exp log sqrt rsqrt reciprocal square erf sin cos sign floor
        round _to_copy native_dropout""",
    _copy: "clone",
    _norm: """native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training
        native_group_norm""",
    _layer_norm: "native_layer_norm",
    _move: """permute transpose t unsqueeze squeeze select slice expand split split_with_sizes unbind narrow diagonal unfold alias detach lift_fresh cat stack repeat flip roll
        pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle upsample_nearest1d upsample_nearest2d
        upsample_nearest3d replication_pad1d replication_pad2d replication_pad3d reflection_pad1d reflection_pad2d
        reflection_pad3d slice_scatter select_scatter""",
    _split_off: "unsafe_split unsafe_split_with_sizes",
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
    _pad: "constant_pad_nd",
    _convolution: "convolution",
    _max_pool: "max_pool2d_with_indices max_pool3d_with_indices",
    _avg_pool: "avg_pool2d avg_pool3d",
    _adaptive_pool: "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d",
}

RULES: dict[str, Callable[..., Any]] = {name: rule for rule, names in _NAMES.items() for name in names.split()}
"""By the operator's name in aten; in-place variants (relu_) have the rule of the operator."""

VIEW_RULES = (_move, _view)
"""Outputs in the memory of an input are views of it, as the operators' own outputs are."""
