"""Factories that are another factory with other defaults."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")


def variant(factory: Callable[_P, _R], name: str, doc: str, **defaults: Any) -> Callable[_P, _R]:
    """`factory` under another name, with other defaults for some of its options; its signature shows them.

    doc: what it is; that its options are those of `factory` is added.
    """
    signature = inspect.signature(factory)
    unknown = defaults.keys() - signature.parameters.keys()
    assert not unknown, f"{name}: {factory.__name__} has no {unknown}"

    @functools.wraps(factory)
    def build(*args: _P.args, **options: _P.kwargs) -> _R:
        return factory(*args, **{**defaults, **options})

    parameters = [p.replace(default=defaults.get(p.name, p.default)) for p in signature.parameters.values()]
    build.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"{doc} Options as for {factory.__name__}."
    return build
