"""vidtrain train: configuration -> a trained and tested model in a run folder."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from copy import deepcopy
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vidtrain import build, published
from vidtrain.class_names import class_names, with_classes_of
from vidtrain.commands import report, resuming, training_parts
from vidtrain.commands.few_shot import check_few_shot, few_shot
from vidtrain.commands.launch import launch
from vidtrain.commands.scoring import Scorer, refuse_not_finite
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.engine.checkpoints.checkpoint import versions
from vidtrain.engine.checkpoints.content_checks import on_meta
from vidtrain.engine.devices.distributed import World, join
from vidtrain.engine.hooks import Pruned
from vidtrain.engine.schedule import check_schedule
from vidtrain.engine.signals import StopSignals
from vidtrain.engine.trainer import Trainer
from vidtrain.errors import CheckpointError, ConfigError, LoaderError, VidtrainError
from vidtrain.models.tuning import as_stored
from vidtrain.options.invocation import Invocation
from vidtrain.options.schema import TrainConfig
from vidtrain.ranges import Range, check_number
from vidtrain.remote import is_url
from vidtrain.reports.bench import device_name
from vidtrain.reports.curves import write_learning_curves
from vidtrain.reports.figures import FIGURES, read_figure
from vidtrain.reports.results import TestResult, primary, print_result, read_result, summary_cells
from vidtrain.reports.score_figures import precision_recall
from vidtrain.runs.atomic import write_json
from vidtrain.runs.names import CONFIG, NOT_SCORED, PREDICTIONS, RESULT
from vidtrain.runs.sole_writer import sole_writer
from vidtrain.terminal import print_line, printable
from vidtrain.untrusted_data import read_json

log = logging.getLogger("vidtrain")

_MOST_CURVES = 20  # of precision over recall, a class each
_SEGMENTS = "vidtrain.data.formats.segments.segments"
_CUT_OUT = (
    "each segment is a video of its own here, cut out of its file; task=segments trains on whole videos, and says when "
    "things happen (docs/timeline.md)"
)
_LOGGED = (RESULT, PREDICTIONS, NOT_SCORED)
"""Files of the test that loggers are handed."""


def run(call: Invocation[TrainConfig]) -> float | None:
    """Train, test, print the table. Returns what a sweeper may optimise: top-1 or mAP (test, else validation)."""
    trainer, folder = call.options.trainer, call.folder
    world = join(trainer.rank_timeout)
    if world.size == 1 and trainer.devices > 1:
        launch(run, call, count=trainer.devices, device=trainer.device)
        result: dict[str, Any] = read_json(folder / RESULT)
        return primary(result)
    if not world.is_main:
        log.setLevel(logging.WARNING)  # the main process speaks for all
    with world.reporting_errors(), sole_writer(folder, "run_dir") if world.is_main else nullcontext():
        result = _result(call, world)
    world.leave()
    return primary(result)


def _result(call: Invocation[TrainConfig], world: World) -> dict[str, Any]:
    """Of the training, or of the finished one that is to be resumed."""
    call, start = published.begin(call)
    folder, compared = call.folder, resuming.comparable(call.composed)
    finished = folder / RESULT
    _check(call.options, compared, folder, world)
    result, fresh = read_result(folder) if call.options.resume is not None else None, False
    if result is not None:
        log.info("%s is finished already", folder)
    else:
        if finished.is_file():
            log.warning("%s is damaged: it is made again from the checkpoints", finished)
        given = deepcopy(call.options)
        result, fresh = _train_and_test(call, compared, world, start), True
        if given.probe.shots:
            result["few_shot"] = few_shot(
                call, given, lambda few, change: _train_and_test(few, {}, world, None, change)
            )
    if world.is_main:
        write_json(finished, result)
        print_result(result)
        # the page is about classes, or about segments of them
        shown = result["test"] is None or not result["test"].keys().isdisjoint(("class_names", "segment_classes"))
        if fresh and call.options.report and shown and (page := report.after_training(folder)) is not None:
            print_line(f"report: {page}")
        if result["test"] is not None:
            refuse_not_finite(result["test"], folder / "test")
    return result


def _check(options: TrainConfig, compared: dict[str, Any], folder: Path, world: World) -> None:
    """Everything that can be wrong and does not need the data to be seen."""
    there = any(folder.glob("last*.pt"))
    if options.resume not in (None, "auto") and not there:
        raise CheckpointError(f"resume={options.resume}: no last.pt in {folder}; use resume=auto or a run's folder")
    if options.resume is None and there:
        raise ConfigError(f"{folder} holds a run: resume=auto continues it; or choose another run_dir")
    if there:
        resuming.refuse_other_configuration(compared, folder, changed=options.resume_changed)
    check_number("data.max_bad_fraction", options.data.get("max_bad_fraction"), Range(least=0, most=1))
    if options.trainer.epochs:
        check_schedule(options.schedule, options.trainer.epochs)
    if world.size > 1 and options.trainer.devices not in (1, world.size):
        raise ConfigError(
            f"trainer.devices={options.trainer.devices}, but {world.size} processes were started: leave it at 1 under "
            "torchrun or srun"
        )


def _train_and_test(
    call: Invocation[TrainConfig],
    compared: dict[str, Any],
    world: World,
    start: published.PublishedFile | None,
    change: Callable[[VideoData], VideoData] = lambda data: data,
) -> dict[str, Any]:
    """change: what becomes of the data."""
    started, options, folder = time.time(), call.options, call.folder
    if "root" in options.data:  # a checkpoint must find its data from any working directory
        root = str(options.data["root"])
        options.data["root"] = root if is_url(root) else str(Path(root).absolute())
    build.note_flow(options.flow)
    settings = options.trainer
    scorer = Scorer.by_trainer(options, world)
    training_parts.seed_everything(settings.seed, settings.deterministic)
    data = training_parts.for_task(options.task, change(training_parts.data_of(options.data, world)))
    if not data.untrimmed and options.data.get("_target_") == _SEGMENTS:
        data = replace(data, notes=(*data.notes, _CUT_OUT))
    check_few_shot(options, data, world.size)
    if start is not None and not settings.epochs:  # what is tested is the file's own head
        data = with_classes_of(data, class_names(start.info, options.class_names, data.class_names))
    trainer = training_parts.build_trainer(call, data, scorer)
    if world.is_main:
        write_json(folder / CONFIG, compared)  # from now on resume=auto finds this run
    with closing(trainer.recorder):
        pruned = _fit(trainer)
        test = _tested(trainer, scorer, options, data, folder, wanted=not pruned)
        if world.is_main:
            _log_finals(trainer, test, folder / "test")
    task = trainer.step.task
    if world.is_main and options.eval.figures:
        write_learning_curves(folder, [(key, task.titles.get(key, key)) for key in (task.primary, *task.measures)])
    progress = trainer.progress
    bad = {path: reason for known in world.gather(progress.bad) for path, reason in known.items()}
    params = sum(p.numel() for p in trainer.model.parameters())
    result: dict[str, Any] = {
        "val": None if progress.best is None else {task.primary: progress.best[0]},
        "test": test,
        "primary": task.primary,
        "titles": dict(task.titles),
        "best_epoch": progress.best_epoch,
        "params": params,
        "gmac": _gmac(options, data) if world.is_main else None,
        "clips_per_second": progress.clips / progress.seconds if progress.seconds else None,
        "minutes": (time.time() - started) / 60,
        "devices": world.size,
        "skipped_updates": progress.skipped,
        "bad": bad,
        "videos": {name: len(split) for name, split in data.splits.items()},
        "choices": {group: choice for group, choice in call.choices.items() if choice is not None},
        "environment": {**versions(), "platform": platform.platform(), "device": device_name(scorer.precision.device)},
        "folder": str(folder),
        "checkpoint": str(trainer.checkpoints.best),
        **({"pruned": True} if pruned else {}),
    }
    return {**result, "summary": summary_cells(result)}


def _fit(trainer: Trainer) -> bool:
    """Returns whether the sweep that this is a run of has ended it."""
    settings, processes = trainer.settings, trainer.world.size
    try:
        if settings.epochs:
            trainer.fit()
        else:
            trainer.checkpoints.save_best({"model": trainer.checkpoints.weights(trainer.model), "epoch": 0})
    except Pruned:
        log.info("pruned by its sweep in epoch %d; it is not tested", trainer.progress.epoch + 1)
        return True
    except torch.OutOfMemoryError as error:  # trainer.on_oom=fail, or several devices
        raise VidtrainError(
            f"{str(error).split('. ', 1)[0]}: {settings.batch_size // processes} clips at a time are too many; "
            "lower trainer.batch_size (trainer.accumulate makes up for it), or set trainer.checkpoint_activations=true"
        ) from error
    return False


def _tested(
    trainer: Trainer, scorer: Scorer, options: TrainConfig, data: VideoData, folder: Path, *, wanted: bool
) -> dict[str, Any] | None:
    """The test of the best weights; None where there is none."""
    with StopSignals("trained, but not tested; the same command with resume=auto goes on from there") as stop:
        best = trainer.keep_best()
        if not (wanted and options.trainer.test) or "test" not in data.splits:
            return None
        bare = partial(build.bare_model, options.model, data.num_classes)
        model = as_stored(bare, asdict(options.tune), data.num_classes, best["model"]).to(scorer.precision.device)
        model.load_state_dict(best["model"])
        try:
            return scorer.report(trainer.step.task, model, data, "test", folder / "test")
        except LoaderError:
            stop.wait()  # raises, when the worker was ended with the whole job
            raise


def _log_finals(trainer: Trainer, test: dict[str, Any] | None, folder: Path) -> None:
    """Hand the loggers what the run ends with: the best validation, and of the test numbers, figures, curves, files.

    folder: of the test.
    """
    task, update, recorder = trainer.step.task, trainer.progress.update, trainer.recorder
    best = trainer.progress.best
    values = {} if best is None else {f"val/{task.primary}": best[0]}
    if test is not None:
        values |= {f"test/{key}": test[key] for key in task.titles if isinstance(test.get(key), float)}
        for file in sorted((folder / FIGURES).glob("*.png")):
            recorder.figure(f"test/{file.stem}", update, partial(read_figure, file))
        if "class_names" in test:
            for name, truth, scores in precision_recall(TestResult.read(folder), _MOST_CURVES):
                recorder.precision_recall(f"test/{printable(name)}", update, truth, scores)
    recorder.finish(update, values)
    if test is not None:
        recorder.files([file for name in _LOGGED if (file := folder / name).is_file()])


def _gmac(options: TrainConfig, data: VideoData) -> float | None:
    """10^9 multiply-adds of a clip; None of features, and of a model whose operations cannot be counted."""
    from vidtrain.models.inspect.summary import cost

    if data.features is not None:
        return None
    try:
        with on_meta():
            model = build.bare_model(options.model, data.num_classes)
        return cost(model, options.sampler.num_frames, options.transform.size)[1] / 1e9
    except Exception as error:  # anything: it is but a number beside the result
        log.info("the multiply-adds of the model cannot be counted: %s", error)
        return None
