"""The data contracts between the parts. Shapes: B videos, V views, T frames, H x W pixels, K classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # importing it takes seconds, and processes that only probe videos need none of it
    import torch

    from vidtrain.sequences import Sequences

FilePath = str
"""The type of an option that holds the path of a file or a folder: the command line takes it as the shell gives it."""

Regex = str
"""The type of an option that holds a regular expression: the command line takes it as the shell gives it, too."""

Indices = npt.NDArray[np.int64]
"""Frame numbers of a video, counted over the frames a player shows, from 0."""

Frames = npt.NDArray[np.uint8]
"""Decoded RGB frames (N, H, W, 3)."""


@dataclass(frozen=True)
class VideoInfo:
    """What a reader knows of a video before it decodes a frame.

    num_frames counts the frames shown (edit lists and discard flags honoured), never the container's claim.
    fps is their mean rate. height and width are those of the picture shown, rotation metadata applied.
    times: float64 (num_frames + 1,), ascending: seconds at which each frame appears, the first at 0, and at which the
    last one ends; None where frame k appears at k / fps, within the rounding of the container.
    times_note: what is odd about the file's timestamps and was set right, "" for nothing.
    """

    num_frames: int
    fps: float
    height: int
    width: int
    times: npt.NDArray[np.float64] | None = field(default=None, compare=False)
    times_note: str = field(default="", compare=False)

    @property
    def seconds(self) -> float:
        return self.num_frames / self.fps if self.times is None else float(self.times[-1])

    def scaled(self, short_side: int) -> tuple[int, int]:
        """(height, width) with the shorter of them `short_side`, the aspect kept."""
        if self.height <= self.width:
            return short_side, max(short_side, round(self.width * short_side / self.height))
        return max(short_side, round(self.height * short_side / self.width)), short_side


@dataclass(frozen=True)
class BadVideo:
    """A video that could not be used, as reported to the user."""

    path: str
    reason: str


@dataclass(frozen=True)
class Sample:
    """One item of a data set: all the views of one video.

    views: uint8 (V, T, H, W, 3), or 5 instead of 3 with optical flow (data/flow.py) beside RGB, or the features of a
    video, float (L, D). label: class number, -1 when unknown; in a multi-label set float32 (K,), 1 for the classes of
    the video and 0 for the others. video: row in the manifest.
    bad: the videos that were found broken on the way. In testing a broken video has no views and views is None;
    in training another video stands in its place.
    """

    views: torch.Tensor | None
    label: int | torch.Tensor
    video: int
    bad: tuple[BadVideo, ...] = ()


@dataclass
class Batch:
    """What leaves the loader.

    views: uint8 (B, V, T, H, W, 3 or 5), or B sequences of features. labels: int64 (B,), or float32 (B, K) of a
    multi-label set. videos: int64 (B,).
    bad: broken videos met while it was made; in testing they are not among the B.
    """

    views: torch.Tensor | Sequences
    labels: torch.Tensor
    videos: torch.Tensor
    bad: list[BadVideo] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert len(self.views) == len(self.labels) == len(self.videos), "views, labels and videos differ in length"

    def __len__(self) -> int:
        return len(self.labels)

    def pin_memory(self) -> Batch:
        """Called by torch's DataLoader with pin_memory=True."""
        return Batch(self.views.pin_memory(), self.labels.pin_memory(), self.videos.pin_memory(), self.bad)

    def split(self, size: int | None) -> list[Batch]:
        """In pieces of at most `size` videos; the bad ones stay behind. None: in one piece."""
        if size is None or len(self) <= size:
            return [self]
        views: Any = self.views.split(size)
        parts = zip(views, self.labels.split(size), self.videos.split(size), strict=True)
        return [Batch(*part) for part in parts]

    def to(self, device: torch.device) -> Batch:
        """With views and labels on the device, copied without waiting where the memory is pinned."""
        views, labels = self.views.to(device, non_blocking=True), self.labels.to(device, non_blocking=True)
        return Batch(views, labels, self.videos, self.bad)

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Say that a stream other than the one that made them uses views and labels."""
        self.views.record_stream(stream)
        self.labels.record_stream(stream)


@dataclass
class ViewPart:
    """Some of the views of one video.

    views: uint8 (N, T, H, W, 3 or 5). first: number of the first of them among those of the video; a 0 that comes again
    starts the video again. total: views of the video. label, video: as in a Sample. place: of the video in the order of
    the loader. bad: why nothing more comes of it; then N is 0.
    """

    views: torch.Tensor
    first: int
    total: int
    label: int | torch.Tensor
    video: int
    place: int
    bad: BadVideo | None = None

    def pin_memory(self) -> ViewPart:
        """Called by torch's DataLoader with pin_memory=True."""
        views = self.views.pin_memory()
        return ViewPart(views, self.first, self.total, self.label, self.video, self.place, self.bad)
