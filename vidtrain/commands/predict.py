"""vidtrain predict: classes of one video, a folder or a glob, by the same clips and averaging as eval."""

from __future__ import annotations

import glob
import sys
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from vidtrain import build, published
from vidtrain.commands.scoring import Scorer
from vidtrain.data.clips.loader import choose_workers
from vidtrain.data.manifest.files import list_videos
from vidtrain.data.manifest.manifest import Manifest
from vidtrain.engine.evaluator import answers
from vidtrain.engine.precision import Precision, choose_device
from vidtrain.errors import ConfigError, DataError, VideoError
from vidtrain.options.invocation import Invocation
from vidtrain.options.schema import CheckpointSections
from vidtrain.ranges import number
from vidtrain.tasks.task import AnswersFile, Task
from vidtrain.terminal import printable
from vidtrain.types import BadVideo, FilePath


@dataclass
class PredictConfig(CheckpointSections):
    checkpoint: FilePath | None = None
    """The .pt file to predict with; null: model.weights."""
    class_names: FilePath | None = None
    """model.weights: names of its outputs, kinetics400 or a file with a name per line; null: as the file says."""
    input: FilePath = MISSING
    """A video, a folder of videos, or a glob in quotes: input='clips/*.mp4'."""
    top: int = number(5, least=1)
    """Classes to print per video."""
    output: FilePath | None = None
    """Also write the predictions to this .csv file."""
    trust: list[str] = field(default_factory=list)
    """Modules outside vidtrain that the checkpoint's configuration may call."""


def run(call: Invocation[PredictConfig]) -> None:
    """Print the best classes of every readable video; those that cannot be read are errors at the end."""
    options = call.options
    subject = published.Subject.of(call)
    config = subject.config
    paths = find_inputs(options.input)
    device = choose_device(config.trainer.device)
    model, names = subject.classifier(options)
    if getattr(model, "in_features", None) is not None:
        raise ConfigError("predict reads videos, this checkpoint features: vidtrain extract, then vidtrain eval")
    build.check_flow(model, config.flow)
    model.to(device)
    multi_label = bool((subject.content or {}).get("multi_label"))
    task = build.build_task(config.task, names, multi_label=multi_label)
    manifest = Manifest.of(paths, [-1] * len(paths))
    workers = 0 if len(paths) == 1 else choose_workers(config.trainer.num_workers, device)
    scorer = Scorer(config, Precision(config.trainer.precision, device), workers, complete_flow=True)

    bad: list[BadVideo] = []
    with _output(options, task, manifest) as output:
        views, network = config.eval, scorer.network(model)
        batches = scorer.batches(manifest, views.clips, views.crops, hop=views.hop, protocol=views.protocol)
        for found in answers(task, network, batches, views_per_forward=views.batch_size, average=scorer.average):
            bad += found.bad
            bad += [BadVideo(manifest.paths[row], scorer.not_finite) for row in found.not_finite]
            if not len(found):
                continue
            if output is not None:  # before the line, whose reader may have gone
                output.add(found)
            for row, line in zip(found.videos.tolist(), task.lines(found, options.top), strict=True):
                print(printable(f"{manifest.paths[row]}: {line}"), flush=True)
    if len(bad) == 1:
        raise VideoError(bad[0].path, bad[0].reason)
    if bad:
        for video in bad:
            print(printable(f"vidtrain: {video.path}: {video.reason}"), file=sys.stderr)
        raise DataError(f"{len(bad)} of {len(paths)} videos could not be read or have no finite scores")


def find_inputs(text: str) -> list[str]:
    """The files that input= names: one file, all videos below a folder, or what a glob matches."""
    path = Path(text)
    if path.exists() and not path.is_dir():  # a pipe is refused by who reads it
        return [str(path)]
    if path.is_dir():
        found = list_videos(path)
        if not found:
            raise DataError(f"input={text}: no video below this folder")
        return found
    # a pattern may be absolute, which Path.glob refuses
    found = sorted(p for p in glob.glob(str(path), recursive=True) if Path(p).is_file())  # noqa: PTH207
    if not found:
        raise DataError(f"input={text}: no such file, and no file matches it as a glob")
    return found


def _output(options: PredictConfig, task: Task, manifest: Manifest) -> AbstractContextManager[AnswersFile | None]:
    output = options.output
    return nullcontext() if output is None else closing(task.file(Path(output), manifest.paths, options.top))
