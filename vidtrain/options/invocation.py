"""The door: what Hydra composed becomes plain objects here, once, for every command."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from omegaconf import DictConfig, OmegaConf

from vidtrain.options.schema import CheckpointSections, DataSection, FlowSection, check_numbers

Options = TypeVar("Options")
_FROM_CHECKPOINT = [p.name for kind in (CheckpointSections, DataSection, FlowSection) for p in dataclasses.fields(kind)]


@dataclass(frozen=True)
class Invocation(Generic[Options]):
    """What a command is called with.

    options: the command's schema as an object, checked. A section that names a function is a dict. The sections that a
        checkpoint brings are None: `checkpoint_config` makes them of the file's and of `composed`.
    choices: group -> choice, of Hydra's groups; None: none was chosen.
    folder: of the run.
    composed: what Hydra composed, with its references. For `checkpoint_config` and `run_dir`, which merge it.
    """

    options: Options
    choices: Mapping[str, str | None]
    folder: Path
    composed: DictConfig = dataclasses.field(repr=False)

    @classmethod
    def of(cls, composed: DictConfig) -> Invocation[Any]:
        """Raises ConfigError and OmegaConf's errors: a value that its key cannot have, a reference to nothing."""
        from hydra.core.hydra_config import HydraConfig

        # as it is: ${ in the name of the working folder refers to nothing
        runtime: Any = OmegaConf.to_container(HydraConfig.get().runtime, resolve=False)
        choices = {group: choice for group, choice in runtime["choices"].items() if "/" not in group}
        return cls(typed(composed), choices, Path(runtime["output_dir"]), composed)


def typed(composed: DictConfig) -> Any:
    """The object of the dataclass that a configuration was made from, with every reference resolved."""
    check_numbers(composed)
    kind = OmegaConf.get_type(composed)
    if isinstance(kind, type) and issubclass(kind, CheckpointSections):
        composed = copy.deepcopy(composed)
        for section in (part.name for part in dataclasses.fields(kind) if part.name in _FROM_CHECKPOINT):
            composed[section] = None
    return OmegaConf.to_object(composed)


def plain(options: Any) -> dict[str, Any]:
    """Options as a checkpoint, JSON and loggers take them: dicts, lists, numbers, text."""
    return {part.name: _plain(getattr(options, part.name)) for part in dataclasses.fields(options)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return plain(value)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, str) else value  # a Choice is stored as its text
