"""Which frames of a video make a clip. Pure index maths: no file, no decoder, no torch.

A clip is `num_frames` samples, `stride` source frames apart; from its first sample to its last it covers
(num_frames - 1) * stride + 1 source frames, its span. With num_frames=4, stride=3 the span is 10:

    frame     0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15        total = 16
    start 0   x  .  .  x  .  .  x  .  .  x                          first place a clip fits
    start 3            x  .  .  x  .  .  x  .  .  x                 room = total - span = 6
    start 6                     x  .  .  x  .  .  x  .  .  x        last place a clip fits

`random_clip` draws the start from 0..room, each place with the same chance. `uniform_clips` spreads the starts evenly
over 0..room, first to last; a single clip is the centre one. Both treat a video and its time reversal alike:
reversing the frames maps the set of starts (or the distribution over them) onto itself, so that sampling never
favours a direction of motion. (Only the middle one of an odd number of clips cannot have it both ways when room is
odd: it stands half a frame early.)

With `fps` the grid is real-valued, stride = video fps / fps, and the samples are rounded half up. Here 30 fps read
at 12 fps, a stride of 2.5:

    grid      0.0      2.5      5.0      7.5
    samples   0        3        5        8

A target rate above the video's own (stride < 1) repeats frames. A video too short for the span follows `short`:

    frames    a b c d e             num_frames=4 stride=2 (span 7)
    repeat_last   a c e e           frames beyond the end are the last one
    loop          a c e b           the video starts again: index modulo length
    error         DataError

A clip may also be given by what it covers: with `window` its samples stand window / num_frames source frames apart
("dense" sampling of TSM: 64 frames). `mode="segments"` is TSN's way: the video is cut into num_frames equal parts and
each gives one frame, a random one in training, the middle one in testing:

    frame     0  1  2  3  4  5  6  7  8  9 10 11        num_frames=4
    training  .  x  .| x  .  .| .  .  x| .  x  .
    testing   .  x  .| .  x  .| .  x  .| .  x  .

`sliding_clips` covers the whole video, a clip every `hop` source frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from vidtrain.errors import ConfigError, DataError, did_you_mean, one_of
from vidtrain.types import Indices

Short = Literal["repeat_last", "loop", "error"]
Mode = Literal["clip", "segments"]


@dataclass(frozen=True)
class ClipSpec:
    """The shape of a clip in time.

    num_frames: samples in a clip, T.
    stride: source frames from one sample to the next; used when fps is None.
    fps: samples per second of video; the stride becomes video fps / fps.
    short: what a video shorter than the clip's span does: repeat_last, loop or error.
    window: source frames that the samples are spread over; the stride becomes window / num_frames. Not with fps.
    mode: clip, or segments: one sample from each of num_frames equal parts of the video (TSN, Wang et al. 2016);
        stride, fps and window are then not used.
    """

    num_frames: int = 16
    stride: int = 2
    fps: float | None = None
    short: Short = "repeat_last"
    window: int | None = None
    mode: Mode = "clip"

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise ConfigError(f"num_frames must be 1 or more, got {self.num_frames}")
        if self.stride < 1:
            raise ConfigError(f"stride must be 1 or more, got {self.stride}")
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise ConfigError(f"fps must be above 0 or none, got {self.fps}")
        if self.window is not None and (self.window < self.num_frames or self.fps is not None):
            raise ConfigError(
                f"window={self.window}: must be num_frames={self.num_frames} or more, and fps none (got {self.fps})"
            )
        for name, value, allowed in (("short", self.short, get_args(Short)), ("mode", self.mode, get_args(Mode))):
            if value not in allowed:
                hint = did_you_mean(str(value), allowed)
                raise ConfigError(f"{name} must be one of {one_of(allowed)}, got {value!r}{hint}")

    def step(self, video_fps: float) -> float:
        """Source frames between two samples, as a real number."""
        if self.window is not None:
            return self.window / self.num_frames
        return float(self.stride) if self.fps is None else video_fps / self.fps

    def offsets(self, video_fps: float) -> Indices:
        """int64 (T,): the samples of a clip that starts at frame 0, rounded half up."""
        grid = np.arange(self.num_frames) * self.step(video_fps)
        return np.floor(grid + 0.5).astype(np.int64)

    def span(self, video_fps: float) -> int:
        """Source frames from the first sample to the last, both counted."""
        return int(self.offsets(video_fps)[-1]) + 1


def segment(total: int, video_fps: float, first: float | None, last: float | None) -> tuple[int, int]:
    """(start, stop) of the frames shown from `first` to `last` seconds, stop excluded, at least one frame.

    Args:
        total: frames of the video, 1 or more.
        video_fps: its frames per second.
        first: seconds from the start of the video; None is its start.
        last: seconds from the start of the video, not included; None is its end. Beyond the end means the end.

    Raises:
        DataError: the segment is empty, or begins after the end of the video.
    """
    if total < 1:
        raise DataError(f"a video has 1 frame or more, got {total}")
    begin, end = first or 0.0, math.inf if last is None else last
    if not (begin >= 0 and end > begin):
        raise DataError(f"a segment runs from 0 s or later to a later time, got {begin:g} s to {end:g} s")
    # Half up, as for the samples; a segment shorter than a frame keeps the frame that it begins in.
    start = math.floor(begin * video_fps + 0.5)
    stop = total if math.isinf(end) else min(total, math.floor(end * video_fps + 0.5))
    if start >= total:
        raise DataError(f"the segment begins at {begin:g} s, the video ends at {total / video_fps:g} s")
    return start, max(stop, start + 1)


def random_clip(
    total: int,
    video_fps: float,
    spec: ClipSpec,
    rng: np.random.Generator,
    *,
    clips: int = 1,
    first: float | None = None,
    last: float | None = None,
) -> Indices:
    """Clips at random places, every place equally likely, drawn independently.

    Args:
        total: frames of the video, 1 or more.
        video_fps: its frames per second.
        spec: the clip.
        rng: draws the places.
        clips: how many, 1 or more.
        first, last: seconds that the clips must stay within, see `segment`.

    Returns:
        int64 (clips, T), each in [0, total).

    Raises:
        DataError: the video is too short and spec.short is "error", or the segment is empty.
    """
    start, stop = segment(total, video_fps, first, last)
    if spec.mode == "segments":
        low, high = _parts(start, stop, spec)
        return rng.integers(low, high, size=(clips, spec.num_frames), dtype=np.int64)
    room = max(0, stop - start - spec.span(video_fps))
    return _clips(start, stop, video_fps, spec, rng.integers(room + 1, size=clips, dtype=np.int64))


def uniform_clips(
    total: int,
    video_fps: float,
    spec: ClipSpec,
    clips: int,
    *,
    first: float | None = None,
    last: float | None = None,
) -> Indices:
    """`clips` clips that cover the video from its first place to its last, evenly; one clip is the centre one.

    When the video has fewer places than clips, clips repeat: their number is always the one asked for.

    Args:
        total: frames of the video, 1 or more.
        video_fps: its frames per second.
        spec: the clip.
        clips: how many, 1 or more.
        first, last: seconds that the clips must stay within, see `segment`.

    Returns:
        int64 (clips, T), each in [0, total).

    Raises:
        ConfigError: clips is below 1.
        DataError: the video is too short and spec.short is "error", or the segment is empty.
    """
    if clips < 1:
        raise ConfigError(f"clips must be 1 or more, got {clips}")
    start, stop = segment(total, video_fps, first, last)
    if spec.mode == "segments":
        low, high = _parts(start, stop, spec)
        # clip c takes the frame (c + 1/2) / clips of the way through each part
        halves = 2 * (np.arange(spec.num_frames) * clips + np.arange(clips)[:, None]) + 1
        return np.clip(start + (halves * (stop - start)) // (2 * spec.num_frames * clips), low, high - 1)
    room = max(0, stop - start - spec.span(video_fps))
    return _clips(start, stop, video_fps, spec, _spread(room, clips))


def sliding_clips(
    total: int,
    video_fps: float,
    spec: ClipSpec,
    hop: int,
    *,
    first: float | None = None,
    last: float | None = None,
) -> Indices:
    """Consecutive clips over the whole video, their starts `hop` source frames apart.

    The last clip is moved back so that it ends where the video ends; a video of the clip's span or less gives one.

    Args:
        total: frames of the video, 1 or more.
        video_fps: its frames per second.
        spec: the clip; its mode must be "clip".
        hop: source frames from the start of a clip to the next, 1 or more.
        first, last: seconds that the clips must stay within, see `segment`.

    Returns:
        int64 (clips, T), each in [0, total), starts ascending; as many clips as the video needs.

    Raises:
        ConfigError: hop is below 1, or the clip is spread over the whole video anyway (segments).
        DataError: the video is too short and spec.short is "error", or the segment is empty.
    """
    if hop < 1:
        raise ConfigError(f"hop must be 1 or more, got {hop}")
    if spec.mode == "segments":
        raise ConfigError("a clip of segments covers the whole video: it cannot slide (sampler.mode=clip can)")
    start, stop = segment(total, video_fps, first, last)
    room = max(0, stop - start - spec.span(video_fps))
    begins = np.append(np.arange(0, room, hop), room)
    return _clips(start, stop, video_fps, spec, begins)


def _parts(start: int, stop: int, spec: ClipSpec) -> tuple[Indices, Indices]:
    """Where each of the num_frames parts begins and ends (not included); a part without a frame takes the one there.

    Raises:
        DataError: there are more parts than frames, and short is "error".
    """
    length = stop - start
    if length < spec.num_frames and spec.short == "error":
        raise DataError(
            f"{spec.num_frames} segments, the video has {length} frames: lower num_frames or set short=repeat_last"
        )
    edges = start + np.arange(spec.num_frames + 1, dtype=np.int64) * length // spec.num_frames
    return edges[:-1], np.maximum(edges[1:], edges[:-1] + 1)


def _spread(room: int, clips: int) -> Indices:
    """`clips` starts in 0..room, first to last, equal to their own mirror image room - starts reversed.

    In integers: the first half is rounded half up and the second is its mirror image, so no rounding can tip
    the balance. The middle of an odd number of clips is room / 2 rounded down (it has no mirror partner).
    """
    if clips == 1:
        return np.array([room // 2], dtype=np.int64)
    steps = np.arange(clips, dtype=np.int64)
    starts = (2 * steps * room + clips - 1) // (2 * (clips - 1))
    half = (clips + 1) // 2
    starts[clips - clips // 2 :] = room - starts[: clips // 2][::-1]
    if clips % 2:
        starts[half - 1] = room // 2
    return starts


def _clips(start: int, stop: int, video_fps: float, spec: ClipSpec, begins: Indices) -> Indices:
    """Clips at `begins`, counted from `start`, kept inside [start, stop) by the policy for short videos."""
    length, span = stop - start, spec.span(video_fps)
    if span > length and spec.short == "error":
        raise DataError(
            f"the clip spans {span} frames ({spec.num_frames} samples, stride {spec.step(video_fps):g}), "
            f"the video has {length}: shorten the clip or set short=repeat_last or short=loop"
        )
    indices: npt.NDArray[np.int64] = begins[:, None] + spec.offsets(video_fps)[None, :]
    wrapped = indices % length if spec.short == "loop" else np.minimum(indices, length - 1)
    return start + wrapped
