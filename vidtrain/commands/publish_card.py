"""What the model card of a published network says: read from its checkpoint, its run and its test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from torch import nn

from vidtrain import build
from vidtrain.commands.run_dir import FORMATS
from vidtrain.models.catalogue import catalogue
from vidtrain.models.weights.to_transformers import TransformersModel
from vidtrain.options.schema import TrainConfig
from vidtrain.published import clips_of
from vidtrain.reports.model_card import ModelCard


def card_of(
    given: Mapping[str, str | None],
    content: Mapping[str, Any],
    config: TrainConfig,
    model: nn.Module,
    theirs: TransformersModel | None,
) -> str:
    """The Markdown of the card.

    Args:
        given: by the names of the command's options: checkpoint, license, title, dataset.
        content, config: of the checkpoint. theirs: the network in transformers, where it is there.
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
        tested=None,
        training=_training(content, config),
        versions={str(key): str(value) for key, value in dict(content.get("versions") or {}).items()},
        license=given.get("license"),
        architecture=None if theirs is None else theirs.config["architectures"][0],
        notes=[] if theirs is None else theirs.notes,
    ).to_markdown()


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
