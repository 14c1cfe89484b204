"""An experiment given to another command than train: what it says of the parts that the command has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vidtrain.options.commands import COMMANDS


@contextmanager
def cut_to(command: str) -> Iterator[None]:
    """While Hydra runs in here, an experiment chooses and sets only what train and this command have in common: of
    `vidtrain data`, the data and the clips, but no optimizer."""
    from hydra._internal.config_repository import ConfigRepository

    usual = ConfigRepository.load_config
    if command != "train":
        shared = {*COMMANDS[command].groups.split()} & {*COMMANDS["train"].groups.split()}
        ConfigRepository.load_config = _of(shared, usual)  # type: ignore[method-assign]
    try:
        yield
    finally:
        ConfigRepository.load_config = usual  # type: ignore[method-assign]


def _of(shared: set[str], usual: Callable[..., Any]) -> Callable[..., Any]:
    def load_config(self: Any, config_path: str) -> Any:
        found = usual(self, config_path)
        if found is None or not config_path.startswith("experiment/"):
            return found
        found.defaults_list = [default for default in found.defaults_list if _chooses(default, shared)]
        if found.header.get("package") == "_global_":
            for key in {*found.config} - shared:
                found.config.pop(key)
        return found

    return load_config


def _chooses(default: Any, shared: set[str]) -> bool:
    """Whether an entry of a list of defaults is another experiment, or the choice of a group that both have."""
    group = getattr(default, "group", None) or ""
    return not group.startswith("/") or group.strip("/").split("@")[0] in shared
