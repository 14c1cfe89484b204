"""What was computed is kept, whatever ends the program: killed workers, signals, places that cannot be written."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.conftest import Call, error_line
from tests.cli.test_runs import rows_of
from vidtrain.commands import predict


@pytest.fixture
def videos(trained: Path) -> str:
    """The folder of the test split: 8 videos."""
    return str(Path(rows_of(trained / "test" / "predictions.csv")[0]["path"]).parents[1])


def kill_after(calls: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, which kills the processes that decode when it is called once too often."""
    left = [calls]

    def killing(*args: Any, **options: Any) -> Any:
        if not left[0]:
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)
                os.waitid(os.P_PID, child.pid or 0, os.WEXITED | os.WNOWAIT)
        left[0] -= 1
        return function(*args, **options)

    return killing


def test_predict_refuses_a_place_that_cannot_be_written_before_the_work(trained: Path, videos: str, call: Call) -> None:
    Path("file").write_text("in the way")
    for output in ("file/p.csv", "."):
        done = call("predict", f"checkpoint={trained / 'best.pt'}", f"input={videos}", f"output={output}", check=2)
        assert f"{output}: cannot be written: " in error_line(done)
        assert not done.stdout
    assert Path("file").read_text() == "in the way"


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="needs waitid")
def test_predict_keeps_what_it_had_when_a_worker_is_killed(
    trained: Path, videos: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [f"checkpoint={trained / 'best.pt'}", f"input={videos}", "eval.batch_size=2", "trainer.num_workers=1"]
    call("predict", *arguments, "output=whole.csv")
    assert len(rows_of(Path("whole.csv"))) == 8
    monkeypatch.setattr(predict, "view_probabilities", kill_after(2, predict.view_probabilities))
    done = call("predict", *arguments, "output=killed.csv", check=2)
    line = error_line(done)
    assert "a decoding process (pid " in line
    assert "lower trainer.num_workers" in line
    rows = rows_of(Path("killed.csv"))
    assert 2 <= len(rows) < 8
    assert rows == rows_of(Path("whole.csv"))[: len(rows)]
    assert len(done.stdout.splitlines()) == len(rows)


def test_predict_keeps_what_it_had_when_it_is_interrupted(
    trained: Path, videos: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, real = [3], predict.view_probabilities

    def interrupted(*args: object, **options: object) -> torch.Tensor:
        left[0] -= 1
        if left[0] < 0:
            assert len(rows_of(Path("p.csv"))) == 3  # on the disk already, should the program be killed
            raise KeyboardInterrupt
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(predict, "view_probabilities", interrupted)
    options = ["eval.batch_size=2", "output=p.csv", "trainer.num_workers=0"]
    done = call("predict", f"checkpoint={trained / 'best.pt'}", f"input={videos}", *options, check=130)
    assert done.stderr == "vidtrain: interrupted\n"
    assert len(rows_of(Path("p.csv"))) == 3
