"""Features of whole videos as training and test items, in the place of clips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from vidtrain.data.clips.dataset import ClipParts, EvalViews, Targets, TrainClips
from vidtrain.data.features.files import Features, open_features
from vidtrain.data.manifest.manifest import FeatureInfo, Manifest
from vidtrain.errors import ConfigError, VideoError
from vidtrain.segments import Annotated
from vidtrain.types import BadVideo, Sample


def _read(path: str, info: FeatureInfo) -> Features:
    """(clips, D), or (clips, P, D): memory-mapped, or what is kept of it.

    Raises:
        VideoError: as `open_features`.
    """
    if info.kept is None:
        return open_features(path, info.length, info.tokens)
    if path not in info.kept:
        info.kept[path] = np.array(open_features(path, info.length, info.tokens))
    return info.kept[path]


def _in_a_row(features: Features) -> torch.Tensor:
    """(clips, D), or (clips, P, D) -> (L, D): tokens stand clip by clip. A copy, which may be changed."""
    return torch.from_numpy(np.array(features)).flatten(0, -2)


def _target(manifest: Manifest, info: FeatureInfo, row: int, taken: slice, targets: Targets) -> int | torch.Tensor:
    """The target of a row; of an untrimmed video with the times of those of its clips that are taken.

    Raises:
        VideoError: there are none.
    """
    if manifest.segments is None:
        return targets[row]
    path = manifest.paths[row]
    times = info.times.get(path, np.empty((0, 2)))
    if not len(times):
        raise VideoError(path, "the times of its clips are not known; extract again")
    return torch.from_numpy(Annotated(float(times[-1, 1]), times[taken], manifest.segments[row]).table())


class TrainSequences(TrainClips):
    """The features of a video per item, (L, D); of a long one a random stretch of `info.max_clips` clips.

    Broken files are replaced and listed as TrainClips does it.

    Args:
        parts: of them only sampler.class_balance has a meaning here.
    """

    def __init__(
        self,
        manifest: Manifest,
        info: FeatureInfo,
        parts: ClipParts,
        *,
        seed: int,
        num_classes: int | None = None,
    ) -> None:
        if info.max_clips is not None and info.max_clips < 1:
            raise ConfigError(f"data.max_clips={info.max_clips}: must be 1 or more, or null")
        self.manifest = manifest
        self.info = info
        self.seed = seed
        self.sampler = replace(parts.sampler, clips_per_video=1)
        self.targets = Targets(manifest, num_classes)
        self.weights = None

    def _load(self, row: int, rng: np.random.Generator, bad: tuple[BadVideo, ...]) -> list[Sample]:
        features, taken = _read(self.manifest.paths[row], self.info), slice(None)
        if self.info.max_clips is not None:
            start = int(rng.integers(max(0, len(features) - self.info.max_clips) + 1))
            taken = slice(start, start + self.info.max_clips)
        target = _target(self.manifest, self.info, row, taken, self.targets)
        return [Sample({"features": _in_a_row(features[taken])}, target, row, bad)]


class EvalSequences(EvalViews):
    """All features of a video per item, (L, D). A broken file is never replaced.

    Args:
        batch_size: videos in a batch.
    """

    def __init__(
        self, manifest: Manifest, info: FeatureInfo, *, batch_size: int, num_classes: int | None = None
    ) -> None:
        self.manifest = manifest
        self.info = info
        self.batch_size, self.per_video = batch_size, 1
        self.targets = Targets(manifest, num_classes)

    def __getitem__(self, row: int) -> Sample:
        target = _target(self.manifest, self.info, row, slice(None), self.targets)
        try:
            features = _read(self.manifest.paths[row], self.info)
        except VideoError as error:
            return Sample(None, target, row, (BadVideo(error.path, error.reason),))
        return Sample({"features": _in_a_row(features)}, target, row)
