"""Samples -> batches: order of the epoch, collation, workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Sampler, default_collate, get_worker_info

from vidtrain.child_python_path import processors, shared_memory
from vidtrain.data.clips.batch_transfer import HandOver
from vidtrain.data.clips.dataset import EvalViews, TrainClips
from vidtrain.data.clips.read_ahead import Key, Keys, ReadsAhead, RowBatches
from vidtrain.data.clips.shard_order import ShardOrder
from vidtrain.data.clips.view_stream import ViewStream
from vidtrain.data.clips.workers import Batches, Board, Noted, Workers
from vidtrain.data.manifest.manifest import Manifest
from vidtrain.errors import ConfigError
from vidtrain.remote import is_url
from vidtrain.sequences import Sequences, stacked
from vidtrain.types import Batch, Indices, Sample, ViewPart


class EpochBatchSampler(Sampler[list[Key]]):
    """Batches of (epoch, row, copy) keys, in an order that is a function of (seed, epoch).

    Set `epoch`, and `start` to skip batches when an epoch is continued, before iterating. The last, smaller batch
    is dropped unless it is the only one: BatchNorm cannot train on one clip. With `ahead`, each says what comes so many
    batches later.

    Args:
        batch_size: keys in a batch.
        weights: float64 (length,), how often each row is wanted relative to the others; an epoch stays `length` keys
            long, and each row comes as often as its share says, rounded up or down at random. None: once each.
        shards: order of the rows, see there; None: any order is as likely as another.
        most: batches of an epoch at most.
        rank, ranks: this process's place among those that share each batch.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        seed: int,
        weights: npt.NDArray[np.float64] | None = None,
        shards: ShardOrder | None = None,
        most: int | None = None,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.weights = weights
        self.shards = shards
        self.most = most
        self.rank = rank
        self.ranks = ranks
        self.epoch = 0
        self.start = 0
        self.ahead = 0

    def __len__(self) -> int:
        batches = max(1, self.length // self.batch_size)
        return batches if self.most is None else min(batches, self.most)

    def __iter__(self) -> Iterator[list[Key]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(self.length) if self.shards is None else self.shards.shuffled_shards(rng)
        copies = np.zeros(self.length, dtype=np.int64)
        if self.weights is not None:
            order, copies = self._weighted(order, self.weights)
        elif self.shards is not None:
            order = order[self.shards.mixed(rng)]
        for batch in range(self.start, len(self)):
            keys = [(self.epoch, row, copy) for row, copy in self._share(batch, order, copies)]
            after = batch + self.ahead
            later = self._share(after, order, copies) if batch < after < len(self) else []
            yield Keys(keys, [row for row, _ in later])

    def _share(self, batch: int, order: Indices, copies: Indices) -> list[tuple[int, int]]:
        """(row, copy) of this process's part of a batch."""
        part = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
        return list(zip(order[part].tolist(), copies[part].tolist(), strict=True))[self.rank :: self.ranks]

    def _weighted(self, order: Indices, weights: npt.NDArray[np.float64]) -> tuple[Indices, Indices]:
        """(rows, copies), each (length,): systematic resampling of the rows in a random order, shuffled."""
        rng = np.random.default_rng((self.seed, self.epoch, 1))
        ends = np.cumsum(weights[order])
        marks = (np.arange(self.length) + rng.random()) * (ends[-1] / self.length)
        rows = order[np.minimum(np.searchsorted(ends, marks, side="right"), self.length - 1)]
        # the same row stands side by side: number its copies, so that each is another clip
        first = np.flatnonzero(np.diff(rows, prepend=-1))
        copies = np.arange(self.length) - np.repeat(first, np.diff(first, append=self.length))
        shuffled = rng.permutation(self.length) if self.shards is None else self.shards.mixed(rng)
        return rows[shuffled], copies[shuffled]


def balanced_weights(manifest: Manifest, balance: float) -> npt.NDArray[np.float64] | None:
    """The weight of each row for class-balanced sampling, float64 (N,); None when `balance` is 0.

    A row of a class of n videos weighs n ** -balance: with 1 every class comes equally often. A row of several classes
    weighs as its rarest one, a row of none as the commonest.
    """
    if balance == 0 or not len(manifest):
        return None
    if manifest.tags is None:
        counts = np.bincount(manifest.labels)
        return counts[manifest.labels].astype(np.float64) ** -balance
    counts = np.bincount(manifest.tags.values)
    sizes = [counts[tags].min() if len(tags) else counts.max() for tags in manifest.tags]
    return np.array(sizes, dtype=np.float64) ** -balance


def row_weights(
    manifest: Manifest, balance: float, weights: npt.NDArray[np.float64] | None
) -> npt.NDArray[np.float64] | None:
    """How often each row is wanted relative to the others, float64 (N,); None: all alike. weights: TrainClips.weights,
    on top of which classes are balanced."""
    balanced = balanced_weights(manifest, balance)
    if balanced is None or weights is None:
        return weights if balanced is None else balanced
    return balanced * weights


def class_shares(
    manifest: Manifest,
    num_classes: int,
    *,
    balance: float = 0.0,
    weights: npt.NDArray[np.float64] | None = None,
    flip: float = 0.0,
    flip_labels: Indices | None = None,
) -> npt.NDArray[np.float64]:
    """float64 (K,): the share of the training clips that have each class, as they are drawn.

    balance: see `balanced_weights`. weights: see `row_weights`. flip: chance of a clip to be mirrored, which exchanges
    classes by flip_labels.
    """
    rows = row_weights(manifest, balance, weights)
    rows = np.ones(len(manifest)) if rows is None else rows
    labels = manifest.labels if manifest.tags is None else manifest.tags.values
    each = rows if manifest.tags is None else np.repeat(rows, np.diff(manifest.tags.offsets))
    sums = np.bincount(labels[labels >= 0], each[labels >= 0], minlength=num_classes)
    found: npt.NDArray[np.float64] = sums / (float(rows.sum()) or 1.0)
    return found if flip_labels is None else (1 - flip) * found + flip * found[flip_labels]


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples (features: in one row); those without views give only their reasons."""
    bad = [b for sample in samples for b in sample.bad]
    whole = [(sample, sample.inputs) for sample in samples if sample.inputs is not None]
    columns = {name: [inputs[name] for _, inputs in whole] for name in (whole[0][1] if whole else ())}
    return Batch(
        {name: Sequences.of(each) if name == "features" else _stack(each) for name, each in columns.items()},
        stacked([sample.target for sample, _ in whole]),
        torch.tensor([sample.video for sample, _ in whole], dtype=torch.int64),
        bad,
    )


def _stack(views: Sequence[torch.Tensor]) -> torch.Tensor:
    """(B, ...) of tensors of one shape; in a worker in shared memory where there is room, which saves a copy."""
    room, total = shared_memory()
    if get_worker_info() is not None and (not total or 2 * len(views) * views[0].nbytes < room):
        with suppress(RuntimeError):  # another process was faster
            stacked: torch.Tensor = default_collate(list(views))
            return stacked
    return torch.stack(list(views))


def choose_workers(wanted: int | None, device: torch.device, ranks: int = 1) -> int:
    """The number of decoding processes: as asked, or from the processors this process may use.

    On a GPU the processors have nothing else to do. On the CPU the model needs them: half. The `ranks` processes that
    train together on these processors share them.
    """
    if wanted is not None:
        return wanted
    return max(1, min(16, (processors() if device.type == "cuda" else processors() // 2) // ranks))


class TrainLoader:
    """Batches of training clips, epoch by epoch.

    Args:
        clips: its sampler says how often a video comes (class_balance), its seed and shuffle_window the order.
        batch_size: clips in a batch, a multiple of sampler.clips_per_video.
        most: batches of an epoch at most.
        fixed: every epoch has the clips of the first.
        share: (rank, ranks), this process among those that share each batch; batch_size is that of all together.

    Raises:
        ConfigError: batch_size cannot be used.
    """

    def __init__(
        self,
        clips: TrainClips,
        workers: Workers,
        *,
        batch_size: int,
        most: int | None = None,
        fixed: bool = False,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        (rank, ranks), sampler = share, clips.sampler
        if batch_size % (sampler.clips_per_video * ranks):
            devices = f" and of the {ranks} devices" if ranks > 1 else ""
            raise ConfigError(
                f"trainer.batch_size={batch_size} counts clips: it must be a multiple of "
                f"sampler.clips_per_video={sampler.clips_per_video}{devices}"
            )
        keys = batch_size // sampler.clips_per_video
        if ranks > 1 and len(clips) < keys:
            raise ConfigError(f"trainer.batch_size={batch_size}: more than the {len(clips)} training videos; lower it")
        weights = row_weights(clips.manifest, sampler.class_balance, clips.weights)
        window = sampler.shuffle_window
        self._batches = EpochBatchSampler(
            len(clips),
            keys,
            seed=clips.seed,
            weights=weights,
            shards=None if window is None else ShardOrder.of(clips.manifest.paths, window),
            most=most,
            rank=rank,
            ranks=ranks,
        )
        self._clips = clips
        self._fixed = fixed
        board = workers.board(clips.manifest.paths)
        self._batches.ahead = _ahead(clips.manifest, workers)
        loader: DataLoader[Batch] = DataLoader(
            _reading(clips, clips.manifest, board),
            batch_sampler=self._batches,
            collate_fn=HandOver(collate),
            persistent_workers=workers.count > 0,
            generator=torch.Generator(),  # for the seeds of the workers; else each start of a loader draws from torch's
            **workers.options(board),
        )
        self._loader: Batches[Batch] = Batches(loader, board, workers.wait_limit)

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return len(self._batches)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number`, without the first `start`."""
        self._batches.epoch, self._batches.start = 0 if self._fixed else number, start
        return iter(self._loader)

    def path(self, row: int) -> str:
        """The file of the video in a row of the manifest."""
        return self._clips.manifest.paths[row]


def _in_store(manifest: Manifest) -> bool:
    return len(manifest) > 0 and is_url(manifest.paths[0])


def _ahead(manifest: Manifest, workers: Workers) -> int:
    """Batches from one to the next that the same process makes, as they go to the workers in turn; 0: local files."""
    return max(1, workers.count) if _in_store(manifest) else 0


def _reading(dataset: TrainClips | EvalViews, manifest: Manifest, board: Board | None) -> Any:
    """The dataset as a loader asks it, with what happens beside the reading."""
    noted: Any = dataset if board is None else Noted(dataset, board)
    return ReadsAhead(noted, manifest.paths) if _in_store(manifest) else noted


def eval_loader(
    views: EvalViews, workers: Workers, *, rows: Sequence[int] | None = None
) -> Batches[Batch] | Batches[ViewPart]:
    """The loader of a test: whole videos, about `batch_size` views at a time, in the manifest's order.

    Videos with more views than that, or with a number of their own, come in parts of at most `batch_size` instead.

    Args:
        rows: only these videos of it; None: all.
    """
    size, per_video = views.batch_size, views.per_video
    if per_video is None or per_video > size:
        return ViewStream(views, range(len(views)) if rows is None else rows, size=size).loader(workers)
    workers = workers.at_most(len(views))
    board = workers.board(views.manifest.paths)
    loader: DataLoader[Batch] = DataLoader(
        _reading(views, views.manifest, board),
        batch_sampler=RowBatches(
            range(len(views)) if rows is None else rows, max(1, size // per_video), _ahead(views.manifest, workers)
        ),
        collate_fn=HandOver(collate),
        generator=torch.Generator(),
        **workers.options(board),
    )
    return Batches(loader, board, workers.wait_limit)
