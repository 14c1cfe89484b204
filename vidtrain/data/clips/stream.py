"""All clips of whole videos, one after the other or so many of each, for a network that is run over each of them.

A video is opened once and decoded once. What is held of it are the frames of one clip and of the batch being filled, so
memory does not depend on its length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from vidtrain.data.clips.crop import Crop
from vidtrain.data.clips.dataset import ClipParts, as_video_error, seconds_of
from vidtrain.data.clips.sampling import check_covers, covering_clips
from vidtrain.data.clips.shared_rows import SharedRows
from vidtrain.data.clips.transforms import EvalCrops
from vidtrain.data.manifest.manifest import Manifest
from vidtrain.data.readers.base import OpenVideo
from vidtrain.data.readers.streaming import OutOfOrderError, stream
from vidtrain.data.readers.timeline import Seconds, Timeline
from vidtrain.errors import VideoError
from vidtrain.types import BadVideo, Frames, Indices

_SOUND = 16
"""Clips that are read by themselves behind one that cannot be read, before they are taken from one pass again."""


@dataclass(frozen=True)
class VideoEnd:
    """All clips of a video have been given. frames, fps, times: of the whole file, as in `VideoInfo`."""

    video: int
    clips: int
    frames: int
    fps: float
    times: Seconds | None = None


@dataclass(frozen=True)
class BrokenClip:
    """A clip that could not be read. number: its place among those of its video."""

    video: int
    number: int
    reason: str


@dataclass
class ClipBatch:
    """Clips of one or several videos.

    views: uint8 (N, T, H, W, 3), N may be 0. videos: int64 (N,), rows in the manifest. numbers: int64 (N,), place of
    the clip among those of its video, ascending from 0; a second 0 starts the video again. totals: int64 (N,),
    clips of its video. ends: videos of which nothing more comes. bad: videos given up, with their rows.
    broken: clips that are skipped, of a stream that goes on behind them. restarted: rows of which all that came before
    this batch is void.
    """

    views: torch.Tensor
    videos: torch.Tensor
    numbers: torch.Tensor
    totals: torch.Tensor
    ends: list[VideoEnd] = field(default_factory=list)
    bad: list[tuple[int, BadVideo]] = field(default_factory=list)
    broken: list[BrokenClip] = field(default_factory=list)
    restarted: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.videos)

    def pin_memory(self) -> ClipBatch:
        """Called by torch's DataLoader with pin_memory=True."""
        return replace(self, views=self.views.pin_memory())


class ClipStream(SharedRows[ClipBatch]):
    """The clips of every row of a manifest, `batch_size` at a time; only the last batch of a worker is smaller.

    Args:
        hop: from the start of a clip to that of the next, as in `sliding_clips`; None: clips follow each other without
            a gap or an overlap. The last clip of a video ends where the video ends.
        clips: so many of each video instead, spread over it as in `uniform_clips`.
        skip_broken: a clip that cannot be read is listed, and the stream goes on; false: its video is given up.
    """

    def __init__(
        self,
        manifest: Manifest,
        parts: ClipParts,
        *,
        hop: float | str | None,
        clips: int | None = None,
        batch_size: int,
        skip_broken: bool = False,
    ) -> None:
        super().__init__(range(len(manifest)), manifest.paths)
        self.manifest = manifest
        self.skip_broken = skip_broken
        self.reader = parts.reader
        self.spec = parts.sampler
        check_covers(self.spec, hop, clips)
        self.cuts = EvalCrops(parts.transform)
        self.hop, self.clips = hop, clips
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[ClipBatch]:
        waiting = _Waiting()
        while (row := self.take()) is not None:
            try:
                yield from self._video(row, waiting)
            except VideoError as error:
                waiting.bad.append((row, BadVideo(error.path, error.reason)))
        yield waiting.batch()

    def _video(self, row: int, waiting: _Waiting) -> Iterator[ClipBatch]:
        with self.reader.open(self.manifest.paths[row]) as video:
            indices = self._indices(video, row)
            if self.skip_broken:
                yield from self._readable(video, row, indices, waiting)
            else:
                try:
                    yield from self._clips(video, row, indices, waiting, pieces=False)
                except OutOfOrderError:
                    yield from self._clips(video, row, indices, waiting, pieces=True)
            info = video.info
            waiting.ends.append(VideoEnd(row, len(indices), info.num_frames, info.fps, info.times))

    def _readable(self, video: OpenVideo, row: int, indices: Indices, waiting: _Waiting) -> Iterator[ClipBatch]:
        """As many clips as can be read.

        One pass may find only at its end that frames it has given are spoiled. So after any complaint the video begins
        again, in pieces that are given when they are sound; where one is not, clips are read by themselves for a while.
        """
        cut, first, sound, pieces = self.cuts.all(video.info)[0], 0, _SOUND, False
        while first < len(indices):
            try:
                if sound < _SOUND:
                    read = iter([[cut.apply(video.read(indices[first], cut.read_size))]])
                else:
                    read = cut_clips(video, indices[first:], [cut], pieces=pieces)
                for (clip,) in read:
                    waiting.add(clip, row, first, len(indices))
                    first, sound = first + 1, sound + 1
                    if len(waiting.clips) == self.batch_size:
                        yield waiting.batch()
            except (OutOfOrderError, VideoError) as error:
                if not pieces:
                    yield waiting.batch()  # void as far as it is of this video
                    waiting.restarted.append(row)
                    first, pieces = 0, True
                    continue
                if isinstance(error, VideoError) and sound < _SOUND:  # one by itself: it is this one
                    waiting.broken.append(BrokenClip(row, first, error.reason))
                    first += 1
                sound = 0

    def _indices(self, video: OpenVideo, row: int) -> Indices:
        """int64 (clips, T)."""
        seconds = seconds_of(self.manifest, row)
        with as_video_error(self.manifest.paths[row]):
            return covering_clips(Timeline.of(video.info), self.spec, hop=self.hop, clips=self.clips, **seconds)

    def _clips(
        self, video: OpenVideo, row: int, indices: Indices, waiting: _Waiting, *, pieces: bool
    ) -> Iterator[ClipBatch]:
        for number, (clip,) in enumerate(cut_clips(video, indices, self.cuts.all(video.info)[:1], pieces=pieces)):
            waiting.add(clip, row, number, len(indices))
            if len(waiting.clips) == self.batch_size:
                yield waiting.batch()


def cut_clips(video: OpenVideo, indices: Indices, cuts: Sequence[Crop], *, pieces: bool) -> Iterator[list[Frames]]:
    """uint8 (T, size, size, 3) of each clip, as many as there are cuts, all of one read_size.

    Starts ascend, or what is left ends no later than the clip before it, so frames before the next clip's first are
    let go. pieces: see readers.streaming.stream.
    """
    firsts, lasts = indices.min(1).tolist(), indices.max(1).tolist()
    held: dict[int, list[Frames]] = {}
    clip = 0
    for number, frame in stream(video, np.unique(indices), cuts[0].read_size, pieces=pieces):
        held[number] = [cut.apply(frame[None])[0] for cut in cuts]
        while clip < len(indices) and lasts[clip] <= number:
            yield [np.stack(views) for views in zip(*(held[frame] for frame in indices[clip].tolist()), strict=True)]
            clip += 1
            after = firsts[clip] if clip < len(indices) else number + 1
            held = {frame: kept for frame, kept in held.items() if frame >= after}


class _Waiting:
    """The batch that is being filled."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.clips: list[Frames] = []
        self.places: list[tuple[int, int, int]] = []
        self.ends: list[VideoEnd] = []
        self.bad: list[tuple[int, BadVideo]] = []
        self.broken: list[BrokenClip] = []
        self.restarted: list[int] = []

    def add(self, clip: Frames, row: int, number: int, total: int) -> None:
        self.clips.append(clip)
        self.places.append((row, number, total))

    def batch(self) -> ClipBatch:
        """What has been gathered; begins again."""
        places = torch.tensor(self.places, dtype=torch.int64).reshape(-1, 3)
        views = torch.from_numpy(np.stack(self.clips)) if self.clips else torch.empty(0, dtype=torch.uint8)
        made = ClipBatch(views, places[:, 0], places[:, 1], places[:, 2], self.ends, self.bad)
        made.broken, made.restarted = self.broken, self.restarted
        self._clear()
        return made
