"""Where a training stands: skipped updates, a resume by another number of processes, what is said of it."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from tests.engine.test_trainer import Clips, trainer
from vidtrain import terminal
from vidtrain.engine.devices.distributed import World
from vidtrain.engine.progress import Progress
from vidtrain.export.onnx_file import quiet
from vidtrain.terminal import rate_text, said_between, said_when_slow
from vidtrain.types import Batch


def wait_for(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not there() and time.monotonic() < end:
        time.sleep(0.002)


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


def test_a_step_that_takes_long_says_what_it_is_doing_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    with said_when_slow("nothing of it"):
        pass
    monkeypatch.setattr(terminal, "SILENCE", 0.001)
    with said_when_slow("writing 100 % of it"), quiet():  # an exporter keeps every logger quiet
        wait_for(lambda: caplog.messages == ["writing 100 % of it"])
    assert caplog.messages == ["writing 100 % of it"]
    logging.getLogger("vidtrain").setLevel(logging.WARNING)  # as in all processes of a training but the main one
    try:
        with said_when_slow("another process"):
            time.sleep(0.05)
    finally:
        logging.getLogger("vidtrain").setLevel(logging.NOTSET)
    assert len(caplog.messages) == 1


def test_between_items_that_take_long_it_is_said_how_many_there_are(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(terminal, "SILENCE", 0.001)
    done: list[int] = []

    def slow() -> Iterator[int]:
        for count in (1, 2):
            wait_for(lambda count=count: len(caplog.messages) == count)  # type: ignore[misc]
            yield count

    for item in said_between(slow(), lambda: f"{len(done)} of 2 videos done"):
        done.append(item)
    assert caplog.messages[:2] == ["0 of 2 videos done", "1 of 2 videos done"]
    assert done == [1, 2]


def test_a_training_without_a_terminal_says_where_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Clips):
        def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
            wait_for(lambda: bool(caplog.messages))
            yield from super().epoch(number, start)

    caplog.set_level(logging.INFO)
    monkeypatch.setattr(terminal, "SILENCE", 0.001)
    monkeypatch.setattr("vidtrain.engine.trainer._LINE_EVERY", 0)
    trainer(tmp_path, Slow(), epochs=1, log_every=2).fit()
    first, *later = [message for message in caplog.messages if message.startswith("epoch 1/1")]
    assert first == "epoch 1/1: decoding the first of 6 batches"
    assert [message.split("  ")[0] for message in later] == [f"epoch 1/1: {n} of 6 batches" for n in (2, 4, 6)]
    assert re.search(r"  loss \d\.\d+ top-1 \d\.\d+ [\d.]+ clips/s wait \d+%$", later[0])


def test_a_slow_rate_keeps_its_digits() -> None:
    assert list(map(rate_text, (4217.3, 42.4, 4.24, 0.424, 0.0424))) == ["4217", "42", "4.2", "0.42", "0.042"]
