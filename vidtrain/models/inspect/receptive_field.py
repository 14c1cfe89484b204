"""The exact receptive field of every layer of any model, from one forward pass on coordinates instead of features.

The input is a batch of six clips whose pixels hold their own position: t, h, w, -t, -h, -w. Each operator of the pass
is replaced by the maximum over what it reads: a convolution by the maximum over its window and channels, an addition
by the maximum of its terms, a mean by the maximum over what it averages; views, permutes and slices stay what they
are. Whatever a model does between its layers, a position of a feature map then holds the largest and (by the negated
clips) the smallest input coordinate it depends on, and its receptive field is max - min + 1. Padding, parameters and
fresh tensors depend on nothing: -inf. An operator without a rule gives NaN, which spreads: unknown is never a number.

By convention the statistics of normalisation layers do not count (group and instance norm look at whole maps), and
a product counts as read even where a mask makes it zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from vidtrain.dispatch import DispatchMode
from vidtrain.models.inspect.coordinate_rules import RULES, no_rule
from vidtrain.models.inspect.coordinate_windows import NOTHING, UnknownOperatorError, is_spread, lean
from vidtrain.models.inspect.meta_shapes import run_on_meta
from vidtrain.models.layers.example_inputs import as_input, input_shapes
from vidtrain.models.layers.layer_outputs import channels_second, first_tensor
from vidtrain.models.layers.model_copy import copy_on_cpu

Field = tuple[int, int, int]
"""T x H x W pixels of the input."""

_APART = 1 << 14
"""Clip i is shifted by i * _APART, so that a value tells its clip even where time was folded into the batch."""

_KINDS = ("zeros", "ones", "empty", "full", "rand", "randn")
_BLANK = {form.format(kind) for kind in _KINDS for form in ("{}", "{}_like", "new_{}")}


def receptive_fields(
    model: nn.Module, num_frames: int, size: int, calls: Mapping[str, int], *, strict: bool = False
) -> dict[str, Field]:
    """Receptive field of the centre of the output of each module in `calls`, within a clip of T x size x size.

    calls: module path -> how often the model calls it in a pass; the field is that of the last call.
    Modules whose field cannot be derived are skipped.
    strict: raise what the tracing of the pass raises (for tests), instead of stopping there.
    """
    twin = copy_on_cpu(model)
    fields: dict[str, Field] = {}
    seen: Counter[str] = Counter()

    def hook(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def read(module: nn.Module, _: Any, output: Any) -> None:
            fields.pop(path, None)
            seen[path] += 1
            tensor = first_tensor(output)
            field = _centre(channels_second(module, tensor.at)) if isinstance(tensor, Coordinates) else None
            if field is not None:
                fields[path] = field

        return read

    for path, module in twin.named_modules():
        if path in calls:
            module.register_forward_hook(hook(path))
    # The model is known to run: what fails here is the tracing, and the layers it did not reach say so by "-".
    stop = nullcontext() if strict else suppress(Exception)
    with stop, torch.no_grad(), _single_steps(), _OnCoordinates():
        shapes = input_shapes(model, num_frames, size)
        twin(as_input({name: Coordinates(_input(frames, size, c)) for name, (c, frames, *_) in shapes.items()}))
    return {path: field for path, field in fields.items() if seen[path] == calls[path]}


@contextmanager
def _single_steps() -> Iterator[None]:
    """Have recurrent and attention layers run as the operators they are made of, for which there are rules."""
    onednn, fast_path = torch._C._get_mkldnn_enabled(), torch.backends.mha.get_fastpath_enabled()
    torch._C._set_mkldnn_enabled(False)  # torch.backends.mkldnn.flags would warn about Intel GPUs
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(onednn)
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _input(num_frames: int, size: int, channels: int) -> torch.Tensor:
    """(6, channels, T, H, W)."""
    axes = (torch.arange(n, dtype=torch.float32) for n in (num_frames, size, size))
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    clips = torch.cat([grid, -grid]) + _APART * torch.arange(6.0).view(6, 1, 1, 1)
    return clips.unsqueeze(1).expand(-1, channels, -1, -1, -1)


def _centre(at: torch.Tensor) -> Field | None:
    """Field at the central position of coordinates (N, C, positions...)."""
    for extent in at.shape[2:]:
        at = at.select(2, extent // 2)
    at = at.flatten(1).amax(1)
    if not bool(at.isfinite().all()):
        return None
    clip = (at / _APART).round()
    extents = []
    for axis in range(3):
        largest, smallest = at[clip == axis], at[clip == axis + 3]
        if not len(largest) or len(largest) != len(smallest):
            return None
        middle = len(largest) // 2  # of the frames that stand in the batch
        extents.append(int(largest[middle] + smallest[middle]) - (2 * axis + 3) * _APART + 1)
    return extents[0], extents[1], extents[2]


class Coordinates(torch.Tensor):
    """Stands for a feature map in the forward pass; `at` holds the coordinates, of the same shape.

    A view knows what it is a view of and how to take it again, so that operators in place work on either: the
    coordinates of the root are replaced or given memory of their own, and the views follow.
    """

    _at: torch.Tensor
    _root: Coordinates | None
    _take: Callable[[torch.Tensor], torch.Tensor]
    _taken_from: torch.Tensor
    borrowed: bool
    """Another map, not a view, has its coordinates in the same memory."""

    @staticmethod
    def __new__(cls, at: torch.Tensor) -> Coordinates:
        # It claims plain contiguous storage, whatever `at` is: models ask for that, and views of it are reshapes.
        self: Coordinates = torch.Tensor._make_wrapper_subclass(cls, at.shape, dtype=torch.float32)
        self._at = at
        self._root = None
        self.borrowed = False
        return self

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise UnknownOperatorError(f"{func} outside of the pass")

    @property
    def at(self) -> torch.Tensor:
        if self._root is not None and self._taken_from is not self._root.at:
            self._taken_from = self._root.at
            self._at = self._take(self._taken_from)
        return self._at

    @property
    def root(self) -> Coordinates:
        return self._root.root if self._root is not None else self

    def become_view(self, of: Coordinates, take: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._root, self._take, self._taken_from = of, take, of.at

    def write(self, at: torch.Tensor) -> None:
        """What an operator in place does."""
        if at.shape != self.at.shape:
            raise UnknownOperatorError("an operator in place that changes the shape")
        if memory(at) == memory(self.at) and at.stride() == self.at.stride():
            return  # an activation
        root = self.root
        if root is self and (self.borrowed or is_spread(self.at)):
            self._at, self.borrowed = lean(at).clone().expand(at.shape), False
            return
        if root.borrowed or is_spread(root.at):
            root._at, root.borrowed = root.at.clone(memory_format=torch.contiguous_format), False
        if memory(self.at) != memory(root.at) or is_spread(self.at):
            raise UnknownOperatorError("writing into a view that cannot be followed")
        self.at.copy_(at)


def memory(at: torch.Tensor) -> int:
    return at.untyped_storage().data_ptr()


class _OnCoordinates(DispatchMode):
    """Runs every operator that meets Coordinates by its rule, all others as they are."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.partition("::")[2]
        if name in _BLANK:
            out = run_on_meta(func, *tree_map_only(Coordinates, _on_meta, (args, kwargs)))
            # A float tensor to be filled by the model. In memory of its own, so that parts of it can be written to.
            return Coordinates(torch.full(out.shape, NOTHING)) if out.is_floating_point() else out
        if not any(isinstance(leaf, Coordinates) for leaf in tree_leaves((args, kwargs))):
            return func(*args, **kwargs)
        return _step(name, func, args, kwargs)


def _step(name: str, func: Any, args: Any, kwargs: Any) -> Any:
    in_place = func._schema.is_mutable
    if in_place and not (name.endswith("_") and isinstance(args[0], Coordinates)):
        raise UnknownOperatorError(f"{name} writes into a tensor of its own")
    rule = RULES.get(name.removesuffix("_") if in_place else name, no_rule)
    try:
        result = rule(func, *tree_map(_plain, args), **tree_map(_plain, kwargs))
    except UnknownOperatorError:
        result = _unknown(func, args, kwargs)
    if in_place:
        args[0].write(result)
        return args[0]
    out = tree_map_only(torch.Tensor, Coordinates, result)
    source, views = func._schema.arguments[0], [x for x in tree_leaves(out) if isinstance(x, Coordinates)]
    if source.alias_info is not None and rule is not no_rule:
        for i, view in enumerate(views):
            view.become_view(args[0], partial(_take_view, rule, func, args[1:], kwargs, i))
    else:
        _note_borrowing([x.root for x in tree_leaves(args) if isinstance(x, Coordinates)], views)
    return out


def _take_view(rule: Any, func: Any, args: Any, kwargs: Any, number: int, at: torch.Tensor) -> torch.Tensor:
    view: torch.Tensor = tree_leaves(rule(func, at, *args, **kwargs))[number]
    return view


def _note_borrowing(sources: list[Coordinates], outputs: list[Coordinates]) -> None:
    for source in sources:
        for out in outputs:
            if memory(source.at) == memory(out.at):
                source.borrowed = out.borrowed = True


def _plain(arg: Any) -> Any:
    """Coordinates as tensors, and tensors that do not come from the input as coordinates of nothing."""
    if isinstance(arg, Coordinates):
        return arg.at
    if isinstance(arg, torch.Tensor):
        if arg.is_floating_point():
            return torch.full((), NOTHING).expand(arg.shape)
        if arg.is_meta:
            raise UnknownOperatorError("an index without values")
        return arg.cpu()
    return arg


def _on_meta(x: torch.Tensor) -> torch.Tensor:
    return torch.empty(x.shape, device="meta")


def _unknown(func: Any, args: Any, kwargs: Any) -> Any:
    """NaN in the shape of the operator's output."""
    out = run_on_meta(func, *tree_map_only(torch.Tensor, _on_meta_as_is, (args, kwargs)))
    return tree_map_only(torch.Tensor, lambda x: torch.full((), torch.nan).expand(x.shape), out)


def _on_meta_as_is(x: torch.Tensor) -> torch.Tensor:
    return _on_meta(x) if isinstance(x, Coordinates) else x.to("meta")
