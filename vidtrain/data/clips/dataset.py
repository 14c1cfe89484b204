"""Videos -> clips. What a worker makes is a function of (seed, epoch, index) only: neither the number of workers nor
a resume changes the data. A reader is opened, used and closed inside one call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from vidtrain.data.clips.augment import Augment
from vidtrain.data.clips.crop import Crop, cut_flow
from vidtrain.data.clips.protocols import protocol_clips
from vidtrain.data.clips.sampling import random_clip, sliding_clips, uniform_clips
from vidtrain.data.clips.transforms import EvalCrops, TrainCrop
from vidtrain.data.flow.codes import Codes
from vidtrain.data.flow.source import FlowSource
from vidtrain.data.manifest.manifest import Manifest
from vidtrain.data.readers.base import OpenVideo, VideoReader
from vidtrain.data.readers.timeline import Timeline
from vidtrain.data.settings import EvalConfig, EvalProtocol, SamplerConfig, TransformConfig
from vidtrain.errors import DataError, VideoError
from vidtrain.segments import Annotated
from vidtrain.types import BadVideo, Frames, Indices, Sample, VideoInfo
from vidtrain.view_subsets import spread_views

MAX_REPLACEMENTS = 20
"""Broken videos in a row before the dataset is given up: then the reader or the disk is at fault."""


@dataclass(frozen=True)
class ClipParts:
    """How videos become clips: who reads them, which frames are taken, how they are cut and changed.

    flow: gives each clip its optical flow; None: RGB only. A cut crops and mirrors flow as it does RGB; what changes
    colours or erases touches RGB only.
    """

    reader: VideoReader
    sampler: SamplerConfig
    transform: TransformConfig
    flow: FlowSource | None = None


class NoTimeLeftError(VideoError):
    """A row that lies beyond the end of its video, through no fault of the file: `TrainClips.instead` is read."""


class TrainClips(Dataset[Sample]):
    """Random clips of a video per item. Keys are (epoch, row, copy), as clips/loader.py yields them.

    A broken video is replaced by another, drawn by the same seed, and listed in the sample.

    Args:
        parts: sampler.clips_per_video clips are read each time a video is opened, each with its own draw of place, cut
            and augmentation.
        flip_labels: int64 (K,), the class a flipped clip belongs to; None when a flip changes no class.
        num_classes: K, of a multi-label manifest.
    """

    def __init__(
        self,
        manifest: Manifest,
        parts: ClipParts,
        *,
        seed: int,
        flip_labels: np.ndarray | None = None,
        num_classes: int | None = None,
    ) -> None:
        self.manifest = manifest
        self.reader = parts.reader
        self.sampler = parts.sampler
        self.cut = TrainCrop(parts.transform)
        self.seed = seed
        self.augment = Augment(parts.transform)
        self.flow = parts.flow
        self.flip_labels = flip_labels
        self.targets = Targets(manifest, num_classes)
        self.weights: npt.NDArray[np.float64] | None = None
        """How often each row is wanted relative to the others, (N,); None: alike."""

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, key: tuple[int, ...]) -> Sample:
        return self.clips(key)[0]

    def __getitems__(self, keys: list[tuple[int, ...]]) -> list[Sample]:
        """What a loader's worker asks for: the clips of a batch, those of one video side by side."""
        return [sample for key in keys for sample in self.clips(key)]

    def clips(self, key: tuple[int, ...]) -> list[Sample]:
        """sampler.clips_per_video samples of one key: (epoch, row), and which copy of the row in this epoch, from 0."""
        row = key[1]
        rng = np.random.default_rng((self.seed, *key))
        bad: list[BadVideo] = []
        for attempt in range(1, 10 * MAX_REPLACEMENTS):
            try:
                return self._load(row, rng, tuple(bad))
            except NoTimeLeftError as error:
                if attempt == 10 * MAX_REPLACEMENTS - 1:
                    raise DataError(f"no window of {attempt} lies in its video; the last: {error}") from None
                row = self.instead(row, rng)
                continue
            except VideoError as error:
                bad.append(BadVideo(error.path, error.reason))
            if len(bad) == MAX_REPLACEMENTS:
                raise DataError(
                    f"{len(bad)} videos in a row cannot be read; the last: {bad[-1].path}: {bad[-1].reason}"
                )
            row = int(rng.integers(len(self.manifest)))
        raise AssertionError("the last attempt raises")

    def _load(self, row: int, rng: np.random.Generator, bad: tuple[BadVideo, ...]) -> list[Sample]:
        path, samples = self.manifest.paths[row], []
        with self.reader.open(path) as video:
            info = video.info
            with as_video_error(path):
                places = self.places(info, row, rng)
            cuts = [self.cut.draw(info, rng) for _ in places]
            for cut, (frames, codes) in zip(cuts, self._read(path, video, places, cuts), strict=True):
                clip = {"rgb": self.augment.apply(cut.apply(frames), rng)}
                if codes is not None:
                    clip["flow"] = cut_flow(codes[:-1], cut)
                inputs = {name: torch.from_numpy(values)[None] for name, values in clip.items()}
                samples.append(Sample(inputs, self._target(row, cut), row, bad))
        return samples

    def instead(self, row: int, rng: np.random.Generator) -> int:
        """The row that is read in place of one that lies beyond the end of its video."""
        return int(rng.integers(len(self.manifest)))

    def places(self, info: VideoInfo, row: int, rng: np.random.Generator) -> Indices:
        """int64 (clips_per_video, T): the frames of the clips of a row; raises DataError where it has none."""
        spec, where = self.sampler, seconds_of(self.manifest, row)
        return random_clip(Timeline.of(info), spec, rng, clips=spec.clips_per_video, **where)

    def _read(
        self, path: str, video: OpenVideo, places: Indices, cuts: Sequence[Crop]
    ) -> Iterator[tuple[Frames, Codes | None]]:
        """Each clip as `read_clip` gives it; frames that clips of one size share are decoded once."""
        if len(cuts) == 1 or any(cut.read_size != cuts[0].read_size for cut in cuts):
            for indices, cut in zip(places, cuts, strict=True):
                yield read_clip(path, video, indices, cut.read_size, self.flow)
            return
        frames, codes, place = read_once(path, video, places, cuts[0].read_size, self.flow)
        for rows in place:
            yield frames[rows], None if codes is None else codes[rows]

    def _target(self, row: int, cut: Crop) -> int | torch.Tensor:
        target = self.targets[row]
        if not cut.flip or self.flip_labels is None:
            return target
        # the exchange is its own inverse, so it also says where each class of several comes from
        return target[self.flip_labels] if isinstance(target, torch.Tensor) else int(self.flip_labels[target])


class Targets:
    """The target of each row as a loss takes it: a class number; float32 (K,) of 0 and 1 in a multi-label set; of an
    untrimmed video its segments, float64 (n, 3)."""

    def __init__(self, manifest: Manifest, num_classes: int | None) -> None:
        assert manifest.tags is None or num_classes is not None, "a multi-label manifest needs num_classes"
        self._manifest = manifest
        self._num_classes = num_classes

    def __getitem__(self, row: int) -> int | torch.Tensor:
        if self._manifest.segments is not None:
            return torch.from_numpy(np.array(self._manifest.segments[row]))
        if self._manifest.tags is None:
            return int(self._manifest.labels[row])
        target = torch.zeros(self._num_classes or 0)
        target[torch.from_numpy(np.array(self._manifest.tags[row]))] = 1
        return target


class EvalViews(Dataset[Sample]):
    """All views of a video per item, from one decoding pass: V = clips x crops, clip by clip.

    A broken video is never replaced: its views are None and the reason is in `bad`.

    Args:
        evaluation: which clips and crops, and whose protocol they follow. With `hop`, V differs from video to video.
        num_classes: K, of a multi-label manifest.

    Attributes:
        batch_size: views of a batch, about.
        per_video: V; None where it differs.

    With `max_views` V is that number at most, see `chosen`.
    """

    def __init__(
        self,
        manifest: Manifest,
        parts: ClipParts,
        evaluation: EvalConfig,
        *,
        num_classes: int | None = None,
    ) -> None:
        self.manifest = manifest
        self.reader = parts.reader
        self.sampler = parts.sampler
        self.cuts = EvalCrops(parts.transform, evaluation.crops, evaluation.protocol)
        self.evaluation = evaluation
        self.batch_size = evaluation.batch_size
        views = evaluation.clips * evaluation.crops
        self.per_video = min(views, evaluation.max_views or views) if evaluation.hop is None else None
        self.flow = parts.flow
        self.targets = Targets(manifest, num_classes)

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, row: int) -> Sample:
        target = self.targets[row]
        try:
            with self.reader.open(self.manifest.paths[row]) as video:
                indices, kept = self.chosen(video, self.indices(video, row))
                target = self.target(video.info, row, indices)
                views = {name: x[kept] for name, x in self.read(video, row, indices).items()}
        except VideoError as error:
            return Sample(None, target, row, (BadVideo(error.path, error.reason),))
        return Sample({name: torch.from_numpy(values) for name, values in views.items()}, target, row)

    def target(self, info: VideoInfo, row: int, indices: Indices) -> int | torch.Tensor:
        """The target of a row; of an untrimmed video with the times of its clips (clips, T)."""
        if self.manifest.segments is None:
            return self.targets[row]
        line = Timeline.of(info)
        windows = line.seconds(np.stack([indices.min(1), indices.max(1) + 1], 1))
        return torch.from_numpy(Annotated(line.end, windows, self.manifest.segments[row]).table())

    def indices(self, video: OpenVideo, row: int) -> Indices:
        """int64 (clips, T): the frames of the clips of a row.

        Raises:
            VideoError: the video does not have them.
        """
        seconds = seconds_of(self.manifest, row)
        with as_video_error(self.manifest.paths[row]):
            line, views = Timeline.of(video.info), self.evaluation
            if views.protocol is not EvalProtocol.vidtrain:
                return protocol_clips(views.protocol, line, self.sampler, views.clips, **seconds)
            if views.hop is None:
                return uniform_clips(line, self.sampler, views.clips, **seconds)
            return sliding_clips(line, self.sampler, views.hop, **seconds)

    def chosen(self, video: OpenVideo, indices: Indices) -> tuple[Indices, slice | Indices]:
        """Of clips (clips, T) those that have a view among the `max_views` (vidtrain/view_subsets.py), and which of the
        views of these clips they are, ascending; all without `max_views`."""
        most, crops = self.evaluation.max_views, len(self.cuts.all(video.info))
        if most is None or most >= len(indices) * crops:
            return indices, slice(None)
        views = np.array(sorted(spread_views(len(indices) * crops, most)), dtype=np.int64)
        clips, place = np.unique(views // crops, return_inverse=True)
        return indices[clips], place * crops + views % crops

    def read(self, video: OpenVideo, row: int, indices: Indices) -> dict[str, Frames]:
        """The views of these clips (clips, T), N = clips x crops, from one decoding pass: "rgb" (N, T, size, size, 3),
        and with flow "flow" (N, T - 1, size, size, 2)."""
        cuts = self.cuts.all(video.info)
        frames, codes, place = read_once(self.manifest.paths[row], video, indices, cuts[0].read_size, self.flow)
        views = {"rgb": _views((cut.apply(frames) for cut in cuts), len(cuts), place)}
        if codes is not None:
            views["flow"] = _views((cut_flow(codes, cut) for cut in cuts), len(cuts), place[:, :-1])
        return views


def _views(crops: Iterable[Frames], count: int, place: Indices) -> Frames:
    """(clips x crops, T, H, W, C), clip by clip. crops: `count` times (frames, H, W, C). place: as of `read_once`."""
    views = np.empty(0, np.uint8)
    for number, frames in enumerate(crops):
        if not number:
            views = np.empty((len(place), count, place.shape[1], *frames.shape[1:]), np.uint8)
        views[:, number] = frames[place]
    return views.reshape(-1, *views.shape[2:])


def read_clip(
    path: str, video: OpenVideo, indices: Indices, size: tuple[int, int], flow: FlowSource | None
) -> tuple[Frames, Codes | None]:
    """The frames of a clip uint8 (T, *size, 3), and the codes of their flow uint8 (T, h, w, 2), see flow/codes.py."""
    return (video.read(indices, size), None) if flow is None else flow.read(path, video, indices, size)


def read_once(
    path: str, video: OpenVideo, indices: Indices, size: tuple[int, int], flow: FlowSource | None
) -> tuple[Frames, Codes | None, Indices]:
    """What `read_clip` gives for all clips (clips, T) together, each frame decoded once, however many share it; and
    where in it each clip's frames stand (clips, T)."""
    wanted, place = np.unique(indices, return_inverse=True)
    return *read_clip(path, video, wanted, size, flow), place.reshape(indices.shape)


@contextmanager
def as_video_error(path: str) -> Iterator[None]:
    """A clip that does not fit its video is that video's fault: say which one."""
    try:
        yield
    except VideoError:
        raise
    except DataError as error:
        raise VideoError(path, str(error)) from error


class Bounds(TypedDict):
    """Seconds of a file; None is its start or its end."""

    first: float | None
    last: float | None


def seconds_of(manifest: Manifest, row: int) -> Bounds:
    """Where in its file a row lies: the whole of it unless the manifest says otherwise."""
    first = None if manifest.starts is None else float(manifest.starts[row])
    last = None if manifest.ends is None else float(manifest.ends[row])
    return {"first": first, "last": last if last is None or np.isfinite(last) else None}
