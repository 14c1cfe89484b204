"""Processes that this one starts search for modules where it does: never in the working folder.

Python puts the working folder first for -c and -m. Somebody who predicts in a stranger's folder would run the numpy.py
that lies there, and an innocent signal.py is hit alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import util
from pathlib import Path
from typing import IO, Any, Final

from vidtrain.errors import VideoError

# Stands in front of multiprocessing's own `-c CODE ARGUMENTS`, which Python hands on as arguments; then runs that.
_FIRST: Final = "import sys; sys.path[:1] = [p for p in sys.path[:1] if p]; del sys.argv[1]; exec(sys.argv.pop(1))"
SHARED_MEMORY: Final = "/dev/shm"
_flags: Any = util._args_from_interpreter_flags  # type: ignore[attr-defined]


def command(code: str) -> list[str]:
    """What starts a Python that runs `code` and finds the modules that this process finds."""
    searched = [str(Path(entry).absolute()) if Path(entry).exists() else entry for entry in sys.path]
    return [sys.executable, "-c", f"import sys; sys.path[:] = sys.argv[1:]; {code}", *searched]


def start_command(words: Sequence[str], out: IO[bytes], err: IO[bytes], **how: Any) -> subprocess.Popen[bytes]:
    """Start `vidtrain WORDS` as a process that saves and ends when its stdin does, and so with this one.

    out, err: files for what it prints. how: as of Popen.
    """
    started = command("from vidtrain.shell.sweep_child import main; main()")
    # bufsize: what a buffer could not write it would try to write again when it is closed
    process = subprocess.Popen(started, bufsize=0, stdin=subprocess.PIPE, stdout=out, stderr=err, **how)
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it has ended already, and its exit code says how
        process.stdin.write(json.dumps(list(words)).encode() + b"\n")
    return process


def run_command(what: tuple[Sequence[str], str]) -> str:
    """Run `vidtrain WORDS` in a folder, as a process that ends with this one; what it printed.

    Raises:
        VideoError: it failed; the reason is its last line.
    """
    words, folder = what
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = start_command(words, out, err, cwd=folder)
        assert process.stdin is not None
        with process.stdin:  # stays open: its end tells the process to end
            code = process.wait()
        out.seek(0)
        err.seek(0)
        printed, said = (file.read().decode("utf-8", "replace").strip() for file in (out, err))
    if code:
        raise VideoError(words[0], said.rpartition("\n")[2].removeprefix("vidtrain: error: ") or f"exit code {code}")
    return printed


def keep_working_folder_out() -> None:
    """Of the processes that multiprocessing starts: the workers of "spawn" and "forkserver", and its own helpers."""
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    if sys.version_info < (3, 11):  # which does not know it
        without_safe_path()


def without_safe_path() -> None:
    """The same by the command line. There is no public way; Python 3.10, which needs it, changes no more."""
    util._args_from_interpreter_flags = _with_first  # type: ignore[attr-defined]


def _with_first() -> list[str]:
    return [*_flags(), "-c", _FIRST]


def processors() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shared_memory() -> tuple[int, int]:
    """(free, all) bytes of the system's shared memory; (0, 0) where it has no limit of its own."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except (AttributeError, OSError):
        return 0, 0
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
