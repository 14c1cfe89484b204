"""A file is whole or not there, whatever ends its writer."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vidtrain.errors import VidtrainError
from vidtrain.runs.atomic import settle, whole_file

KILLED = """
import os, signal, sys
from pathlib import Path
from vidtrain.runs.atomic import whole_file
with whole_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    (tmp_path / "a.json").write_bytes(b"old")
    return tmp_path / "a.json"


def test_the_new_file_takes_the_place_of_the_old_one(old: Path) -> None:
    with whole_file(old, "w", encoding="utf-8", newline="\n") as file:
        file.write("n\u00e9w\n")
        assert old.read_bytes() == b"old"
    assert old.read_bytes() == "n\u00e9w\n".encode()
    assert [path.name for path in old.parent.iterdir()] == ["a.json"]


def test_two_writers_at_once_leave_a_whole_file(old: Path) -> None:
    """The one that began first is told; what the other has half written takes nobody's place."""
    first, second = whole_file(old), whole_file(old)
    one = first.__enter__()
    one.write(b"first")
    other = second.__enter__()
    other.write(b"sec")
    with pytest.raises(VidtrainError, match=r"a\.json: another process writes it at the same time"):
        first.__exit__(None, None, None)
    assert old.read_bytes() == b"old"
    other.write(b"ond")
    second.__exit__(None, None, None)
    assert old.read_bytes() == b"second"
    assert [path.name for path in old.parent.iterdir()] == ["a.json"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes, no /proc")
def test_no_device_is_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("pipe", "null", "stdout"):
        with pytest.raises(VidtrainError, match=f"{name}: is no regular file"), whole_file(tmp_path / name):
            pass
    with whole_file(tmp_path / "dangling"):
        pass
    assert {p.name: p.is_symlink() for p in tmp_path.iterdir()} == {
        **dict.fromkeys(["null", "stdout"], True),
        **dict.fromkeys(["pipe", "dangling"], False),
    }


def test_a_folder_of_that_name_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with (
        pytest.raises(VidtrainError, match=r"a\.json: is a folder, and a file of this name"),
        whole_file(tmp_path / "a.json"),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_one_and_nothing_else(old: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), whole_file(old) as file:  # noqa: PT012
        file.write(b"half")
        raise error
    assert old.read_bytes() == b"old"
    assert [path.name for path in old.parent.iterdir()] == ["a.json"]


def test_a_full_disk_is_named(old: Path) -> None:
    """No error of a write has the name of the file; one of another kind is none of it."""
    for number, named in ((errno.ENOSPC, str(old)), (errno.EIO, None)):
        with pytest.raises(OSError) as error, whole_file(old):  # noqa: PT011
            raise OSError(number, os.strerror(number))
        assert error.value.filename == named


def test_an_error_before_it_takes_the_place(old: Path) -> None:
    def fails() -> None:
        assert old.with_name(".a.json.part").read_bytes() == b"new", "whole by now"
        raise OSError

    with pytest.raises(OSError), whole_file(old, before=fails) as file:  # noqa: PT011
        file.write(b"new")
    assert old.read_bytes() == b"old"


def test_a_killed_writer_leaves_the_old_one(old: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(old)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert old.read_bytes() == b"old"
    with whole_file(old) as file:  # over what it left
        file.write(b"new")
    assert [path.name for path in old.parent.iterdir()] == ["a.json"]


def test_the_bytes_are_on_the_disk_before_the_name(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    synced, replaced = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("fsync"), synced(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (order.append("replace"), replaced(self, to))[1])
    with whole_file(old) as file:
        file.write(b"new")
    assert order == ["fsync", "replace", "fsync"]  # the file, its name, the folder that holds the name
    order.clear()
    part = old.with_name("b.part")
    part.write_bytes(b"1234")
    assert settle(part, old) == 4
    assert order[:2] == ["fsync", "replace"]
    assert old.read_bytes() == b"1234"


def test_only_one_place_renames_finished_files() -> None:
    """Whoever writes aside and renames does it here, with both calls that a power cut needs."""
    package = Path(__file__).parents[2] / "vidtrain"
    found = [f for f in package.rglob("*.py") if "part.replace(" in f.read_text() or "os.fsync" in f.read_text()]
    assert [file.name for file in found] == ["atomic.py"]
