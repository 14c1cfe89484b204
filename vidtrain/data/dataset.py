"""Videos -> clips. What a worker makes is a function of (seed, epoch, index) only: neither the number of workers nor
a resume changes the data. A reader is opened, used and closed inside one call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import Dataset

from vidtrain.data.manifest import Manifest
from vidtrain.data.readers.base import OpenVideo, VideoReader
from vidtrain.data.sampling import ClipSpec, random_clip, uniform_clips
from vidtrain.data.transforms import Colours, TestCuts, TrainCut
from vidtrain.errors import DataError, VideoError
from vidtrain.types import BadVideo, Sample

MAX_REPLACEMENTS = 20
"""Broken videos in a row before the data set is given up: then the reader or the disk is at fault."""


class TrainClips(Dataset[Sample]):
    """One random clip of a video per item. Keys are (epoch, row), as data.loader.EpochBatches yields them.

    A broken video is replaced by another, drawn by the same seed, and listed in the sample.
    flip_labels: int64 (K,), the class a flipped clip belongs to; None when a flip changes no class.
    """

    def __init__(
        self,
        manifest: Manifest,
        reader: VideoReader,
        spec: ClipSpec,
        cut: TrainCut,
        *,
        seed: int,
        colours: Colours | None = None,
        flip_labels: np.ndarray | None = None,
    ) -> None:
        self.manifest = manifest
        self.reader = reader
        self.spec = spec
        self.cut = cut
        self.seed = seed
        self.colours = colours or Colours()
        self.flip_labels = flip_labels

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, row = key
        rng = np.random.default_rng((self.seed, epoch, row))
        bad: list[BadVideo] = []
        while True:
            try:
                return self._load(row, rng, tuple(bad))
            except VideoError as error:
                bad.append(BadVideo(error.path, error.reason))
            if len(bad) == MAX_REPLACEMENTS:
                raise DataError(
                    f"{len(bad)} videos in a row cannot be read; the last: {bad[-1].path}: {bad[-1].reason}"
                )
            row = int(rng.integers(len(self.manifest)))

    def _load(self, row: int, rng: np.random.Generator, bad: tuple[BadVideo, ...]) -> Sample:
        path = self.manifest.paths[row]
        with self.reader.open(path) as video:
            info = video.info
            with _naming(path):
                indices = random_clip(info.num_frames, info.fps, self.spec, rng, **_seconds(self.manifest, row))
            cut = self.cut.draw(info, rng)
            frames = self.colours.apply(cut.apply(video.read(indices[0], cut.read_size)), rng)
        label = int(self.manifest.labels[row])
        if cut.flip and self.flip_labels is not None:
            label = int(self.flip_labels[label])
        return Sample(torch.from_numpy(frames)[None], label, row, bad)


class TestViews(Dataset[Sample]):
    """All views of a video per item, from one decoding pass: V = clips x crops, clip by clip.

    A broken video is never replaced: its views are None and the reason is in `bad`.
    """

    def __init__(self, manifest: Manifest, reader: VideoReader, spec: ClipSpec, cuts: TestCuts, *, clips: int) -> None:
        self.manifest = manifest
        self.reader = reader
        self.spec = spec
        self.cuts = cuts
        self.clips = clips

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, row: int) -> Sample:
        label = int(self.manifest.labels[row])
        try:
            with self.reader.open(self.manifest.paths[row]) as video:
                views = self._views(video, row)
        except VideoError as error:
            return Sample(None, label, row, (BadVideo(error.path, error.reason),))
        return Sample(views, label, row)

    def _views(self, video: OpenVideo, row: int) -> torch.Tensor:
        info, seconds = video.info, _seconds(self.manifest, row)
        with _naming(self.manifest.paths[row]):
            indices = uniform_clips(info.num_frames, info.fps, self.spec, self.clips, **seconds)
        cuts = self.cuts.all(info)
        # each frame is decoded once, however many clips share it
        wanted, place = np.unique(indices, return_inverse=True)
        frames = video.read(wanted, cuts[0].read_size)
        place = place.reshape(indices.shape)
        size = cuts[0].size
        views = np.empty((len(indices), len(cuts), indices.shape[1], size, size, 3), dtype=np.uint8)
        for number, cut in enumerate(cuts):
            views[:, number] = cut.apply(frames)[place]
        return torch.from_numpy(views.reshape(-1, *views.shape[2:]))


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """A clip that does not fit its video is that video's fault: say which one."""
    try:
        yield
    except DataError as error:
        raise VideoError(path, str(error)) from error


def _seconds(manifest: Manifest, row: int) -> dict[str, float | None]:
    """Where in its file a row lies: the whole of it unless the manifest says otherwise."""
    first = None if manifest.starts is None else float(manifest.starts[row])
    last = None if manifest.ends is None else float(manifest.ends[row])
    return {"first": first, "last": last if last is None or np.isfinite(last) else None}
