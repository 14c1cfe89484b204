"""Hydra composes a configuration twice: first to look up `hydra.mode`, then for the run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

_OF_HYDRA: Final = re.compile(r"[+~]*hydra(\.mode|\.searchpath|=|$)")  # overrides that set it, or bring what may


@contextmanager
def composed_once(flags: Sequence[str], overrides: Sequence[str]) -> Iterator[None]:
    """While Hydra runs in here it composes once, which saves a fifth of a second of every start.

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
