"""The order of an epoch over shards: every video once, near where it lies, the same after a resume."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from tests.sampled import sampled
from vidtrain.data.clips.loader import EpochBatchSampler
from vidtrain.data.clips.shard_order import ShardOrder
from vidtrain.errors import ConfigError
from vidtrain.tar_members import stretch_of

Key = tuple[int, int, int]
SHARDS, EACH = 12, 25
COUNT = SHARDS * EACH


def paths() -> list[str]:
    """In an order of their own: row r is in shard r % SHARDS, the later rows lie further in front."""
    return [f"/d/train-{row % SHARDS}.tar@{(COUNT - row) * 512}+9/{row}.mp4" for row in range(COUNT)]


def sampler(window: int, batch_size: int = 12, rank: int = 0, ranks: int = 1, **options: object) -> EpochBatchSampler:
    shards = ShardOrder.of(paths(), window)
    return EpochBatchSampler(COUNT, batch_size, seed=3, shards=shards, rank=rank, ranks=ranks, **options)  # type: ignore[arg-type]


def rows_of(batches: EpochBatchSampler) -> list[int]:
    return [row for batch in batches for _, row, _ in batch]


class Keys(Dataset[Key]):
    def __getitem__(self, key: Key) -> Key:  # type: ignore[override]
        return key


@pytest.mark.parametrize(
    ("ranks", "workers"),
    sampled([(ranks, workers) for ranks in (1, 2, 3, 4) for workers in (0, 2)], [(1, 2), (3, 0)]),
)
def test_every_video_once_and_the_same_after_a_resume(ranks: int, workers: int) -> None:
    def epoch(number: int, start: int) -> Iterator[list[list[Key]]]:
        """The batches of all ranks, one after the other."""
        shares = [sampler(40, rank=rank, ranks=ranks) for rank in range(ranks)]
        for share in shares:
            share.epoch, share.start = number, start
        loaders = [DataLoader(Keys(), batch_sampler=s, num_workers=workers, collate_fn=list) for s in shares]
        for parts in zip(*loaders, strict=True):
            assert len({len(part) for part in parts}) == 1
            yield list(parts)

    whole = list(epoch(1, 0))
    together = [key for parts in whole for part in parts for key in part]
    assert sorted(together) == [(1, row, 0) for row in range(COUNT)]
    assert list(epoch(1, 17)) == whole[17:]
    # a batch is the same whatever the number of devices that share it
    one = sampler(40)
    one.epoch = 1
    assert [sorted(key for part in parts for key in part) for parts in whole] == [sorted(batch) for batch in one]


def test_epochs_differ_and_seeds_do() -> None:
    batches = sampler(40)
    first = rows_of(batches)
    batches.epoch = 1
    assert rows_of(batches) != first
    batches.epoch, batches.seed = 0, 4
    assert rows_of(batches) != first


@pytest.mark.parametrize("window", [1, 10, 60])
def test_shards_are_read_one_after_the_other(window: int) -> None:
    batches = sampler(window)
    rows = np.array(rows_of(batches))
    shards = rows % SHARDS
    order = list(dict.fromkeys(shards.tolist())) if window == 1 else None
    if order is not None:
        assert shards.tolist() == np.repeat(order, EACH).tolist()
        assert order != sorted(order)
        assert all((np.diff(rows[shards == shard]) < 0).all() for shard in order)  # as they lie in it
    spans = [np.ptp(np.flatnonzero(shards == shard)) + 1 for shard in range(SHARDS)]
    assert max(spans) < EACH + 2 * window
    if window > 1:
        assert np.mean(spans) > EACH + 1  # mixed with their neighbours


def test_rare_classes_more_often() -> None:
    weights = np.where(np.arange(COUNT) < 30, 3.0, 1.0)
    batches = sampler(20, weights=weights)
    keys = [key for batch in batches for key in batch]
    assert len(set(keys)) == len(keys) == COUNT
    rows = np.array([row for _, row, _ in keys])
    assert 70 <= (rows < 30).sum() <= 80  # 30 * 3 / (30 * 3 + 270) of 300
    spans = [np.ptp(np.flatnonzero(rows % SHARDS == shard)) for shard in range(SHARDS)]
    assert max(spans) < 2 * EACH + 2 * 20


def test_files_that_lie_in_no_shard() -> None:
    message = "sampler.shuffle_window=5: mixes videos within tar files, and /d/a.mp4 lies in none: use data=shards"
    with pytest.raises(ConfigError, match=re.escape(message)):
        ShardOrder.of([*paths(), "/d/a.mp4"], 5)


def test_shards_of_any_name() -> None:
    """What looks like a member's path and is none, and the other way; where they lie is what `stretch_of` says."""
    odd = [
        "/d/a.tar@x/b.tar@512+9/1.mp4",
        "/d/a.tar@512+9/b.tar@1024+7/2.mp4",
        "/d/a.tar@99+x.tar@0+1/3",
        "/d/ä.tar@7+8/4",
    ]
    order = ShardOrder.of([*odd, "/d/a.tar@0+4/0.mp4"], 1)
    files = [stretch_of(path).file for path in [*odd, "/d/a.tar@0+4/0.mp4"]]
    assert sorted(files[row] for row in order.rows) == sorted(files)
    assert [files[row] for row in order.rows] == [files[0], files[1], files[1], files[2], files[3]]
    assert order.rows.tolist() == [0, 4, 1, 2, 3]
    for wrong in ("/d/a.tar@5+5", "/d/a.tar@5+5/", ".tar@5+5/x", "/d/a.tar@\u0665+5/x", f"/d/a.tar@{'9' * 19}+5/x"):
        with pytest.raises(ConfigError, match="lies in none"):
            ShardOrder.of([wrong], 1)
