"""vidtrain bench: how fast a model trains and tests on this device, in which precision, compiled or not."""

from __future__ import annotations

from functools import partial
from itertools import product
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from vidtrain import build
from vidtrain.commands import training
from vidtrain.data.clips.loader import TrainLoader, choose_workers
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.engine.precision import Precision, choose_device
from vidtrain.engine.settings import PrecisionName
from vidtrain.engine.speed.bench import BenchRow, matmul_ceiling, measure
from vidtrain.engine.speed.timing import Step
from vidtrain.models.inspect.summary import cost
from vidtrain.options.settings import check_bench
from vidtrain.reports.bench import Report
from vidtrain.reports.results import write_json
from vidtrain.tasks.classification.task import Classification
from vidtrain.types import Batch


def run(cfg: DictConfig) -> None:
    """Measure every combination of batch size, precision and compile, print the table; with `output` write JSON."""
    check_bench(cfg)
    device, seconds = choose_device(cfg.device), cfg.seconds
    torch.backends.cudnn.benchmark = True  # as training has it
    data = None if cfg.data is None else build.build_data(cfg.data)
    clip = cfg.sampler.num_frames, cfg.transform.size
    usual = [False, True] if device.type == "cuda" else [False]
    rows = []
    for size, precision, compiled in product(cfg.batch_size, cfg.precision, cfg.compile or usual):
        print(f"measuring {precision}{', compiled' if compiled else ''}, {size} clips at once ...", flush=True)
        row, loader = BenchRow(size, precision, compiled), None if data is None else _loader(cfg, data, size, device)
        rows.append(measure(row, device, partial(_make, cfg, data, device), loader, seconds=seconds))
    measured = dict.fromkeys(row.precision for row in rows if row.train is not None)
    ceilings = {name: matmul_ceiling(name, device, seconds=seconds / 4) for name in measured}
    with torch.device("meta"):
        model = build.build_model({**cfg.model, "weights": None, "inflate_from": None}, _classes(cfg, data))
    name = str(HydraConfig.get().runtime.choices["model"])
    report = Report(name, clip, *cost(model, *clip), device, ceilings, rows, with_data=data is not None)
    print(f"\n{report.to_text()}")
    if cfg.output is not None:
        write_json(Path(cfg.output), report.to_json())


def _make(cfg: DictConfig, data: VideoData | None, device: torch.device, row: BenchRow) -> tuple[Step, Batch]:
    """The model with the step that training would take with it, and a batch of noise."""
    classes, multi_label = _classes(cfg, data), data is not None and data.multi_label
    precision = Precision(PrecisionName(row.precision), device)
    model = build.build_model(cfg.model, classes).to(device)
    task = Classification([str(n) for n in range(classes)], multi_label)
    step = training.measured_step(model, cfg.optimizer, cfg.transform, precision, task)
    return step, training.noise(cfg, step.training, row.batch_size)


def _classes(cfg: DictConfig, data: VideoData | None) -> int:
    return int(cfg.num_classes) if data is None else data.num_classes


def _loader(cfg: DictConfig, data: VideoData, batch_size: int, device: torch.device) -> TrainLoader:
    clips, workers = training.training_clips(cfg, data), choose_workers(cfg.num_workers, device)
    return TrainLoader(clips, batch_size=batch_size, workers=workers, seed=0, pin_memory=device.type == "cuda")
