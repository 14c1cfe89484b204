"""The index maths: in range, spaced right, fair to both directions of time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vidtrain.data.clips.sampling import (
    ClipSpec,
    check_covers,
    covering_clips,
    random_clip,
    sliding_clips,
    uniform_clips,
)
from vidtrain.data.readers.timeline import Timeline
from vidtrain.data.settings import ShortPolicy
from vidtrain.errors import ConfigError, DataError

totals = st.integers(1, 400)
rates = st.floats(1, 120)
seeds = st.integers(0, 2**32 - 1)
shorts = st.sampled_from([ShortPolicy.repeat_last, ShortPolicy.loop])
strides = st.builds(ClipSpec, st.integers(1, 40), st.integers(1, 12), st.none(), shorts)
targets = st.builds(ClipSpec, st.integers(1, 40), st.just(2), st.floats(0.5, 240), shorts)
specs = strides | targets


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(totals, rates, specs, seeds, st.integers(1, 12))
def test_shape_type_and_range(total: int, fps: float, spec: ClipSpec, seed: int, clips: int) -> None:
    for found, count in (
        (random_clip(Timeline(total, fps), spec, rng(seed)), 1),
        (uniform_clips(Timeline(total, fps), spec, clips), clips),
    ):
        assert found.shape == (count, spec.num_frames)
        assert found.dtype == np.int64
        assert found.min() >= 0
        assert found.max() < total


@given(totals, rates, specs, seeds)
def test_same_rng_same_clip(total: int, fps: float, spec: ClipSpec, seed: int) -> None:
    clips = [random_clip(Timeline(total, fps), spec, rng(seed)) for _ in range(2)]
    np.testing.assert_array_equal(*clips)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 300), rates, seeds)
def test_stride_is_kept_where_the_clip_fits(frames: int, stride: int, room: int, fps: float, seed: int) -> None:
    spec = ClipSpec(frames, stride, short="error")
    total = (frames - 1) * stride + 1 + room
    for clip in (*random_clip(Timeline(total, fps), spec, rng(seed)), *uniform_clips(Timeline(total, fps), spec, 5)):
        assert (np.diff(clip) == stride).all()


@given(st.integers(2, 40), rates, st.floats(0.5, 240), st.integers(0, 300))
def test_fps_puts_samples_on_the_real_grid(frames: int, fps: float, target: float, room: int) -> None:
    """Each sample is within half a frame of where the exact rate puts it; none drifts."""
    spec = ClipSpec(frames, fps=target, short="error")
    clip = uniform_clips(Timeline(spec.span(fps) + room, fps), spec, 1)[0]
    ideal = clip[0] + np.arange(frames) * fps / target
    assert np.abs(clip - ideal).max() <= 0.5 + 1e-9
    assert (np.diff(clip) >= 0).all()


def test_fps_example() -> None:
    assert uniform_clips(Timeline(9, 30), ClipSpec(4, fps=12), 1).tolist() == [[0, 3, 5, 8]]
    # Above the video's own rate, frames repeat.
    assert uniform_clips(Timeline(4, 10), ClipSpec(6, fps=20), 1).tolist() == [[0, 1, 1, 2, 2, 3]]


@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 300), st.integers(1, 30))
def test_uniform_clips_equal_their_time_reversal(frames: int, stride: int, room: int, clips: int) -> None:
    """Sampling the reversed video and reversing back gives the same clips: no direction is preferred."""
    spec = ClipSpec(frames, stride, short="error")
    total = (frames - 1) * stride + 1 + room
    found = uniform_clips(Timeline(total, 25), spec, clips)
    mirrored = (total - 1 - found)[::-1, ::-1]
    moved = np.abs(found - mirrored).max(axis=1)
    if clips % 2 and room % 2:  # the middle one has no place in the exact centre
        assert moved[clips // 2] == 1
        moved[clips // 2] = 0
    assert not moved.any()


@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 300), st.integers(2, 30))
def test_uniform_clips_cover_first_to_last_evenly(frames: int, stride: int, room: int, clips: int) -> None:
    spec = ClipSpec(frames, stride)
    total = (frames - 1) * stride + 1 + room
    starts = uniform_clips(Timeline(total, 25), spec, clips)[:, 0]
    assert starts[0] == 0
    assert starts[-1] == room
    ideal = np.linspace(0, room, clips)
    assert np.abs(starts - ideal).max() <= 0.5 + 1e-9
    assert (np.diff(starts) >= 0).all()


def test_one_uniform_clip_is_the_centre_one() -> None:
    assert uniform_clips(Timeline(11, 25), ClipSpec(3, 1), 1).tolist() == [[4, 5, 6]]


def test_random_starts_are_equally_likely() -> None:
    """Chi-squared over the 11 places: first and last are not rarer than the others."""
    generator, spec = rng(7), ClipSpec(3, 2)
    starts = [int(random_clip(Timeline(15, 25), spec, generator)[0, 0]) for _ in range(11_000)]
    counts = np.bincount(starts, minlength=11)
    assert len(counts) == 11
    assert ((counts - 1000) ** 2 / 1000).sum() < 29.6  # p = 0.001 with 10 degrees of freedom


@pytest.mark.parametrize(("short", "expected"), [("repeat_last", [0, 2, 4, 4, 4, 4]), ("loop", [0, 2, 4, 1, 3, 0])])
def test_short_videos(short: ShortPolicy, expected: list[int]) -> None:
    spec = ClipSpec(6, 2, short=short)
    assert uniform_clips(Timeline(5, 25), spec, 3).tolist() == [expected] * 3
    assert random_clip(Timeline(5, 25), spec, rng())[0].tolist() == expected


def test_short_error_names_the_lengths() -> None:
    spec = ClipSpec(6, 2, short="error")
    for sample in (lambda: uniform_clips(Timeline(5, 25), spec, 1), lambda: random_clip(Timeline(5, 25), spec, rng())):
        with pytest.raises(DataError, match=r"spans 11 frames \(6 samples, stride 2\), the video has 5"):
            sample()
    assert uniform_clips(Timeline(11, 25), spec, 1).tolist() == [[0, 2, 4, 6, 8, 10]]


@given(totals, rates, specs, seeds, st.floats(0, 1), st.floats(0.001, 1))
def test_clips_stay_in_their_segment(
    total: int, fps: float, spec: ClipSpec, seed: int, at: float, length: float
) -> None:
    seconds = total / fps
    first = at * seconds * 0.99
    assume(round(first * fps + 1) <= total)
    last = first + length * seconds
    start, stop = Timeline(total, fps).within(first, last)
    assert 0 <= start < stop <= total
    for found in (
        random_clip(Timeline(total, fps), spec, rng(seed), first=first, last=last),
        uniform_clips(Timeline(total, fps), spec, 3, first=first, last=last),
    ):
        assert found.min() >= start
        assert found.max() < stop


def test_segment_in_frames() -> None:
    assert Timeline(100, 25).within(None, None) == (0, 100)
    assert Timeline(100, 25).within(1.0, 2.0) == (25, 50)
    assert Timeline(100, 25).within(1.0, 99.0) == (25, 100)
    assert Timeline(100, 25).within(1.0, 1.001) == (25, 26)  # shorter than a frame: the one it begins in
    assert uniform_clips(Timeline(100, 25), ClipSpec(2, 24), 2, first=1.0, last=2.0).tolist() == [[25, 49], [25, 49]]


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        (4.0, 5.0, "begins at 4 s, the video ends at 4 s"),
        (2.0, 2.0, "from 0 s or later to a later time, got 2 s to 2 s"),
        (-1.0, 2.0, "got -1 s to 2 s"),
        (float("nan"), 2.0, "got nan s"),
    ],
)
def test_bad_segments(first: float, last: float, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Timeline(100, 25).within(first, last)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_frames": 0}, r"sampler\.num_frames=0: must be at least 1"),
        ({"stride": 0}, r"sampler\.stride=0: must be at least 1"),
        ({"stride": 10**19}, r"sampler\.stride=1(0){19}: must be at least 1 and at most 1000000$"),
        ({"window": 10**19}, r"sampler\.window=1(0){19}: must be at least 1 and at most 1000000000$"),
        ({"fps": 0.0}, r"sampler\.fps=0\.0: must be at least 1e-06 \(or null to use sampler\.stride\)"),
        ({"fps": 1e-300}, r"sampler\.fps=1e-300: must be at least 1e-06"),
        ({"fps": float("nan")}, r"sampler\.fps=nan: must be finite, at least 1e-06"),
    ],
)
def test_bad_specs(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ClipSpec(**settings)  # type: ignore[arg-type]


def test_bad_number_of_clips() -> None:
    with pytest.raises(ConfigError, match="clips must be 1 or more, got 0"):
        uniform_clips(Timeline(10, 25), ClipSpec(), 0)


segment_specs = st.builds(lambda t, s: ClipSpec(t, short=s, mode="segments"), st.integers(1, 40), shorts)


@given(totals, rates, segment_specs, seeds, st.integers(1, 6))
def test_segments_take_one_frame_from_each_part(total: int, fps: float, spec: ClipSpec, seed: int, clips: int) -> None:
    parts = spec.num_frames
    low = np.arange(parts) * total // parts
    high = np.maximum((np.arange(parts) + 1) * total // parts, low + 1)
    for found in (
        random_clip(Timeline(total, fps), spec, rng(seed), clips=clips),
        uniform_clips(Timeline(total, fps), spec, clips),
    ):
        assert found.shape == (clips, parts)
        assert found.dtype == np.int64
        assert (found >= low).all()
        assert (found < high).all()


def test_random_segments_reach_every_frame_equally_often() -> None:
    spec = ClipSpec(4, mode="segments")
    found = random_clip(Timeline(20, 25), spec, rng(), clips=5000)
    counts = np.bincount(found.ravel(), minlength=20)
    assert (abs(counts - 1000) < 5 * np.sqrt(1000)).all()


def test_segments_in_testing_are_the_middles() -> None:
    spec = ClipSpec(4, mode="segments")
    assert uniform_clips(Timeline(12, 25), spec, 1).tolist() == [[1, 4, 7, 10]]
    assert uniform_clips(Timeline(12, 25), spec, 3).tolist() == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert uniform_clips(Timeline(3, 25), spec, 1).tolist() == [[0, 0, 1, 2]]
    with pytest.raises(DataError, match="4 segments, the video has 3 frames"):
        uniform_clips(Timeline(3, 25), ClipSpec(4, mode="segments", short="error"), 1)


@given(totals, rates, strides, seeds, st.integers(1, 60))
def test_sliding_clips_cover_the_video(total: int, fps: float, spec: ClipSpec, seed: int, hop: int) -> None:
    found = sliding_clips(Timeline(total, fps), spec, hop)
    starts, span = found[:, 0], spec.span(fps)
    assert found.min() >= 0
    assert found.max() == total - 1 or spec.step(fps) > 1 or spec.short == "loop"
    if span >= total:
        assert len(found) == 1
        return
    assert starts[0] == 0
    assert starts[-1] == total - span
    gaps = np.diff(starts)
    assert (gaps[:-1] == hop).all()
    assert len(gaps) == 0 or 0 < gaps[-1] <= hop


@pytest.mark.parametrize(("hop", "starts"), [("1.3s", [0, 13, 26]), (13, [0, 13, 26]), ("1.4s", [0, 14, 26])])
def test_the_clip_at_the_end_comes_once(hop: int | str, starts: list[int]) -> None:
    assert sliding_clips(Timeline(30, 10.0), ClipSpec(4, stride=1), hop)[:, 0].tolist() == starts


def test_sliding_needs_a_clip_that_is_shorter_than_the_video() -> None:
    with pytest.raises(ConfigError, match="cannot slide"):
        sliding_clips(Timeline(100, 25), ClipSpec(8, mode="segments"), 10)
    with pytest.raises(ConfigError, match="hop=0: must be at least 1"):
        sliding_clips(Timeline(100, 25), ClipSpec(8), 0)


def test_all_of_a_video_is_a_number_of_clips_or_their_distance() -> None:
    whole, clip = ClipSpec(4, mode="segments"), ClipSpec(4, stride=2)
    assert covering_clips(Timeline(12, 25), whole, clips=3).tolist() == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert covering_clips(Timeline(20, 10), clip, clips=3, first=0.5)[:, 0].tolist() == [5, 9, 13]
    assert covering_clips(Timeline(20, 10), clip, hop=6)[:, 0].tolist() == [0, 6, 12, 13]
    for spec, hop, clips, said in (
        (clip, 4, 3, "clips=3 spreads clips over a video, hop=4 sets their distance: give one of them"),
        (clip, None, 0, "clips=0: must be a whole number from 1 to 10000"),
        (clip, None, 10_001, "clips=10001: must be"),
        (clip, None, "3", "clips=3: must be a whole number"),
        (whole, None, None, "cannot slide"),
        (whole, 4, None, "cannot slide"),
        (clip, "4", None, "hop=4: must be a whole number of frames"),
    ):
        with pytest.raises(ConfigError, match=said):
            check_covers(spec, hop, clips)  # type: ignore[arg-type]
    check_covers(whole, None, 1)
    check_covers(clip, "0.5s", None)


@given(totals, rates, specs, seeds, st.integers(2, 5))
def test_several_random_clips_begin_as_one_does(total: int, fps: float, spec: ClipSpec, seed: int, clips: int) -> None:
    found = random_clip(Timeline(total, fps), spec, rng(seed), clips=clips)
    assert found.shape == (clips, spec.num_frames)
    np.testing.assert_array_equal(found[:1], random_clip(Timeline(total, fps), spec, rng(seed)))


@given(st.integers(1, 32), st.integers(0, 200), rates)
def test_a_window_sets_the_stride(frames: int, extra: int, fps: float) -> None:
    spec = ClipSpec(frames, window=frames + extra)
    clip = uniform_clips(Timeline(400, fps), spec, 1)[0]
    assert spec.span(fps) <= frames + extra
    assert np.abs(clip - clip[0] - np.arange(frames) * (frames + extra) / frames).max() <= 0.5 + 1e-9


def test_the_window_is_checked() -> None:
    with pytest.raises(ConfigError, match=r"sampler\.window=4: must be sampler\.num_frames=8 or more"):
        ClipSpec(8, window=4)
    with pytest.raises(ConfigError, match="window=64"):
        ClipSpec(8, window=64, fps=10)
