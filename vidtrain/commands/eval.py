"""vidtrain eval: test a checkpoint, or a published file. What a run needs comes from it; the command line may change
it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vidtrain import build, published
from vidtrain.class_names import with_classes_of
from vidtrain.commands.calibrating import calibrate, check_calibration, check_can_be_kept
from vidtrain.commands.run_dir import folder_name
from vidtrain.commands.scoring import Scorer, refuse_not_finite
from vidtrain.commands.training_parts import for_task
from vidtrain.data.settings import EvalProtocol
from vidtrain.engine.devices.distributed import World, join
from vidtrain.errors import ConfigError
from vidtrain.hub_folder import is_hub_folder
from vidtrain.models.two_stream import TwoStream
from vidtrain.options.invocation import Invocation
from vidtrain.options.schema import DataSection, FlowSection, NetworkOptions, SplitName
from vidtrain.ranges import number
from vidtrain.remote import is_url
from vidtrain.reports.results import interval_line, scored_line
from vidtrain.reports.table import table
from vidtrain.runs.atomic import prepare_folder
from vidtrain.runs.names import PREDICTIONS
from vidtrain.terminal import printable
from vidtrain.types import FilePath

log = logging.getLogger("vidtrain")


@dataclass
class EvalCommandConfig(NetworkOptions, DataSection, FlowSection):
    split: SplitName = SplitName.test
    """Which split to score: train, val or test."""
    stream: str | None = None
    """Of a two-stream network: test rgb or flow alone, by that stream's own classifier."""
    calibrate: bool = False
    """Fit a temperature to the probabilities of the val split and keep it in the checkpoint: predict, vidtrain.load and
    later tests give calibrated probabilities."""
    reject_precision: float | None = number(None, above=0, below=1)
    """Choose on val the probability below which an answer is "unknown", so that this share of the others is right, and
    keep it in the checkpoint; null: as it is there."""
    conformal_coverage: float | None = number(None, above=0, below=1)
    """Choose on val from which probability on classes form a prediction set, so that this share of the sets hold the
    class, and keep it in the checkpoint; null: as it is there."""
    output: FilePath | None = None
    """Folder for the results; null: eval/ beside the checkpoint, or runs/eval/ where that cannot be written."""


def run(call: Invocation[EvalCommandConfig]) -> float | None:
    """Score a split of the checkpoint's data; print the table. Returns top-1 over videos, or mAP.

    Under torchrun or srun each process scores its part of the videos.
    """
    world = join()
    with world.reporting_errors():
        score = _scored(call, world)
    world.leave()
    return score


def _scored(call: Invocation[EvalCommandConfig], world: World) -> float | None:
    call = published.folder_as_checkpoint(call)
    options = call.options
    check_can_be_kept(options)
    subject = published.Subject.of(call)
    config = subject.config
    join(config.trainer.rank_timeout)  # in force from here on
    scorer = Scorer.by_trainer(config, world)
    data = for_task(config.task, build.build_data(config.data))
    model, names = subject.classifier(options.class_names, data.class_names)
    data = with_classes_of(data, names)
    if options.stream is not None:
        _answer_by(model, options.stream)
    build.check_reads(model, data)
    build.check_flow(model, config.flow)
    kept = subject.content.get("calibration")
    task = build.build_task(config.task, data.class_names, multi_label=data.multi_label, calibration=kept)
    check_calibration(options, task)
    for note in data.notes:
        log.info("note: %s", note)
    split = str(options.split)
    whose = None if config.eval.protocol is EvalProtocol.vidtrain else str(config.eval.protocol)
    parts = split, f"{config.eval.clips}x{config.eval.crops}", whose, options.stream
    name = "_".join(part for part in parts if part is not None)
    folder = _folder(options, config.model.get("weights"), name) if world.is_main else Path()

    model.to(scorer.precision.device)
    calibrate(options, task, scorer, model, data)
    result = scorer.report(
        task, model, data, split, folder, show=lambda found: _print(found, task.titles, task.primary, split)
    )
    if world.is_main:
        print(printable(f"predictions: {folder / PREDICTIONS}"))
        refuse_not_finite(result, folder)
    return float(result[task.primary])


def _folder(options: EvalCommandConfig, weights: Any, name: str) -> Path:
    """The folder for the files, which can be written to. A shared checkpoint may lie where nobody may write."""
    if options.output is not None:
        return prepare_folder(Path(options.output), "output")
    file = options.checkpoint
    if file is not None and is_url(file):
        return prepare_folder(Path("runs") / "eval" / folder_name("_".join(Path(file).parts[-2:])) / name, "output")
    if file is None or is_hub_folder(Path(file)):  # a published folder may be published again, without what is in here
        stem = Path(str(weights)).stem if file is None else Path(file).absolute().name
        return prepare_folder(Path("runs") / "eval" / stem / name, "output")
    home = Path(file).absolute().parent
    try:
        return prepare_folder(home / "eval" / name, "output")
    except ConfigError as error:
        other = prepare_folder(Path("runs") / "eval" / home.name / name, "output")
        log.warning("%s; the files go to %s (output=... sets another folder)", error, other)
        return other


def _answer_by(model: nn.Module, stream: str) -> None:
    if not isinstance(model, TwoStream):
        raise ConfigError(f"stream={stream}: this checkpoint holds no two-stream network; leave stream out")
    model.answer_by(stream)


def _print(result: dict[str, Any], titles: Mapping[str, str], primary: str, split: str) -> None:
    columns = {key: title for key, title in titles.items() if key in result}
    cells = [f"{result[key]:.4f}" for key in columns]
    header = ["split", *columns.values(), "scored"]
    print(table(header, [[split, *cells, f"{result['scored']}/{result['listed']}"]]))
    lines = interval_line(result, primary, titles[primary]), scored_line(result)
    print(*filter(None, lines), sep="\n", flush=True)
