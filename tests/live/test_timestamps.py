"""Times that go on, whatever the timestamps do."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidtrain.live.latency import Latencies
from vidtrain.live.timestamps import StreamClock


def shown(clock: StreamClock, pts: list[float | None], arrived: list[float] | None = None) -> list[float]:
    return [round(clock.seconds(p, a), 6) for p, a in zip(pts, arrived or [0.0] * len(pts), strict=True)]


def test_timestamps() -> None:
    assert shown(StreamClock(), [7.0, 7.5, 8.5]) == [0, 0.5, 1.5]
    assert shown(StreamClock(), [7.0, 7.5, 8.0, 1.0, 1.5]) == [0, 0.5, 1, 1.5, 2]  # a step back
    assert shown(StreamClock(), [0.0, 0.5, 100.0]) == [0, 0.5, 100]  # a pause
    # pauses are not the usual distance
    assert shown(StreamClock(), [0.0, 100.0, 200.0, 150.0]) == [0, 100, 200, 200.04]
    mpegts = StreamClock()
    mpegts.new_clocks = True
    assert shown(mpegts, [0.0, 0.5, 100.0, 100.5]) == [0, 0.5, 1, 1.5]
    stuck = shown(StreamClock(), [0.0, 0.1, 0.2, 0.2, 0.2, 0.2, 0.2])
    assert stuck == [0, 0.1, 0.2, 0.2, 0.2, 0.3, 0.4]  # as in a file from the third on
    none = StreamClock()
    none.rate = 10.0
    assert shown(none, [None, None, None]) == [0, 0.1, 0.2]
    from_the_start = StreamClock()
    from_the_start.rate = 10.0
    assert shown(from_the_start, [0.0, 0.0, 0.0, 0.0, 0.0]) == [0, 0, 0, 0.1, 0.2]
    burst = [0.003 * number for number in range(6)]
    assert shown(StreamClock(), burst) == pytest.approx(burst)


def test_the_clock_on_the_wall() -> None:
    camera = StreamClock()
    camera.by_arrival = True
    assert shown(camera, [None, 0.0, 0.0], [5.0, 5.25, 7.0]) == [0, 0.25, 2]
    assert shown(camera, [None, None], [6.0, 7.0]) == [2, 3]
    again = StreamClock()
    first = shown(again, [3.0, 3.5], [100.0, 100.4])
    again.restart()
    assert first + shown(again, [90.0, 90.5], [104.4, 104.9]) == [0, 0.5, 4.5, 5.0]
    again.restart()  # nor is the usual distance that of the run before
    assert shown(again, [5.0, 1.0], [104.9, 105.0]) == [5.0, 5.04]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(-1e5, 1e5) | st.none(), st.booleans()), max_size=50), st.booleans(), st.booleans())
def test_time_never_steps_back(frames: list[tuple[float | None, bool]], new_clocks: bool, by_arrival: bool) -> None:
    clock, last = StreamClock(), 0.0
    clock.new_clocks, clock.by_arrival = new_clocks, by_arrival
    for number, (pts, cut) in enumerate(frames):
        if cut:
            clock.restart()
        now = clock.seconds(pts, number * 0.04)
        assert now >= last
        last = now


def test_percentiles() -> None:
    latencies = Latencies()
    assert str(latencies.percentile(0.5)) == "nan"
    for millis in range(1, 1001):
        latencies.add(millis / 1000)
    assert len(latencies) == 1000
    for share in (0.01, 0.5, 0.95, 1.0):
        assert abs(latencies.percentile(share) / share - 1) < 0.01
    few = Latencies()
    for seconds in (1.0, 2.0, 3.0):
        few.add(seconds)
    assert abs(few.percentile(0.5) / 2 - 1) < 0.01
    latencies.add(0.0)
    latencies.add(1e9)
    assert len(latencies) == 1002
