"""Two processes of which one is busy, stands still, has failed or has lost a worker: what the other one does."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.test_ranks import together
from tests.engine.test_trainer import Clips, trainer
from vidtrain.commands.launch import _what_ended
from vidtrain.engine.devices import heartbeats
from vidtrain.engine.devices.distributed import World, join
from vidtrain.errors import DataError, LoaderError, StoppedError, VidtrainError
from vidtrain.tasks.task import Scores
from vidtrain.types import Batch

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gloo and forkserver are not on Windows")


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        logging.getLogger("vidtrain").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class Losing(Clips):
    """In the process with the number `rank` no batch comes after two."""

    def __init__(self, world: World, rank: int) -> None:
        super().__init__()
        self.loses = world.rank == rank

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        for place, batch in enumerate(super().epoch(number, start), start):
            if self.loses and place == 2:
                raise LoaderError("a decoding process was ended by SIGKILL")
            yield batch


def ended(folder: Path, world: World, clips: Clips, **options: Any) -> tuple[str, str, int, int]:
    """(class, words, exit code) of what ends a training, and the updates that it has saved."""
    folder.mkdir(exist_ok=True)
    training = trainer(folder, clips, epochs=2, save_minutes=1e9, **options)
    training.world = training.checkpoints.world = world
    training.stop.wait = lambda: None
    with pytest.raises(StoppedError) as stopped:
        training.fit()
    content = training.checkpoints.load_last()
    assert content is not None
    return "StoppedError", str(stopped.value), stopped.value.exit_code, content["progress"]["update"]


def _they_wait(world: World, folder: Path) -> dict[str, Any]:
    heartbeats.SPEAK, heartbeats._BEAT, heartbeats._SILENT = 1.2, 0.05, 0.6
    said, found = Lines(), dict[str, Any]()
    pid = world.gather(os.getpid())[1]

    found["lost"] = ended(folder / "lost", world, Losing(world, 1))

    def validate(model: Any) -> Scores:
        with world.sharing(LoaderError):
            if world.rank == 0:
                raise LoaderError("a decoding process has died")
        raise AssertionError

    found["lost in validation"] = ended(folder / "validation", world, Clips(), validate=validate)
    stopped = trainer(folder / "lost", Clips(), epochs=2)
    stopped.world = stopped.checkpoints.world = world
    if world.rank == 1:
        stopped.stop.received = "SIGTERM"
    try:
        stopped.fit()
    except StoppedError as error:
        found["stopped"] = str(error)
    try:
        with world.sharing(DataError):
            if world.rank == 1:
                raise DataError("no such folder")  # noqa: TRY301
    except DataError as error:
        found["shared"] = str(error)

    assert not said.lines
    if world.rank == 1:
        time.sleep(2.2)
    world.any(True)
    found["busy"] = list(said.lines)
    join(1.5)
    if world.rank == 1:
        torch.save(found, folder / "1.pt")
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    try:
        with world.together():
            torch.distributed.all_reduce(torch.ones(3))
    except StoppedError as error:
        found["still"], found["code"] = str(error), error.exit_code
    os.kill(pid, signal.SIGCONT)
    return {**found, "pid": pid}


def _one_fails(world: World, folder: Path) -> dict[str, Any]:
    heartbeats._BEAT, heartbeats._SILENT = 0.05, 0.6
    found: dict[str, Any] = {}
    try:
        with world.reporting_errors():
            if world.rank == 1:
                raise DataError("runs/x: no such folder")
            while True:
                world.any(True)
    except VidtrainError as error:
        found = {"text": str(error), "told": error.already_printed, "stopped": isinstance(error, StoppedError)}
    if world.rank == 1:
        torch.save(found, folder / "1.pt")
        os._exit(2)
    return found


def test_who_is_waited_for(tmp_path: Path) -> None:
    zero, one = together(_they_wait, tmp_path)
    for found in (zero, one):  # the last update that both have made is saved, and the line is the same
        kind, words, code, saved = found["lost"]
        assert (kind, code, saved) == ("StoppedError", 75, 2)
        assert words.startswith("a decoding process was ended by SIGKILL; saved after update 2 in ")
        assert found["lost in validation"][1].startswith("a decoding process has died; saved after update 6 in ")
        assert found["lost in validation"][2:] == (75, 6)
        assert found["stopped"].startswith("SIGTERM received: nothing is saved")
        assert found["shared"] == "no such folder"
    who = f"process 1 (on {os.uname().nodename}, pid {zero['pid']}, "
    assert one["busy"] == []
    assert len(zero["busy"]) == 1
    assert zero["busy"][0].startswith("waiting for 1 s for " + who + "busy with something else)")
    assert zero["still"].startswith(
        "waited 2 s, the limit of trainer.rank_timeout, for " + who + "no sign of life); the "
    )
    assert zero["code"] == 75


def test_one_fails_and_one_line_is_printed(tmp_path: Path) -> None:
    zero, one = together(_one_fails, tmp_path)
    assert zero == {"text": "runs/x: no such folder", "told": True, "stopped": False}
    assert one == {"text": "runs/x: no such folder", "told": False, "stopped": False}


@pytest.mark.parametrize(
    ("codes", "says", "code"),
    [
        ({0: 75, 1: 75}, "the processes have ended, see above; the same command with resume=auto continues", 75),
        ({0: 75, 1: -9}, "process 1 of 2 was ended by SIGKILL (out of memory?); the same command", 75),
        ({0: -11, 1: 75}, "process 0 of 2 was ended by SIGSEGV; the same command", 75),
        ({0: 75, 1: 1}, "process 1 of 2 ended with code 1: see its traceback above", 2),
        ({0: 2, 1: 1}, "process 1 of 2 ended with code 1: see its traceback above", 2),
        ({0: 2, 1: -15}, "process 0 of 2 ended with code 2: see its message above", 2),
    ],
)
def test_what_the_launcher_says(codes: dict[int, int], says: str, code: int) -> None:
    error = _what_ended(codes, 2)
    assert str(error).startswith(says)
    assert getattr(error, "exit_code", 2) == code
