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

Where frames are not evenly spaced, a clip with `fps` begins at a frame, and its samples are those shown at the clip's
times by `readers.timeline`; `random_clip` draws from the frames at which a clip fits.

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

`sliding_clips` covers the whole video, a clip every `hop` source frames or every so many seconds; `covering_clips` is
that, or `uniform_clips`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from vidtrain.data.readers.timeline import Timeline, hop_seconds
from vidtrain.data.settings import ClipSpec
from vidtrain.errors import ConfigError, DataError
from vidtrain.types import Indices

MOST_CLIPS = 10_000
"""Spread over one video."""


def random_clip(
    line: Timeline,
    spec: ClipSpec,
    rng: np.random.Generator,
    *,
    clips: int = 1,
    first: float | None = None,
    last: float | None = None,
) -> Indices:
    """Clips at random places, every place equally likely, drawn independently.

    Args:
        line: of the video.
        spec: the clip.
        rng: draws the places.
        clips: how many, 1 or more.
        first, last: seconds that the clips must stay within, see `Timeline.within`.

    Returns:
        int64 (clips, T), each in [0, line.total).

    Raises:
        DataError: the video is too short and spec.short is "error", or the segment is empty.
    """
    stretch = _Stretch(line, spec, *line.within(first, last))
    if spec.mode == "segments":
        low, high = _parts(stretch.start, stretch.stop, spec)
        return rng.integers(low, high, size=(clips, spec.num_frames), dtype=np.int64)
    return stretch.clips(rng.integers(stretch.room + 1, size=clips, dtype=np.int64))


def uniform_clips(
    line: Timeline,
    spec: ClipSpec,
    clips: int,
    *,
    first: float | None = None,
    last: float | None = None,
) -> Indices:
    """`clips` clips that cover the video from its first place to its last, evenly; one clip is the centre one.

    When the video has fewer places than clips, clips repeat: their number is always the one asked for.

    Args:
        line: of the video.
        spec: the clip.
        clips: how many, 1 or more.
        first, last: seconds that the clips must stay within, see `Timeline.within`.

    Returns:
        int64 (clips, T), each in [0, line.total).

    Raises:
        ConfigError: clips is below 1.
        DataError: the video is too short and spec.short is "error", or the segment is empty.
    """
    if clips < 1:
        raise ConfigError(f"clips must be 1 or more, got {clips}")
    stretch = _Stretch(line, spec, *line.within(first, last))
    if spec.mode == "segments":
        start, stop = stretch.start, stretch.stop
        low, high = _parts(start, stop, spec)
        # clip c takes the frame (c + 1/2) / clips of the way through each part
        halves = 2 * (np.arange(spec.num_frames) * clips + np.arange(clips)[:, None]) + 1
        return np.clip(start + (halves * (stop - start)) // (2 * spec.num_frames * clips), low, high - 1)
    return stretch.clips(_spread(stretch.room, clips))


def sliding_clips(
    line: Timeline,
    spec: ClipSpec,
    hop: float | str | None = None,
    *,
    first: float | None = None,
    last: float | None = None,
) -> Indices:
    """Consecutive clips over the whole video.

    Their starts are `hop` source frames or seconds apart; without one, each clip begins with the frame after the last
    one of the clip before it.

    The last clip is moved back so that it ends where the video ends; a video of the clip's span or less gives one.

    Args:
        line: of the video.
        spec: the clip; its mode must be "clip".
        hop: from the start of a clip to the next: source frames (16), or seconds ("0.5s"); of clips that would begin
            with the same frame there is one.
        first, last: seconds that the clips must stay within, see `Timeline.within`.

    Returns:
        int64 (clips, T), each in [0, line.total), starts ascending; as many clips as the video needs.

    Raises:
        ConfigError: see `hop_seconds`; or the clip is spread over the whole video anyway (segments).
        DataError: the video is too short and spec.short is "error", or the segment is empty.
    """
    seconds = hop_seconds(hop)
    check_slides(spec)
    stretch = _Stretch(line, spec, *line.within(first, last))
    room = stretch.room
    if seconds is not None:
        begins = stretch.every(seconds)
    elif isinstance(hop, int):
        begins = np.arange(0, room, hop)
    else:
        begins = stretch.after_each_other()
    return stretch.clips(np.append(begins[begins < room], room))


def covering_clips(
    line: Timeline,
    spec: ClipSpec,
    *,
    hop: float | str | None = None,
    clips: int | None = None,
    first: float | None = None,
    last: float | None = None,
) -> Indices:
    """All of a video: `clips` clips spread over it as in `uniform_clips`, or without that number as in `sliding_clips`.

    The other arguments, the result and the errors are theirs; `check_covers` says beforehand what does not fit.
    """
    if clips is None:
        return sliding_clips(line, spec, hop, first=first, last=last)
    return uniform_clips(line, spec, clips, first=first, last=last)


def check_covers(spec: ClipSpec, hop: float | str | None, clips: int | None) -> None:
    """Raise ConfigError for what `covering_clips` cannot do with any video."""
    if clips is not None and hop is not None:
        raise ConfigError(f"clips={clips} spreads clips over a video, hop={hop} sets their distance: give one of them")
    if clips is not None and not (type(clips) is int and 1 <= clips <= MOST_CLIPS):
        raise ConfigError(f"clips={clips}: must be a whole number from 1 to {MOST_CLIPS}")
    if clips is None:
        check_slides(spec)
    hop_seconds(hop)


def check_slides(spec: ClipSpec) -> ClipSpec:
    """Raise ConfigError for clips that cannot follow each other; else give them back."""
    if spec.mode == "segments":
        raise ConfigError("a clip of segments covers the whole video: it cannot slide (sampler.mode=clip can)")
    return spec


def default_hop(spec: ClipSpec) -> int | str:
    """A quarter of a clip's span, in frames, or in seconds where the clip is measured in these."""
    if spec.fps is not None:
        return f"{max(spec.num_frames / spec.fps / 4, 0.001):.3f}s"
    return max(1, spec.span(0.0) // 4)


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


@dataclass(frozen=True, eq=False)
class _Stretch:
    """The frames [start, stop) of a video, from which clips are cut. Where a clip begins is counted from `start`."""

    line: Timeline
    spec: ClipSpec
    start: int
    stop: int

    @property
    def timed(self) -> bool:
        """The samples of a clip depend on the times of single frames."""
        return self.line.times is not None and self.spec.fps is not None

    @cached_property
    def room(self) -> int:
        """The last place at which a clip fits; 0 where it fits nowhere."""
        if not self.timed:
            return max(0, self.stop - self.start - self.spec.span(self.line.fps))
        return max(0, int(np.count_nonzero(self._lasts() < self.stop)) - 1)

    def every(self, seconds: float) -> Indices:
        """Where clips begin that follow each other at this distance, those beyond the end included."""
        from_here = float(self.line.seconds(np.array(self.start)))
        length = float(self.line.seconds(np.array(self.stop))) - from_here
        at = np.arange(0, length, seconds)
        return np.unique(self.line.at(from_here + at)) - self.start

    def after_each_other(self) -> Indices:
        """Where clips begin that follow each other without a gap or an overlap."""
        if not self.timed:
            return np.arange(0, self.room, self.spec.span(self.line.fps))
        lasts, begins, place = self._lasts(), [], 0
        while place < self.room:
            begins.append(place)
            place = int(lasts[place]) + 1 - self.start
        return np.array(begins, dtype=np.int64)

    def clips(self, begins: Indices) -> Indices:
        """int64 (len(begins), T), kept inside by the policy for short videos."""
        if self.spec.short == "error":
            self._check_length()
        if self.timed:
            return self._timed_clips(begins)
        length = self.stop - self.start
        indices: npt.NDArray[np.int64] = begins[:, None] + self.spec.offsets(self.line.fps)[None, :]
        inside = indices % length if self.spec.short == "loop" else np.minimum(indices, length - 1)
        return self.start + inside

    def _timed_clips(self, begins: Indices) -> Indices:
        assert self.spec.fps is not None
        seconds = self.line.seconds(self.start + begins)[:, None] + np.arange(self.spec.num_frames) / self.spec.fps
        if self.spec.short == "loop":
            first, end = self.line.seconds(np.array([self.start, self.stop]))
            found = self.line.at(first + (seconds - first) % (end - first))
            return np.where(found < self.stop, found, self.start)
        return np.clip(self.line.at(seconds), self.start, self.stop - 1)

    def _lasts(self) -> Indices:
        """int64 (stop - start,): of a clip at each place its last sample, as if the video went on."""
        assert self.spec.fps is not None
        begins = self.line.seconds(np.arange(self.start, self.stop))
        return self.line.at(begins + (self.spec.num_frames - 1) / self.spec.fps)

    def _check_length(self) -> None:
        spec, fps, length = self.spec, self.line.fps, self.stop - self.start
        span, has = f"{spec.span(fps)} frames", f"{length}"
        if self.timed:
            begin, end = self.line.seconds(np.array([self.start, self.stop])).tolist()
            span, has = f"{(spec.num_frames - 1) / (spec.fps or 1):g} s", f"{end - begin:g} s"
        if self._lasts()[0] >= self.stop if self.timed else spec.span(fps) > length:
            raise DataError(
                f"the clip spans {span} ({spec.num_frames} samples, stride {spec.step(fps):g}), the video has {has}: "
                "shorten the clip or set short=repeat_last or short=loop"
            )
