"""The typed options of tasks that are no function's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vidtrain.errors import ConfigError, did_you_mean, one_of
from vidtrain.ranges import LONGEST, number


@dataclass
class SegmentsConfig:
    """How windows become segments; `vidtrain predict --help` lists it."""

    smoothing: float | None = number(None, least=0, most=LONGEST)
    """Seconds over which the probabilities of windows are averaged first; 0: none, null: half of the first window."""
    threshold: float = number(0.5, least=0, most=1)
    """What the averaged probability of a class must reach for a segment of it."""
    background: list[str] = field(default_factory=list)
    """Classes that mean "nothing": no segment has one of them."""
    min_seconds: float = number(0.0, least=0, most=LONGEST)
    """Shorter segments are dropped, after those of one class have been merged."""
    merge_seconds: float = number(0.0, least=0, most=LONGEST)
    """Segments of one class with no more than this between them become one."""

    def check(self, class_names: Sequence[str]) -> None:
        """Raises ConfigError for a background that is no class."""
        for name in self.background:
            if name not in class_names:
                hint = did_you_mean(name, class_names)
                raise ConfigError(f"segments.background={name}: no such class{hint}; classes: {one_of(class_names)}")
