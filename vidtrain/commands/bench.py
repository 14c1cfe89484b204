"""vidtrain bench: how fast a model trains and tests on this device, in which precision, compiled or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from omegaconf import MISSING

from vidtrain import build
from vidtrain.commands import training_parts
from vidtrain.data.clips.loader import TrainLoader, choose_workers
from vidtrain.data.clips.workers import Workers
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.data.settings import SamplerConfig, TransformConfig
from vidtrain.engine.checkpoints.content_checks import on_meta
from vidtrain.engine.precision import Precision, choose_device
from vidtrain.engine.settings import PrecisionName
from vidtrain.engine.speed.bench import BenchRow, matmul_ceiling, measure
from vidtrain.engine.speed.convolutions import check_convolutions
from vidtrain.engine.speed.timing import Step
from vidtrain.errors import ConfigError, one_of
from vidtrain.models.inspect.summary import cost
from vidtrain.models.settings import TuneConfig
from vidtrain.models.tuning import tune, with_probe
from vidtrain.options.invocation import Invocation
from vidtrain.ranges import LONGEST, number
from vidtrain.reports.bench import Report
from vidtrain.runs.atomic import make_folder, write_json
from vidtrain.tasks.classification.task import Classification
from vidtrain.types import Batch, FilePath


@dataclass
class BenchConfig:
    model: Any = None
    """The model to measure."""
    data: Any = None
    """A dataset, whose clips are decoded as in training; null: random clips, no decoding."""
    decoder: Any = MISSING
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    transform: TransformConfig = field(default_factory=TransformConfig)
    tune: TuneConfig = field(default_factory=TuneConfig)
    optimizer: Any = MISSING
    batch_size: list[int] = number([16], least=1)
    """Clips per step, one row each: [16,32]."""
    precision: list[str] = field(default_factory=lambda: ["fp32", "bf16"])
    """fp32, bf16, fp16: one row each; what the device has not is said in its row."""
    compile: list[bool] | None = None
    """[false,true]: without and with torch.compile, one row each; null: both on a GPU, without on a CPU."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    seconds: float = number(5.0, above=0, most=LONGEST)
    """Time of each measurement; at least three steps are timed."""
    num_classes: int = number(400, least=1)
    """Classes of the head, where no dataset is given."""
    num_workers: int | None = number(None, least=0)
    """Processes that decode, when a dataset is given; null chooses from the machine."""
    output: FilePath | None = None
    """Also write everything to this JSON file."""

    def check(self) -> None:
        """Raise ConfigError for what `vidtrain bench` cannot measure."""
        if self.model is None:
            raise ConfigError("bench measures a model: give model=...; vidtrain inspect lists them")
        several = {"batch_size": self.batch_size, "precision": self.precision, "compile": self.compile}
        if empty := [key for key, values in several.items() if values == []]:
            raise ConfigError(f"{empty[0]}=[]: name at least one")
        names = [name for name in PrecisionName if name is not PrecisionName.auto]
        if wrong := [name for name in self.precision if name not in names]:
            raise ConfigError(f"precision={self.precision}: no precision '{wrong[0]}'; allowed: {one_of(names)}")


def run(call: Invocation[BenchConfig]) -> None:
    """Measure every combination of batch size, precision and compile, print the table; with `output` write JSON."""
    options = call.options
    options.check()
    if options.output is not None:
        make_folder(Path(options.output).parent)
    device, seconds = choose_device(options.device), options.seconds
    torch.backends.cudnn.benchmark = True  # as training has it
    data = None if options.data is None else build.build_data(options.data)
    clip = options.sampler.num_frames, options.transform.size
    usual = [False, True] if device.type == "cuda" else [False]
    rows = []
    for size, precision, compiled in product(options.batch_size, options.precision, options.compile or usual):
        print(f"measuring {precision}{', compiled' if compiled else ''}, {size} clips at once ...", flush=True)
        row = BenchRow(size, precision, compiled)
        loader = None if data is None else _loader(options, data, size, device)
        rows.append(measure(row, device, partial(_make, options, data, device), loader, seconds=seconds))
    measured = dict.fromkeys(row.precision for row in rows if row.train is not None)
    ceilings = {name: matmul_ceiling(name, device, seconds=seconds / 4) for name in measured}
    with on_meta():
        model = build.build_model({**options.model, "weights": None, "inflate_from": None}, _classes(options, data))
        model = with_probe(model, options.tune, num_classes=_classes(options, data), clip=clip)
    name, costs = str(call.choices["model"]), cost(model, *clip)
    trained = f"tune={options.tune.name} {tune(model, options.tune)}"
    report = Report(name, clip, *costs, device, ceilings, rows, with_data=data is not None, trained=trained)
    print(f"\n{report.to_text()}")
    for note in _convolution_notes(options, data, device, [name for name in measured if name != PrecisionName.fp32]):
        print(note)
    if options.output is not None:
        write_json(Path(options.output), report.to_json())


def _convolution_notes(
    options: BenchConfig, data: VideoData | None, device: torch.device, names: Sequence[str]
) -> list[str]:
    """What is wrong or slow with the model's 3D convolutions in these half precisions, on a GPU."""
    notes = []
    for name in names if device.type == "cuda" else ():
        step, batch = _make(options, data, device, BenchRow(options.batch_size[0], name, compiled=False))
        try:
            notes += check_convolutions(step.training.network, batch.inputs)
        except ConfigError as error:
            notes.append(str(error))
    return notes


def _make(options: BenchConfig, data: VideoData | None, device: torch.device, row: BenchRow) -> tuple[Step, Batch]:
    """The model with the step that training would take with it, and a batch of noise."""
    classes, multi_label = _classes(options, data), data is not None and data.multi_label
    precision = Precision(PrecisionName(row.precision), device)
    model = build.build_model(options.model, classes).to(device)
    clip = options.sampler.num_frames, options.transform.size
    model = with_probe(model, options.tune, num_classes=classes, clip=clip)
    tune(model, options.tune)
    task = Classification([str(n) for n in range(classes)], multi_label)
    step = training_parts.measured_step(model, options.optimizer, options.transform, precision, task)
    return step, training_parts.random_clips(options.sampler, options.transform, step.training, row.batch_size)


def _classes(options: BenchConfig, data: VideoData | None) -> int:
    return options.num_classes if data is None else data.num_classes


def _loader(options: BenchConfig, data: VideoData, batch_size: int, device: torch.device) -> TrainLoader:
    parts = build.make_parts(options.decoder, options.sampler, options.transform)
    workers = Workers(choose_workers(options.num_workers, device), device.type == "cuda")
    return TrainLoader(build.train_clips(data, parts, seed=0), workers, batch_size=batch_size)
