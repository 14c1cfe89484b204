"""How far a long job is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from typing import Final, NoReturn

from tqdm import tqdm

from vidtrain.types import Closing

_LINE_EVERY: Final = 30.0  # seconds


class ProgressBar(Closing):
    """Counts items on stderr. Use it as a context manager.

    note: shown behind the numbers, for instance "3 problems"; set it at any time.
    """

    def __init__(self, total: int, what: str, *, done: int = 0, unit: str = "file") -> None:
        """
        Args:
            total: items in all.
            what: what is being done to them, "checking".
            done: of these, finished before; they do not count for the speed.
            unit: what an item is.
        """
        self.note = ""
        self._total, self._what, self._done, self._first, self._unit = total, what, done, done, unit
        self._began = self._last = time.monotonic()
        self._bar: tqdm[NoReturn] | None = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total, desc=what, initial=done, unit=unit, leave=False, dynamic_ncols=True)

    def step(self) -> None:
        """One more is finished."""
        self._done += 1
        if self._bar is not None:
            if self._bar.postfix != self.note:
                self._bar.set_postfix_str(self.note, refresh=False)
            self._bar.update()
        elif time.monotonic() - self._last >= _LINE_EVERY:
            self._last = time.monotonic()
            print(self._line(), file=sys.stderr, flush=True)

    def _line(self) -> str:
        rate = (self._done - self._first) / max(1e-9, time.monotonic() - self._began)
        left = (self._total - self._done) / max(1e-9, rate)
        parts = [f"{self._done}/{self._total} {self._unit}s", f"{rate:.1f} {self._unit}s/s", f"{left:.0f} s left"]
        return f"{self._what}: {', '.join([*parts, *([self.note] if self.note else [])])}"

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
