"""Two processes that want to write to one folder."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Call, environment
from vidtrain.errors import VidtrainError
from vidtrain.runs import sole_writer

HOLD = """
import sys, time
from pathlib import Path
from vidtrain.runs.sole_writer import sole_writer
with sole_writer(Path(sys.argv[1]), "output"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def hold(folder: Path, seconds: float = 300.0) -> subprocess.Popen[str]:
    """A process that has the folder."""
    command = [sys.executable, "-c", HOLD, str(folder), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture
def held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    monkeypatch.setattr(sole_writer, "_PATIENCE", 0.2)
    with hold(folder) as process:
        yield process
        process.kill()


def test_a_folder_is_free_once_its_process_is_killed(held: subprocess.Popen[str], folder: Path) -> None:
    expected = rf"output={re.escape(str(folder))}: another vidtrain process is writing there; wait for its end, or"
    with pytest.raises(VidtrainError, match=expected), sole_writer.sole_writer(folder, "output"):
        pass
    held.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    held.wait()
    with sole_writer.sole_writer(folder, "output"):
        pass


def test_a_short_overlap_is_waited_for(folder: Path) -> None:
    with hold(folder, seconds=1.0):
        began = time.monotonic()
        with sole_writer.sole_writer(folder, "output"):
            assert time.monotonic() - began < 15


def test_a_folder_that_cannot_be_written_to_is_named(folder: Path) -> None:
    (folder / ".lock").mkdir()
    with (
        pytest.raises(VidtrainError, match=rf"run_dir={re.escape(str(folder))}: cannot be written to"),
        sole_writer.sole_writer(folder, "run_dir"),
    ):
        pass


@pytest.mark.parametrize("command", ["train", "data prepare", "data flow", "extract", "predict"])
def test_the_second_command_is_refused(
    command: str, held: subprocess.Popen[str], tiny: list[str], call: Call, folder: Path, trained: Path
) -> None:
    if command == "data flow":
        pytest.importorskip("cv2", reason="computing flow needs OpenCV")
    motion = ["data=motion", *(override for override in tiny if override.startswith("data."))]
    arguments = {
        "train": [*tiny, f"run_dir={folder}"],
        "data prepare": [*motion, f"output={folder}"],
        "data flow": [*motion, "method=dis", f"output={folder}"],
        "extract": [*motion, "model=slow_fusion", "model.width=4", "transform.size=32", f"output={folder}"],
        "predict": [f"checkpoint={trained / 'best.pt'}", "input=lavfi:testsrc=size=64x48:rate=25", f"output={folder}"],
    }[command]
    said = call(*command.split(), *arguments, check=2).stderr.strip().splitlines()[-1]
    key = "run_dir" if command == "train" else "output"
    assert said.startswith(f"vidtrain: error: {key}={folder}: another vidtrain process is writing there")
    assert not [path for path in folder.rglob("*") if path.suffix in (".pt", ".mp4", ".npy", ".flow", ".jsonl")]


@pytest.mark.slow
def test_runs_of_one_second_get_a_folder_each(tiny: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vidtrain", "train", *tiny, "trainer.epochs=1", "trainer.test=false"]
    runs = [
        subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        for _ in range(2)
    ]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    folders = list((tmp_path / "runs" / "motion").glob("*/*"))
    assert len(folders) == 2
    assert all((folder / "result.json").is_file() for folder in folders)


def test_asking_for_the_configuration_leaves_no_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vidtrain", "train", "--cfg", "all", "--resolve"]
    said = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True).stdout
    assert "runs/motion/" in said
    assert not list(tmp_path.iterdir())
