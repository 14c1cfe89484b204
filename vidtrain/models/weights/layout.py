"""What a layout of published weights is: how to tell it, which of our models it is, and how its keys are called here.

One file a family writes its layouts down; weights/__init__.py lists them all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vidtrain.errors import CheckpointError
from vidtrain.models.weights.expected_clips import NOTHING, Expects
from vidtrain.models.weights.metadata import Said

State = dict[str, torch.Tensor]
Shapes = Mapping[str, tuple[int, ...]]
"""Key -> shape, of a whole file. Wrappers and prefixes such as `module.` are gone already (see load.py)."""
Fit = tuple[str, dict[str, Any]]
"""A name of the catalogue and the options that differ from its YAML, `num_classes` among them where there is a head."""
Rule = tuple[str, str]
"""A regular expression and what to put in its place, as in re.sub."""


OTHER_SHAPES = (LookupError, ValueError, TypeError, ArithmeticError, RuntimeError)
"""What `model` and `translate` raise for a file that lacks tensors of its layout, or has them in other shapes."""


def always(expects: Expects) -> Callable[[str, Mapping[str, Any]], Expects]:
    """An `expects` for layouts whose files were all made for the same clips."""
    return lambda name, options: expects


_nothing_known = always(NOTHING)


def _no_notes(state: Mapping[str, torch.Tensor], model: nn.Module) -> Sequence[str]:
    return ()


def nothing_stated(said: Said, name: str) -> tuple[dict[str, Any], Expects]:
    """A `stated` for layouts without configurations."""
    return {}, Expects()


def _no_others(fit: Fit) -> Sequence[Fit]:
    return ()


@dataclass(frozen=True)
class Layout:
    """The keys of one family of published files."""

    name: str
    """As people call it: "PyTorchVideo ResNet"."""
    matches: Callable[[Shapes], bool]
    """Whether a file is of this layout. The first layout of LAYOUTS that says yes is taken."""
    model: Callable[[Shapes], Fit | None]
    """The model of the catalogue that takes the file; None where the catalogue has none."""
    translate: Callable[[State, nn.Module], State]
    """The tensors under our names for this model, which may be another than the one that fits: a tensor that has no
    name here keeps its own, so that the caller can say it is unexpected."""
    notes: Callable[[Mapping[str, torch.Tensor], nn.Module], Sequence[str]] = _no_notes
    """What the user should know after loading `state` (under the file's names) into a model, one sentence each."""
    expects: Callable[[str, Mapping[str, Any]], Expects] = _nothing_known
    """The clips that a file of this layout was made for, given the name of its model (the one that `model` found, or a
    preset of the same function that the user named: x3d_xs) and the options that `model` found."""
    stated: Callable[[Said, str], tuple[dict[str, Any], Expects]] = nothing_stated
    """What the configurations beside the tensors say of the model of that name, in place of what `model` and `expects`
    found: options of it, and clips."""
    others: Callable[[Fit], Sequence[Fit]] = _no_others
    """Other nets that have the very same tensors as the one that `model` found; a user who names one of them means it.
    `notes` says how to tell."""

    def fit(self, shapes: Shapes) -> Fit | None:
        """What `model` finds; None also of a file that has not all that the layout has."""
        try:
            return self.model(shapes)
        except OTHER_SHAPES:
            return None

    @classmethod
    def translated(
        cls,
        fit: Callable[[Shapes], Fit | None],
        name: str,
        matches: Callable[[Shapes], bool],
        translate: Callable[[State], State],
        **more: Any,
    ) -> Layout:
        """One that is translated without a look at the model. fit: finds that by the shapes under our names."""

        return cls(
            name,
            matches,
            lambda shapes: fit(translated_shapes(shapes, translate)),
            lambda state, model: translate(state),
            **more,
        )


def translated_shapes(shapes: Shapes, translate: Callable[[State], State]) -> Shapes:
    """The shapes under our names: the translation is tried on tensors without values."""
    return shapes_of(translate({key: torch.empty(shape, device="meta") for key, shape in shapes.items()}))


def shapes_of(state: Mapping[str, torch.Tensor]) -> Shapes:
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def rename(state: Mapping[str, torch.Tensor], rules: Iterable[Rule]) -> State:
    """Apply every rule to every key, in order.

    Raises:
        CheckpointError: two tensors end under the same name.
    """
    compiled = [(re.compile(pattern), new) for pattern, new in rules]
    renamed: State = {}
    origin: dict[str, str] = {}
    for old, tensor in state.items():
        key = old
        for pattern, new in compiled:
            key = pattern.sub(new, key)
        if key in renamed:
            raise CheckpointError(f"two tensors of the file mean the same here, {key}: {origin[key]} and {old}")
        renamed[key], origin[key] = tensor, old
    return renamed


def any_key(shapes: Shapes, pattern: str) -> bool:
    """Whether the regular expression matches the beginning of some key."""
    compiled = re.compile(pattern)
    return any(compiled.match(key) for key in shapes)


def count(shapes: Shapes, pattern: str) -> int:
    """How many different texts the first group of the regular expression takes over all keys: `layer1\\.(\\d+)\\.`
    counts the blocks of a stage."""
    compiled = re.compile(pattern)
    return len({match[1] for match in map(compiled.match, shapes) if match})


def classes(shapes: Shapes, key: str) -> dict[str, int]:
    """{"num_classes": K} from the head's weight, {} where the file has no head."""
    return {"num_classes": shapes[key][0]} if key in shapes else {}
