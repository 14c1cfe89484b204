"""What a model is made of: layers, output sizes, receptive fields, parameters, multiply-adds (document 003's tables).

Nothing is computed on real features: sizes and multiply-adds come from one forward pass on the meta device, receptive
fields from one on coordinates (receptive_field.py). The model itself, its mode and its random state stay untouched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules import conv, pooling
from torch.nn.modules.batchnorm import _BatchNorm

from vidtrain.models.inspect.operations import OperationCounter
from vidtrain.models.inspect.receptive_field import Field, receptive_fields
from vidtrain.models.layers.example_inputs import as_input, input_shapes
from vidtrain.models.layers.layer_outputs import channels_second, first_tensor
from vidtrain.models.layers.model_copy import copy_on_meta

_POOLS: dict[type[nn.Module], str] = {
    pooling._MaxPoolNd: "Pool",
    pooling._AvgPoolNd: "AvgPool",
    pooling._LPPoolNd: "LPPool",
    pooling._AdaptiveAvgPoolNd: "AvgPool",
    pooling._AdaptiveMaxPoolNd: "MaxPool",
}
_SHOWN: tuple[type[nn.Module], ...] = (
    conv._ConvNd,
    *_POOLS,
    nn.Linear,
    nn.Bilinear,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
)


@dataclass(frozen=True)
class LayerRow:
    """One layer. A layer that is called several times in a pass (a recurrent cell) has one row with its last call."""

    label: str
    path: str
    size: tuple[int, ...]
    """Output C x T x H x W of one clip; without T where time is gone, C x positions for tokens."""
    field: Field | None
    """Receptive field T x H x W within the clip, of the central output position; None where it is not known."""
    params: int
    macs: int
    """Multiply-adds of all its calls for one clip."""
    calls: int = 1


@dataclass(frozen=True)
class Summary:
    """rows: the input, then the layers in the order of their first call. Counts are those of the whole model."""

    num_frames: int
    size: int
    params: int
    trainable_params: int
    macs: int
    """Multiply-adds of one clip, counted by torch.utils.flop_counter (which counts two operations each)."""
    rows: tuple[LayerRow, ...]

    @property
    def gmac(self) -> float:
        """10^9 multiply-adds; FLOPs are twice that."""
        return self.macs / 1e9

    def to_text(self) -> str:
        """An aligned table for a terminal, then the totals."""
        head = ("Layer", "Module", "Size (C x T x H x W)", "Receptive Field (T x H x W)", "Params", "MMAC")
        table = [head, *(_cells(row) for row in self.rows)]
        rest = (self.params - sum(r.params for r in self.rows), self.macs - sum(r.macs for r in self.rows))
        if any(rest):
            table.append(("everything else", "", "", "", f"{rest[0]:,}", _mmac(rest[1])))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [_line(cells, widths) for cells in table]
        lines.insert(1, "-" * len(lines[0]))
        frozen = self.params - self.trainable_params
        trainable = f"{self.trainable_params:,} trainable" if frozen else "all trainable"
        clip = f"{self.num_frames} x {self.size} x {self.size}"
        return "\n".join(
            [
                *lines,
                "",
                f"{self.params:,} parameters, {trainable}",
                f"{self.gmac:.3f} GMAC for a clip of {clip} (multiply-adds; FLOPs are twice that)",
            ]
        )


def times(numbers: tuple[int, ...]) -> str:
    """(3, 20, 64, 64) -> '3 x 20 x 64 x 64'."""
    return " x ".join(map(str, numbers))


def summarise(model: nn.Module, num_frames: int, size: int) -> Summary:
    """Summarise a classifier for clips of C x num_frames x size x size, C = model.in_channels or 3, in eval mode.

    A model that reads flow gets num_frames - 1 fields besides.
    """
    calls, macs = _run_on_meta(_without_norms(copy_on_meta(model)), num_frames, size)
    shown = {path: call for path, call in calls.items() if isinstance(call.module, _SHOWN) or call.macs}
    fields = receptive_fields(model, num_frames, size, {path: call.count for path, call in shown.items()})
    inputs = input_shapes(model, num_frames, size)
    rows = [LayerRow("Input", name if len(inputs) > 1 else "", shape, None, 0, 0) for name, shape in inputs.items()]
    for path, call in shown.items():
        first_of_all = 3 * num_frames if len(rows) == len(inputs) == 1 else None
        rows.append(
            LayerRow(
                label=_label(call.module, stacked=first_of_all) + (f" x{call.count}" if call.count > 1 else ""),
                path=path,
                size=call.size,
                field=fields.get(path),
                params=_own_params(model.get_submodule(path)),
                macs=call.macs,
                calls=call.count,
            )
        )
    params = list(model.parameters())
    return Summary(
        num_frames=num_frames,
        size=size,
        params=sum(p.numel() for p in params),
        trainable_params=sum(p.numel() for p in params if p.requires_grad),
        macs=macs,
        rows=tuple(rows),
    )


def cost(model: nn.Module, num_frames: int, size: int) -> tuple[int, int]:
    """(parameters, multiply-adds of one clip of num_frames x size x size in eval mode); nothing is computed."""
    twin, counter = _without_norms(copy_on_meta(model)), OperationCounter()
    with torch.no_grad(), counter:
        twin(_clip(twin, num_frames, size))
    return sum(p.numel() for p in model.parameters()), counter.macs


def _without_norms(twin: nn.Module) -> nn.Module:
    """Batch norms that give back their input: they count nothing, but take half the time of a pass on meta."""
    for norm in (m for m in twin.modules() if isinstance(m, _BatchNorm)):
        norm.forward = _unchanged  # type: ignore[method-assign]
    return twin


def _unchanged(input: torch.Tensor) -> torch.Tensor:
    return input


@dataclass
class _Call:
    """What was seen of one module: its last output and its own multiply-adds, those of its children excluded."""

    module: nn.Module
    size: tuple[int, ...] = ()
    macs: int = 0
    count: int = 0


def _run_on_meta(twin: nn.Module, num_frames: int, size: int) -> tuple[dict[str, _Call], int]:
    """Calls by module path, in the order of the first call, and the multiply-adds of the whole pass."""
    counter = OperationCounter()
    calls: dict[str, _Call] = {}
    open_calls: list[_Open] = []

    def before(path: str) -> Callable[..., None]:
        def enter(module: nn.Module, _: Any) -> None:
            calls.setdefault(path, _Call(module))
            open_calls.append(_Open(counter.macs))

        return enter

    def after(path: str) -> Callable[..., None]:
        def leave(module: nn.Module, _: Any, output: Any) -> None:
            this = open_calls.pop()
            spent = counter.macs - this.start
            if open_calls:
                open_calls[-1].children += spent
            call = calls[path]
            call.macs += spent - this.children
            call.count += 1
            tensor = first_tensor(output)
            call.size = () if tensor is None else _size(channels_second(module, tensor))

        return leave

    for path, module in twin.named_modules():
        module.register_forward_pre_hook(before(path))
        module.register_forward_hook(after(path))
    with torch.no_grad(), counter:
        twin(_clip(twin, num_frames, size))
    return calls, counter.macs


def _clip(model: nn.Module, num_frames: int, size: int) -> Any:
    shapes = input_shapes(model, num_frames, size)
    return as_input({name: torch.empty(1, *shape, device="meta") for name, shape in shapes.items()})


@dataclass
class _Open:
    start: int
    children: int = field(default=0)


def _size(output: torch.Tensor) -> tuple[int, ...]:
    """(N, C, positions) of one clip: frames that stand in the batch are put after the channels."""
    batch, *rest = output.shape
    return (*rest[:1], batch, *rest[1:]) if batch > 1 else tuple(rest)


def _own_params(module: nn.Module) -> int:
    # nn.MultiheadAttention keeps a Linear that it never calls, so a layer with known content counts all it has.
    return sum(p.numel() for p in module.parameters(recurse=isinstance(module, _SHOWN)))


def _label(module: nn.Module, *, stacked: int | None) -> str:
    """As document 003 writes it. stacked: channels of a first layer that stand for 3 per frame."""
    if isinstance(module, conv._ConvNd):
        inputs = module.in_channels
        channels = f"3*{inputs // 3}" if inputs == stacked and inputs > 3 else str(inputs)
        extra = _unless("stride", module.stride, 1) + _unless("dilation", module.dilation, 1)
        groups = f", groups {module.groups}" if module.groups > 1 else ""
        kind = f"{'Transposed' if module.transposed else ''}Conv{len(module.kernel_size)}D"
        return f"{kind}({_by(module.kernel_size)}, {channels}->{module.out_channels}{extra}{groups})"
    for pool, name in _POOLS.items():
        if isinstance(module, pool):
            return _pool_label(module, name)
    if isinstance(module, nn.Linear):
        return f"Linear({module.in_features}->{module.out_features})"
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        layers = f", {module.num_layers} layers" if isinstance(module, nn.RNNBase) and module.num_layers > 1 else ""
        return f"{type(module).__name__}({module.input_size}->{module.hidden_size}{layers})"
    return type(module).__name__


def _pool_label(module: Any, name: str) -> str:
    dims = next(int(t.__name__[-2]) for t in type(module).__mro__ if t.__module__ == pooling.__name__)
    if hasattr(module, "output_size"):
        size = _tuple(module.output_size, dims)
        return f"Global{name}" if set(size) == {1} else f"Adaptive{name}{dims}D({_by(size)})"
    kernel = _tuple(module.kernel_size, dims)
    stride = _tuple(module.stride, dims)
    return f"{name}{dims}D({_by(kernel)}{_unless('stride', stride, kernel)})"


def _tuple(value: Any, dims: int) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * dims


def _by(numbers: tuple[Any, ...]) -> str:
    return "x".join(map(str, numbers))


def _unless(word: str, value: tuple[Any, ...], usual: Any) -> str:
    """', stride 2' or ', stride 1x2x2', nothing where it is the usual."""
    if value == _tuple(usual, len(value)):
        return ""
    return f", {word} {value[0] if len(set(value)) == 1 else _by(value)}"


def _cells(row: LayerRow) -> tuple[str, ...]:
    if row.label == "Input":
        return row.label, row.path, times(row.size), "", "", ""
    seen = times(row.field) if row.field else "-"
    return row.label, row.path, times(row.size), seen, f"{row.params:,}", _mmac(row.macs)


def _mmac(macs: int) -> str:
    return f"{macs / 1e6:,.2f}" if macs else "0"


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    left = [cell.ljust(width) for cell, width in zip(cells[:4], widths, strict=False)]
    right = [cell.rjust(width) for cell, width in zip(cells[4:], widths[4:], strict=True)]
    return "  ".join(left + right).rstrip()
