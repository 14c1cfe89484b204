"""The clips that an exported file is compared, quantised and measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from vidtrain import build
from vidtrain.class_names import with_classes_of
from vidtrain.commands.input_videos import find_inputs
from vidtrain.commands.scoring import Scorer
from vidtrain.data.clips.loader import choose_workers
from vidtrain.data.manifest.manifest import Manifest, VideoData
from vidtrain.engine.precision import Precision
from vidtrain.engine.settings import PrecisionName
from vidtrain.errors import ConfigError, DataError
from vidtrain.options.schema import TrainConfig
from vidtrain.tasks.task import Task


class ExportClips:
    """Real clips as they are decoded, of a split of the dataset or of videos that the user names.

    Args:
        names: input=..., see `find_inputs`; None: the split's.

    Raises:
        ConfigError: the dataset lacks what it needs, such as data.root.
    """

    def __init__(self, config: TrainConfig, split: str, names: str | None) -> None:
        self._config = config
        self._data: VideoData | None = None
        self.split = split
        if names is not None:
            paths = find_inputs(names)
            self._manifest = Manifest.of(paths, [-1] * len(paths))
            return
        try:
            self._data = build.build_data(config.data)
        except (ConfigError, DataError) as error:
            raise ConfigError(f"{error}; a file is compared on real clips: give the dataset, or input=VIDEOS") from None
        self._manifest = self._data.split(split)

    @property
    def class_names(self) -> Sequence[str]:
        """Of the dataset; () without one."""
        return () if self._data is None else self._data.class_names

    def labelled(self, class_names: Sequence[str]) -> VideoData | None:
        """The dataset with the network's class numbers; None: there is none, or it has no labels."""
        return None if self._data is None else with_classes_of(self._data, class_names)

    def score(self, task: Task, network: nn.Module, data: VideoData) -> float:
        """The task's number for the split, by as many clips per video as a training's validation takes."""
        scorer = self._scorer()
        views = replace(scorer.plain_views, clips=self._config.eval.val_clips)
        return float(scorer.score(task, network, data, self.split, views).summary()[task.primary])

    def _scorer(self) -> Scorer:
        """In float32 on the CPU."""
        device = torch.device("cpu")
        workers = choose_workers(self._config.trainer.num_workers, device)
        return Scorer(self._config, Precision(PrecisionName.fp32, device), workers, complete_flow=True)

    def read(self, count: int) -> dict[str, Tensor]:
        """uint8 (n, T, H, W, C) of each input, n = `count` or fewer: centre crops, of videos all over the list; several
        clips of each where there are too few videos.

        Raises:
            DataError: no video can be read.
        """
        scorer, videos = self._scorer(), len(self._manifest)
        rows = np.unique(np.linspace(0, videos - 1, min(count, videos)).round().astype(np.int64))
        each = min(-(-count // max(1, len(rows))), self._config.eval.batch_size)
        found: list[dict[str, Tensor]] = []
        reasons: list[str] = []
        for batch in scorer.batches(self._manifest.take(rows), replace(scorer.plain_views, clips=each)):
            bad = batch.bad if isinstance(batch.bad, list) else [batch.bad] if batch.bad else []
            reasons += [f"{video.path}: {video.reason}" for video in bad]
            if len(batch):
                found.append({name: value.flatten(0, -5).clone() for name, value in batch.inputs.items()})
        if not found:
            raise DataError(f"no clip to compare on: {reasons[0] if reasons else 'no video'}")
        return {name: torch.cat([part[name] for part in found])[:count] for name in found[0]}
