"""Options that the factories of a family share: a dataclass lists them once, each with its text.

    @takes(TransformerOptions, drop_path=0.1)
    def mine(*, init: str = "image", **options: Any) -> Mine:
        return Mine(TransformerOptions(**options), init)

is called as mine(*, num_classes, num_frames, size, ..., drop_path=0.1, init="image").
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection
from functools import wraps
from typing import Any, TypeVar

_Made = TypeVar("_Made")


def takes(
    shared: type, *, without: Collection[str] = (), **defaults: Any
) -> Callable[[Callable[..., _Made]], Callable[..., _Made]]:
    """Let the **options of a function stand for the fields of the dataclass `shared`: its signature and its annotations
    list them, so that a misspelt key or a value of another type is found as with any function.

    without: fields that the function fills in itself. defaults: its own, where they differ from the dataclass's.
    """

    def listed(function: Callable[..., _Made]) -> Callable[..., _Made]:
        hints = typing.get_type_hints(shared, include_extras=True)
        fields = {name: p for name, p in inspect.signature(shared).parameters.items() if name not in without}
        own = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]

        @wraps(function)
        def filled(**options: Any) -> _Made:
            return function(**{**defaults, **options})

        annotations = {key: hint for key, hint in function.__annotations__.items() if key != "options"}
        filled.__annotations__ = {**{name: hints[name] for name in fields}, **annotations}
        filled.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [*(p.replace(default=defaults.get(name, p.default)) for name, p in fields.items()), *own]
        )
        return filled

    return listed
