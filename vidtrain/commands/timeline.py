"""What a classifier sees when: it slides over videos of any length, and its windows become segments.

The temporal contract is the checkpoint's: a window is a clip as it was trained on, by the frames' own times.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import torch

from vidtrain.commands.predictor import Predictor
from vidtrain.commands.scoring import Scorer
from vidtrain.data.clips.loader import choose_workers
from vidtrain.data.clips.sampling import check_slides, default_hop, sliding_clips
from vidtrain.data.clips.stream import ClipBatch, ClipStream, VideoEnd
from vidtrain.data.clips.workers import Workers
from vidtrain.data.manifest.manifest import Manifest
from vidtrain.data.prepare.frames import timestamps
from vidtrain.data.prepare.video import check_encoder, encode_video
from vidtrain.data.readers.streaming import walk
from vidtrain.data.readers.timeline import Timeline
from vidtrain.engine.evaluator import predict_views
from vidtrain.engine.precision import Precision
from vidtrain.engine.preprocess import ModelRunner, model_inputs
from vidtrain.engine.settings import PrecisionName
from vidtrain.errors import ConfigError, VideoError, did_you_mean
from vidtrain.options.schema import TrainConfig
from vidtrain.ranges import check_fields
from vidtrain.reports.annotation_files import (
    clock,
    write_boris_events,
    write_segments_csv,
    write_segments_json,
    write_vtt,
)
from vidtrain.reports.timeline import Overlay, timeline_figure
from vidtrain.runs.atomic import make_parent, part_file, prepare_folder, whole_file
from vidtrain.segments import Segment, Windows
from vidtrain.tasks.classification.task import Classification
from vidtrain.tasks.segments.from_windows import find_segments, why_no_segment
from vidtrain.tasks.segments.task import Segments
from vidtrain.tasks.settings import SegmentsConfig
from vidtrain.tasks.task import Task
from vidtrain.untrusted_data import read_mapping

log = logging.getLogger("vidtrain")

_LONGEST_SIDE = 4096  # of an overlay: H.264 has an end
_OVERLAY_SIDE = 360, 720  # pixels of the short side, least and most: what is drawn can be read, and files stay small


@dataclass(frozen=True)
class VideoTimeline:
    """A video with what happens in it when.

    seconds: its length. segments: by their start. windows: what they are made of. unreadable: stretches of seconds
    without a readable window. error: why nothing is known of it, None otherwise.
    """

    path: str
    seconds: float = 0.0
    segments: list[Segment] = field(default_factory=list)
    windows: Windows | None = field(default=None, repr=False, compare=False)
    unreadable: list[tuple[float, float]] = field(default_factory=list)
    error: str | None = None
    why_none: str = field(default="", repr=False, compare=False)

    @property
    def summary(self) -> str:
        """A line."""
        skipped = sum(end - start for start, end in self.unreadable)
        gaps = f", {skipped:.1f} s unreadable" if self.unreadable else ""
        count = f"{len(self.segments)} segment{'s' * (len(self.segments) != 1)}"
        why = f"; {self.why_none}" if self.why_none else ""
        return f"{self.path}: {count} in {clock(self.seconds)}{gaps}{why}"


class Slider:
    """A classifier that slides over videos. The windows of a video are made from one decoding pass.

    Args:
        config: how windows become segments.
        hop: from a window to the next, as in `sliding_clips`; None: a quarter of a window.
        asked: what the user has given for it, for messages.

    Attributes:
        spec, hop: of the windows. network: as the task calls it. scorer: the configuration of the windows.

    Raises:
        ConfigError: a network that reads flow or gives no classes, clips of segments, a background that is no class.
    """

    def __init__(
        self,
        predictor: Predictor,
        config: SegmentsConfig,
        *,
        hop: float | str | None = None,
        asked: str = "timeline=true",
    ) -> None:
        if not isinstance(predictor.task, (Classification, Segments)):
            raise ConfigError(f"{asked} shows classes, {type(predictor.task).__name__} gives none")
        if model_inputs(predictor.model) != ("rgb",):
            raise ConfigError(f"{asked} reads RGB: {type(predictor.model).__name__} also requires optical flow")
        config.check(predictor.class_names)
        self._task = predictor.task
        self._config = config
        self._own = predictor.config
        self._device = predictor.device
        self.spec = check_slides(self._own.sampler)
        self.hop = default_hop(self.spec) if hop is None else hop
        self.scorer = Scorer(self._own, Precision(self._own.trainer.precision, self._device), 0)
        self.network = self.scorer.network(predictor.model.eval())

    def timelines(self, paths: Sequence[str], *, workers: int | None = None) -> Iterator[VideoTimeline]:
        """The timeline of each video, as it is finished. What is held of one are its windows' times and probabilities.

        workers: decoding processes; None: as trainer.num_workers says, one per video at most.
        """
        if workers is None:
            workers = choose_workers(self._own.trainer.num_workers, self._device)
        manifest, found = Manifest.of(paths, [-1] * len(paths)), [_Found() for _ in paths]
        size, limit = self._own.eval.batch_size, self._own.trainer.data_timeout
        clips = ClipStream(manifest, self.scorer.parts, hop=self.hop, batch_size=size, skip_broken=True)
        for batch in clips.loader(Workers(workers, self._device.type == "cuda", limit)):
            self._collect(batch, found)
            for end in batch.ends:
                yield self._finished(paths[end.video], end, found[end.video])
                found[end.video] = _Found()
            for row, bad in batch.bad:
                yield VideoTimeline(paths[row], error=bad.reason)

    def probabilities(self, clips: torch.Tensor, network: ModelRunner | None = None) -> npt.NDArray[np.float32]:
        """float32 (N, K) of uint8 clips (N, T, H, W, 3); rows that are not finite are of clips without an answer.

        network: asked in place of the predictor's own.
        """
        views = predict_views(self._task, network or self.network, {"rgb": clips[:, None]}, len(clips))
        if isinstance(self._task, Segments):
            return self._task.probabilities(views).numpy()
        unknown = torch.zeros(len(clips), views.shape[2]) if self._task.multi_label else torch.full((len(clips),), -1)
        found: npt.NDArray[np.float32] = self._task.columns(views, unknown, self.scorer.average)["probs"].numpy()
        return found

    def _collect(self, batch: ClipBatch, found: list[_Found]) -> None:
        for row in batch.restarted:
            found[row] = _Found()
        for clip in batch.broken:
            found[clip.video].broken[clip.number] = clip.reason
        if not len(batch):
            return
        probs = self.probabilities(batch.views)
        for row, number, own in zip(batch.videos.tolist(), batch.numbers.tolist(), probs, strict=True):
            if np.isfinite(own).all():
                found[row].probs[number] = own
            else:
                found[row].broken[number] = self.scorer.not_finite

    def _finished(self, path: str, end: VideoEnd, found: _Found) -> VideoTimeline:
        line = Timeline(end.frames, end.fps, end.times)
        if not found.probs:
            return VideoTimeline(path, line.end, error=next(iter(found.broken.values())))
        indices = sliding_clips(line, self._own.sampler, self.hop)
        starts, ends = line.seconds(indices.min(1)), line.seconds(indices.max(1) + 1)
        numbers = np.array(sorted(found.probs), dtype=np.int64)
        probs = np.stack([found.probs[number] for number in numbers.tolist()])
        windows = Windows(starts[numbers], ends[numbers], probs, numbers)
        names, multi_label = self._task.class_names, self._task.multi_label
        segments = find_segments(windows, names, self._config, multi_label=multi_label)
        gaps = _joined((float(starts[number]), float(ends[number])) for number in found.broken)
        if gaps:
            first, count = min(found.broken), f"{len(found.broken)} of {len(indices)}"
            why = found.broken[first]
            log.warning("%s: %s windows are skipped, the first at %.2f s: %s", path, count, starts[first], why)
        why = "" if segments else why_no_segment(windows, names, self._config)
        return VideoTimeline(path, line.end, segments, windows, gaps, why_none=why)


def segments_config(options: Mapping[str, Any], task: Task) -> SegmentsConfig:
    """From Python's arguments; raises ConfigError for one that does not exist or has a value that it cannot have."""
    known = [part.name for part in fields(SegmentsConfig)]
    for name in options:
        if name not in known:
            raise ConfigError(f"{name}: timeline has no such argument{did_you_mean(name, known)}")
    config = usual_segments(task, options)
    check_fields(config)
    return config


def usual_segments(task: Task, given: Mapping[str, Any]) -> SegmentsConfig:
    """What was given; for the rest, of a network for task=segments, what it was tested with."""
    if not isinstance(task, Segments):
        return SegmentsConfig(**given)
    return replace(task.config, **given)


@dataclass
class _Found:
    """Of a video that is under way, by the number of the window. broken: why."""

    probs: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)
    broken: dict[int, str] = field(default_factory=dict)


def _joined(parts: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Seconds that are covered, those that touch joined."""
    joined: list[tuple[float, float]] = []
    for start, end in sorted(parts):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def write_files(
    folder: Path, video: VideoTimeline, class_names: Sequence[str], overlay_by: TrainConfig | None = None
) -> None:
    """All files of a video, to a folder of its name: segments in three formats, windows.npz, timeline.png, overlay.mp4.

    windows.npz: starts, ends float64 (n,) seconds, probs float32 (n, K), class_names. overlay_by: the configuration
    whose decoder reads the video for an overlay; None: there is none.
    """
    assert video.windows is not None
    home = _home(folder, video.path)
    make_parent(home / "segments.csv", folder)  # not through a link in a stranger's folder
    prepare_folder(home, "output")
    windows = video.windows
    write_segments_csv(home / "segments.csv", [video])
    write_boris_events(home / "boris.tsv", video)
    write_vtt(home / "segments.vtt", video)
    details = {
        "unreadable": [[round(start, 3), round(end, 3)] for start, end in video.unreadable],
        "windows": len(windows),
        "class_names": list(class_names),
    }
    write_segments_json(home / "segments.json", video, details)
    columns = {"starts": windows.starts, "ends": windows.ends, "probs": windows.probs}
    with whole_file(home / "windows.npz", "wb") as out:
        np.savez_compressed(out, class_names=np.array(class_names), **columns)  # type: ignore[arg-type]
    timeline_figure(home / "timeline.png", video.seconds, video.segments, windows, class_names, video.unreadable)
    if overlay_by is not None:
        try:
            _write_overlay(home / "overlay.mp4", video, class_names, overlay_by)
        except (av.error.FFmpegError, VideoError, ConfigError) as error:
            log.warning("%s: no overlay (%s)", video.path, error)


def _home(folder: Path, path: str) -> Path:
    """A folder for a video's files; videos of one name have one each."""
    name = Path(path).name
    names = itertools.chain([name], (f"{name}_{n}" for n in itertools.count(2)))
    return next(home for one in names if not _of_another(home := folder / one, path))


def _of_another(home: Path, path: str) -> bool:
    try:
        return bool(read_mapping(home / "segments.json").get("file") != path)
    except (OSError, ValueError):
        return False


def _write_overlay(file: Path, video: VideoTimeline, class_names: Sequence[str], config: TrainConfig) -> None:
    check_encoder()
    reader = Scorer(config, Precision(PrecisionName.fp32, torch.device("cpu")), 0).parts.reader
    with reader.open(video.path) as opened:
        info = opened.info
        least, most = _OVERLAY_SIDE
        height, width = info.scaled(min(most, max(least, min(info.height, info.width))))
        scale = min(1.0, _LONGEST_SIDE / max(height, width))
        size = max(2, round(height * scale) // 2 * 2), max(2, round(width * scale) // 2 * 2)
        drawing = Overlay(size, video.seconds, video.segments, class_names)
        times = Timeline.of(info).seconds(np.arange(info.num_frames))
        frames = (
            drawing.draw(frame, second)
            for frame, second in zip(walk(video.path, opened, size), times.tolist(), strict=True)
        )
        with part_file(file) as part:
            encode_video(part, frames, size, timestamps(opened), crf=23, gop=50)
