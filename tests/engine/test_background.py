"""Checkpoints that are written while training goes on: the same bytes, the same guarantees."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.test_trainer import Clips, assert_equal, resumed, trainer
from vidtrain.engine.checkpoints import checkpoint as module
from vidtrain.engine.checkpoints.background import Background, copied
from vidtrain.engine.checkpoints.checkpoint import Checkpoints, load_checkpoint, save_checkpoint
from vidtrain.engine.devices.distributed import World
from vidtrain.engine.trainer import Trainer
from vidtrain.errors import CheckpointError, StoppedError
from vidtrain.runs import atomic

# ---------------------------------------------------------------- the copy


def test_a_copy_is_the_same_file_and_does_not_follow(tmp_path: Path) -> None:
    weight = torch.rand(4, 3, 2, 2).to(memory_format=torch.channels_last)
    rows = torch.rand(10, 4)
    content: dict[str, Any] = {
        "model": OrderedDict(a=weight, tied=weight, part=rows[2:5, ::2], transposed=rows.t()),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0), "again": weight}}, "groups": [{"betas": (0.9, 0.99)}]},
        "config": {"text": "a", "none": None, "list": [1, 2.5, True]},
        "ranks": ({"rng": torch.get_rng_state()},),
    }
    content["model"]._metadata = {"": {"version": 1}}
    save_checkpoint(tmp_path / "live.pt", content)
    copy = copied(content)
    save_checkpoint(tmp_path / "copy.pt", copy)
    assert (tmp_path / "live.pt").read_bytes() == (tmp_path / "copy.pt").read_bytes()
    assert copy["model"]["a"].untyped_storage().data_ptr() == copy["model"]["tied"].untyped_storage().data_ptr()

    before = copy["model"]["a"].clone(), copy["model"]["part"].clone()
    weight.zero_()
    rows.zero_()
    content["config"]["list"].append(3)
    content["optimizer"]["groups"][0]["betas"] = None
    assert torch.equal(copy["model"]["a"], before[0])
    assert torch.equal(copy["model"]["part"], before[1])
    assert copy["config"]["list"] == [1, 2.5, True]
    assert copy["optimizer"]["groups"][0]["betas"] == (0.9, 0.99)


# ---------------------------------------------------------------- the threads


def test_in_order_and_one_copy_per_file() -> None:
    background, gate, done = Background(), threading.Event(), []
    background.start("best", lambda: (gate.wait(), done.append("best"))[0])
    background.start("last", lambda: done.append("last"))  # does not wait here
    assert done == []
    threading.Timer(0.05, gate.set).start()
    background.start("best", lambda: done.append("best again"))  # waits for the first of this name
    assert done[0] == "best"
    background.wait()
    assert done == ["best", "last", "best again"]


def test_after_a_failure_nothing_is_begun_and_it_is_raised_once() -> None:
    background, gate, done = Background(), threading.Event(), []

    def fail() -> None:
        gate.wait()
        raise CheckpointError("disk full")

    background.start("best", fail)
    background.start("last", lambda: done.append("last"))
    gate.set()
    with pytest.raises(CheckpointError, match="disk full"):
        background.wait()
    background.check()
    background.wait()
    assert done == []


# ---------------------------------------------------------------- a training


@contextmanager
def slow_disk(monkeypatch: pytest.MonkeyPatch, seconds: float) -> Iterator[list[str]]:
    """Every file takes so long; yields the threads that have written."""
    threads: list[str] = []

    def save(path: Path, *rest: Any) -> None:
        threads.append(threading.current_thread().name)
        time.sleep(seconds)
        save_checkpoint(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_checkpoint", save)
        yield threads


def beside(folder: Path, clips: Clips, **settings: Any) -> Trainer:
    folder.mkdir(exist_ok=True)
    training = trainer(folder, clips, ema=0.9, **settings)
    training.checkpoints = Checkpoints(folder, in_background=True, describe=training.checkpoints.describe)
    return training


def saved(content: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def test_a_training_saves_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trainer(tmp_path, Clips(), ema=0.9, save_minutes=1e9)
    whole.fit()
    with slow_disk(monkeypatch, 0.01) as threads:
        other = beside(tmp_path / "beside", Clips(), save_minutes=1e9)
        other.fit()
    assert {"save last.pt", "save best.pt"} == set(threads)
    assert_equal(whole.model, other.model)
    assert (tmp_path / "best.pt").read_bytes() == (tmp_path / "beside" / "best.pt").read_bytes()
    one, two = (load_checkpoint(folder / "last.pt") for folder in (tmp_path, tmp_path / "beside"))
    for key in ("seconds", "waited"):  # of the clock
        one["progress"].pop(key), two["progress"].pop(key)
    assert saved(one) == saved(two)


def test_it_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    took = []
    for in_background in (False, True):
        with slow_disk(monkeypatch, 0.5):
            training = (beside if in_background else trainer)(tmp_path, Clips(), save_minutes=1e9)
            began = time.perf_counter()
            training.save()
            took.append(time.perf_counter() - began)
            training.checkpoints.wait()
    assert took[0] > 0.5 > 0.2 > took[1]


@pytest.mark.parametrize("stop_after", [1, 11])
def test_stopped_and_continued_bit_for_bit(tmp_path: Path, stop_after: int) -> None:
    whole = trainer(tmp_path, Clips(), ema=0.9, save_minutes=1e9)
    whole.fit()
    stopped = beside(tmp_path / "stopped", Clips(), save_minutes=1e9)
    seen = [0]
    on_update = type(stopped.step).__call__

    class Signal(type(stopped.step)):  # type: ignore[misc]
        def __call__(self, *args: Any) -> None:
            on_update(self, *args)
            seen[0] += 1
            if seen[0] == stop_after:
                stopped.stop.received = "SIGTERM"

    stopped.step.__class__ = Signal
    with pytest.raises(StoppedError, match=f"saved after update {stop_after} "):
        stopped.fit()
    assert load_checkpoint(tmp_path / "stopped" / "last.pt")["progress"]["update"] == stop_after
    torch.manual_seed(1234)
    again = resumed(beside(tmp_path / "stopped", Clips(), save_minutes=1e9))
    again.fit()
    assert_equal(again.model, whole.model)


def test_a_full_disk_ends_the_training_at_the_next_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = beside(tmp_path / "full", Clips(), epochs=1)
    written = [0]

    def save(path: Path, content: dict[str, Any], *rest: Any) -> None:
        if written[0] == 3:
            raise CheckpointError(f"cannot write {path}: No space left on device")
        written[0] += 1
        save_checkpoint(path, content, *rest)

    monkeypatch.setattr(module, "save_checkpoint", save)
    with pytest.raises(CheckpointError, match="No space left"):
        training.fit()
    assert training.progress.update in (4, 5)
    assert load_checkpoint(tmp_path / "full" / "last.pt")["progress"]["update"] == 3

    seldom = beside(tmp_path / "seldom", Clips(), save_minutes=1e9)
    seldom.save()
    with pytest.raises(CheckpointError, match="No space left"):  # not at the next save
        seldom.fit()
    assert seldom.progress.update < 6


def test_best_is_on_the_disk_before_last_tells_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = beside(tmp_path / "run", Clips(), save_minutes=1e9)
    monkeypatch.setattr(
        module, "save_checkpoint", lambda path, *rest: (_ for _ in ()).throw(CheckpointError(str(path)))
    )
    with pytest.raises(CheckpointError, match=r"best\.pt"):
        training.fit()
    assert not (tmp_path / "run" / "last.pt").exists()


def test_a_best_that_is_gone_is_there_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = beside(tmp_path / "run", Clips(), save_minutes=1e9, epochs=1)
    training.fit()
    training.checkpoints.best.unlink()
    there: list[bool] = []
    monkeypatch.setattr(World, "any", lambda self, *flags: there.append(training.checkpoints.best.is_file()) or flags)
    with slow_disk(monkeypatch, 0.2):
        assert training.keep_best()["epoch"] == 1
    assert there == [False, True]  # the second: the others may read it now


def test_an_error_of_the_training_waits_for_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = beside(tmp_path / "run", Clips(), save_minutes=1e9)

    def fails() -> None:
        with training.checkpoints.written():
            training.save()
            raise ArithmeticError

    with slow_disk(monkeypatch, 0.2), pytest.raises(ArithmeticError):
        fails()
    assert (tmp_path / "run" / "last.pt").is_file()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_kill_in_the_middle_of_a_file_leaves_the_former(tmp_path: Path) -> None:
    training = beside(tmp_path / "run", Clips())
    training.save()
    training.checkpoints.wait()
    former = training.checkpoints.last.read_bytes()
    child = os.fork()
    if not child:
        try:
            # in the thread that writes, when the bytes are to go to the disk
            atomic.os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
            training.progress.update = 7
            training.save()
            training.checkpoints.wait()
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert (tmp_path / "run" / ".last.pt.part").stat().st_size > 1000  # it was being written
    assert training.checkpoints.last.read_bytes() == former
    training.progress.update = 8
    training.save()
    training.checkpoints.wait()
    assert [load_checkpoint(file)["progress"]["update"] for file in sorted((tmp_path / "run").glob("last*.pt"))] == [
        0,
        8,
    ]
    assert not (tmp_path / "run" / ".last.pt.part").exists()
