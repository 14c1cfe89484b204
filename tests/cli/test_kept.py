"""What was computed is kept, whatever ends the program: killed workers, signals, places that cannot be written."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.conftest import Call, error_line
from tests.cli.test_kills import equal
from tests.cli.test_runs import rows_of
from vidtrain.engine import evaluator
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint
from vidtrain.engine.step import TrainingStep
from vidtrain.shell import cli


@pytest.fixture
def videos(trained: Path) -> str:
    """The folder of the test split: 8 videos."""
    return str(Path(rows_of(trained / "test" / "predictions.csv")[0]["file"]).parents[1])


def kill_after(calls: int, function: Callable[..., Any], *, job: bool = False) -> Callable[..., Any]:
    """`function`, which kills the processes that decode when it is called once too often.

    job: SIGTERM to all processes, this one last, as timeout, scancel and systemd send it.
    """
    left = [calls]

    def killing(*args: Any, **options: Any) -> Any:
        if not left[0]:
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGTERM if job else signal.SIGKILL)
                os.waitid(os.P_PID, child.pid or 0, os.WEXITED | os.WNOWAIT)
            if job:
                os.kill(os.getpid(), signal.SIGTERM)
        left[0] -= 1
        return function(*args, **options)

    return killing


def test_predict_refuses_a_place_that_cannot_be_written_before_the_work(trained: Path, videos: str, call: Call) -> None:
    Path("file").write_text("in the way")
    for output in ("file/p.csv", "file/p"):
        done = call("predict", f"checkpoint={trained / 'best.pt'}", f"input={videos}", f"output={output}", check=2)
        assert f"{output}: cannot be written" in error_line(done)
        assert not done.stdout
    assert Path("file").read_text() == "in the way"


def test_the_output_of_predict_is_a_folder_unless_it_ends_in_csv(trained: Path, videos: str, call: Call) -> None:
    given = ["predict", f"checkpoint={trained / 'best.pt'}", f"input={videos}"]
    for output in ("new", "own.csv"):
        call(*given, f"output={output}")
    assert Path("new/predictions.csv").read_text() == Path("own.csv").read_text() != ""
    line = error_line(call(*given, "output=own.csv", "timeline=true", check=2))
    assert line == "output=own.csv: timeline=true writes several files: give a folder"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has none")
def test_a_pipe_that_nobody_reads_is_not_waited_for(trained: Path, videos: str, call: Call, tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    given = ["predict", f"checkpoint={trained / 'best.pt'}", f"input={videos}", f"output={pipe}"]
    assert error_line(call(*given, check=2)) == f"{pipe}: cannot be written: nobody reads this pipe"
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    call(*given)
    assert os.read(reader, 100).startswith(b"path,file,label,top1,")
    os.close(reader)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_predict_names_the_file_when_the_disk_is_full(trained: Path, videos: str, call: Call) -> None:
    done = call("predict", f"checkpoint={trained / 'best.pt'}", f"input={videos}", "output=/dev/full", check=2)
    assert error_line(done) == "/dev/full: No space left on device; what was written before is kept"


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="needs waitid")
def test_predict_keeps_what_it_had_when_a_worker_is_killed(
    trained: Path, videos: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [f"checkpoint={trained / 'best.pt'}", f"input={videos}", "eval.batch_size=2", "trainer.num_workers=1"]
    call("predict", *arguments, "output=whole.csv")
    assert len(rows_of(Path("whole.csv"))) == 8
    monkeypatch.setattr(evaluator, "predict_views", kill_after(2, evaluator.predict_views))
    done = call("predict", *arguments, "output=killed.csv", check=2)
    line = error_line(done)
    assert "a decoding process was ended by SIGKILL (out of memory? lower trainer.num_workers or the batch" in line
    rows = rows_of(Path("killed.csv"))
    assert 2 <= len(rows) < 8
    assert rows == rows_of(Path("whole.csv"))[: len(rows)]
    assert len(done.stdout.splitlines()) == len(rows)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_predict_keeps_what_it_had_when_it_is_interrupted(
    name: str, code: int, trained: Path, videos: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(signal, name):
        pytest.skip(f"this system has no {name}")
    number = getattr(signal, name)
    usual = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
    found = signal.signal(number, usual)  # the tests may be run by nohup or in the background, where it is ignored
    left, real = [3], evaluator.predict_views

    def interrupted(*args: object, **options: object) -> torch.Tensor:
        left[0] -= 1
        if left[0] < 0:
            assert len(rows_of(Path("p.csv"))) == 3  # on the disk already, should the program be killed
            signal.raise_signal(number)
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluator, "predict_views", interrupted)
    options = ["eval.batch_size=2", "output=p.csv", "trainer.num_workers=0"]
    try:
        done = call("predict", f"checkpoint={trained / 'best.pt'}", f"input={videos}", *options, check=code)
        assert signal.getsignal(number) is usual
    finally:
        signal.signal(number, found)
    assert done.stderr == "vidtrain: interrupted\n"
    assert len(rows_of(Path("p.csv"))) == 3


WORKERS = ["trainer.num_workers=1", "trainer.ema=0.9", "trainer.epochs=3", "model.dropout=0.3", "eval.batch_size=2"]
# where the processes that decode are ended: in update 4 of 6, in the second validation (of 4 batches), in the test
PLACES = {
    "training": (TrainingStep, "__call__", 3),
    "validation": (evaluator, "predict_views", 5),
    "test": (evaluator, "predict_views", 14),
}


@pytest.fixture(scope="module")
def whole(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing has ended."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.raises(SystemExit) as end:
        cli.main(["train", *tiny, *WORKERS, f"run_dir={folder}"])
    assert end.value.code == 0
    return folder


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="needs waitid")
@pytest.mark.parametrize(
    ("place", "job"),
    [
        ("training", False),
        ("validation", True),
        pytest.param("test", True, marks=pytest.mark.slow),
        pytest.param("training", True, marks=pytest.mark.slow),
        pytest.param("validation", False, marks=pytest.mark.slow),
        pytest.param("test", False, marks=pytest.mark.slow),
    ],
)
def test_a_training_without_workers_saves_and_goes_on_as_if_nothing_had_been(
    whole: Path, tiny: list[str], call: Call, monkeypatch: pytest.MonkeyPatch, place: str, job: bool
) -> None:
    where, name, calls = PLACES[place]
    arguments = ["train", *tiny, *WORKERS, "run_dir=run", "resume=auto"]
    with monkeypatch.context() as patch:
        patch.setattr(where, name, kill_after(calls, getattr(where, name), job=job))
        unfinished = job or place != "test"
        done = call(*arguments, check=75 if unfinished else 2)
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert ("SIGTERM received: " if job else "a decoding process was ended by SIGKILL") in last
    if place == "test":
        assert ("trained, but not tested; the same command with resume=auto" if job else "num_workers") in last
    else:
        update = load_checkpoint(Path("run/last.pt"))["progress"]["update"]
        assert (
            f"saved after update {update} in {Path('run').absolute()}; the same command with resume=auto continues"
            in last
        )
        assert update in ((3, 4) if place == "training" else (4,))
    call(*arguments)
    ends = [load_checkpoint(run / "last.pt") for run in (whole, Path("run"))]
    for part in ("model", "optimizer", "ema"):
        assert equal(ends[0][part], ends[1][part]), part
    results = [json.loads((run / "result.json").read_text()) for run in (whole, Path("run"))]
    assert results[0]["test"] == results[1]["test"]
    kinds = [[json.loads(line)["kind"] for line in (run / "metrics.jsonl").open()] for run in (whole, Path("run"))]
    assert kinds[0] == kinds[1]
