"""vidtrain data doctor: what limits a run, decoding, augmentation, transfer or the model, and what to change."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vidtrain import build, published
from vidtrain.child_python_path import processors
from vidtrain.commands import training_parts
from vidtrain.data.checks.loading_times import loader_rate, time_stages
from vidtrain.data.clips.crop import exact_size
from vidtrain.data.clips.dataset import ClipParts
from vidtrain.data.clips.loader import choose_workers
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.data.prepare.prepare import prepare
from vidtrain.data.settings import CopyFormat, PrepareConfig
from vidtrain.engine.precision import Precision, choose_device
from vidtrain.engine.settings import PrecisionName
from vidtrain.engine.speed.timing import rate
from vidtrain.errors import DataError
from vidtrain.options.invocation import Invocation
from vidtrain.options.schema import DataCommandConfig
from vidtrain.ranges import LONGEST, number
from vidtrain.reports.doctor import Findings, Trial, advice, tables
from vidtrain.tasks.classification.task import Classification


@dataclass
class DoctorConfig:
    videos: int = number(64, least=1)
    """doctor: training videos that are measured, drawn at random."""
    seconds: float = number(4.0, above=0, most=LONGEST)
    """doctor: time of each measurement."""
    batch_size: int = number(16, least=1)
    """doctor: clips per step."""
    device: str = "auto"
    """doctor: where the model runs: auto, cpu, cuda, mps."""
    copies: bool = True
    """doctor: also measure copies of these videos as `vidtrain data prepare` makes them."""


def run(call: Invocation[DataCommandConfig]) -> None:
    """Measure the parts one after the other on some training videos, print a table, and say what limits."""
    call = published.with_its_clips(call)
    options, own = call.options, call.options.of(DoctorConfig)
    data = some_of(build.build_data(options.data), own.videos)
    clips = build.train_clips(data, _parts(options), seed=0)
    device = choose_device(own.device)
    workers = choose_workers(options.num_workers, device)
    seconds, batch_size = own.seconds, own.batch_size
    print(f"measuring {len(clips)} training videos, about {seconds:g} s for each number ...", flush=True)

    stages = time_stages(clips, seconds=seconds)
    loading = loader_rate(clips, batch_size=batch_size, workers=workers, seconds=seconds)
    precision = Precision(PrecisionName.auto, device)
    model = build.build_model(options.model, data.num_classes).to(device)
    sgd = {"_target_": "torch.optim.SGD", "lr": 1e-3, "momentum": 0.9}
    task = Classification(data.class_names, data.multi_label)
    step = training_parts.measured_step(model, sgd, options.transform, precision, task)
    batch = training_parts.random_clips(options.sampler, options.transform, step.training, batch_size)
    moving = batch_size * rate(lambda: step.training.network.ready(batch.inputs), device, seconds=seconds / 4)
    stepping = batch_size * rate(lambda: step(batch), device, seconds=seconds)

    found = Findings(stages, loading, moving, stepping, workers, processors(), str(device), precision.name)
    print(tables(found), flush=True)
    trials = _trials(options, own, data, found) if found.data_limits else []
    print(advice(found, trials))


def _parts(options: DataCommandConfig) -> ClipParts:
    return build.make_parts(options.decoder, options.sampler, options.transform)


def some_of(data: VideoData, videos: int) -> VideoData:
    """Only a training split, of so many videos drawn at random."""
    train = data.split("train")
    rows = np.sort(np.random.default_rng(0).permutation(len(train))[:videos])
    return replace(data, splits={"train": train.take(rows)})


def _trials(options: DataCommandConfig, own: DoctorConfig, data: VideoData, found: Findings) -> list[Trial]:
    """What could be changed, each measured: more workers, copies that are quicker to read."""
    seconds, batch_size = own.seconds, own.batch_size

    def loads(data: VideoData, workers: int) -> float:
        clips = build.train_clips(data, _parts(options), seed=0)
        return loader_rate(clips, batch_size=batch_size, workers=workers, seconds=seconds)

    trials = []
    if found.processors > found.workers:
        more = loads(data, found.processors)
        trials.append(Trial(f"trainer.num_workers={found.processors}", more, f"{found.processors} decoding processes"))
    if not own.copies:
        return trials
    reader = build.build_reader(options.decoder)
    short_side = max(*exact_size(options.transform.resize), options.transform.resize_max or 0)
    for name in (CopyFormat.video, CopyFormat.jpeg):
        even = short_side + short_side % 2
        settings = PrepareConfig(format=name, short_side=even)
        with tempfile.TemporaryDirectory() as folder:
            try:
                made = prepare(data, Path(folder), settings, reader, workers=found.processors)
            except DataError:  # none of them can be copied: the check says why
                continue
            copies = build.build_data({"_target_": "vidtrain.data.formats.index.index", "root": folder})
            size = made.bytes_after / max(1, made.bytes_before)
            command = f"vidtrain data prepare prepare.format={name} prepare.short_side={even}"
            bytes_ = f"{size:.0%} of the bytes" if size < 2 else f"{size:.0f} times the bytes"
            trials.append(Trial(command, loads(copies, found.workers), f"copies of {bytes_}"))
    return trials
