"""How much of untrimmed videos has a label."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidtrain.data.checks.segments import coverage, coverage_lines
from vidtrain.data.manifest.manifest import Manifest, VideoData
from vidtrain.data.readers.timeline import Timeline


class Probed:
    """What is asked of a probe: a video of so many seconds at 10 frames per second."""

    error = None

    def __init__(self, seconds: float) -> None:
        self.line = Timeline(round(seconds * 10), 10.0)


def manifest(*rows: tuple[str, float, float, int]) -> Manifest:
    plain = Manifest.of([row[0] for row in rows], [row[3] for row in rows])
    return replace(plain, starts=np.array([r[1] for r in rows]), ends=np.array([r[2] for r in rows]))


def test_by_hand() -> None:
    rows = [("/a", 1.0, 3.0, 0), ("/a", 2.0, 4.0, 1), ("/a", 3.5, 5.0, 1), ("/b", 8.0, 30.0, 0), ("/b", 0.0, 1.0, 1)]
    probes: Any = {"/a": Probed(10), "/b": Probed(20)}
    found = coverage(manifest(*rows), probes, 3)
    assert found is not None
    assert (found.videos, found.segments, found.seconds) == (2, 5, 30)
    assert found.labelled == pytest.approx(4 + 13)
    assert found.of_class.tolist() == pytest.approx([2 + 12, 3 + 1, 0])
    assert sorted(found.gaps.tolist()) == pytest.approx([1, 5, 7])
    assert (found.overlapping, found.same, found.beyond) == (3, 2, 1)
    data = VideoData(("walk", "run", "hop"), {"train": manifest(*rows)})
    (line,) = coverage_lines(data, probes)
    assert line == (
        "train: 5 segments in 2 videos of 30 s, 3 overlap (2 their own class), 1 end after their video; background 43% "
        "in 3 gaps of 5.00 s (median); share of the time: walk 46.7%, run 13.3%, hop 0.0%"
    )


def test_where_there_is_nothing_to_say() -> None:
    probes: Any = {"/a": Probed(10)}
    assert coverage(Manifest.of(["/a"], [0]), probes, 1) is None
    assert coverage_lines(VideoData(("x",), {"train": manifest(("/a", 0, np.inf, 0))}), probes) == []


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 19), st.integers(1, 9), st.integers(0, 2)), min_size=1, max_size=9))
def test_it_is_that_of_each_tenth_of_a_second(spans: list[tuple[int, int, int]]) -> None:
    rows = [("/a", start / 2, (start + length) / 2, label) for start, length, label in spans]
    probes: Any = {"/a": Probed(10)}
    found = coverage(manifest(*rows), probes, 3)
    assert found is not None
    at = (np.arange(100) + 0.5) / 10
    there = np.array([[(s <= t < e) and label == k for t in at for k in range(3)] for _, s, e, label in rows])
    there = there.reshape(len(rows), 100, 3)
    assert found.labelled == pytest.approx(there.any((0, 2)).sum() / 10)
    assert found.of_class == pytest.approx(there.any(0).sum(0) / 10)
    assert found.labelled + found.gaps.sum() == pytest.approx(10)
    inside = [(s, min(e, 10.0)) for _, s, e, _ in rows]
    pairs = [
        any(i != k and min(e, f) > max(s, t) for k, (t, f) in enumerate(inside)) for i, (s, e) in enumerate(inside)
    ]
    assert found.overlapping == sum(pairs)
