"""What Hydra does twice or for nothing when it composes a configuration: a third of a second of every start."""

from __future__ import annotations

import copy
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
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
    of what an interpolation may name for each list of defaults, where the list has none; a file is parsed twice, not
    for each run of a sweep; and what OmegaConf knows of a node is copied as the names and flags that it is, which takes
    a quarter less of the processor's time for a command that composes and ends."""
    from hydra._internal import config_repository, defaults_list
    from omegaconf.base import Metadata

    repository = getattr(config_repository, "CachingConfigRepository", None)
    named = getattr(defaults_list, "_create_interpolation_map", None)  # private, as get_mode is; not there in 1.4
    if repository is None:
        yield
        return
    copied, parsed = repository.__init__, config_repository.ConfigRepository.load_config
    repository.__init__ = _sharing_schemas
    config_repository.ConfigRepository.load_config = _parsed_once(parsed)  # type: ignore[method-assign]
    if named is not None:
        defaults_list._create_interpolation_map = _where_one_is_named(named)
    copied_deeply = getattr(Metadata, "__deepcopy__", None)
    Metadata.__deepcopy__ = _same_types_own_flags  # type: ignore[attr-defined]
    try:
        yield
    finally:
        repository.__init__ = copied
        config_repository.ConfigRepository.load_config = parsed  # type: ignore[method-assign]
        if named is not None:
            defaults_list._create_interpolation_map = named
        if copied_deeply is None:
            del Metadata.__deepcopy__  # type: ignore[attr-defined]


def _sharing_schemas(self: Any, delegate: Any) -> None:
    """CachingConfigRepository.__init__, which copies deeply because the list of sources may be set to another one."""
    self.delegate, self.cache = copy.copy(delegate), {}


def _same_types_own_flags(self: Any, memo: dict[int, Any]) -> Any:
    """Metadata.__deepcopy__: all but these two dictionaries are types, texts and numbers, their own copies."""
    made = object.__new__(type(self))
    made.__dict__.update(self.__dict__)
    if self.flags is not None:
        made.flags = dict(self.flags)
    made.resolver_cache = copy.deepcopy(self.resolver_cache, memo) if self.resolver_cache else defaultdict(dict)
    return made


_parsed: Final[dict[tuple[Any, ...], Any]] = {}
"""What ConfigRepository.load_config has returned for a file as it was then; None: it was asked for once."""


def _parsed_once(usual: Callable[..., Any]) -> Callable[..., Any]:
    def load_config(self: Any, config_path: str) -> Any:
        name = config_path if config_path.endswith(".yaml") else f"{config_path}.yaml"
        for source in self.sources:
            if source.is_config(config_path):
                break
        else:
            return usual(self, config_path)
        try:
            state = Path(source.path, name).stat()
        except OSError:  # no file
            return usual(self, config_path)
        key = (source.provider, source.path, name, state.st_ino, state.st_size, state.st_mtime_ns)
        if key not in _parsed:  # by most commands for the last time
            _parsed[key] = None
            return usual(self, config_path)
        if _parsed[key] is None:
            _parsed[key] = usual(self, config_path)
        return copy.deepcopy(_parsed[key])  # what is composed is made of its parts

    return load_config


def _where_one_is_named(usual: Callable[..., Any]) -> Callable[..., Any]:
    def names(overrides: Any, defaults: Sequence[Any], self_added: bool) -> Any:
        if any(default.is_interpolation() for default in defaults):
            return usual(overrides, defaults, self_added)
        return None  # nobody looks at it

    return names
