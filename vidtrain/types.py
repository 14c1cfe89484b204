"""The data contracts between the parts. Shapes: B videos, V views, T frames, H x W pixels, K classes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # importing it takes seconds, and processes that only probe videos need none of it
    import torch

    from vidtrain.sequences import Sequences

_Open = TypeVar("_Open", bound="Closing")

FilePath = str
"""The type of an option that holds the path of a file or a folder: the command line takes it as the shell gives it."""

Regex = str
"""The type of an option that holds a regular expression: the command line takes it as the shell gives it, too."""

Text = str
"""The type of an option that holds any text, such as a title: the command line takes it as the shell gives it, too."""

Indices = npt.NDArray[np.int64]
"""Frame numbers of a video, counted over the frames a player shows, from 0."""

Frames = npt.NDArray[np.uint8]
"""Decoded RGB frames (N, H, W, 3)."""


class Closing(Protocol):
    """What is open until `close`. Used as a context manager, it closes itself."""

    def close(self) -> None: ...

    def __enter__(self: _Open) -> _Open:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclass(frozen=True)
class VideoInfo:
    """What a reader knows of a video before it decodes a frame.

    num_frames counts the frames shown (edit lists and discard flags honoured), never the container's claim.
    fps is their mean rate. height and width are those of the frame as shown, rotation metadata applied.
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
class ListedVideos(Sequence[str]):
    """The videos of a split: a sequence of their files, which also says what their list calls them.

    paths: (N,) absolute or relative to the working directory. root: the folder that names of the list start from, ""
    where there is none. starts, ends: float64 (N,) seconds where a row is a segment of its file, None where each is
    the whole file; an end of inf is the end of the file.
    """

    paths: Sequence[str]
    root: str = ""
    starts: npt.NDArray[np.float64] | None = None
    ends: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row):  # type: ignore[no-untyped-def]
        return self.paths[row]

    @property
    def segmented(self) -> bool:
        """Whether rows are segments of their files."""
        return self.starts is not None or self.ends is not None

    def segment(self, row: int) -> tuple[float, float] | None:
        """From when to when in its file, in seconds; None where rows are whole files."""
        if not self.segmented:
            return None
        start = 0.0 if self.starts is None else float(self.starts[row])
        return start, float("inf") if self.ends is None else float(self.ends[row])

    def file(self, row: int) -> str:
        """The absolute path."""
        return str(Path(self.paths[row]).absolute())

    def name(self, row: int) -> str:
        """Relative to the root, with / on every machine; as it is where it lies elsewhere."""
        if not self.root:
            return self.paths[row]
        start, path = str(Path(self.root).absolute()).rstrip(os.sep) + os.sep, self.file(row)
        return path.removeprefix(start).replace(os.sep, "/") if path.startswith(start) else path


@dataclass(frozen=True)
class Sample:
    """One item of a dataset: all the views of one video.

    inputs: by name, each with one entry per view: "rgb" uint8 (V, T, H, W, 3); beside it "flow" uint8
    (V, T - 1, H, W, 2), the codes of data/flow/codes.py; or "features" alone, of the whole video, float (L, D).
    target: class number, -1 when unknown; in a multi-label dataset float32 (K,), 1 for the classes of the video and 0
    for the others; of an untrimmed video float64 (n, 3), the table of segments.Annotated. video: row in the manifest.
    bad: the videos that were found broken on the way. In testing a broken video has no views and inputs is None;
    in training another video stands in its place.
    """

    inputs: dict[str, torch.Tensor] | None
    target: int | torch.Tensor
    video: int
    bad: tuple[BadVideo, ...] = ()


@dataclass
class Batch:
    """What leaves the loader, and, with inputs that are ready for a model, what a task is given.

    inputs: as in a Sample, with a dimension B before the others, features as B sequences; engine/preprocess.py says
    what becomes of each on the device. targets: int64 (B,), or float32 (B, K) of a multi-label dataset, or Sequences
    of tables. videos: int64 (B,). bad: broken videos met while it was made; in testing they are not among the B.
    """

    inputs: dict[str, Any]
    targets: Any
    videos: torch.Tensor
    bad: list[BadVideo] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert len(self.targets) == len(self.videos), "targets and videos differ in length"

    def __len__(self) -> int:
        return len(self.targets)

    def pin_memory(self) -> Batch:
        """Called by torch's DataLoader with pin_memory=True."""
        inputs = {name: value.pin_memory() for name, value in self.inputs.items()}
        return Batch(inputs, self.targets.pin_memory(), self.videos.pin_memory(), self.bad)

    def split(self, size: int | None) -> list[Batch]:
        """In pieces of at most `size` videos; the bad ones stay behind. None: in one piece."""
        if size is None or len(self) <= size:
            return [self]
        parts = zip(split_inputs(self.inputs, size), self.targets.split(size), self.videos.split(size), strict=True)
        return [Batch(*part) for part in parts]

    def to(self, device: torch.device) -> Batch:
        """With inputs and targets on the device, copied without waiting where the memory is pinned."""
        inputs = {name: value.to(device, non_blocking=True) for name, value in self.inputs.items()}
        return Batch(inputs, self.targets.to(device, non_blocking=True), self.videos, self.bad)

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Say that a stream other than the one that made them uses inputs and targets."""
        for value in (*self.inputs.values(), self.targets):
            value.record_stream(stream)


def split_inputs(inputs: Mapping[str, torch.Tensor | Sequences], size: int) -> list[dict[str, Any]]:
    """In pieces of at most `size` along the first dimension."""
    pieces = zip(*(value.split(size) for value in inputs.values()), strict=True)
    return [dict(zip(inputs, piece, strict=True)) for piece in pieces]


@dataclass
class ViewPart:
    """Some of the views of one video.

    inputs: as in a Sample, of N views. first: number of the first of them among those of the video; a 0 that comes
    again starts the video again. total: views of the video. target, video: as in a Sample. place: of the video in the
    order of the loader. bad: why nothing more comes of it; inputs are then empty.
    """

    inputs: dict[str, torch.Tensor]
    first: int
    total: int
    target: int | torch.Tensor
    video: int
    place: int
    bad: BadVideo | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values()), ()))

    def pin_memory(self) -> ViewPart:
        """Called by torch's DataLoader with pin_memory=True."""
        inputs = {name: value.pin_memory() for name, value in self.inputs.items()}
        return ViewPart(inputs, self.first, self.total, self.target, self.video, self.place, self.bad)
