"""Samples -> batches: order of the epoch, collation, workers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from vidtrain.data.dataset import TestViews, TrainClips
from vidtrain.errors import VidtrainError
from vidtrain.types import Batch, Sample


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, row) keys, in an order that is a function of (seed, epoch).

    Set `epoch`, and `start` to skip batches when an epoch is continued, before iterating. The last, smaller batch
    is dropped unless it is the only one: BatchNorm cannot train on one clip.
    """

    def __init__(self, length: int, batch_size: int, *, seed: int) -> None:
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        return max(1, self.length // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        for batch in range(self.start, len(self)):
            rows = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(self.epoch, int(row)) for row in rows]


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples; those without views give only their reasons."""
    bad = [b for sample in samples for b in sample.bad]
    whole = [sample for sample in samples if sample.views is not None]
    views = [sample.views for sample in whole if sample.views is not None]
    return Batch(
        torch.stack(views) if views else torch.empty(0, dtype=torch.uint8),
        torch.tensor([sample.label for sample in whole], dtype=torch.int64),
        torch.tensor([sample.video for sample in whole], dtype=torch.int64),
        bad,
    )


def choose_workers(wanted: int | None, device: torch.device) -> int:
    """The number of decoding processes: as asked, or from the processors this process may use.

    On a GPU the processors have nothing else to do. On the CPU the model needs them: half.
    """
    if wanted is not None:
        return wanted
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, processors if device.type == "cuda" else processors // 2))


class Batches:
    """What a loader yields; a user's mistake that a worker found keeps its own words.

    torch puts the worker's traceback into the message of the exception that it raises again.
    """

    def __init__(self, loader: DataLoader[Batch]) -> None:
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        try:
            yield from self._loader
        except VidtrainError as error:
            name, last = type(error).__name__, str(error).strip().splitlines()[-1]
            raise type(error)(last.rpartition(f"{name}: ")[2]) from None


class TrainLoader:
    """Batches of training clips, epoch by epoch."""

    def __init__(self, clips: TrainClips, *, batch_size: int, workers: int, seed: int, pin_memory: bool) -> None:
        self._batches = EpochBatches(len(clips), batch_size, seed=seed)
        self._loader: DataLoader[Batch] = DataLoader(
            clips,  # type: ignore[arg-type]  # the keys are the sampler's pairs
            batch_sampler=self._batches,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
        )

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return len(self._batches)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number`, without the first `start`."""
        self._batches.epoch, self._batches.start = number, start
        return iter(Batches(self._loader))


def test_loader(
    views: TestViews, *, views_per_batch: int, views_per_video: int, workers: int, pin_memory: bool
) -> Batches:
    """The loader of a test: whole videos, about `views_per_batch` views at a time, in the manifest's order."""
    loader: DataLoader[Batch] = DataLoader(
        views,  # type: ignore[arg-type]
        batch_size=max(1, views_per_batch // views_per_video),
        shuffle=False,
        num_workers=min(workers, len(views)),
        collate_fn=collate,
        pin_memory=pin_memory,
    )
    return Batches(loader)
