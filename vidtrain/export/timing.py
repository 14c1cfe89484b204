"""How long several networks take for one clip, on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from vidtrain.export.parity import Ask

_LEAST = 5  # rounds


@torch.inference_mode()
def latencies(
    networks: Mapping[str, Ask], clips: Mapping[str, Tensor], *, seconds: float
) -> dict[str, tuple[float, float]]:
    """Milliseconds at the 50th and the 95th percentile, by name.

    The networks take turns, so that what else the machine does slows all of them alike; two rounds warm up. Rounds
    last for `seconds` per network, and are five at least.

    clips: uint8 (1, T, H, W, C) of each input.
    """
    times: dict[str, list[float]] = {name: [] for name in networks}
    began, rounds = time.perf_counter(), -2
    while rounds < _LEAST or time.perf_counter() - began < seconds * len(networks):
        for name, ask in networks.items():
            start = time.perf_counter()
            ask(clips)
            if rounds >= 0:
                times[name].append(1000 * (time.perf_counter() - start))
        rounds += 1
        if rounds == 0:
            began = time.perf_counter()
    return {name: (float(np.percentile(own, 50)), float(np.percentile(own, 95))) for name, own in times.items()}
