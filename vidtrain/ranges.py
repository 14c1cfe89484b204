"""What numbers an option takes, said beside the option: `number` in a dataclass of options, `Annotated` in a function.

    epochs: int = number(20, least=1)
    def folder(root: str, *, val_fraction: Annotated[float, Range(least=0, below=1)] = 0.1): ...

`check_ranges` holds a composed configuration against the first, `targets.call` the options of a function against the
second. nan and infinity are in no range.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from vidtrain.errors import ConfigError

LARGEST_SEED = 2**63 - 1
LONGEST = 1e6
"""Seconds: 11 days. Waiting functions refuse much more."""


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
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

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


def check_ranges(node: Any, prefix: str = "") -> None:
    """Raise ConfigError for the first number of a composed configuration that its field does not take.

    node: a DictConfig; its parts that are made from dataclasses are looked at, null is always left alone.
    """
    for key, value, allowed in _numbers(node, prefix):
        check_number(key, value, allowed)


def check_number(key: str, value: Any, allowed: Range) -> None:
    """value: a number, or a list of them. Raise ConfigError when one lies outside."""
    several = isinstance(value, (list, tuple))
    for one in value if several else [value]:
        if isinstance(one, (int, float)) and not isinstance(one, bool) and one not in allowed:
            shown = f"[{', '.join(map(str, value))}]" if several else value
            why = f" ({allowed.because})" if allowed.because else ""
            raise ConfigError(f"{key}={shown}: must be {allowed}{why}")


def range_of(hint: Any) -> Range:
    """The Range of an annotation; any finite number where it has none."""
    found = [extra for extra in typing.get_args(hint) if isinstance(extra, Range)]
    return found[0] if found else Range()


def _numbers(node: Any, prefix: str) -> Iterator[tuple[str, Any, Range]]:
    from omegaconf import DictConfig, ListConfig, OmegaConf

    schema = OmegaConf.get_type(node)
    for part in dataclasses.fields(schema) if dataclasses.is_dataclass(schema) else ():
        # a section that may hold anything is not looked into: nothing in it is to be resolved here
        if part.name not in node or part.type == "Any" or OmegaConf.is_missing(node, part.name):
            continue
        value = node[part.name]
        if isinstance(value, DictConfig):
            yield from _numbers(value, f"{prefix}{part.name}.")
        elif value is not None:
            plain = list(value) if isinstance(value, ListConfig) else value
            yield prefix + part.name, plain, part.metadata.get("range", Range())
