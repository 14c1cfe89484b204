"""The views of videos that have too many of them for one batch, in parts of a bounded size, in one decoding pass.

An hour of video with a clip every 16 frames has 6,000 views, 4 GB at 112 pixels. What is held of it are the frames of
one clip, and the parts that the workers have made ahead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch

from vidtrain.data.clips.dataset import EvalViews
from vidtrain.data.clips.shared_rows import SharedRows
from vidtrain.data.clips.stream import cut_clips
from vidtrain.data.readers.base import OpenVideo
from vidtrain.data.readers.streaming import OutOfOrderError
from vidtrain.errors import VideoError
from vidtrain.types import BadVideo, Frames, Indices, ViewPart


class ViewStream(SharedRows[ViewPart]):
    """The views of EvalViews' videos, at most `size` at a time.

    The parts of several videos come mixed; those of one are in order.

    Args:
        rows: the videos, in the order of their places.
    """

    def __init__(self, views: EvalViews, rows: Sequence[int], *, size: int) -> None:
        super().__init__(rows, views.manifest.paths)
        self._views = views
        self._size = size

    def __iter__(self) -> Iterator[ViewPart]:
        while (place := self.take()) is not None:
            yield from self._video(place)

    def _video(self, place: int) -> Iterator[ViewPart]:
        row, first = self._rows[place], 0
        target = self._views.targets[row]
        try:
            with self._views.reader.open(self._views.manifest.paths[row]) as video:
                indices, kept = self._views.chosen(video, self._views.indices(video, row))
                numbers = np.arange(len(indices) * len(self._views.cuts.all(video.info)))[kept]
                total, target = len(numbers), self._views.target(video.info, row, indices)
                for part in self._parts(video, row, indices, numbers):
                    if part is None:
                        first = 0
                        continue
                    made = ViewPart(part, first, total, target, row, place)
                    yield made
                    first += len(made)
        except VideoError as error:
            yield ViewPart({}, 0, 0, target, row, place, BadVideo(error.path, error.reason))

    def _parts(
        self, video: OpenVideo, row: int, indices: Indices, numbers: Indices
    ) -> Iterator[dict[str, torch.Tensor] | None]:
        """(N, T, H, W, C) of each input; None: it starts again. numbers: ascending, of the views that are wanted."""
        cuts = self._views.cuts.all(video.info)
        if self._views.flow is not None:
            # flow is read for given frames, not while they pass: the frames between two parts are decoded twice
            clips = max(1, self._size // len(cuts))
            reads = (self._views.read(video, row, indices[at : at + clips]) for at in range(0, len(indices), clips))
            yield from self._filled((view for read in reads for view in zip(*read.values(), strict=True)), numbers)
            return
        try:
            cut = cut_clips(video, indices, cuts, pieces=False)
            yield from self._filled(((view,) for clip in cut for view in clip), numbers)
        except OutOfOrderError:
            yield None
            cut = cut_clips(video, indices, cuts, pieces=True)
            yield from self._filled(((view,) for clip in cut for view in clip), numbers)

    def _filled(self, views: Iterator[tuple[Frames, ...]], numbers: Indices) -> Iterator[dict[str, torch.Tensor]]:
        """Those of `numbers`, stacked, `size` at a time. views: RGB of each, and flow where there is some."""
        wanted = set(numbers.tolist())
        views = (view for number, view in enumerate(views) if number in wanted)
        while waiting := list(islice(views, self._size)):
            columns = (torch.from_numpy(np.stack(column)) for column in zip(*waiting, strict=True))
            yield dict(zip(("rgb", "flow"), columns, strict=False))
