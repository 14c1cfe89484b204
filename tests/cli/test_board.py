"""vidtrain board: what TensorBoard is started with, and that it shows the runs, to this machine alone."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.cli.conftest import Call, environment, error_line
from vidtrain.commands import board
from vidtrain.errors import ConfigError


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, Path]]]:
    """The command lines that were started, each with where the links in its folder led."""
    found: list[tuple[list[str], dict[str, Path]]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        shelf = Path(command[command.index("--logdir") + 1])
        links = {str(p.relative_to(shelf)): p.resolve() for p in shelf.rglob("*") if p.is_symlink()}
        found.append((command, links))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(board.subprocess, "run", run)
    return found


def run_folder(folder: Path) -> Path:
    (folder / "tensorboard").mkdir(parents=True)
    (folder / "tensorboard" / "events.out.tfevents.1").touch()
    return folder


def test_one_folder_is_served_as_it_is(call: Call, tmp_path: Path, started: list[Any]) -> None:
    run_folder(tmp_path / "runs" / "c3d")
    call("board")
    call("board", "runs/c3d", "port=0")
    (first, _), (second, _) = started
    assert first[1:] == ["-m", "tensorboard.main", "--logdir", "runs", "--host", "127.0.0.1", "--port", "6006"]
    assert second[4:] == ["runs/c3d", "--host", "127.0.0.1", "--port", "0"]


def test_several_folders_have_the_names_that_distinguish_them(call: Call, tmp_path: Path, started: list[Any]) -> None:
    runs = [run_folder(tmp_path / name) for name in ("a/x, y", "b/x, y", "b/z:1")]
    call("board", *runs, runs[0])
    [(_, links)] = started
    assert links == {"a/x, y": runs[0], "b/x, y": runs[1], "b/z:1": runs[2]}
    with pytest.raises(ConfigError, match="give the folder above"):
        board.shelved([runs[2]], tmp_path / "b")  # where something has this name, as where no link can be made


def test_a_folder_without_events_is_refused(call: Call, tmp_path: Path, started: list[Any]) -> None:
    (tmp_path / "empty").mkdir()
    assert error_line(call("board", "empty", check=2)).startswith("runs=empty: no event files below it")
    assert error_line(call("board", "nowhere", check=2)) == "runs=nowhere: no such folder"
    assert not started


@pytest.mark.slow
def test_tensorboard_shows_the_runs_and_ends_with_ctrl_c(trained: Path, tmp_path: Path) -> None:
    other = run_folder(tmp_path / "other")
    command = [sys.executable, "-m", "vidtrain", "board", str(trained), str(other), "port=0"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True
    ) as server:
        assert server.stderr is not None
        address = next(found[0] for line in server.stderr if (found := re.search(r"http://127\.0\.0\.1:\d+/", line)))
        with urlopen(address + "data/plugins_listing", timeout=60) as answer:
            assert b"scalars" in answer.read()
        os.killpg(server.pid, signal.SIGINT)  # as a terminal does
        assert server.wait(60) == 0
