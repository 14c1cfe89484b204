"""Scoring a split: shared by the validation in train, the test after it, and eval."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from vidtrain import build
from vidtrain.data.clips.dataset import EvalViews
from vidtrain.data.clips.loader import choose_workers, eval_loader
from vidtrain.data.clips.protocols import check_clips
from vidtrain.data.clips.sampling import check_slides, default_hop
from vidtrain.data.clips.transforms import EvalCrops
from vidtrain.data.clips.workers import Workers
from vidtrain.data.features.sequences import EvalSequences
from vidtrain.data.manifest.manifest import FeatureInfo, Manifest, VideoData
from vidtrain.data.manifest.splits import StrangersRegex, find_groups
from vidtrain.data.readers.arrays import ArrayReader
from vidtrain.data.settings import EvalConfig, EvalProtocol
from vidtrain.engine.devices.distributed import World
from vidtrain.engine.evaluator import evaluate, merged
from vidtrain.engine.precision import Precision, choose_device
from vidtrain.engine.preprocess import ModelRunner, Preprocess
from vidtrain.errors import DataError, LoaderError, VidtrainError
from vidtrain.options.instantiate import ORIGIN
from vidtrain.options.schema import TrainConfig
from vidtrain.reports.figures import FIGURES, write_image
from vidtrain.reports.result_format import RESULT_FORMAT
from vidtrain.reports.score_figures import write_test_figures
from vidtrain.reports.table import counted
from vidtrain.runs.atomic import prepare_folder, whole_file, write_csv, write_json
from vidtrain.runs.names import NOT_SCORED, PREDICTIONS, RESULT
from vidtrain.tasks.task import Predictions, PredictionsWriter, Scores, Task, arrays_of
from vidtrain.terminal import said_when_slow
from vidtrain.types import Batch, ListedVideos, ViewPart

log = logging.getLogger("vidtrain")


class Scorer:
    """Everything about a test that the configuration fixes: views, preprocessing, arithmetic."""

    def __init__(
        self,
        config: TrainConfig,
        precision: Precision,
        workers: int,
        world: World | None = None,
        *,
        complete_flow: bool = False,
    ) -> None:
        """complete_flow: compute the flow of videos that the cache has none of."""
        self.config = config
        self.world = world or World()
        self.precision = precision
        self.workers = workers
        sections = config.decoder, config.sampler, config.transform, config.flow
        self.parts = build.make_parts(*sections, complete_flow=complete_flow)
        # a mistake shows now, not after the training
        EvalCrops(config.transform, config.eval.crops, config.eval.protocol)
        check_clips(config.eval.protocol, config.sampler, config.eval.clips, config.eval.hop)
        self.average = str(config.eval.average)
        self.preprocess = Preprocess(config.transform.mean, config.transform.std, precision.device)

    @classmethod
    def by_trainer(cls, config: TrainConfig, world: World) -> Scorer:
        """On the device, in the precision and with the decoding processes that trainer.* says."""
        settings = config.trainer
        device = choose_device(settings.device, world.local_rank if world.size > 1 else None)
        workers = choose_workers(settings.num_workers, device, world.competing)
        return cls(config, Precision(settings.precision, device), workers, world)

    def network(self, model: nn.Module) -> ModelRunner:
        return ModelRunner(model, self.preprocess, self.precision)

    def batches(
        self,
        manifest: Manifest,
        views: EvalConfig,
        *,
        num_classes: int | None = None,
        features: FeatureInfo | None = None,
        all_processes: bool = False,
    ) -> Iterable[Batch | ViewPart]:
        """Batches of whole videos with all their views, or all their features.

        all_processes: each process gets all videos; false: its part.
        """
        made = EvalViews(manifest, self.parts, views, num_classes=num_classes)
        if features is not None:
            made = EvalSequences(manifest, features, batch_size=views.batch_size, num_classes=num_classes)
        pinned, limit = self.precision.device.type == "cuda", self.config.trainer.data_timeout
        rows = range(len(made)) if all_processes else self.world.part(len(made))
        return eval_loader(made, Workers(self.workers_for(features), pinned, limit), rows=rows)

    @property
    def plain_views(self) -> EvalConfig:
        """One centre clip and crop of each video, by vidtrain's own rules."""
        return replace(self.config.eval, clips=1, crops=1, hop=None, protocol=EvalProtocol.vidtrain, max_views=None)

    def views_of(self, data: VideoData, views: EvalConfig) -> EvalConfig:
        """The views of a test; over untrimmed videos the centre crop slides, whatever else is set."""
        if not data.untrimmed or data.features is not None:
            return views
        hop = default_hop(check_slides(self.config.sampler)) if self.config.eval.hop is None else self.config.eval.hop
        return replace(views, clips=1, crops=1, hop=hop, protocol=EvalProtocol.vidtrain, max_views=None)

    def workers_for(self, features: FeatureInfo | None) -> int:
        """Decoding processes; none for features that this process keeps in its memory."""
        return 0 if features is not None and features.kept is not None else self.workers

    def score(
        self,
        task: Task,
        model: nn.Module,
        data: VideoData,
        split: str,
        views: EvalConfig,
        each: Callable[[Predictions], None] | None = None,
    ) -> Scores:
        """The scores of every readable video of a split; of several processes each scores its part.

        each: see `evaluate`.
        """
        manifest, features, views = data.split(split), data.features, self.views_of(data, views)
        batches = self.batches(manifest, views, num_classes=data.num_classes, features=features)
        quiet = not sys.stderr.isatty() or not self.world.is_main
        bar = tqdm(batches, desc=split, unit="batch", leave=False, disable=quiet)
        with self.world.sharing(LoaderError):
            size, average = views.batch_size, self.average
            own = evaluate(task, self.network(model), bar, views_per_forward=size, average=average, each=each)
        scores = task.scores(merged(self.world.gather(own)))
        if self.world.is_main:
            for remark in scores.remarks():
                log.warning("%s: %s", split, remark)
        return scores

    def _listed(self, manifest: Manifest) -> ListedVideos:
        root = self.config.data.get("root")
        return ListedVideos(manifest.paths, "" if root is None else str(root), manifest.starts, manifest.ends)

    def _groups(self, names: list[str]) -> Tensor | None:
        """Numbers of the groups that `data.group_by` finds in names; a name without one is a group of its own."""
        group_by = self.config.data.get("group_by")
        if group_by is None or not names:
            return None
        strange = ORIGIN in self.config.data
        found = find_groups(names, StrangersRegex(group_by) if strange else str(group_by))
        numbers: dict[str, int] = {}
        keys = (group or f"\0{name}" for group, name in zip(found, names, strict=True))
        return torch.tensor([numbers.setdefault(key, len(numbers)) for key in keys])

    def validate(self, task: Task, model: nn.Module, data: VideoData, clips: int) -> Scores:
        """Score the validation split; videos without a finite output are only warned of, since training goes on."""
        scores = self.score(task, model, data, "val", replace(self.plain_views, clips=clips))
        rows = scores.predictions.not_finite
        if rows and self.world.is_main:
            first, videos = data.splits["val"].paths[rows[0]], len(data.splits["val"])
            log.warning("val: %s: %d of %d videos, first %s", self.not_finite, len(rows), videos, first)
        return scores

    @property
    def not_finite(self) -> str:
        """What is said of a video for which the network gives nan or inf."""
        other = {"fp16": ": try trainer.precision=bf16 or fp32", "bf16": ": try trainer.precision=fp32"}
        return f"the network's output is not finite ({self.precision.name}{other.get(self.precision.name, '')})"

    def report(
        self,
        task: Task,
        model: nn.Module,
        data: VideoData,
        split: str,
        folder: Path,
        show: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Score a split by the eval protocol; write what docs/testing.md lists to `folder`.

        What ends it before leaves the rows that are known in predictions.partial.csv, of each process its own.

        show: is called with the result in the main process, before anything is written that could fail.
        """
        evaluation = self.views_of(data, self.config.eval)
        manifest = data.split(split)
        videos = self._listed(manifest)
        partial = PartialPredictions(self.world.from_main(folder), self.world.rank, task, videos)
        with partial, said_when_slow(f"{split}: scoring {counted(len(manifest), 'video')}"):
            scores = self.score(task, model, data, split, evaluation, each=partial.add)
        predictions = scores.predictions
        predictions.names = [videos.name(row) for row in predictions.videos.tolist()]
        predictions.groups = self._groups(predictions.names)
        result = self._result(scores, data, split, evaluation)
        not_scored = [(video.path, video.reason) for video in predictions.bad]
        not_scored += [(path, self.not_finite) for path in result["not_finite"]]
        if not len(predictions):
            partial.remove()
            first = f"; the first: {not_scored[0][0]}: {not_scored[0][1]}" if not_scored else ""
            raise DataError(f"none of the {manifest.listed} videos of split {split} could be scored{first}")
        if self.world.is_main:
            if show is not None:
                show(result)
            prepare_folder(folder, "output")
            with closing(task.file(folder / PREDICTIONS, videos)) as writer:
                writer.add(predictions)
            for name, array in arrays_of(scores).items():
                with whole_file(folder / f"{name}.npy") as file:
                    np.save(file, array.numpy())
            missing = [(path, "not on disk") for path in manifest.missing]
            write_csv(folder / NOT_SCORED, ["path", "reason"], missing + not_scored)
            write_json(folder / RESULT, {key: _or_none(value) for key, value in result.items()})
            if evaluation.figures:
                write_test_figures(folder / FIGURES, result, task.titles, task.primary)
                for name, draw in scores.figures().items() if data.untrimmed else ():
                    write_image(folder / FIGURES / f"{name}.png", draw())
        partial.remove()
        return result

    def _result(self, scores: Scores, data: VideoData, split: str, evaluation: EvalConfig) -> dict[str, Any]:
        """What result.json holds of the scores of a split."""
        manifest, predictions = data.split(split), scores.predictions
        if data.features is not None:
            protocol = data.features.protocol
        else:
            protocol = build.protocol(self.config.sampler, self.config.transform, evaluation)
        return {
            "format": RESULT_FORMAT,
            "split": split,
            **scores.summary(),
            "scored": len(predictions),
            "listed": manifest.listed,
            "missing": len(manifest.missing),
            "unreadable": len(predictions.bad),
            "not_finite": [manifest.paths[row] for row in predictions.not_finite],
            "protocol": protocol,
            **scores.report(),
        }


def _or_none(value: Any) -> Any:
    """JSON has no nan, which a number is that no video with a known target gives."""
    return None if isinstance(value, float) and math.isnan(value) else value


def scorer_of(
    config: TrainConfig, views: EvalConfig, precision: Precision, workers: int, arrays: ArrayReader | None = None
) -> Scorer:
    """A Scorer by other views than the run's, of videos without flow in the cache, too. arrays: those in memory."""
    scorer = Scorer(replace(config, eval=views), precision, workers, complete_flow=True)
    if arrays is not None:
        reader = replace(arrays, otherwise=scorer.parts.reader)
        scorer.parts = replace(scorer.parts, reader=reader)
    return scorer


def refuse_not_finite(result: dict[str, Any], folder: Path) -> None:
    """Raise DataError when a test that has been reported holds videos without a finite output.

    folder: the one of its files.
    """
    if paths := result.get("not_finite"):  # a result of an earlier version has none
        raise DataError(
            f"the network's output is not finite for {len(paths)} of {result['scored'] + len(paths)} videos, "
            f"the first: {paths[0]}; the numbers are those of the others, {folder / NOT_SCORED} names all"
        )


class PartialPredictions:
    """The rows of predictions.csv so far, for the case that it is never written; failing to write them ends nothing."""

    def __init__(self, folder: Path, rank: int, task: Task, videos: ListedVideos) -> None:
        self.file = folder / f"predictions.partial{f'.{rank}' if rank else ''}.csv"
        self._rows: PredictionsWriter | None = None
        with suppress(VidtrainError, OSError):  # what is to be done about it is said when the whole file is written
            self._rows = task.file(self.file, videos)

    def add(self, predictions: Predictions) -> None:
        if self._rows is None:
            return
        try:
            self._rows.add(predictions)
        except OSError as error:
            log.warning("%s: cannot be written (%s); the test goes on", self.file, error.strerror)
            self._rows = None

    def remove(self) -> None:
        with suppress(OSError):
            self.file.unlink()

    def __enter__(self) -> PartialPredictions:
        return self

    def __exit__(self, *error: object) -> None:
        if self._rows is not None:
            with suppress(OSError):
                self._rows.close()
