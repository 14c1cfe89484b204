"""From seconds to frames, for frames that are not evenly spaced and for those that are."""

from __future__ import annotations

import base64
import json
import tracemalloc
import zlib
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidtrain.data.clips.sampling import ClipSpec, random_clip, sliding_clips, uniform_clips
from vidtrain.data.readers.timeline import Seconds, Timeline, hop_seconds, packed, unpacked
from vidtrain.errors import ConfigError, DataError
from vidtrain.types import Indices

RATES = [Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(30), Fraction(25, 2), Fraction(60000, 1001)]
VARIED = np.concatenate([np.arange(120) / 60, 2 + np.arange(31) / 3])
"""120 frames at 60 per second, then 30 at 3: 2 s and 10 s."""


def spaced(gaps: list[float]) -> Seconds:
    return np.concatenate([[0.0], np.cumsum(gaps)])


gaps = st.lists(st.floats(0.005, 2.0), min_size=2, max_size=60)


@given(gaps, st.data())
def test_segments_that_follow_each_other_share_nothing_and_lose_nothing(
    spaces: list[float], data: st.DataObject
) -> None:
    times = spaced(spaces)
    line = Timeline(len(spaces), len(spaces) / times[-1], times)
    cut = data.draw(st.floats(0.0, float(times[-1])))
    if not times[0] < cut < times[-2]:
        return
    _, stop = line.within(0, cut)
    start, end = line.within(cut, None)
    assert end == len(spaces)
    assert (times[:-1][:stop] < cut + 1e-9).all()
    # the next one begins with the first frame that appears at the cut or later, and shares none but a lone one
    assert start == stop or (stop == 1 and start == 0)
    assert times[start] >= cut - 1e-3


@given(gaps, st.data())
def test_a_segment_has_the_frames_that_appear_in_it(spaces: list[float], data: st.DataObject) -> None:
    times = spaced(spaces)
    line = Timeline(len(spaces), len(spaces) / times[-1], times)
    first = data.draw(st.floats(0, float(times[-1]) - 2e-3))
    last = first + data.draw(st.floats(1e-3, 3))
    start, stop = line.within(first, last)
    inside = np.flatnonzero((times[:-1] >= first - line._equal) & (times[:-1] < last - line._equal))
    if len(inside):
        assert (start, stop) == (inside[0], inside[-1] + 1)
    else:
        assert stop == start + 1
        assert times[start] <= first + 1e-3
        assert times[start + 1] >= first - 1e-3  # on screen at its start


def test_the_example_of_the_module() -> None:
    line = Timeline(6, 6 / 1.2, np.array([0, 0.1, 0.2, 0.3, 0.6, 0.9, 1.2]))
    assert line.within(0.15, 0.6) == (2, 4)
    assert line.within(0.4, 0.5) == (3, 4)


def test_the_issue_s_example() -> None:
    line = Timeline(150, 149 / 11.67, VARIED)
    assert [line.within(*row) for row in ((0, 2), (2, 7), (7, 12), (11.9, 12))] == [
        (0, 120),
        (120, 135),
        (135, 150),
        (149, 150),
    ]
    with pytest.raises(DataError, match=r"begins at 12 s, the video ends at 12 s"):
        line.within(12, 13)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("rounding", [None, 90_000])
def test_evenly_spaced_frames_are_the_same_by_their_times(rate: Fraction, rounding: int | None) -> None:
    """Times that stand for a constant rate give what the rate itself gives, rounded to a container's ticks or not."""
    total, fps = 500, float(rate)
    exact = np.array([float(k / rate) for k in range(total + 1)])
    times = exact if rounding is None else np.round(exact * rounding) / rounding
    even, timed = Timeline(total, fps), Timeline(total, fps, times)
    for first in (0, 1, 2, 7.5, 7, float(100 / rate), float(101 / rate)):
        for length in (0.001, 0.5, 1, 2, float(30 / rate)):
            assert even.within(first, first + length) == timed.within(first, first + length)

    def check(sampler: Callable[..., Indices], *args: object, **options: object) -> None:
        by_rate, by_times = (
            sampler(line, spec, *(a(0) if callable(a) else a for a in args), **options) for line in (even, timed)
        )
        np.testing.assert_array_equal(by_rate, by_times)

    for target in (5, 7.5, 10, 12, 12.5, 15, 24, 25, float(rate), 30, 60):
        spec = ClipSpec(16, fps=target)
        check(random_clip, np.random.default_rng, clips=5)
        check(sliding_clips)
        check(sliding_clips, 16)
        for short in ("repeat_last", "loop"):
            spec = ClipSpec(16, fps=target, short=short)  # type: ignore[arg-type]
            check(uniform_clips, 10, first=2, last=2.7)


def test_exact_multiples_do_not_flip() -> None:
    """A whole number of frames from sample to sample is that number at every place."""
    for rate in RATES:
        for step in (1, 2, 3, 4, 5, 8):
            clip = uniform_clips(Timeline(4000, float(rate)), ClipSpec(400, fps=float(rate / step)), 1)[0]
            assert (np.diff(clip) == step).all(), (rate, step)
            assert Timeline(4000, float(rate)).at(np.arange(4000) / float(rate)).tolist() == list(range(4000))


def test_a_sample_shows_what_is_on_screen() -> None:
    """60 frames per second, then 3: from 1.5 s on at 10 per second."""
    clip = uniform_clips(Timeline(150, 149 / 11.67, VARIED), ClipSpec(16, fps=10), 2, first=1.5, last=3.4)[0]
    assert clip.tolist() == [90, 96, 102, 108, 114, 120, 120, 121, 121, 121, 122, 122, 122, 122, 123, 123]
    # no blue frame before it appears, however long the red one before it stands
    slow = spaced([1.0, 1.0] + [1 / 60] * 60)
    assert Timeline(62, 10, slow).at(np.array([1.2, 1.6, 1.98, 2.0])).tolist() == [1, 1, 1, 2]


def test_clips_reach_from_the_first_place_to_the_last_that_fits() -> None:
    starts = uniform_clips(Timeline(150, 149 / 11.67, VARIED), ClipSpec(16, fps=10), 5)[:, 0]
    assert starts.tolist() == [0, 36, 72, 108, 144]  # frame 144 appears at 10 s, the last sample at 11.5 s
    drawn = random_clip(Timeline(150, 149 / 11.67, VARIED), ClipSpec(16, fps=10), np.random.default_rng(0), clips=4000)
    assert set(drawn[:, 0].tolist()) == set(range(145))


@given(gaps, st.integers(1, 12), st.floats(1, 60), st.integers(0, 5))
def test_samples_are_near_their_times(spaces: list[float], frames: int, fps: float, seed: int) -> None:
    times = spaced(spaces)
    spec = ClipSpec(frames, fps=fps)
    rate = len(spaces) / float(times[-1])
    for clip in (
        *random_clip(Timeline(len(spaces), rate, times), spec, np.random.default_rng(seed), clips=3),
        *uniform_clips(Timeline(len(spaces), rate, times), spec, 3),
        *sliding_clips(Timeline(len(spaces), rate, times), spec, None),
    ):
        assert ((clip >= 0) & (clip < len(spaces))).all()
        wanted = times[clip[0]] + np.arange(frames) / fps
        inside = wanted < times[-1] - 1e-3
        late = times[clip] - wanted
        assert (late[inside] <= np.minimum(np.append(0, spaces)[clip], np.array(spaces)[clip])[inside] / 2 + 2e-3).all()
        on = times[clip + 1] - wanted
        assert (on[inside] >= -2e-3).all()


@given(gaps, st.integers(1, 8), st.floats(1, 60))
def test_clips_one_after_the_other_cover_every_second(spaces: list[float], frames: int, fps: float) -> None:
    times, spec = spaced(spaces), ClipSpec(frames, fps=fps)
    clips = sliding_clips(Timeline(len(spaces), len(spaces) / float(times[-1]), times), spec)
    assert (np.diff(clips[:, 0]) >= 0).all()
    assert (clips[1:-1, 0] == clips[:-2, -1] + 1).all()
    assert clips[0, 0] == 0


def test_hop_in_seconds() -> None:
    spec = ClipSpec(4, 1)
    assert sliding_clips(Timeline(100, 25), spec, "0.5s")[:, 0].tolist() == [0, 13, 25, 38, 50, 63, 75, 88, 96]
    found = sliding_clips(Timeline(150, 149 / 11.67, VARIED), spec, "1s")[:, 0]
    assert found.tolist() == [0, 60, 120, 123, 126, 129, 132, 135, 138, 141, 144, 146]
    assert sliding_clips(Timeline(150, 149 / 11.67, VARIED), spec, "0.1s", first=2, last=4)[:, 0].tolist() == [
        120,
        121,
        122,
    ]


def test_a_pause_is_not_sampled_from_more_often() -> None:
    """An hour's pause after frame 50: clips begin at frames, so one in a hundred begins there."""
    times = np.arange(101) / 25 + 3600 * (np.arange(101) > 50)
    spec = ClipSpec(8, fps=12.5)
    found = random_clip(Timeline(100, 25, times), spec, np.random.default_rng(0), clips=2000)
    still = (found == 50).sum(1) > 2
    assert 0 < still.mean() < 0.2


def test_too_short() -> None:
    with pytest.raises(DataError, match=r"spans 1.5 s \(16 samples, .*the video has 1.33333 s"):
        uniform_clips(Timeline(150, 12.8, VARIED), ClipSpec(16, fps=10, short="error"), 1, first=2, last=3.2)


@given(st.one_of(st.none(), gaps))
def test_packed(spaces: list[float] | None) -> None:
    times = None if spaces is None else spaced(spaces)
    found = unpacked(json.loads(json.dumps(packed(times))), 0 if times is None else len(times) - 1)
    if times is None:
        assert found is None
    else:
        np.testing.assert_allclose(found, times, atol=1e-6)


def test_constant_stretches_pack_small() -> None:
    assert len(packed(np.arange(100_001) / 25)) < 2000
    with pytest.raises(ValueError, match="ecompress"):
        unpacked("abcd", 2)


@pytest.mark.parametrize(("hop", "seconds"), [(None, None), (16, None), ("0.5s", 0.5), ("2 s", 2.0), (".25s", 0.25)])
def test_hops(hop: int | str | None, seconds: float | None) -> None:
    assert hop_seconds(hop) == seconds


@pytest.mark.parametrize("hop", [0, -1, "0s", "0.0001s", 0.5, "0.5", "half", "1m", "nans", "-1s"])
def test_bad_hops(hop: int | str) -> None:
    with pytest.raises(ConfigError, match=f"hop={hop}: must be "):
        hop_seconds(hop)


@pytest.mark.parametrize("frames", [0, 1, 2, 4, 1 << 40, -3])
def test_times_are_unpacked_for_their_frames_alone(frames: int) -> None:
    text = packed(np.array([0.0, 0.5, 0.75, 2.0]))
    assert unpacked(text, 3) is not None
    with pytest.raises(ValueError, match=rf"times of {frames} frames"):
        unpacked(text, frames)


def test_times_that_are_cut_off() -> None:
    whole = base64.b64decode(packed(np.array([0.0, 0.5, 0.75, 2.0])))
    for cut in (whole[:-1], whole[:-4]):  # of the checksum alone
        with pytest.raises(ValueError, match="not the times of 3 frames"):
            unpacked(base64.b64encode(cut).decode(), 3)


def test_times_that_unpack_to_gigabytes_are_not_unpacked() -> None:
    piece, packer = bytes(1 << 22), zlib.compressobj(9)
    bomb = b"".join([*(packer.compress(piece) for _ in range(64)), packer.flush()])  # 256 MB
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="not the times of 1000 frames"):
            unpacked(base64.b64encode(bomb).decode(), 1000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 23
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("steps", [[1, -1], [1 << 60, 1]])
def test_times_that_go_back_or_on_for_years(steps: list[int]) -> None:
    text = base64.b64encode(zlib.compress(np.array(steps, "<i8").tobytes())).decode()
    with pytest.raises(ValueError, match="do not increase, or of many years"):
        unpacked(text, 2)
