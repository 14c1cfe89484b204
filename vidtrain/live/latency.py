"""How long answers take: percentiles of any number of them in constant memory."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

_LEAST: Final = 1e-5  # seconds
_STEP: Final = math.log(1.01)  # a bin is 1 % wide
_BINS: Final = 2600  # up to 1e-5 * 1.01 ** 2600, 20 days


class Latencies:
    """Counts seconds in bins of 1 %: a percentile is right to half of that."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)

    def __len__(self) -> int:
        return int(self._counts.sum())

    def add(self, seconds: float) -> None:
        place = round(math.log(max(seconds, _LEAST) / _LEAST) / _STEP)
        self._counts[min(place, _BINS - 1)] += 1

    def percentile(self, share: float) -> float:
        """Seconds that the share, in (0, 1], of them takes at most; nan for none."""
        total = len(self)
        if not total:
            return math.nan
        place = int(np.searchsorted(self._counts.cumsum(), math.ceil(share * total)))
        return _LEAST * math.exp(place * _STEP)
