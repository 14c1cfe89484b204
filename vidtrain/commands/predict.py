"""vidtrain predict: classes of one video, a folder or a glob, by the same clips and averaging as eval."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from omegaconf import MISSING
from torch import nn

from vidtrain import build, published
from vidtrain.commands.head_timeline import HeadTimelines
from vidtrain.commands.input_videos import find_inputs, is_stored_video, refuse_bad
from vidtrain.commands.live import watch
from vidtrain.commands.predictor import Predictor
from vidtrain.commands.timeline import Slider, VideoTimeline, usual_segments, write_files
from vidtrain.data.manifest.manifest import Manifest
from vidtrain.engine.precision import choose_device
from vidtrain.engine.preprocess import model_inputs
from vidtrain.errors import ConfigError, DataError
from vidtrain.live.settings import LiveConfig
from vidtrain.live.sources import live_source
from vidtrain.options.given_options import given_keys
from vidtrain.options.invocation import Invocation
from vidtrain.options.schema import FlowSection, NetworkOptions, TrainConfig
from vidtrain.ranges import number
from vidtrain.reports.annotation_files import segments_table, write_segments_csv
from vidtrain.reports.table import counted
from vidtrain.runs.atomic import prepare_folder
from vidtrain.runs.names import PREDICTIONS
from vidtrain.tasks.segments.task import Segments
from vidtrain.tasks.settings import SegmentsConfig
from vidtrain.tasks.task import PredictionsWriter, Task
from vidtrain.terminal import printable, said_between, said_when_slow
from vidtrain.types import BadVideo, FilePath

_SAYS_WHEN = "this checkpoint was trained with task=segments, to say what happens when: give timeline=true"


@dataclass
class PredictConfig(NetworkOptions, FlowSection):
    input: FilePath = MISSING
    """A video, a folder of videos, or a glob in quotes: input='clips/*.mp4'. Or a stream: a camera (0), an address
    (rtsp://, http://), a pipe (-); see live.*."""
    top: int = number(5, least=1)
    """Classes to print per video."""
    output: FilePath | None = None
    """Also write to this folder: predictions.csv, or with timeline, and of a stream, what happens when. A name that
    ends in .csv is that of the predictions themselves."""
    timeline: bool = False
    """Slide over each video, of any length, and say what happens when; eval.hop is the distance of the windows."""
    segments: SegmentsConfig = field(default_factory=SegmentsConfig)
    features: FilePath | None = None
    """model=segment_head: folder of features whose network makes those of the input; null: that it was trained on."""
    overlay: bool = False
    """timeline with output: also write each video with its labels and a strip of its timeline drawn over it."""
    live: LiveConfig = field(default_factory=LiveConfig)


def run(call: Invocation[PredictConfig]) -> None:
    """Print the best classes of every readable video; those that cannot be read are errors at the end."""
    call = published.folder_as_checkpoint(call)
    options = call.options
    subject = published.Subject.of(call)
    config = subject.config
    plain = options.live.format is None and not options.live.follow
    source = None if plain and is_stored_video(options.input) else live_source(options.input, options.live)
    paths = [] if source is not None else find_inputs(options.input)
    device = choose_device(config.trainer.device)
    model, names = subject.classifier(options.class_names)
    if model_inputs(model) == ("features",):
        _show_segments_of_features(call, config, model, subject.content, paths)
        return
    predictor = Predictor(config, model, names, device, content=subject.content)
    if options.features is not None:
        raise ConfigError(
            f"features={options.features}: goes with a checkpoint that reads features, this one reads videos"
        )
    segments = usual_segments(predictor.task, _given(options.segments))
    if source is not None:
        watch(predictor, source, replace(options, segments=segments))
        return
    if options.timeline:
        slider = Slider(predictor, segments, hop=predictor.config.eval.hop)
        show_timelines(slider.timelines(paths), len(paths), names, config, options)
        return
    if isinstance(predictor.task, Segments):
        raise ConfigError(_SAYS_WHEN)
    task, manifest = predictor.task, Manifest.of(paths, [-1] * len(paths))

    bad: list[BadVideo] = []
    done = 0

    def so_far() -> str:
        return f"{done} of {counted(len(paths), 'video')} answered"

    with _output(options, task, manifest) as output:
        for found in said_between(predictor.predictions(manifest, config.eval), so_far):
            bad += found.bad
            done += len(found) + len(found.bad)
            if not len(found):
                continue
            if output is not None:  # before the line, whose reader may have gone
                output.add(found)
            for row, line in zip(found.videos.tolist(), task.lines(found, options.top), strict=True):
                print(printable(f"{manifest.paths[row]}: {line}"), flush=True)
    refuse_bad(bad, len(paths))


def _show_segments_of_features(
    call: Invocation[PredictConfig], config: TrainConfig, model: nn.Module, content: Mapping[str, Any], paths: list[str]
) -> None:
    """A temporal head; the network that made its features is asked first."""
    options = call.options
    task = build.build_task(config.task, content["class_names"], multi_label=bool(content.get("multi_label")))
    if not isinstance(task, Segments):
        raise ConfigError("predict reads videos, this checkpoint features: vidtrain extract, then vidtrain eval")
    if not paths:
        raise ConfigError("a network that reads features of whole videos watches no stream: give a file")
    if not options.timeline:
        raise ConfigError(_SAYS_WHEN)
    segments = usual_segments(task, {"threshold": task.least_score, **_given(options.segments)})
    head = HeadTimelines(call, config, model, task, segments)
    show_timelines(head.timelines(paths), len(paths), task.class_names, config, options)


def _given(segments: SegmentsConfig) -> dict[str, Any]:
    """What of segments.* the user has given."""
    given = given_keys()
    return {part.name: getattr(segments, part.name) for part in fields(segments) if f"segments.{part.name}" in given}


def show_timelines(
    timelines: Iterable[VideoTimeline],
    count: int,
    class_names: Sequence[str],
    config: TrainConfig,
    options: PredictConfig,
) -> None:
    """Print the segments of every video, and write its files where output is set. count: of the videos."""
    if options.output is not None and _is_file(Path(options.output)):
        raise ConfigError(f"output={options.output}: timeline=true writes several files: give a folder")
    folder = None if options.output is None else prepare_folder(Path(options.output), "output")
    if options.overlay and folder is None:
        raise ConfigError("overlay=true writes a video: give output=FOLDER")
    done: list[VideoTimeline] = []
    try:
        for video in said_between(timelines, lambda: f"{len(done)} of {counted(count, 'video')} done"):
            done.append(video)
            if video.error is not None:
                print(printable(f"vidtrain: {video.path}: {video.error}"), file=sys.stderr)
                continue
            print(printable(video.summary))
            if video.segments:
                print(segments_table(video.segments), flush=True)
            if folder is not None:
                with said_when_slow(f"drawing over {video.path}") if options.overlay else nullcontext():
                    write_files(folder, video, class_names, config if options.overlay else None)
    finally:  # what ends it before, Ctrl-C too, loses none of those that are done
        if folder is not None:
            write_segments_csv(folder / "segments.csv", done)
    if folder is not None:
        print(printable(f"files: {folder}"))
    failed = sum(video.error is not None for video in done)
    if failed:
        raise DataError(f"{failed} of {count} videos could not be read")


def _output(options: PredictConfig, task: Task, manifest: Manifest) -> AbstractContextManager[PredictionsWriter | None]:
    if options.output is None:
        return nullcontext()
    output = Path(options.output)
    file = output if _is_file(output) else prepare_folder(output, "output") / PREDICTIONS
    return closing(task.file(file, manifest.paths, options.top))


def _is_file(output: Path) -> bool:
    """Whether a value of `output` is the predictions themselves, and no folder for them: also a pipe."""
    return not output.is_dir() and (output.suffix.lower() == ".csv" or output.exists())
