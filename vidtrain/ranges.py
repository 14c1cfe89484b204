"""What values an option takes, said beside the option. Words: a `Choice`. Numbers: `number` in a dataclass of options,
`Annotated` in a function.

    epochs: int = number(20, least=1)
    def folder(root: str, *, val_fraction: Annotated[float, Range(least=0, below=1)] = 0.1): ...

`options.schema.check_numbers` holds a composed configuration against the first, `options.instantiate.call` the options
of a function against the second. nan and infinity are in no range.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields
from enum import Enum
from functools import wraps
from typing import Any, TypeVar

from vidtrain.errors import ConfigError

_Made = TypeVar("_Made")

LARGEST_SEED = 2**63 - 1
LONGEST = 1e6
"""Seconds: 11 days. Waiting functions refuse much more."""


class Choice(str, Enum):
    """A closed set of words. A member is its text: it compares equal to it, and is printed and stored as it."""

    __str__ = str.__str__
    __format__ = str.__format__  # type: ignore[assignment]


@dataclass(frozen=True)
class Range:
    """least and most belong to it, above and below do not; None: no bound. because: why, for the message."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    because: str = ""

    def __contains__(self, value: float) -> bool:
        return (
            _is_finite(value)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    @property
    def is_open(self) -> bool:
        """Whether it has no bound."""
        return {self.least, self.above, self.most, self.below} == {None}

    def __str__(self) -> str:
        bounds = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        said = [f"{word} {b if isinstance(b, int) else f'{b:g}'}" for word, b in bounds.items() if b is not None]
        return " and ".join(said) or "a finite number"


def number(default: Any, **bounds: Any) -> Any:
    """The field of a number, or of a list of numbers, with its Range."""
    metadata = {"range": Range(**bounds)}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def _is_finite(value: float) -> bool:
    return isinstance(value, int) or math.isfinite(value)  # a whole number may be too large for a float


def check_number(key: str, value: Any, allowed: Range) -> None:
    """value: a number, or a list of them. Raise ConfigError when one lies outside."""
    several = isinstance(value, (list, tuple))
    for one in value if several else [value]:
        if isinstance(one, (int, float)) and not isinstance(one, bool) and one not in allowed:
            shown = f"[{', '.join(map(str, value))}]" if several else value
            why = f" ({allowed.because})" if allowed.because else ""
            said = str(allowed) if _is_finite(one) or allowed.is_open else f"finite, {allowed}"  # inf is "at least 1"
            raise ConfigError(f"{key}={shown}: must be {said}{why}")


def check_fields(options: Any, prefix: str = "") -> None:
    """Raise ConfigError for the first number of a dataclass of options that its field does not take."""
    for part in fields(options):
        if "range" in part.metadata:
            check_number(prefix + part.name, getattr(options, part.name), part.metadata["range"])


def takes(
    shared: type, *, without: Collection[str] = (), **defaults: Any
) -> Callable[[Callable[..., _Made]], Callable[..., _Made]]:
    """Let the **options of a function stand for the fields of the dataclass `shared`: its signature and its annotations
    list them, so that a misspelt key or a value of another type is found as with any function.

        @takes(TransformerOptions, drop_path=0.1)
        def mine(*, init: str = "image", **options: Any) -> Mine:
            return Mine(TransformerOptions(**options), init)

    is called as mine(*, num_classes, num_frames, size, ..., drop_path=0.1, init="image").

    without: fields that the function fills in itself. defaults: its own, where they differ from the dataclass's.
    """

    def listed(function: Callable[..., _Made]) -> Callable[..., _Made]:
        hints = typing.get_type_hints(shared, include_extras=True)
        theirs = {
            name: p.replace(default=defaults.get(name, p.default), kind=p.KEYWORD_ONLY)
            for name, p in inspect.signature(shared).parameters.items()
            if name not in without
        }
        own = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]

        @wraps(function)
        def filled(*args: Any, **options: Any) -> _Made:
            return function(*args, **{**defaults, **options})

        annotations = {key: hint for key, hint in function.__annotations__.items() if key != "options"}
        filled.__annotations__ = {**{name: hints[name] for name in theirs}, **annotations}
        positional = [p for p in own if p.kind is not p.KEYWORD_ONLY]
        named = [p for p in own if p.kind is p.KEYWORD_ONLY]
        filled.__signature__ = inspect.Signature([*positional, *theirs.values(), *named])  # type: ignore[attr-defined]
        return filled

    return listed


def range_of(hint: Any) -> Range:
    """The Range of an annotation; any finite number where it has none."""
    found = [extra for extra in typing.get_args(hint) if isinstance(extra, Range)]
    return found[0] if found else Range()
