"""What lies in the working folder is not what started processes import, with any Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vidtrain import __version__
from vidtrain.child_python_path import run_command
from vidtrain.errors import VideoError

SCRIPT = """
import multiprocessing, sys
from multiprocessing import shared_memory
from vidtrain import child_python_path

def work(queue):
    import threading, random, textwrap
    queue.put([sys.path, sys.argv, sys.warnoptions])

if __name__ == "__main__":
    getattr(child_python_path, sys.argv[1])()
    for method in ("spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        process = context.Process(target=work, args=(queue,))
        process.start()
        assert queue.get(timeout=60) == [sys.path, sys.argv, sys.warnoptions]
        process.join()
        assert process.exitcode == 0, process.exitcode
    print("worked")
"""
# what multiprocessing's helpers import, innocent or not
MODULES = (
    *("multiprocessing", "threading", "signal", "pickle", "runpy", "selectors", "socket", "struct", "random"),
    *("textwrap", "tempfile", "subprocess", "vidtrain", "types", "warnings", "weakref", "copyreg", "os", "io"),
)
ROOT = Path(__file__).parents[1]


def started(python: str, function: str, tmp_path: Path, **environment: str) -> tuple[str, str]:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "script.py").write_text(SCRIPT)
    (tmp_path / "stranger").mkdir()
    for name in MODULES:
        (tmp_path / "stranger" / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write('{name} ')\n")
    done = subprocess.run(
        [python, "-W", "ignore::ImportWarning", tmp_path / "code" / "script.py", function],
        cwd=tmp_path / "stranger",
        env={**{k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    ran = (tmp_path / "ran").read_text() if (tmp_path / "ran").exists() else ""
    return done.stdout + done.stderr, ran


@pytest.mark.skipif(sys.platform == "win32", reason="no forkserver")
@pytest.mark.parametrize("function", ["keep_working_folder_out", "without_safe_path"])
def test_workers_of_multiprocessing(tmp_path: Path, function: str) -> None:
    assert started(sys.executable, function, tmp_path) == ("worked\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="no forkserver")
def test_with_python_3_10(tmp_path: Path) -> None:
    """Which knows no PYTHONSAFEPATH. torch is not needed for it, so any that is there will do."""
    python = shutil.which("python3.10")
    known = python and subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0
    if not python or not known:
        pytest.skip("needs a Python 3.10")
    assert started(python, "keep_working_folder_out", tmp_path) == ("worked\n", "")


def test_a_command_as_a_process(tmp_path: Path) -> None:
    assert run_command((["--version"], str(tmp_path))) == f"vidtrain {__version__}"
    with pytest.raises(VideoError, match=r"^nope: no command 'nope'; commands: ") as error:
        run_command((["nope"], str(tmp_path)))
    assert "\n" not in error.value.reason


def test_a_command_that_ends_before_it_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(words: list[str], **how: Any) -> subprocess.Popen[bytes]:
        process = popen(["false"], **how)
        process.wait()
        return process

    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", ended)
    with pytest.raises(VideoError, match="exit code 1"):
        run_command((["--version"], str(tmp_path)))
