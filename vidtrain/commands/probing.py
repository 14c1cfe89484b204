"""Heads on frozen features: what they learn without a gradient, which member of a grid answers, few-shot tests."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from torch import Tensor, nn

from vidtrain.commands.scoring import Scorer
from vidtrain.data.features.subsets import with_validation
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.engine.evaluator import evaluate, merged
from vidtrain.engine.parameters import Grid
from vidtrain.engine.preprocess import model_inputs
from vidtrain.options.schema import TrainConfig
from vidtrain.tasks.task import Forward, Predictions, Task
from vidtrain.terminal import said_when_slow
from vidtrain.types import Batch

log = logging.getLogger("vidtrain")

_HELD_OUT = 0.2  # of the training videos, where there is no validation split to choose a member by
GRID_FILE = "grid.csv"


@runtime_checkable
class Fitted(Protocol):
    """A network that learns something from all training videos without a gradient, once, before the first update."""

    def fit(self, batches: Any) -> None: ...


def with_what_it_needs(options: TrainConfig, model: nn.Module, data: VideoData) -> VideoData:
    """The data with a validation split where there is a grid to choose from; one epoch where nothing has a gradient."""
    if not any(parameter.requires_grad for parameter in model.parameters()) and options.trainer.epochs > 1:
        log.info("nothing here is trained by gradient: one pass, trainer.epochs=%d is not used", options.trainer.epochs)
        options.trainer.epochs, options.schedule.warmup_epochs = 1, 0.0
    if not isinstance(model, Grid) or len(model.members) < 2 or "val" in data.splits:
        return data
    data, note = with_validation(data, _HELD_OUT, options.trainer.seed)
    log.info("%s", note)
    return data


def fit(model: nn.Module, scorer: Scorer, data: VideoData, *, resumed: bool) -> None:
    """Let a network learn what needs no gradient; a run that is resumed has it in its checkpoint."""
    if not isinstance(model, Fitted) or resumed:
        return

    def ready() -> Iterator[tuple[Any, Tensor]]:
        batches = scorer.batches(
            data.split("train"),
            scorer.plain_views,
            num_classes=data.num_classes,
            features=data.features,
            all_processes=True,
        )
        for batch in batches:
            assert isinstance(batch, Batch), "one view per video comes in whole batches"
            if len(batch):
                found = scorer.preprocess(batch.inputs, model_inputs(cast("nn.Module", model)))
                (inputs,) = found.values()
                yield inputs, batch.targets.to(scorer.precision.device)

    with said_when_slow(f"{type(model).__name__}: one pass over the training videos"):
        model.fit(ready())


# ---------------------------------------------------------------- choosing among the members of a grid


class _All(nn.Module):
    """A grid that answers by all of its members, (N, G, ...)."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.inputs = model_inputs(cast("nn.Module", grid))

    def forward(self, x: Any) -> Tensor:
        return self.grid.answers_of_all(x)


class _Members:
    """A task for G networks in the place of one: the columns of all, named g.NAME."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def predict(self, network: Forward, inputs: Mapping[str, Any]) -> Tensor:
        return cast("Tensor", network(inputs)).float()

    def columns(self, views: Tensor, targets: Tensor, average: str) -> dict[str, Tensor]:
        """views: (B, V, G, ...)."""
        found = (self.task.columns(member, targets, average) for member in views.unbind(2))
        return {f"{g}.{name}": column for g, columns in enumerate(found) for name, column in columns.items()}


def choose(grid: Grid, scorer: Scorer, task: Task, data: VideoData, folder: Path) -> None:
    """Set the member that answers: the one that scores best on the validation split, the first of equals.

    One pass over the split serves all. What each has scored is added to grid.csv.
    """
    if len(grid.members) < 2:
        return
    cfg = scorer.config.eval
    views = replace(scorer.plain_views, clips=cfg.val_clips)
    batches = scorer.batches(data.split("val"), views, num_classes=data.num_classes, features=data.features)
    network, every = scorer.network(_All(grid)), cast("Task", _Members(task))  # of a task it asks for these two
    own = evaluate(every, network, batches, views_per_forward=cfg.batch_size, average=scorer.average)
    predictions = merged(scorer.world.gather(own))
    scores = [task.scores(_of_member(predictions, g)) for g in range(len(grid.members))]
    best = max(range(len(scores)), key=lambda g: scores[g].rank())
    if not scorer.world.is_main:
        grid.chosen.fill_(best)
        return
    primary = task.primary
    values = [found.summary() for found in scores]
    file = folder / GRID_FILE
    begun = file.is_file()
    if best != int(grid.chosen) or not begun:
        log.info("chosen on val: %s (%s %.4f)", grid.members[best], task.titles[primary], values[best][primary])
    grid.chosen.fill_(best)
    with file.open("a", newline="", encoding="utf-8") as handle:
        lines = csv.writer(handle)
        if not begun:
            lines.writerow(["member", primary, "loss", "chosen"])
        for g, (member, found) in enumerate(zip(grid.members, values, strict=True)):
            lines.writerow([member, f"{found[primary]:.6f}", f"{found['loss']:.6f}", int(g == best)])


def _of_member(predictions: Predictions, member: int) -> Predictions:
    start = f"{member}."
    own = {name.removeprefix(start): column for name, column in predictions.columns.items() if name.startswith(start)}
    return Predictions(own, predictions.videos, predictions.bad, predictions.not_finite)
