"""Each protocol's rule stated once more, clip by clip in plain Python as its code base has it, against ours: lengths,
rates and sizes beyond the tables of `test_protocols`."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vidtrain.data.clips.protocols import protocol_clips
from vidtrain.data.clips.sampling import ClipSpec
from vidtrain.data.clips.transforms import EvalCrops
from vidtrain.data.readers.timeline import Timeline
from vidtrain.data.settings import EvalProtocol as P
from vidtrain.data.settings import TransformConfig
from vidtrain.errors import DataError
from vidtrain.types import VideoInfo

Clips = list[list[int]]
RATES = [Fraction(12), Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), 50, Fraction(60000, 1001), 60, 120]
LENGTHS = st.one_of(st.sampled_from([1, 2, 7, 16, 63, 64, 65, 299, 1000]), st.integers(1, 1200))


def trunc_linspace(first: float, last: float, count: int) -> list[int]:
    return [int(x) for x in torch.linspace(first, last, count)]


def pyslowfast(n: int, fps: Fraction, frames: int, rate: int, views: int, *, offset: bool = False) -> Clips:
    span, clips = float(frames * rate * fps / 30), []
    span = max(span, 1.0)
    delta = max(n - span, 0)
    for i in range(views):
        start = delta * i / views
        if offset:
            start = i * math.floor(delta / (views - 1)) if views > 1 else math.floor(delta / 2)
        if n <= frames * rate:
            clip = trunc_linspace(start, start + span - 1, frames)
        else:
            a, b = math.ceil(start - 0.002), math.floor(start + span - 1 + 0.002)
            clip = [a + min(k, max(b - a, 0)) for k in trunc_linspace(0, span - 1, frames)]
        clips.append([min(k, n - 1) for k in clip])
    return clips


def pyslowfast_offset(n: int, fps: Fraction, frames: int, rate: int, views: int) -> Clips:
    return pyslowfast(n, fps, frames, rate, views, offset=True)


def pytorchvideo(n: int, fps: Fraction, frames: int, rate: int, views: int, *, parts: int | None = None) -> Clips:
    length, duration, clips = Fraction(frames * rate / 30), n / fps, []
    times = [k / fps for k in range(n)]
    step = max(duration - length, Fraction(0)) / (max(views - 1, 1) if parts is None else parts)
    for i in range(views):
        shown = range(bisect_left(times, step * i), bisect_left(times, step * i + length))
        clips.append([shown[k] for k in trunc_linspace(0, len(shown) - 1, frames)] if shown else [])
    return clips


def pytorchvideo_release(n: int, fps: Fraction, frames: int, rate: int, views: int) -> Clips:
    return pytorchvideo(n, fps, frames, rate, views, parts=views)


def torchvision(n: int, fps: Fraction, frames: int, rate: int, views: int) -> Clips:
    """At 15 frames per second; rate is not asked."""
    step = float(fps) / 15
    count = math.floor(n * 15 / float(fps))
    samples = list(range(0, n, int(step))) if step == int(step) else []
    samples = samples or [int(np.float32(k) * np.float32(step)) for k in range(count)]
    runs = [samples[k : k + frames] for k in range(len(samples) - frames + 1)]
    return [runs[k] for k in trunc_linspace(0, len(runs) - 1, views)] if runs else []


def mmaction2(n: int, fps: Fraction, frames: int, rate: int, views: int) -> Clips:
    room = max(n - ((frames - 1) * rate + 1), 0)
    starts = [round(i * (room / (views - 1))) for i in range(views)] if views > 1 else [room // 2]
    return [[(start + k * rate) % n for k in range(frames)] for start in starts]


def videomae(n: int, fps: Fraction, frames: int, rate: int, views: int) -> Clips:
    every = list(range(0, n, rate))
    every += [every[-1]] * (frames - len(every))
    step = (len(every) - frames) / (views - 1)
    return [every[int(i * step) :][:frames] for i in range(views)]


def internvideo2(n: int, fps: Fraction, frames: int, rate: int, views: int) -> Clips:
    step = max((n - frames * rate) / (views - 1), 0)
    clips = []
    for i in range(views):
        clip = [int(i * step) + k * rate for k in range(frames)]
        there = [k for k in clip if k < n]
        clips.append(there + [there[-1]] * (frames - len(there)))
    return clips


TIMED: dict[P, Callable[[int, Fraction, int, int, int], Clips]] = {
    P.pyslowfast: pyslowfast,
    P.pyslowfast_offset: pyslowfast_offset,
    P.pytorchvideo: pytorchvideo,
    P.pytorchvideo_0_1_5: pytorchvideo_release,
    P.torchvision: torchvision,
    P.mmaction2: mmaction2,
    P.videomae: videomae,
    P.internvideo2: internvideo2,
}


@pytest.mark.parametrize("protocol", TIMED)
@settings(max_examples=40, deadline=None)
@example(n=1, fps=Fraction(25), frames=8, rate=8, views=10)
@example(n=1000, fps=Fraction(60000, 1001), frames=32, rate=2, views=5)
@example(n=65, fps=Fraction(24000, 1001), frames=16, rate=4, views=4)
@given(
    n=LENGTHS,
    fps=st.sampled_from(RATES).map(Fraction),
    frames=st.sampled_from([4, 8, 13, 16, 32]),
    rate=st.sampled_from([1, 2, 4, 5, 6, 8]),
    views=st.integers(2, 10),
)
def test_clips_of_a_stride(protocol: P, n: int, fps: Fraction, frames: int, rate: int, views: int) -> None:
    spec = ClipSpec(frames, 1, 15) if protocol is P.torchvision else ClipSpec(frames, rate)
    expected = TIMED[protocol](n, fps, frames, rate, views)
    if not expected:
        with pytest.raises(DataError, match=r"too short for eval\.protocol=torchvision"):
            protocol_clips(protocol, Timeline(n, float(fps)), spec, views)
        return
    assert protocol_clips(protocol, Timeline(n, float(fps)), spec, views).tolist() == expected


def parts(n: int, frames: int, views: int) -> Clips:
    tick = n / frames
    return [[int(tick / 2 + tick * k) for k in range(frames)], [int(tick * k) for k in range(frames)]][:views]


def uniform(n: int, frames: int, views: int) -> Clips:
    size = (n - 1) / frames
    return [[round(size * k) + int(size / (views + 1) * (view + 1)) for k in range(frames)] for view in range(views)]


def interleaved(n: int, frames: int, views: int) -> Clips:
    tick = n / frames
    every = sorted(int(view * tick / views + tick * k) for view in range(views) for k in range(frames))
    return [every[view::views] for view in range(views)]


def dense(n: int, frames: int, views: int) -> Clips:
    starts = np.linspace(0, max(1, 1 + n - 64) - 1, num=views, dtype=int).tolist()
    return [[(start + k * (64 // frames)) % n for k in range(frames)] for start in starts]


SPARSE = [
    *((P.mmaction2, parts), (P.tsm, parts), (P.mmaction2_uniform, uniform), (P.internvideo2, uniform)),
    *((P.videomae, interleaved), (P.mmaction2, dense), (P.tsm, dense)),
]


@pytest.mark.parametrize(("protocol", "rule"), SPARSE)
@settings(max_examples=40, deadline=None)
@given(n=LENGTHS, frames=st.sampled_from([1, 3, 8, 16, 25, 32]), views=st.integers(1, 10))
def test_clips_of_segments_and_windows(
    protocol: P, rule: Callable[[int, int, int], Clips], n: int, frames: int, views: int
) -> None:
    views = min(views, 2) if rule is parts else views
    spec = ClipSpec(frames, window=64) if rule is dense else ClipSpec(frames, mode="segments")
    assert protocol_clips(protocol, Timeline(n, 25.0), spec, views).tolist() == rule(n, frames, views)


# ---------------------------------------------------------------- crops: (x, y) in the frame as scaled


def half_up(long: int, scale: int, short: int) -> int:
    return math.floor(Fraction(long * scale, short) + Fraction(1, 2))


def floored(long: int, scale: int, short: int) -> int:
    return long * scale // short


LONG_SIDE = {
    P.pyslowfast: half_up,
    P.mmaction2: half_up,
    P.torchvision: floored,
    P.tsm: floored,
    P.videomae: floored,
    P.internvideo2: floored,
}
SIDES = st.one_of(st.sampled_from([1, 63, 100, 171, 239, 255, 320, 341, 1919]), st.integers(2, 2000))


def places(protocol: P, crops: int, w: int, h: int, s: int) -> list[tuple[int, int]]:
    x, y = w - s, h - s
    if protocol is P.pyslowfast:
        mid = math.ceil(x / 2), math.ceil(y / 2)
        ends = [(mid[0], 0), mid, (mid[0], y)] if h > w else [(0, mid[1]), mid, (x, mid[1])]
        return [mid] if crops == 1 else ends
    if protocol is P.mmaction2 and crops == 1:
        return [(x // 2, y // 2)]
    if protocol is P.mmaction2:
        a, b = x // 2, y // 2
        return [(0, 0), (0, 2 * b), (0, b)] if h > w else [(0, 0), (2 * a, 0), (a, 0)]
    if protocol is P.tsm:
        a, b = x // 4, y // 4
        return [(round(x / 2), round(y / 2))] if crops == 1 else [(0, 2 * b), (4 * a, 2 * b), (2 * a, 2 * b)]
    if protocol is P.torchvision:
        return [(round(x / 2), round(y / 2))]
    steps = [int(k * (max(w, h) - s) / 2) for k in range(3)]
    return [(0, k) for k in steps] if h > w else [(k, 0) for k in steps]


@pytest.mark.parametrize(
    ("protocol", "crops"),
    [
        *((P.pyslowfast, 1), (P.pyslowfast, 3), (P.mmaction2, 1), (P.mmaction2, 3), (P.tsm, 1), (P.tsm, 3)),
        *((P.torchvision, 1), (P.videomae, 3), (P.internvideo2, 3)),
    ],
)
@settings(max_examples=40, deadline=None)
@example(width=1080, height=1919, size=224, more=32)
@example(width=101, height=99, size=112, more=16)
@given(width=SIDES, height=SIDES, size=st.integers(16, 256), more=st.integers(0, 40))
def test_crops(protocol: P, crops: int, width: int, height: int, size: int, more: int) -> None:
    cuts = EvalCrops(TransformConfig(size, resize=size + more), crops, protocol)
    scale = size if protocol in (P.videomae, P.internvideo2) or (crops == 3 and protocol is not P.tsm) else size + more
    short, long = sorted((width, height))
    scaled = max(LONG_SIDE[protocol](long, scale, short), scale)
    w, h = (scaled, scale) if width >= height else (scale, scaled)
    found = cuts.all(VideoInfo(10, 25.0, height, width))
    assert {cut.read_size for cut in found} == {(h, w)}
    assert [(cut.left, cut.top) for cut in found] == places(protocol, crops, w, h, size)
