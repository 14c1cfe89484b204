"""Which frames other code bases read in testing, index for index (`eval.protocol`). Pure index maths, as sampling.py.

A published accuracy holds for the clips that its own code cut. n frames at `fps` a second, T samples of a clip, r
frames from one to the next, V clips; k counts clips from 0:

    pyslowfast     S = T r fps / 30; starts k max(n - S, 0) / V; T samples over S - 1 frames: 8x8 at 30 fps steps 9.
                   _offset (USE_OFFSET_SAMPLING, MViT's): starts k floor(max(n - S, 0) / (V - 1)); one clip: the middle
    pytorchvideo   starts k (duration - d) / (V - 1) seconds, d = T r / 30, then T of the frames that appear within d,
                   first to last: a short video is stretched. _0_1_5 (its last release): / V
    torchvision    the video at sampler.fps, or every r-th frame; V of all runs of T frames, first to last
    mmaction2      starts k (n - (T - 1) r - 1) / (V - 1), rounded half to even; short videos wrap around. With fps (its
                   target_fps, X3D) as pyslowfast_offset. segments: the middle of each part; a second clip: its start
    _uniform       segments only (UniformSample): starts of T parts of n - 1, and (k + 1) / (V + 1) of a part further
    tsm            segments as mmaction2; window: V starts in 0..n - window, first to last; short videos wrap around
    videomae       every r-th frame from 0, then starts among these. segments: V clips interleaved
    internvideo2   starts k (n - T r) / (V - 1) on any frame. segments: mmaction2_uniform

Where a rule thinks in seconds, sampler.stride counts frames of a video of 30 per second, and sampler.fps stands for a
stride of 30 / fps. Floats are rounded where the code base rounds them, and in its precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from vidtrain.data.clips.sampling import ClipSpec
from vidtrain.data.readers.timeline import Timeline
from vidtrain.data.settings import EvalProtocol
from vidtrain.errors import ConfigError, DataError, one_of
from vidtrain.types import Indices

_USUAL_FPS: Final = 30
_SLACK: Final = 0.002  # frames; timestamps of a container are that coarse, and PySlowFast's reader has 0.1 ms to spare
_CLOSE: Final = 1e-6  # seconds, of times that were rounded to microseconds


def protocol_clips(
    protocol: EvalProtocol,
    line: Timeline,
    spec: ClipSpec,
    clips: int,
    *,
    first: float | None = None,
    last: float | None = None,
) -> Indices:
    """The clips of a video as the code base reads them, in its order. The arguments are those of `uniform_clips`.

    spec.short is not asked: a protocol has its own rule for short videos. A segment [first, last) is a video by itself.

    Returns:
        int64 (clips, T), each in [0, total).

    Raises:
        ConfigError: the protocol has no such clips, see `check_clips`.
        DataError: the code base would leave out the video, which is too short for a clip; or the segment is empty.
    """
    check_clips(protocol, spec, clips)
    start, stop = line.within(first, last)
    own = None if line.times is None else line.times[start : stop + 1] - line.times[start]
    rule = _RULES[protocol].by_kind[_kind(spec)]
    found = rule(Timeline(stop - start, line.fps, own), spec, clips)
    return start + np.asarray(found).astype(np.int64)


def check_clips(protocol: EvalProtocol, spec: ClipSpec, clips: int, hop: float | str | None = None) -> None:
    """Raise ConfigError unless the code base has clips of this kind, and so many of them."""
    if protocol is EvalProtocol.vidtrain:
        return
    name, rule, kind = f"eval.protocol={protocol}", _RULES[protocol], _kind(spec)
    if hop is not None:
        raise ConfigError(f"{name} spreads eval.clips over a video, it cannot slide: remove eval.hop={hop}")
    if kind not in rule.by_kind:
        raise ConfigError(f"{name}: got {_KINDS[kind]}, expected {one_of([_KINDS[k] for k in rule.by_kind])}")
    least, most = rule.clips.get(kind, (1, None))
    if clips < least or (most is not None and clips > most):
        bounds = f"{least} or more" if most is None else f"{least} to {most}"
        raise ConfigError(f"{name}: eval.clips={clips}: expected {bounds} with {_KINDS[kind]}")


# ---------------------------------------------------------------- the rules: (video, clip, V) -> (V, T)


def _pyslowfast(line: Timeline, spec: ClipSpec, clips: int, *, offset: bool = False) -> npt.NDArray[np.int64]:
    rate = _rate(spec)
    span = max(1.0, rate * spec.num_frames / _USUAL_FPS * line.fps)
    room = max(line.total - span, 0)
    starts = np.arange(clips) * room / clips
    if offset:
        starts = np.arange(clips) * np.floor(room / (clips - 1)) if clips > 1 else np.floor([room / 2])
    if line.total <= spec.num_frames * rate:  # the whole video is decoded, and samples taken from it
        found = np.stack([_steps(start, start + span - 1, spec.num_frames) for start in starts])
    else:  # only the frames from the clip's first to its last are
        begins, ends = np.ceil(starts - _SLACK), np.floor(starts + span - 1 + _SLACK)
        steps = _steps(0, span - 1, spec.num_frames)
        found = (begins[:, None] + np.clip(steps, 0, np.maximum(ends - begins, 0)[:, None])).astype(np.int64)
    return np.clip(found, 0, line.total - 1)


def _pytorchvideo(line: Timeline, spec: ClipSpec, clips: int, *, release: bool = False) -> Indices:
    seconds = spec.num_frames * spec.stride / _USUAL_FPS if spec.fps is None else spec.num_frames / spec.fps
    length, fps = Fraction(seconds), Fraction(line.fps).limit_denominator(100_000)
    duration = line.total / fps if line.times is None else Fraction(line.end)
    gap = max(duration - length, Fraction(0)) / (clips if release else max(clips - 1, 1))
    found = []
    for clip in range(clips):
        begin, end = (_frame_from(line, gap * clip + after, fps) for after in (Fraction(0), length))
        begin = min(begin, line.total - 1)
        found.append(begin + _steps(0, max(end - begin - 1, 0), spec.num_frames))
    return np.stack(found)


def _frame_from(line: Timeline, seconds: Fraction, fps: Fraction) -> int:
    """The first frame that appears at this time or later; `total` for none."""
    if line.times is not None:
        return int(np.searchsorted(line.times[:-1], float(seconds) - _CLOSE))
    return min(math.ceil(seconds * fps), line.total)


def _torchvision(line: Timeline, spec: ClipSpec, clips: int) -> Indices:
    step = float(spec.stride) if spec.fps is None else line.fps / spec.fps
    if step.is_integer():
        frames = np.arange(0, line.total, int(step))
    else:
        count = math.floor(line.total * spec.fps / line.fps) if spec.fps is not None else 0
        frames = (torch.arange(count, dtype=torch.float32) * step).floor().long().numpy()
    last = len(frames) - spec.num_frames
    if last < 0:
        raise DataError(
            f"too short for eval.protocol=torchvision, which skips it: {line.total} frames at {line.fps:g} fps give "
            f"{len(frames)} samples, a clip has {spec.num_frames}"
        )
    starts = torch.linspace(0, last, clips).floor().long().numpy()
    found: Indices = frames[starts[:, None] + np.arange(spec.num_frames)]
    return found


def _mmaction2(line: Timeline, spec: ClipSpec, clips: int) -> Indices:
    if spec.fps is None:
        samples = np.arange(spec.num_frames) * spec.stride
        room = max(line.total - int(samples[-1]) - 1, 0)
        starts = np.round(np.arange(clips) * (room / (clips - 1))) if clips > 1 else np.array([room // 2])
    else:
        span = max(1, spec.num_frames * _rate(spec) * (line.fps / _USUAL_FPS))
        samples = np.linspace(0, span - 1, spec.num_frames).astype(np.int64)
        gap = max(line.total - span, 0) / (clips - 1) if clips > 1 else max(line.total - span, 0) / 2
        starts = (np.arange(clips) if clips > 1 else np.ones(1)) * np.floor(gap)
    return (starts.astype(np.int64)[:, None] + samples) % line.total


def _parts(line: Timeline, spec: ClipSpec, clips: int) -> Indices:
    """The middle of each of T parts; of two clips, the second has where the parts begin."""
    size = line.total / spec.num_frames
    begins = np.arange(spec.num_frames) * size
    return np.stack([begins + size / 2, begins][:clips]).astype(np.int64)


def _parts_uniform(line: Timeline, spec: ClipSpec, clips: int) -> Indices:
    size = (line.total - 1) / spec.num_frames
    further = (size / (clips + 1) * np.arange(1, clips + 1)).astype(np.int64)
    return further[:, None] + np.round(np.arange(spec.num_frames) * size).astype(np.int64)


def _parts_interleaved(line: Timeline, spec: ClipSpec, clips: int) -> Indices:
    size = line.total / spec.num_frames
    places = np.arange(clips)[:, None] * size / clips + np.arange(spec.num_frames) * size
    return np.sort(places.astype(np.int64), axis=None).reshape(-1, clips).T


def _dense(line: Timeline, spec: ClipSpec, clips: int) -> Indices:
    assert spec.window is not None
    starts = np.linspace(0, max(line.total - spec.window, 0), clips).astype(np.int64)
    return (starts[:, None] + np.arange(spec.num_frames) * (spec.window // spec.num_frames)) % line.total


def _videomae(line: Timeline, spec: ClipSpec, clips: int) -> Indices:
    last = (line.total - 1) // spec.stride  # of every stride-th frame
    gap = max((last + 1 - spec.num_frames) / (clips - 1), 0)
    starts = (np.arange(clips) * gap).astype(np.int64)
    return spec.stride * np.minimum(starts[:, None] + np.arange(spec.num_frames), last)


def _internvideo2(line: Timeline, spec: ClipSpec, clips: int) -> Indices:
    gap = max((line.total - spec.num_frames * spec.stride) / (clips - 1), 0)
    starts = (np.arange(clips) * gap).astype(np.int64)
    samples = np.minimum(np.arange(spec.num_frames), (line.total - 1) // spec.stride) * spec.stride
    return np.minimum(starts[:, None] + samples, line.total - 1)


def _rate(spec: ClipSpec) -> float:
    """Frames from one sample to the next in a video of the usual rate; whole where it is so but for rounding."""
    if spec.fps is None:
        return spec.stride
    rate = _USUAL_FPS / spec.fps
    return round(rate) if abs(rate - round(rate)) < _CLOSE else rate


def _steps(start: float, end: float, count: int) -> Indices:
    """`count` numbers from start to end, evenly spaced, cut to whole ones; torch's float32, which decides at a tie."""
    found: Indices = torch.linspace(start, end, count).long().numpy()
    return found


# ---------------------------------------------------------------- what each code base has


_KINDS: Final = {
    "stride": "clips of a stride (sampler.fps=null)",
    "fps": "clips at sampler.fps",
    "window": "clips of sampler.window frames",
    "segments": "sampler.mode=segments",
}


def _kind(spec: ClipSpec) -> str:
    if spec.mode == "segments":
        return "segments"
    if spec.window is not None:
        return "window"
    return "stride" if spec.fps is None else "fps"


@dataclass(frozen=True)
class _Rules:
    """by_kind: a key of _KINDS -> the rule. clips: the least and the most of them, where they are bounded."""

    by_kind: dict[str, Callable[[Timeline, ClipSpec, int], Indices]]
    clips: Mapping[str, tuple[int, int | None]]


def _timed(rule: Callable[[Timeline, ClipSpec, int], Indices]) -> _Rules:
    return _Rules({"stride": rule, "fps": rule}, {})


_MOST_PARTS: Final = {"segments": (1, 2)}
_RULES: Final = {
    EvalProtocol.pyslowfast: _timed(_pyslowfast),
    EvalProtocol.pyslowfast_offset: _timed(partial(_pyslowfast, offset=True)),
    EvalProtocol.pytorchvideo: _timed(_pytorchvideo),
    EvalProtocol.pytorchvideo_0_1_5: _timed(partial(_pytorchvideo, release=True)),
    EvalProtocol.torchvision: _timed(_torchvision),
    EvalProtocol.mmaction2: _Rules(
        {"stride": _mmaction2, "fps": _mmaction2, "window": _dense, "segments": _parts}, _MOST_PARTS
    ),
    EvalProtocol.mmaction2_uniform: _Rules({"segments": _parts_uniform}, {}),
    EvalProtocol.tsm: _Rules({"segments": _parts, "window": _dense}, _MOST_PARTS),
    # both divide by one less than the number of clips
    EvalProtocol.videomae: _Rules({"stride": _videomae, "segments": _parts_interleaved}, {"stride": (2, None)}),
    EvalProtocol.internvideo2: _Rules({"stride": _internvideo2, "segments": _parts_uniform}, {"stride": (2, None)}),
}
