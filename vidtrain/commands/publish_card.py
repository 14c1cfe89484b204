"""What the model card of a published network says: read from its checkpoint, its run and its test."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Final

from torch import nn

from vidtrain import build
from vidtrain.commands.run_dir import FORMATS
from vidtrain.engine.preprocess import model_inputs
from vidtrain.errors import ConfigError, DataError
from vidtrain.models.catalogue import catalogue
from vidtrain.models.weights.to_transformers import TransformersModel
from vidtrain.options.schema import TrainConfig
from vidtrain.published import clips_of
from vidtrain.reports.model_card import ModelCard, Tested
from vidtrain.reports.segment_results import SegmentsResult, read_test
from vidtrain.runs.names import RESULT
from vidtrain.tasks.segments.task import Segments
from vidtrain.tasks.task import Task
from vidtrain.untrusted_data import read_json

log = logging.getLogger("vidtrain")

_TEST: Final = "test"
"""Folder of a run's test."""


def card_of(
    given: Mapping[str, str | None],
    content: Mapping[str, Any],
    config: TrainConfig,
    model: nn.Module,
    theirs: TransformersModel | None,
) -> str:
    """The Markdown of the card.

    Args:
        given: by the names of the command's options: checkpoint, result, license, title, dataset.
        content, config: of the checkpoint. theirs: the network in transformers, where it is there.

    Raises:
        ConfigError: result=... names no result of this network.
    """
    choices = content.get("choices")
    names = choices if isinstance(choices, dict) else {}
    data = str(names.get("data") or str(config.data.get("_target_")).rpartition(".")[2])
    kind = str(names.get("model") or str(config.model.get("_target_")).rpartition(".")[2])
    dataset = given.get("dataset") or (f"a dataset of its author's own (data={data})" if data in FORMATS else data)
    task = build.build_task(config.task, content["class_names"], multi_label=bool(content.get("multi_label")))
    entry = catalogue().get(kind)
    return ModelCard(
        title=given.get("title") or f"{kind} for {given.get('dataset') or data}",
        model=kind,
        paper=None if entry is None else entry.paper,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        class_names=content["class_names"],
        multi_label=bool(content.get("multi_label")),
        clips=clips_of(config).to_text(),
        averaged=build.protocol(config.sampler, config.transform, config.eval),
        dataset=dataset,
        primary=task.primary,
        titles=task.titles,
        tested=_tested(given, content, task),
        training=_training(content, config),
        versions={str(key): str(value) for key, value in dict(content.get("versions") or {}).items()},
        license=given.get("license"),
        architecture=None if theirs is None else theirs.config["architectures"][0],
        notes=[] if theirs is None else theirs.notes,
        finds_segments=isinstance(task, Segments),
        reads_features=model_inputs(model) == ("features",),
    ).to_markdown()


def _tested(given: Mapping[str, str | None], content: Mapping[str, Any], task: Task) -> Tested | None:
    """The result that is named, or the one of the run that the checkpoint lies in, where it is of this very file."""
    named = given.get("result")
    folder = Path(named) if named is not None else _test_of(Path(str(given["checkpoint"])), content)
    if folder is None:
        return None
    if folder.name == RESULT:
        folder = folder.parent
    try:
        result = read_test(folder)
    except DataError as error:
        if named is not None:
            raise ConfigError(f"result={named}: {error}") from None
        log.warning("%s: the model card is written without a result", error)
        return None
    of_task = isinstance(result, SegmentsResult) == isinstance(task, Segments)
    if not of_task or list(result.class_names) != list(content["class_names"]):
        raise ConfigError(f"result={folder}: is of other classes than the checkpoint's: give result=FOLDER of its test")
    return _facts(result.content, task)


def _test_of(checkpoint: Path, content: Mapping[str, Any]) -> Path | None:
    """The folder of the run's test, if it was the test of this file: the run's result names it, and its epoch."""
    home = checkpoint.absolute().parent
    try:
        run = read_json(home / RESULT)
    except (OSError, ValueError):
        return None
    if not isinstance(run, dict) or run.get("test") is None or not (home / _TEST / RESULT).is_file():
        return None
    same = PurePath(str(run.get("checkpoint"))).name == checkpoint.name
    if not same or content.get("epoch") not in (run.get("best_epoch"), 0):
        log.warning("%s: is not the file whose test stands in %s: the model card has no result", checkpoint, home)
        return None
    return home / _TEST


def _facts(result: Mapping[str, Any], task: Task) -> Tested:
    """What the card shows of a result.json that has been checked."""
    intervals, rows = result.get("intervals") or {}, result.get("classes") or []
    value, count = "recall", "support"
    if "segment_classes" in result:
        rows, value, count = result["segment_classes"], "ap_50", "segments"
    known = [(row["name"], row[value], row[count]) for row in rows if row[count] and row[value] is not None]
    return Tested(
        split=result["split"],
        protocol=result["protocol"],
        scored=result["scored"],
        listed=result["listed"],
        missing=result["missing"],
        unreadable=result["unreadable"],
        not_finite=len(result["not_finite"]),
        values={key: float(result[key]) for key in task.titles if type(result.get(key)) in (int, float)},
        intervals={key: (low, high) for key, (low, high) in intervals.get("values", {}).items()},
        level=intervals.get("level", 0.95),
        count=intervals.get("count", 0),
        over=intervals.get("over", "videos"),
        weakest=sorted(known, key=lambda row: row[1])[:5] if len(known) > 1 else [],
        unseen=sum(not row[count] for row in rows),
    )


def _training(content: Mapping[str, Any], config: TrainConfig) -> Sequence[str]:
    """How it was trained, as its configuration says."""
    settings, node, sentences = config.trainer, content["config"]["model"], []
    started = [f"{key}={PurePath(str(node[key])).name}" for key in build.starts_from(node)]
    if started:
        sentences.append(f"Started from {', '.join(started)}, whose own terms may apply.")
    optimizer = str(config.optimizer.get("_target_")).rpartition(".")[2]
    if settings.epochs and optimizer != "None":
        sentences.append(
            f"Trained for up to {settings.epochs} epochs with {settings.batch_size * settings.accumulate} clips per "
            f"update, {optimizer} (lr {config.optimizer.get('lr')}), precision {settings.precision}, seed "
            f"{settings.seed}; tune={config.tune.name}."
        )
    if isinstance(content.get("epoch"), int) and content["epoch"] > 0:
        sentences.append(f"The weights are those after epoch {content['epoch']}.")
    return sentences
