"""From windows to segments: by hand, and by properties of random ones."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidtrain.errors import ConfigError
from vidtrain.segments import Segment, Windows
from vidtrain.tasks.segments.from_windows import find_segments
from vidtrain.tasks.settings import SegmentsConfig

NAMES = ["rest", "walk", "run"]
RAW = {"smoothing": 0.0}


def windows(
    rows: list[list[float]], *, length: float = 2.0, hop: float = 1.0, missing: tuple[int, ...] = ()
) -> Windows:
    kept = np.array([n for n in range(len(rows)) if n not in missing])
    starts = kept * hop
    return Windows(starts, starts + length, np.array(rows, np.float32)[kept], kept)


def one_hot(labels: list[int], high: float = 0.9) -> list[list[float]]:
    return [[high if n == label else (1 - high) / 2 for n in range(3)] for label in labels]


def found(labels: list[int], **options: Any) -> list[tuple[float, float, str]]:
    missing = options.pop("missing", ())
    segments = find_segments(windows(one_hot(labels), missing=missing), NAMES, SegmentsConfig(**{**RAW, **options}))
    return [(s.start, s.end, s.label) for s in segments]


def test_a_window_speaks_for_the_time_around_its_centre() -> None:
    # centres 1, 2, 3, 4, 5; the first window begins at 0, the last one ends at 6
    assert found([1, 1, 2, 2, 0]) == [(0, 2.5, "walk"), (2.5, 4.5, "run"), (4.5, 6, "rest")]
    assert found([1, 1, 2, 2, 0], background=["rest"]) == [(0, 2.5, "walk"), (2.5, 4.5, "run")]
    assert found([1, 1, 2, 2, 0], threshold=0.95) == []


def test_windows_that_could_not_be_read_leave_a_gap() -> None:
    # windows 2 to 5 are missing: what is known ends at 3 and begins again at 6
    assert found([1] * 9, missing=(2, 3, 4, 5)) == [(0, 3, "walk"), (6, 10, "walk")]
    # one is missing: its neighbours still overlap, and meet in the middle
    assert found([1, 1, 1, 2, 2], missing=(2,)) == [(0, 3, "walk"), (3, 6, "run")]
    assert found([1] * 9, missing=(2, 3, 4, 5), merge_seconds=3) == [(0, 10, "walk")]


def test_short_ones_are_dropped_and_close_ones_are_merged() -> None:
    flicker = [1, 1, 1, 2, 1, 1, 1]
    assert found(flicker) == [(0, 3.5, "walk"), (3.5, 4.5, "run"), (4.5, 8, "walk")]
    assert found(flicker, min_seconds=2) == [(0, 3.5, "walk"), (4.5, 8, "walk")]
    assert found(flicker, min_seconds=2, merge_seconds=1) == [(0, 8, "walk")]
    # the one between is long enough to stay
    assert found(flicker, min_seconds=1, merge_seconds=1) == found(flicker)
    # merged first: together they are long enough
    rows = [1, 0, 1, 0, 1]
    assert found(rows, background=["rest"], min_seconds=3, merge_seconds=1) == [(0, 6, "walk")]


def test_smoothing_is_the_mean_over_seconds() -> None:
    flicker = windows(one_hot([1, 1, 1, 2, 1, 1, 1]))
    config = SegmentsConfig(smoothing=2.0)  # three windows, one second apart
    assert [s.label for s in find_segments(flicker, NAMES, config)] == ["walk"]
    assert flicker.smoothed(2.0)[3, 1] == pytest.approx((0.9 + 0.05 + 0.9) / 3)
    assert np.array_equal(flicker.smoothed(0), flicker.probs)
    # by default half a window: one second, and the neighbours' centres are one second away
    assert np.array_equal(flicker.smoothed(1.0), flicker.probs)


def test_several_classes_at_once_overlap() -> None:
    rows = [[0.1, 0.9, 0.2], [0.1, 0.9, 0.8], [0.1, 0.3, 0.8]]
    segments = find_segments(windows(rows), NAMES, SegmentsConfig(smoothing=0), multi_label=True)
    assert [(s.start, s.end, s.label) for s in segments] == [(0, 2.5, "walk"), (1.5, 4, "run")]
    assert [round(s.score, 6) for s in segments] == [0.9, 0.8]


def test_a_background_that_is_no_class() -> None:
    with pytest.raises(ConfigError, match=r"segments\.background=wlak: no such class \(did you mean walk\?\)"):
        SegmentsConfig(background=["wlak"]).check(NAMES)


def test_no_window_no_segment() -> None:
    none = Windows(np.empty(0), np.empty(0), np.empty((0, 3), np.float32), np.empty(0, np.int64))
    assert find_segments(none, NAMES, SegmentsConfig()) == []


@st.composite
def random_windows(draw: st.DrawFn) -> Windows:
    count = draw(st.integers(1, 25))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    numbers = np.flatnonzero(rng.random(count) < draw(st.sampled_from([1.0, 0.8, 0.5])))
    if not len(numbers):
        numbers = np.arange(1)
    starts = np.cumsum(rng.uniform(0.1, 1.0, count))[numbers] - 0.1
    logits = rng.normal(size=(count, 3)) * draw(st.sampled_from([0.5, 3.0]))
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Windows(starts, starts + draw(st.sampled_from([0.3, 2.0])), probs[numbers].astype(np.float32), numbers)


CONFIGS = st.builds(
    SegmentsConfig,
    smoothing=st.sampled_from([None, 0.0, 1.0]),
    threshold=st.sampled_from([0.0, 0.4, 0.7]),
    background=st.sampled_from([[], ["rest"], ["rest", "run"]]),
    min_seconds=st.sampled_from([0.0, 0.5, 2.0]),
    merge_seconds=st.sampled_from([0.0, 0.3, 1.5]),
)


@given(random_windows(), CONFIGS)
def test_what_holds_for_all(made: Windows, config: SegmentsConfig) -> None:
    segments = find_segments(made, NAMES, config)
    for s in segments:
        assert made.starts.min() - 1e-9 <= s.start < s.end <= made.ends.max() + 1e-9
        assert s.seconds >= config.min_seconds
        assert s.label not in config.background
        assert 0 <= s.score <= 1 + 1e-6
    for one, other in pairwise(segments):
        assert one.end <= other.start


@given(random_windows(), st.sampled_from([0.0, 0.4, 0.7]))
def test_every_cell_has_the_class_of_its_window(made: Windows, threshold: float) -> None:
    """Without merging and dropping, at each window's centre stands its most probable class, if that is enough."""
    segments = find_segments(made, NAMES, SegmentsConfig(smoothing=0, threshold=threshold))
    cells = made.cells()
    assert (cells[1:, 0] >= cells[:-1, 1] - 1e-9).all()
    for (start, end), row in zip(cells, made.probs, strict=True):
        here = [s.label for s in segments if s.start <= (start + end) / 2 < s.end]
        assert here == ([NAMES[row.argmax()]] if row.max() >= threshold else [])


@given(random_windows())
def test_segments_of_a_lower_threshold_cover_those_of_a_higher_one(made: Windows) -> None:
    def covered(segments: list[Segment], at: float) -> bool:
        return any(s.start <= at < s.end for s in segments)

    low, high = (find_segments(made, NAMES, SegmentsConfig(threshold=t)) for t in (0.4, 0.6))
    for at in np.linspace(made.starts.min(), made.ends.max(), 50):
        assert covered(low, at) or not covered(high, at)
