"""Segments of a stream are those of the whole, found in bounded memory."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from vidtrain.segments import Segment, Windows
from vidtrain.tasks.segments.from_windows import find_segments
from vidtrain.tasks.segments.online import OnlineSegments
from vidtrain.tasks.settings import SegmentsConfig

NAMES = list("abcd")


def made(seed: int, count: int, *, gaps: bool) -> Windows:
    """Windows of 2 s every 0.5 s whose classes last a while."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(4, 0.3), count).astype(np.float32)
    for number in range(1, count):
        if rng.random() < 0.9:
            probs[number] = probs[number - 1]
    numbers = np.arange(count) + (np.cumsum(rng.random(count) < 0.02) if gaps else 0)
    return Windows(numbers * 0.5, numbers * 0.5 + 2, probs, numbers)


def streamed(online: OnlineSegments, windows: Windows) -> tuple[list[Segment], int, int]:
    """All segments, how many came before the end, and the most windows that were held."""
    found: list[Segment] = []
    most = 0
    for row in zip(windows.starts, windows.ends, windows.probs, windows.numbers.tolist(), strict=True):
        found += online.add(*row)
        most = max(most, online.held)
    early = len(found)
    return found + online.end(), early, most


@pytest.mark.parametrize("seed", range(16))
def test_those_of_the_whole(seed: int) -> None:
    multi_label = seed % 5 > 2
    windows = made(seed, 500, gaps=seed % 2 == 0)
    config = SegmentsConfig(
        smoothing=(None, 0, 3.0)[seed % 3],
        threshold=(0.5, 0.3)[seed % 2],
        background=["a"] if seed % 4 == 0 else [],
        min_seconds=(0, 2.0, 5.0)[seed % 3],
        merge_seconds=(0, 1.5, 4.0)[seed // 3 % 3],
    )
    expected = find_segments(windows, NAMES, config, multi_label=multi_label)
    online = OnlineSegments(NAMES, config, multi_label=multi_label, most=1024)
    found, early, most = streamed(online, windows)
    assert [(s.start, s.end, s.label) for s in found] == [(s.start, s.end, s.label) for s in expected]
    assert np.allclose([s.score for s in found], [s.score for s in expected], atol=1e-5)
    assert early > 0.5 * len(found)
    assert most < 320


def odd(seed: int) -> tuple[Windows, SegmentsConfig, bool]:
    """Windows at even times, at uneven ones, and at times rounded to a thousandth; in half of the cases probabilities
    are tenths, so that many come to lie at the threshold or are equal."""
    rng = np.random.default_rng([5, seed])
    windows = made(seed, int(rng.integers(100, 240)), gaps=seed % 2 == 0)
    starts, ends, probs = windows.starts, windows.ends, windows.probs
    if seed % 3 == 1:
        starts = np.cumsum(rng.uniform(0.2, 0.8, len(starts)))
        ends = starts + 2 + rng.uniform(-0.19, 0.19, len(starts))
    elif seed % 3 == 2:
        starts, ends = np.round(windows.numbers * 0.5003, 3), np.round(windows.numbers * 0.5003 + 2.0007, 3)
    if seed % 4 > 1:
        probs = probs.round(1)
    config = SegmentsConfig(
        smoothing=[None, 0.0, float(rng.uniform(0, 8))][rng.integers(3)],
        threshold=float(rng.choice([0.2, 0.3, 0.5, rng.uniform(0.2, 0.7)])),
        background=["a"] if rng.random() < 0.3 else [],
        min_seconds=float(rng.choice([0, rng.uniform(0, 8)])),
        merge_seconds=float(rng.choice([0, rng.uniform(0, 8)])),
    )
    return Windows(starts, ends, probs, windows.numbers), config, bool(rng.random() < 0.5)


def differing(seeds: range) -> list[int]:
    """Those whose segments are not those of the whole."""
    found = []
    for seed in seeds:
        windows, config, multi_label = odd(seed)
        expected = find_segments(windows, NAMES, config, multi_label=multi_label)
        online, _, _ = streamed(OnlineSegments(NAMES, config, multi_label=multi_label, most=512), windows)
        if [(s.start, s.end, s.label) for s in online] != [(s.start, s.end, s.label) for s in expected]:
            found.append(seed)
    return found


def test_those_of_the_whole_in_odd_cases() -> None:
    assert differing(range(120)) == []


@pytest.mark.slow
def test_those_of_the_whole_in_2000_odd_cases() -> None:
    assert differing(range(2000)) == []


def test_one_without_end_is_cut() -> None:
    windows = Windows(
        np.arange(300) * 0.5, np.arange(300) * 0.5 + 2, np.tile([0.9, 0.1, 0, 0], (300, 1)), np.arange(300)
    )
    found, early, most = streamed(OnlineSegments(NAMES, SegmentsConfig(), most=100), windows)
    assert most == 99
    assert early >= 2
    assert {s.label for s in found} == {"a"}
    assert found[0].start == 0
    assert found[-1].end == windows.ends[-1]
    assert all(a.end == b.start for a, b in pairwise(found))


def test_nothing() -> None:
    assert OnlineSegments(NAMES, SegmentsConfig()).end() == []
