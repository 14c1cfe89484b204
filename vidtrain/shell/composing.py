"""What Hydra does twice or for nothing when it composes a configuration: a third of a second of every start."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

_OF_HYDRA: Final = re.compile(r"[+~]*hydra(\.mode|\.searchpath|=|$)")  # overrides that set it, or bring what may


def ignore_notices() -> None:
    """Hydra 1.4 gives notice at every start of what 1.5 will no longer do; 1.3 has not what is to be used instead.

    It is about version_base, resolvers, and the plugins, callbacks and logging that this program itself names.
    """
    warnings.filterwarnings("ignore", message="(?s)Hydra configured Python logging without an execution whitelist")
    warnings.filterwarnings("ignore", message=r"(?s)register_new_resolver\(\) is deprecated")
    warnings.filterwarnings("ignore", message="(?s)The version_base parameter is deprecated")
    warnings.filterwarnings("ignore", message=r"(?s)hydra\.utils\.instantiate\(\) resolved", module=r"hydra\.")


@contextmanager
def composed_once(flags: Sequence[str], overrides: Sequence[str]) -> Iterator[None]:
    """While Hydra runs in here it composes once, not a first time to look up `hydra.mode`.

    No configuration of vidtrain sets hydra.mode, so that a flag decides, --multirun or none. A user's own may, in an
    override or in a folder of configs: then Hydra looks it up as ever.
    """
    from hydra._internal.hydra import Hydra

    own = any(flag.startswith(("--config", "-c", "--experimental-rerun")) for flag in flags)
    usual = getattr(Hydra, "get_mode", None)  # private: another version of Hydra may decide otherwise
    if own or usual is None or any(_OF_HYDRA.match(override) for override in overrides):
        yield
        return
    Hydra.get_mode = _not_set  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        Hydra.get_mode = usual  # type: ignore[method-assign]


def _not_set(hydra: Any, *given: Any, **more: Any) -> Any:  # Hydra 1.4 hands on more than 1.3
    """hydra.mode where nothing sets it: None."""


@contextmanager
def composed_without_copies() -> Iterator[None]:
    """While Hydra runs in here it neither copies all registered schemas, which it only reads, nor makes a configuration
    of what an interpolation may name for each list of defaults, where the list has none."""
    from hydra._internal import config_repository, defaults_list

    repository = getattr(config_repository, "CachingConfigRepository", None)
    named = getattr(defaults_list, "_create_interpolation_map", None)  # private, as get_mode is
    if repository is None or named is None:
        yield
        return
    copied = repository.__init__
    repository.__init__ = _sharing_schemas
    defaults_list._create_interpolation_map = _where_one_is_named(named)
    try:
        yield
    finally:
        repository.__init__ = copied
        defaults_list._create_interpolation_map = named


def _sharing_schemas(self: Any, delegate: Any) -> None:
    """CachingConfigRepository.__init__, which copies deeply because the list of sources may be set to another one."""
    self.delegate, self.cache = copy.copy(delegate), {}


def _where_one_is_named(usual: Callable[..., Any]) -> Callable[..., Any]:
    def names(overrides: Any, defaults: Sequence[Any], self_added: bool) -> Any:
        if any(default.is_interpolation() for default in defaults):
            return usual(overrides, defaults, self_added)
        return None  # nobody looks at it

    return names
