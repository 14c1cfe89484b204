"""When the frames of a stream are shown, in seconds from its first frame, as far as its timestamps can be believed.

The rules are those of data/readers/pyav/frame_times.py, by what is known when a frame comes. Behind a step back, or in
containers that allow new clocks a jump of more than 10 s, and where timestamps stand still, the time goes on as usual:
by the median distance of the last frames. What has no timestamps goes on by its rate, or, where frames come when they
are made, by the wall clock.
"""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import Final

_JUMP: Final = 10.0  # seconds
_STILL: Final = 1e-3  # seconds
_STUCK: Final = 3  # frames in a row
_RATE: Final = 25.0  # frames per second, of a stream that says nothing


class StreamClock:
    """Times that never step back, over any number of restarts.

    Attributes:
        by_arrival: frames have no times of their own, and come as they are made.
        rate: frames per second, as the container says.
        new_clocks: its timestamps may begin again anywhere.
    """

    def __init__(self) -> None:
        self.by_arrival = False
        self.new_clocks = False
        self.rate: float | None = None
        self._steps: deque[float] = deque(maxlen=33)
        self._now: float | None = None
        self._arrived = 0.0
        self._pts: float | None = None
        self._still = 0
        self._restarted = False

    def restart(self) -> None:
        """What comes next has been opened again: to its first frame the time goes on by the wall clock."""
        self._pts, self._still = None, 0
        self._steps.clear()
        self._restarted = True

    def seconds(self, pts: float | None, arrived: float) -> float:
        """Of the next frame, never before the one before it.

        Args:
            pts: seconds by its own clock. arrived: seconds by any clock that does not jump.
        """
        if self._now is None:
            self._now = 0.0
        elif self._restarted or self.by_arrival:
            self._now += max(0.0, arrived - self._arrived)
        else:
            self._now += self._step(pts)
        self._restarted = False
        self._arrived, self._pts = arrived, pts
        return self._now

    def _step(self, pts: float | None) -> float:
        if pts is None or self._pts is None:
            return self._usual
        step = pts - self._pts
        if step < 0 or (step > _JUMP and self.new_clocks):
            return self._usual
        if step <= _STILL and step * 10 < self._usual:
            self._still += 1
            return self._usual if self._still >= _STUCK else step
        self._still = 0
        if step <= _JUMP:
            self._steps.append(step)
        return step

    @property
    def _usual(self) -> float:
        return median(self._steps) if self._steps else 1 / (self.rate or _RATE)
