"""Which views of a video count where not all do: in a test of fewer, and in the curve of accuracy over views."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=64)
def spread_views(total: int, most: int) -> tuple[int, ...]:
    """`most` of the views 0 ... total - 1 of a video, or all, in the order in which they are added: the middle one,
    then always the one that lies farthest from those there are, the first of several.

    Views are numbered clip by clip, the crops of a clip side by side. The first k of more are the first k of k.
    """
    if not total:
        return ()
    order = [(total - 1) // 2]
    distance = np.abs(np.arange(total) - order[0])
    while len(order) < min(most, total):
        order.append(int(distance.argmax()))
        distance = np.minimum(distance, np.abs(np.arange(total) - order[-1]))
    return tuple(order)
