"""What happens in a video when, by a network that reads features of whole videos. They are made first, by the network
that made those it was trained on; one answer of the head is then all segments of a video.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vidtrain.commands.feature_extractor import EncodedVideo, Encoder
from vidtrain.commands.timeline import VideoTimeline
from vidtrain.data.formats.features import features
from vidtrain.engine.precision import Precision
from vidtrain.engine.preprocess import ModelRunner, Preprocess
from vidtrain.errors import ConfigError
from vidtrain.options.invocation import Invocation
from vidtrain.options.schema import TrainConfig
from vidtrain.segments import Annotated, Segment, Windows
from vidtrain.sequences import Sequences
from vidtrain.tasks.segments.task import Segments
from vidtrain.tasks.settings import SegmentsConfig


class HeadTimelines:
    """Args:
        call: of predict.
        config: of the head's run. task: its own.
        segments: threshold is the least score of a segment; min_seconds and background drop some. The others are of
            windows.

    Raises:
        ConfigError: the folder of its features is not there, or their network is not as it was.
        DataError: it holds no features.
    """

    def __init__(
        self, call: Invocation[Any], config: TrainConfig, model: nn.Module, task: Segments, segments: SegmentsConfig
    ) -> None:
        segments.check(task.class_names)
        folder = call.options.features or config.data.get("root")
        if not folder or not Path(folder).is_dir():
            raise ConfigError(
                f"features={folder}: no such folder. This checkpoint reads features, which predict makes by the "
                "network that made those it was trained on: give features=FOLDER, the output of `vidtrain extract`"
            )
        data = features(str(folder), memory_gb=0)
        assert data.features is not None
        shown, names = f"features={folder}", data.class_names
        self._encoder = Encoder(call, data.features, shown, class_names=names, trust=call.options.trust)
        device = self._encoder.device
        preprocess = Preprocess(config.transform.mean, config.transform.std, device)
        self._network = ModelRunner(model.to(device).eval(), preprocess, Precision(config.trainer.precision, device))
        self._task, self._segments = task, segments

    def timelines(self, paths: Sequence[str]) -> Iterator[VideoTimeline]:
        """The timeline of each video, as it is finished; `windows` has of each clip the best score of each class."""
        for video in self._encoder.videos(paths):
            path = paths[video.row]
            if video.error is not None:
                yield VideoTimeline(path, error=video.error)
                continue
            yield self._answered(path, video)

    def _answered(self, path: str, video: EncodedVideo) -> VideoTimeline:
        # as data/features/sequences.py makes it for a test: it lasts to the end of its last clip
        empty = Annotated(float(video.times[-1, 1]), video.times, np.empty((0, 3)))
        sequence = Sequences.of([torch.from_numpy(video.features)])
        with torch.inference_mode():
            table = self._task.predict(self._network, self._network.ready({"features": sequence}))[0].cpu()
        if not table.isfinite().all():
            return VideoTimeline(path, video.seconds, error="the network's output is not finite")
        rows, best = self._task.of_candidates(table, empty)
        names, wanted = self._task.class_names, self._segments
        every = [Segment(start, end, names[int(label)], score) for start, end, label, score in rows.tolist()]
        allowed = [s for s in every if s.label not in wanted.background and s.seconds >= wanted.min_seconds]
        found = sorted((s for s in allowed if s.score >= wanted.threshold), key=lambda s: (s.start, s.end, s.label))
        starts, ends = video.times.T
        why = "" if found or not allowed else _why_none(allowed[0], wanted.threshold)
        windows = Windows(starts, ends, best, np.arange(len(starts)))
        return VideoTimeline(path, video.seconds, found, windows, why_none=why)


def _why_none(best: Segment, threshold: float) -> str:
    return f"no segment reached segments.threshold={threshold:g}; the best was {best.label} {best.score:.3g}"
