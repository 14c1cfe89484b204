"""When windows are an alarm: N of the last M reach the threshold, and the last alarm is long enough ago. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from vidtrain.live.settings import AlarmConfig


@dataclass(frozen=True)
class Alarm:
    """label: of the class. seconds: of the stream, at the end of the window that raised it. prob: the highest of the
    windows that count. hits: how many of the last `of` windows reached the threshold."""

    label: str
    seconds: float
    prob: float
    hits: int
    of: int


class Alarms:
    """One for each class that is watched.

    A class raises an alarm with the window that makes it N of the last M. It raises the next one when the cool-down is
    over and N of the last M still, or again, reach the threshold: what goes on is an alarm every cool-down.
    """

    def __init__(self, config: AlarmConfig) -> None:
        self._config = config
        self._recent: dict[str, deque[float]] = {name: deque(maxlen=config.of) for name in config.classes}
        self._last: dict[str, float] = {}

    def add(self, seconds: float, probs: Mapping[str, float]) -> list[Alarm]:
        """What a window raises.

        Args:
            seconds: its end; of one window after the other.
            probs: of the classes that are watched, in [0, 1].
        """
        raised = []
        for name, recent in self._recent.items():
            recent.append(probs[name])
            hits = [prob for prob in recent if prob >= self._config.threshold]
            last = self._last.get(name)
            cool = last is None or seconds - last >= self._config.cool_down
            if len(hits) >= self._config.windows and cool:
                self._last[name] = seconds
                raised.append(Alarm(name, seconds, max(hits), len(hits), self._config.of))
        return raised
