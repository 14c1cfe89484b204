"""What `vidtrain eval` chooses on the validation split and keeps in the checkpoint: a temperature, a threshold below
which an answer is "unknown", and from which probability on classes form a prediction set."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from vidtrain import build
from vidtrain.commands.scoring import Scorer
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from vidtrain.errors import CheckpointError, ConfigError, DataError
from vidtrain.hub_folder import is_hub_folder
from vidtrain.remote import is_url
from vidtrain.runs.atomic import prepare_folder
from vidtrain.tasks.classification.calibration import (
    Calibration,
    answers,
    choose_cutoff,
    choose_threshold,
    fit_temperature,
    rejection_curve,
)
from vidtrain.tasks.classification.scores import ClassScores
from vidtrain.tasks.classification.task import Classification
from vidtrain.tasks.task import Task

log = logging.getLogger("vidtrain")


class Wanted(Protocol):
    """The options of `vidtrain eval` that this part reads."""

    checkpoint: str | None
    split: Any
    stream: str | None
    calibrate: bool
    reject_precision: float | None
    conformal_coverage: float | None


def check_can_be_kept(options: Wanted) -> None:
    """Raise ConfigError, before anything is read, for a calibration that no file could keep."""
    given = _given(options)
    if not given:
        return
    key = next(iter(given))
    if options.checkpoint is None:
        raise ConfigError(f"{key} is kept in a checkpoint, and model.weights names a published file: train from it")
    if is_url(options.checkpoint):
        raise ConfigError(f"{key} is kept in the checkpoint: copy {options.checkpoint} to this machine first")
    if is_hub_folder(Path(options.checkpoint)) or Path(options.checkpoint).suffix == ".onnx":
        raise ConfigError(f"{key} is kept in a checkpoint: calibrate the .pt file, and publish or export it again")
    if options.stream is not None:
        raise ConfigError(f"{key} is of the whole network: leave stream={options.stream} out")
    if str(options.split) == "val":
        raise ConfigError(f"{key} is chosen on val: test another split, split=test, to see what it does")


def check_calibration(options: Wanted, task: Task) -> None:
    """Raise ConfigError, before any work, for a calibration that the task cannot have, or the disk not take."""
    given = _given(options)
    if not given:
        return
    assert options.checkpoint is not None  # as check_can_be_kept has seen
    if not isinstance(task, Classification):
        raise ConfigError(f"{next(iter(given))}: {type(task).__name__} gives no probabilities of classes")
    if task.multi_label and options.conformal_coverage is not None:
        raise ConfigError("conformal_coverage: prediction sets are of one class per video, this dataset has several")
    prepare_folder(Path(options.checkpoint).absolute().parent, "checkpoint")


def calibrate(options: Wanted, task: Task, scorer: Scorer, model: nn.Module, data: VideoData) -> None:
    """Choose on val what is asked for, by the clips and crops of the test; the task has it from then on, and so has the
    checkpoint, which is replaced as a whole.

    Raises:
        DataError: the precision that is wanted is not reached at any threshold.
        CheckpointError: the checkpoint cannot be written.
    """
    if not isinstance(task, Classification):
        return
    protocol = build.protocol(scorer.config.sampler, scorer.config.transform, scorer.config.eval)
    if not _given(options):
        if scorer.world.is_main:
            note_other_protocol(task.calibration, protocol)
        return
    before = task.calibration
    task.calibration = Calibration() if options.calibrate else before
    scores = scorer.score(task, model, data, "val", scorer.config.eval)
    assert isinstance(scores, ClassScores)
    chosen = replace(task.calibration, protocol=protocol, videos=len(scores.predictions))
    task.calibration = _chosen(options, chosen, scores)
    dropped = [key for key in ("threshold", "cutoff") if getattr(before, key) and not getattr(task.calibration, key)]
    if scorer.world.is_main and dropped:
        log.warning("the threshold or the sets that the checkpoint held were those of its former temperature: dropped")
    if scorer.world.is_main and options.checkpoint is not None:
        file = Path(options.checkpoint)
        content = load_checkpoint(file)
        if Calibration.of(content.get("calibration")) != before:
            raise CheckpointError(f"{file}: has been calibrated by another process meanwhile: run this again")
        save_checkpoint(file, {**content, "calibration": asdict(task.calibration)})
        log.info("%s; kept in %s", _said(task.calibration), file)
        if options.calibrate and task.calibration.at_its_bound:
            log.warning(
                "the temperature stands at its bound: no answer on val is confident and wrong, or none is right. "
                "It says nothing of how sure the network may be: calibrate by more or harder videos"
            )


def _chosen(options: Wanted, calibration: Calibration, scores: ClassScores) -> Calibration:
    known = scores.labels >= 0 if scores.labels.ndim == 1 else slice(None)
    probs, labels = scores.probs[known], scores.labels[known]
    if not len(labels):
        raise DataError("val has no video with a known class that could be scored: there is nothing to calibrate by")
    if options.calibrate:
        calibration = replace(calibration, temperature=fit_temperature(probs, labels))
        probs = calibration.apply(probs, multi_label=scores.multi_label)
    if (wanted := options.reject_precision) is not None:
        confidence, right = answers(probs, labels)
        threshold = choose_threshold(confidence, right, wanted)
        if threshold is None:
            best = max(precision for _, _, precision in rejection_curve(confidence, right))
            raise DataError(
                f"reject_precision={wanted:g}: no threshold reaches it on the {len(labels)} videos of val, the best is "
                f"{best:.3f}: ask for less"
            )
        calibration = replace(calibration, threshold=threshold, wanted_precision=wanted)
    if (wanted := options.conformal_coverage) is not None:
        cutoff = choose_cutoff(probs, labels, wanted)
        if not cutoff:
            log.warning(
                "conformal_coverage=%g: %d videos of val are too few: sets hold all classes", wanted, len(labels)
            )
        calibration = replace(calibration, cutoff=cutoff, wanted_coverage=wanted)
    return calibration


def note_other_protocol(calibration: Calibration, protocol: str) -> None:
    """Warn where probabilities are made by other clips and crops than those that were calibrated."""
    if calibration.protocol and calibration.protocol != protocol:
        log.warning(
            "the checkpoint was calibrated with %s, and is asked with %s: `vidtrain eval calibrate=true` with the same "
            "options fits it again",
            calibration.protocol,
            protocol,
        )


def _given(options: Wanted) -> Mapping[str, Any]:
    keys = ("calibrate", "reject_precision", "conformal_coverage")
    return {key: value for key in keys if (value := getattr(options, key)) not in (None, False)}


def _said(calibration: Calibration) -> str:
    parts = [
        ("temperature %.4g", calibration.temperature),
        ("unknown below %.4f", calibration.threshold),
        ("sets from %.4f on", calibration.cutoff),
    ]
    said = ", ".join(text % value for text, value in parts if value is not None)
    return f"calibrated on the {calibration.videos} videos of val: {said}"
