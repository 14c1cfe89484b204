"""Where a training stands: skipped updates, and a resume by another number of processes."""

from __future__ import annotations

from dataclasses import asdict

import torch

from vidtrain.engine.devices.distributed import World
from vidtrain.engine.progress import Progress


def flags(*skipped: bool) -> list[tuple[torch.Tensor, list[int]]]:
    return [(torch.tensor(flag), [0]) for flag in skipped]


def test_skipped_updates_in_a_row_are_those_at_the_end() -> None:
    progress = Progress(update=3)
    progress.count_skipped(flags(True, False, True), str)
    assert (progress.skipped, progress.in_a_row) == (2, 1)
    progress.update = 5
    progress.count_skipped(flags(True, True), str)
    assert (progress.skipped, progress.in_a_row) == (4, 3)
    progress.update = 6
    progress.count_skipped(flags(False), str)
    assert (progress.skipped, progress.in_a_row) == (4, 0)


def test_a_resume_gives_each_process_its_own_totals() -> None:
    saved = asdict(Progress(epoch=2, batch=3, update=9, clips=40))
    ranks = [{"sums": [1.0, 2.0, 4.0], "bad": {"a": "x"}}, {"sums": [0.5, 1.0, 4.0], "bad": {"b": "y"}}]
    own = [Progress.resumed(saved, ranks, World(rank, 2)) for rank in (0, 1)]
    assert [progress.sums for progress in own] == [[1, 2, 4], [0.5, 1, 4]]
    assert [progress.bad for progress in own] == [{"a": "x"}, {"b": "y"}]
    assert {(p.epoch, p.batch, p.update, p.clips) for p in own} == {(2, 3, 9, 40)}


def test_another_number_of_processes_shares_the_totals_without_counting_any_twice() -> None:
    saved = asdict(Progress())
    ranks = [{"sums": [1.0, 2.0, 4.0], "bad": {"a": "x"}}, {"sums": [0.5, 1.0, 4.0], "bad": {"b": "y"}}]
    alone = Progress.resumed(saved, ranks, World())
    assert alone.sums == [1.5, 3, 8]
    three = [Progress.resumed(saved, ranks, World(rank, 3)) for rank in range(3)]
    assert [sum(column) for column in zip(*(p.sums for p in three), strict=True)] == [1.5, 3, 8]
    assert all(p.bad == {"a": "x", "b": "y"} for p in (alone, *three))
