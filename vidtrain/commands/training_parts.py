"""The parts of a training, built from its configuration and joined."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidtrain import build
from vidtrain.commands import probing
from vidtrain.commands.scoring import Scorer
from vidtrain.data.clips.dataset import TrainClips
from vidtrain.data.clips.loader import TrainLoader, class_shares
from vidtrain.data.clips.workers import Workers
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.data.manifest.untrimmed import untrimmed
from vidtrain.data.settings import SamplerConfig, TransformConfig
from vidtrain.engine.checkpoints.checkpoint import Checkpoints
from vidtrain.engine.checkpoints.content_checks import restoring
from vidtrain.engine.devices.distributed import World
from vidtrain.engine.devices.memory_format import benefits_from_channels_last, to_channels_last
from vidtrain.engine.devices.parallel import gathered, parallel
from vidtrain.engine.ema import EMA
from vidtrain.engine.hooks import Hook, SweptRun, standard_hooks
from vidtrain.engine.parameters import Grid
from vidtrain.engine.precision import Precision
from vidtrain.engine.preprocess import ModelRunner, Preprocess, model_inputs
from vidtrain.engine.schedule import Plan
from vidtrain.engine.settings import CompileMode, OnOom, Strategy, TrainerConfig
from vidtrain.engine.speed.compiling import choose_compile
from vidtrain.engine.speed.convolutions import check_convolutions
from vidtrain.engine.speed.timing import Step, random_batch
from vidtrain.engine.step import TrainingStep
from vidtrain.engine.trainer import Trainer
from vidtrain.engine.training_state import Outputs
from vidtrain.errors import ConfigError, VidtrainError
from vidtrain.loggers.logger import LoggedRun, Logger
from vidtrain.loggers.recorder import RunRecorder
from vidtrain.models.layers.checkpointing import checkpoint_activations
from vidtrain.models.tuning import plain_weights, tune, with_probe
from vidtrain.options.instantiate import reads_untrimmed
from vidtrain.options.invocation import Invocation, plain
from vidtrain.options.schema import TrainConfig
from vidtrain.tasks.task import Scores, Task
from vidtrain.terminal import said_when_slow
from vidtrain.types import Batch

log = logging.getLogger("vidtrain")


def build_trainer(call: Invocation[TrainConfig], data: VideoData, scorer: Scorer) -> Trainer:
    """Everything from the model to the checkpoints; continues the run in its folder when the options say so."""
    options, folder, world = call.options, call.folder, scorer.world
    model, data = _model(call, data, scorer)
    clips = build.train_clips(data, scorer.parts, seed=options.trainer.seed)
    step = _step(options, model, data, clips, scorer)
    checkpoints = _checkpoints(call, step.task, world)
    content = checkpoints.load_last() if options.resume is not None else None

    def validate(model: nn.Module) -> Scores:
        with gathered(model, world):
            if isinstance(model, Grid):
                probing.choose(model, scorer, step.task, data, folder)
            return scorer.validate(step.task, model, data, options.eval.val_clips)

    own_hooks = build.build_named(options.hook, "hook", Hook)
    with ExitStack() as on_error:
        recorder = _recorder(options, folder, data, content, world)
        on_error.callback(recorder.close)
        trainer = Trainer(
            step,
            _loader(options.trainer, clips, scorer, scorer.workers_for(data.features)),
            Plan(options.trainer, options.schedule),
            Outputs(checkpoints, recorder),
            validate=validate if "val" in data.splits else None,
            hooks={
                **standard_hooks(options.trainer, options.data.get("max_bad_fraction", 0.1) * len(clips)),
                **({} if options.sweep.trial is None else {"sweep.trial": SweptRun(folder)}),
                **own_hooks,
            },
        )
        if data.features is None:
            _make_fast(options, trainer, content)
        if content is not None:
            with restoring(checkpoints.last):
                trainer.resume(content)
            progress = trainer.progress
            log.info("resumed from %s: epoch %d, update %d", checkpoints.last, progress.epoch, progress.update)
        on_error.pop_all()
    return trainer


def _model(call: Invocation[TrainConfig], data: VideoData, scorer: Scorer) -> tuple[nn.Module, VideoData]:
    """The model on its device, with what of it is trained, and the data that it is trained and validated on."""
    options, device = call.options, scorer.precision.device
    build.fit_to_data(options.model, data)
    model = build.build_model(options.model, data.num_classes).to(device)
    build.check_reads(model, data)
    build.check_flow(model, options.flow, multi_label=data.multi_label)
    clip = options.sampler.num_frames, options.transform.size
    model = with_probe(model, options.tune, num_classes=data.num_classes, clip=clip)
    data = probing.with_what_it_needs(options, model, data)
    _log_setup(call, data, model, scorer)
    log.info("tune=%s: %s", options.tune.name.value, tune(model, options.tune))
    probing.fit(model, scorer, data, resumed=options.resume is not None)
    # FSDP cuts weights along their first axis and knows one order only
    if benefits_from_channels_last(model, device) and not (options.trainer.strategy.sharded and scorer.world.size > 1):
        to_channels_last(model)
    if options.trainer.checkpoint_activations:
        log.info("activations of %d blocks are recomputed in the backward pass", checkpoint_activations(model))
    return model, data


def _step(options: TrainConfig, model: nn.Module, data: VideoData, clips: TrainClips, scorer: Scorer) -> TrainingStep:
    """The model as all processes train it together, its optimizer and the task."""
    settings, precision, world = options.trainer, scorer.precision, scorer.world
    network = parallel(
        model,
        world,
        sharded=settings.strategy.sharded,
        within_nodes=settings.strategy is Strategy.hsdp,
        sync_bn=settings.sync_bn,
        device=precision.device,
    )
    if not world.is_main:
        torch.manual_seed(settings.seed + world.rank)  # the same weights everywhere, but not the same dropout
    shares = class_shares(
        clips.manifest,
        data.num_classes,
        balance=options.sampler.class_balance,
        weights=clips.weights,
        flip=options.transform.flip,
        flip_labels=build.flip_labels(data) if data.features is None else None,
    ).tolist()
    return TrainingStep(
        ModelRunner(model, scorer.preprocess, precision, network),
        _optimizer(options, model),
        build.build_task(options.task, data.class_names, multi_label=data.multi_label, class_shares=shares),
        clip_grad=settings.clip_grad,
        # with several processes the others would wait for one that computes more pieces
        halve_on_oom=settings.on_oom is OnOom.halve and world.size == 1,
        ema=None if settings.ema is None else EMA(model, settings.ema),
    )


def _checkpoints(call: Invocation[TrainConfig], task: Task, world: World) -> Checkpoints:
    options = call.options
    return Checkpoints(
        call.folder,
        keep_last=options.trainer.keep_last,
        world=world,
        sharded=options.trainer.strategy.sharded,
        in_background=options.trainer.async_save,
        plain=lambda weights: plain_weights(weights, options.tune.alpha),
        describe={"config": plain(options), **task.describe(), "choices": dict(call.choices)},
    )


def for_task(node: Mapping[str, Any], data: VideoData) -> VideoData:
    """The dataset as the task of a section reads it: where that has `untrimmed`, whole videos with their segments.

    Raises:
        ConfigError: the data are whole videos with segments, which this task cannot read.
        DataError: the task reads segments, and the data have no times.
    """
    if reads_untrimmed(node):
        return untrimmed(data)
    if data.untrimmed:
        raise ConfigError(
            "these are features of untrimmed videos: give task=segments, or extract without untrimmed=true"
        )
    return data


def data_of(section: Mapping[str, Any], world: World) -> VideoData:
    """The dataset; one that is made or downloaded on first use is made by one process alone."""
    with world.sharing(VidtrainError):  # the others wait here
        data = build.build_data(section) if world.is_main else None
    with world.sharing(VidtrainError):
        return build.build_data(section) if data is None else data


def seed_everything(seed: int, deterministic: bool) -> None:
    torch.manual_seed(seed)  # every other draw is a function of (seed, epoch, index)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic


def _make_fast(options: TrainConfig, trainer: Trainer, content: Mapping[str, Any] | None) -> None:
    """Look for slow and wrong kernels, and compile where that pays: both need an update of random clips."""
    settings, step = options.trainer, trainer.step

    def noise() -> Batch:
        return random_clips(options.sampler, options.transform, step, settings.batch_size // trainer.world.size)

    if settings.check_convolutions and step.precision.device.type == "cuda":
        # wrong ones make a training that learns little and says nothing
        for note in check_convolutions(step.network, noise().inputs):
            log.warning("%s", note)
    with said_when_slow(f"trainer.compile={settings.compile}: timing or compiling an update of random clips"):
        said = _compile(settings, step, content, len(trainer.clips), noise)
    log.info("trainer.%s", said)


def _compile(
    settings: TrainerConfig,
    step: TrainingStep,
    content: Mapping[str, Any] | None,
    batches: int,
    noise: Callable[[], Batch],
) -> str:
    """torch.compile as asked; a run that is continued keeps what was chosen when it began. Returns what was done."""
    mode = settings.compile
    if mode is CompileMode.off:
        return "compile=off"
    if mode is CompileMode.auto:
        if settings.deterministic:
            return "compile=auto: off, because trainer.deterministic"
        if content is not None:
            mode = CompileMode.on if content.get("compiled") else CompileMode.off
    return choose_compile(mode, step, noise(), batches=batches * settings.epochs)


def random_clips(sampler: SamplerConfig, transform: TransformConfig, step: TrainingStep, batch_size: int) -> Batch:
    """A batch of noise with the inputs and the targets that `step` takes."""
    return random_batch(
        batch_size,
        sampler.num_frames,
        transform.size,
        step.task,
        pin_memory=step.precision.device.type == "cuda",
        inputs=model_inputs(step.model),
    )


def measured_step(
    model: nn.Module, optimizer: Mapping[str, Any], transform: TransformConfig, precision: Precision, task: Task
) -> Step:
    """The step that training takes with a model on its device, to be measured."""
    if benefits_from_channels_last(model, precision.device):
        to_channels_last(model)
    network = ModelRunner(model, Preprocess(transform.mean, transform.std, precision.device), precision)
    return Step(network, build.build_optimizer(optimizer, model), task)


def _loader(settings: TrainerConfig, clips: TrainClips, scorer: Scorer, workers: int) -> TrainLoader:
    return TrainLoader(
        clips,
        Workers(workers, scorer.precision.device.type == "cuda", settings.data_timeout),
        batch_size=settings.batch_size,
        most=settings.max_batches,
        fixed=settings.overfit,
        share=(scorer.world.rank, scorer.world.size),
    )


def _optimizer(options: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """With the learning rate in proportion to the clips of an update, when it is given for a number of them."""
    base, node = options.trainer.base_batch, options.optimizer
    if base is None:
        return build.build_optimizer(node, model)
    clips = options.trainer.batch_size * options.trainer.accumulate
    if base < 1 or not isinstance(node.get("lr"), (int, float)):
        raise ConfigError(f"trainer.base_batch={base}: must be 1 or more, and the optimizer must have lr, a number")
    lr = node["lr"] * clips / base
    log.info("learning rate %g: %g for %d clips, of which an update has %d", lr, node["lr"], base, clips)
    return build.build_optimizer({**node, "lr": lr}, model)


def _recorder(
    options: TrainConfig, folder: Path, data: VideoData, content: dict[str, Any] | None, world: World
) -> RunRecorder:
    """With the loggers of the configuration; of the processes that train together only the main one has any."""
    progress = None if content is None else content["progress"]
    resumed_at = None if progress is None else (int(progress["update"]), int(progress["epoch"]))
    run = LoggedRun(folder, data.class_names, plain(options), resumed_at)
    return RunRecorder(run, build.build_named(options.logger, "logger", Logger) if world.is_main else {})


def _log_setup(call: Invocation[TrainConfig], data: VideoData, model: nn.Module, scorer: Scorer) -> None:
    for note in data.notes:
        log.info("note: %s", note)
    sizes = ", ".join(f"{name} {len(split)}" for name, split in data.splits.items())
    several = ", any number of them per video" if data.multi_label else ""
    log.info("data %s: %d classes%s; videos: %s", call.choices.get("data"), data.num_classes, several, sizes)
    if lacking := data.not_validated():
        log.warning(
            "validation has no video of %s%s, and best.pt is chosen by it: data.val_fraction=0 keeps the last epoch",
            ", ".join(lacking[:3]),
            ", ..." * (len(lacking) > 3),
        )
    if "val" not in data.splits:
        hint = "; data.val_fraction=0.1 would hold out a part" if "val_fraction" in call.options.data else ""
        log.info("no validation split: the last epoch is kept%s", hint)
    devices, each = f"{scorer.world.size} x " if scorer.world.size > 1 else "", " each" if scorer.world.size > 1 else ""
    workers = scorer.workers_for(data.features)
    decoding = f"{workers} decoding process{'es' * (workers != 1)}" if workers else "decoding in the main process"
    if data.features is not None and data.features.kept is not None:
        decoding, each = "features kept in memory", ""
    log.info(
        "model %s: %.3f M parameters on %s%s, %s, %s%s",
        call.choices.get("model"),
        sum(p.numel() for p in model.parameters()) / 1e6,
        devices,
        scorer.precision.device.type if devices else scorer.precision.device,
        scorer.precision.name,
        decoding,
        each if workers else "",
    )
    log.info("run folder: %s", call.folder)
