"""The windows of a stream are those of the whole video, and no more frames are held than they need."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidtrain.data.clips.sampling import sliding_clips
from vidtrain.data.readers.timeline import Timeline
from vidtrain.data.settings import ClipSpec
from vidtrain.live.decoding_thread import Hold, LiveFrame
from vidtrain.live.windows import LiveWindow, LiveWindows, hold_of, newest

IMAGE = np.zeros((1, 1, 3), np.uint8)


def frame(number: int, seconds: float, *, run: int = 1, rate: float | None = None) -> LiveFrame:
    return LiveFrame(IMAGE, number, seconds, run, rate, seconds, seconds)


def numbers(windows: list[LiveWindow]) -> list[list[int]]:
    return [[f.number for f in window.frames] for window in windows]


def streamed(times: list[float], spec: ClipSpec, hop: int | str, rate: float | None) -> tuple[list[LiveWindow], int]:
    """The windows, and the most frames that were held."""
    windows, found, most = LiveWindows(spec, hop), [], 0
    for number, seconds in enumerate(times):
        found += windows.add(frame(number, seconds, rate=rate))
        most = max(most, len(windows._frames))
    return found + windows.end(), most


@settings(max_examples=60)
@given(
    total=st.integers(1, 120),
    fps=st.sampled_from([10.0, 24.0, 25.0, 30000 / 1001]),
    spec=st.sampled_from(
        [
            ClipSpec(num_frames=4, stride=2),
            ClipSpec(num_frames=8, stride=1),
            ClipSpec(num_frames=5, window=12),
            ClipSpec(num_frames=1, stride=3),
            ClipSpec(num_frames=6, fps=7.0),
            ClipSpec(num_frames=4, fps=12.0),
            ClipSpec(num_frames=6, fps=50.0),
            ClipSpec(num_frames=6, stride=2, short="loop"),
            ClipSpec(num_frames=6, fps=6.0, short="error"),
        ]
    ),
    hop=st.sampled_from([1, 3, 20, "0.1s", "0.37s", "0.01s", "2s"]),
    uneven=st.lists(st.sampled_from([0.02, 0.04, 0.05, 0.11, 0.3]), max_size=120) | st.none(),
)
def test_the_windows_of_the_whole_video(
    total: int, fps: float, spec: ClipSpec, hop: Any, uneven: list[float] | None
) -> None:
    times = None
    if uneven is not None and len(uneven) > 1:
        total = len(uneven)
        # as PyAVReader gives them: the last frame lasts as long as the one before it
        times = np.concatenate([[0.0], np.cumsum([*uneven[:-1], uneven[-2]])])
        fps = total / float(times[-1])
    shown = [k / fps for k in range(total)] if times is None else times[:-1].tolist()
    try:
        expected = sliding_clips(Timeline(total, fps, times), spec, hop)
    except Exception:  # short=error
        expected = np.empty((0, spec.num_frames), np.int64)
    # of uneven frames the container may say a rate all the same
    windows, _ = streamed(shown, spec, hop, fps if times is None else (None, 25.0)[total % 2])
    assert numbers(windows) == expected.tolist()
    line = Timeline(total, fps, times)
    assert np.allclose([w.start for w in windows], line.seconds(expected.min(1)) if len(expected) else [])
    if times is None and len(expected):
        assert np.allclose([w.end for w in windows], line.seconds(expected.max(1) + 1))
    assert [w.number for w in windows] == list(range(len(windows)))


@pytest.mark.parametrize("fps", [None, 5.0])
@pytest.mark.parametrize("hop", [4, "0.5s"])
@pytest.mark.parametrize("rate", [None, 25.0])
def test_what_is_held_does_not_grow(fps: float | None, hop: Any, rate: float | None) -> None:
    spec = ClipSpec(num_frames=4, stride=5, fps=fps)
    rng = np.random.default_rng(0)
    times = np.arange(400) / 25 + (rng.uniform(0, 0.01, 400) if rate is None else 0)
    windows, most = streamed(times.tolist(), spec, hop, rate)
    assert len(windows) > 25
    assert most <= 16 + 13 + 6  # a window, a hop, and what is not yet sure
    all_times = None if rate else np.append(times, 2 * times[-1] - times[-2])
    whole = sliding_clips(Timeline(400, 25.0 if all_times is None else 400 / all_times[-1], all_times), spec, hop)
    assert numbers(windows) == whole.tolist()  # nothing is let go that the last one needs


def test_a_window_comes_with_its_last_frame() -> None:
    """And by the frames' own times at most one later."""
    even, timed = (LiveWindows(ClipSpec(num_frames=4, fps=5.0), 5) for _ in range(2))
    came = [[n for n in range(40) if w.add(frame(n, n / 25 + 0.003 * (n % 2 if r is None else 0), rate=r))] for w, r in
            ((even, 25.0), (timed, None))]  # fmt: skip
    assert came[0] == [15, 20, 25, 30, 35]
    assert came[1] == [16, 21, 26, 31, 36] or came[1] == [15, 20, 25, 30, 35]


def test_no_window_reaches_over_a_cut() -> None:
    windows, found = LiveWindows(ClipSpec(num_frames=4, stride=1), 2), []
    for number in range(7):
        found += windows.add(frame(number, number / 25))
    for number in range(7, 12):  # opened again
        found += windows.add(frame(number, 9 + number / 25, run=2))
    for number in range(14, 19):  # two were lost, as the reader was late
        found += windows.add(frame(number, 9 + number / 25, run=2))
    found += windows.end()
    assert numbers(found) == [
        [0, 1, 2, 3], [2, 3, 4, 5], [3, 4, 5, 6],  # the last one of the run ends with it
        [7, 8, 9, 10], [14, 15, 16, 17], [15, 16, 17, 18],
    ]  # fmt: skip


def test_samples_go_on_where_the_last_ended() -> None:
    """hop=None: every sample of the stream once, on one grid."""
    for spec, rate in ((ClipSpec(num_frames=2, stride=3), 25.0), (ClipSpec(num_frames=1, fps=10.0), 25.0)):
        windows, found = LiveWindows(spec, None), []
        for number in range(60):
            found += windows.add(frame(number, number / 25, rate=rate))
        grid = np.floor(np.arange(100) * spec.step(25.0) + 0.5).astype(int)
        grid = grid[grid < 60]
        flat = [n for one in numbers(found) for n in one]
        assert flat == grid[: len(flat)].tolist()
        assert len(grid) - len(flat) < spec.num_frames + 1
        assert len(windows._frames) < 8


def test_what_the_end_decides_waits_from_the_end_on() -> None:
    """So the latency of the last answer has none of the time in which nobody knew that it is the last."""
    spec, windows = ClipSpec(num_frames=4, stride=1), LiveWindows(ClipSpec(num_frames=4, stride=1), 4)
    found = [w for n in range(10) for w in windows.add(frame(n, n / 25))]
    assert [w.since for w in found] == [3 / 25, 7 / 25]  # when the last frame came
    cut = windows.add(frame(10, 60.0, run=2))
    assert numbers(cut) == [[6, 7, 8, 9]]
    assert cut[0].since == 60.0
    before = time.monotonic()
    [last] = windows.end() or [None]
    assert last is None  # one frame is no window behind others
    short = LiveWindows(spec, 4)
    short.add(frame(0, 0.0))
    [only] = short.end()
    assert before <= only.since <= time.monotonic()


def test_the_newest_of_those_that_are_late() -> None:
    def waiting(*arrived: float) -> deque[LiveWindow]:
        return deque(LiveWindow([frame(n, at)], n, at, at, at) for n, at in enumerate(arrived))

    windows = waiting(1.0, 2.0, 3.0)
    assert newest(windows, 1.9, 1.0) == 0
    assert len(windows) == 3
    assert newest(windows, 2.1, 1.0) == 2
    assert [w.number for w in windows] == [2]
    assert newest(windows, 99.0, 1.0) == 0  # the only one is never dropped
    assert newest(deque(), 99.0, 1.0) == 0


def test_what_a_late_reader_finds() -> None:
    by_frames = hold_of(ClipSpec(num_frames=4, stride=3), 5, 112)
    assert by_frames == Hold(22, 0.0, (256 << 20) // (3 * 112 * 112))
    by_seconds = hold_of(ClipSpec(num_frames=4, fps=2.0), "0.5s", 112)
    assert by_seconds.seconds == 3.0
    frames = deque(frame(n, n / 10) for n in range(31))
    assert not by_seconds.is_over(frames)
    frames.append(frame(31, 3.1))
    assert by_seconds.is_over(frames)
    assert Hold(2, 10.0, 20).is_over(frames)  # never more than the most
