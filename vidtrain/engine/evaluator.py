"""Scoring: what a network makes of every view of every video, each video exactly once. A task says what is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vidtrain.engine.preprocess import ModelRunner
from vidtrain.sequences import Sequences, stacked
from vidtrain.tasks.task import Predictions, Predicts, Task
from vidtrain.types import Batch, ViewPart, split_inputs


def evaluate(
    task: Task,
    network: ModelRunner,
    batches: Iterable[Batch | ViewPart],
    *,
    views_per_forward: int,
    average: str = "",
    each: Callable[[Predictions], None] | None = None,
) -> Predictions:
    """The answers for every video of `batches`; leaves the model in eval mode.

    average: see Task.columns. each: is called with those that have just been found.
    """
    network.model.eval()
    found = []
    for part in predict_videos(task, network, batches, views_per_forward=views_per_forward, average=average):
        found.append(part)
        if each is not None and len(part):
            each(part)
    return Predictions.joined(found)


def predict_videos(
    task: Predicts,
    network: ModelRunner,
    batches: Iterable[Batch | ViewPart],
    *,
    views_per_forward: int,
    average: str = "",
) -> Iterator[Predictions]:
    """The answers for every video, in the order of the loader, as they are found.

    Of a video that comes in parts only the answers for its views are kept until its last part, and those of the videos
    that are finished before one that stands ahead of them. A video with a view whose answer is not finite is listed in
    not_finite.
    """
    parts: dict[int, list[Tensor]] = {}
    done: dict[int, Predictions] = {}
    place = 0
    for batch in batches:
        if isinstance(batch, Batch):
            if len(batch):
                views = predict_views(task, network, batch.inputs, views_per_forward)
                yield _of_videos(task.columns(views, batch.targets, average), batch.videos)
            if batch.bad or not len(batch):
                yield Predictions({}, torch.empty(0, dtype=torch.int64), batch.bad)
            continue
        if batch.bad is not None:
            parts.pop(batch.place, None)
            done[batch.place] = Predictions({}, torch.empty(0, dtype=torch.int64), [batch.bad])
        else:
            kept = parts[batch.place] = [] if batch.first == 0 else parts[batch.place]
            inputs = {name: value[None] for name, value in batch.inputs.items()}
            kept.append(predict_views(task, network, inputs, views_per_forward))
            if batch.first + len(batch) == batch.total:
                views = torch.cat(parts.pop(batch.place), 1)
                columns = task.columns(views, stacked([batch.target]), average)
                done[batch.place] = _of_videos(columns, torch.tensor([batch.video]))
        while place in done:
            yield done.pop(place)
            place += 1


def _of_videos(columns: dict[str, Tensor | Sequences], videos: Tensor) -> Predictions:
    """Without the videos that have a number that is not finite in one of the columns."""
    finite = torch.stack([_finite(column) for column in columns.values()]).all(0)
    kept = {name: column[finite] for name, column in columns.items()}
    return Predictions(kept, videos[finite], not_finite=videos[~finite].tolist())


def _finite(column: Tensor | Sequences) -> Tensor:
    """bool (n,)."""
    return column.finite() if isinstance(column, Sequences) else column.reshape(len(column), -1).isfinite().all(1)


def merged(parts: Sequence[Predictions]) -> Predictions:
    """What several processes found of different videos, as one would have: in the manifest's order."""
    if len(parts) == 1:
        return parts[0]
    whole = Predictions.joined(parts)
    order = whole.videos.argsort()
    columns = {name: column[order] for name, column in whole.columns.items()}
    return Predictions(columns, whole.videos[order], whole.bad, whole.not_finite)


@torch.inference_mode()
def predict_views(task: Predicts, network: ModelRunner, inputs: Mapping[str, Any], views_per_forward: int) -> Tensor:
    """The inputs of a Batch -> what the task keeps of each view, (B, V, ...) on the CPU; features are one view."""
    first = next(iter(inputs.values()))
    shape = (len(first), 1) if isinstance(first, Sequences) else first.shape[:2]
    views = {name: x if isinstance(x, Sequences) else x.flatten(0, 1) for name, x in inputs.items()}
    found = [task.predict(network, network.ready(part)).cpu() for part in split_inputs(views, views_per_forward)]
    return torch.cat(found).unflatten(0, shape)
