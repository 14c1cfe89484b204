"""The one way to write a file that somebody else may read, or that a power cut may meet: whole or not at all."""

from __future__ import annotations

import csv
import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from vidtrain.errors import ConfigError, DataError, VidtrainError
from vidtrain.terminal import EXACT_NAMES

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


def make_folder(folder: Path) -> None:
    """With those above it; one that is there is left as it is.

    Raises:
        VidtrainError: where it is to be, there are no folders to be made (/proc).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError:
        raise VidtrainError(f"{folder}: this folder cannot be made: give another") from None


def prepare_folder(folder: Path, key: str) -> Path:
    """Make a folder, unless it is there, and see that a file can be written to it.

    Raises:
        ConfigError: it cannot. key: that the folder was given by.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"{key}={folder}: cannot be written to ({error.strerror})") from None
    return folder


@contextmanager
def named_when_full(path: Path) -> Iterator[None]:
    """An error about a full disk, which bears no name where it is of bytes that are written, gets that of the file."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in _FULL:
            error.filename = str(path)
        raise


@contextmanager
def whole_file(
    path: Path, mode: str = "wb", *, before: Callable[[], None] | None = None, **text: Any
) -> Iterator[IO[Any]]:
    """A file to write to, which takes the place of `path` when the block ends; an error in it leaves `path` as it was.

    Args:
        mode: "wb" or "w". text: encoding, errors and newline of `open`.
        before: called when the new file is on the disk, before it takes its place.

    Raises:
        VidtrainError: there is a folder or a device of this name; another process has begun to write it meanwhile, and
            goes on; `path` is as it was.
    """
    _check_replaceable(path)
    part = path.with_name(f".{path.name}.part")
    # what a crash has left, or a stranger's link to something that is not to be written to
    part.unlink(missing_ok=True)
    own: os.stat_result | None = None
    try:
        with named_when_full(path), part.open(mode.replace("w", "x"), **text) as file:
            own = os.fstat(file.fileno())
            yield file
            to_disk(file)
        if before is not None:
            before()
        _check_still(part, own, path)
        part.replace(path)
    except BaseException:
        if own is not None and is_still(part, own):
            part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _check_replaceable(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        raise VidtrainError(f"{path}: is a folder, and a file of this name is to be written: move it out of the way")
    # root may replace /dev/null, and /dev/stdout, which leads to whatever the shell has opened
    streams = path.is_symlink() and str(path.readlink()).startswith("/proc/")
    if streams or not (path.is_file() or path.is_dir() or not path.exists()):
        raise VidtrainError(f"{path}: is no regular file, and a file would take its place: name another")


def _check_still(part: Path, own: os.stat_result, path: Path) -> None:
    if not is_still(part, own):
        raise VidtrainError(f"{path}: another process writes it at the same time; run this again when that has ended")


def is_still(part: Path, own: os.stat_result) -> bool:
    """Whether the file of this name is the one that was opened, not one that somebody has put there since."""
    try:
        return os.path.samestat(part.stat(follow_symlinks=False), own)
    except OSError:
        return False


def write_text(path: Path, text: str, *, errors: str = "strict", newline: str | None = None) -> None:
    """A text file in UTF-8, whole or not at all; errors, newline: as of `open`."""
    with whole_file(path, "w", encoding="utf-8", errors=errors, newline=newline) as file:
        file.write(text)


def write_json(path: Path, content: Any) -> None:
    """A JSON file, whole or not at all; what UTF-8 has not becomes an escape, which reads back as it was."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n", errors="backslashreplace")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A CSV file with a header, whole or not at all; file names in it need not be UTF-8."""
    with whole_file(path, "w", encoding="utf-8", errors=EXACT_NAMES, newline="") as file:
        lines = csv.writer(file)
        lines.writerow(columns)
        lines.writerows(rows)


def make_parent(file: Path, home: Path) -> None:
    """Make the folder of a file that is to be written below `home`.

    Raises:
        DataError: a folder in between is a link, perhaps to where something else lies.
    """
    here = home
    for name in file.relative_to(home).parts[:-1]:
        here = here / name
        if here.is_symlink():
            raise DataError(
                f"{here}: is a link to {here.readlink()}, and files would be written there: replace it by a folder of "
                "its own"
            )
    file.parent.mkdir(parents=True, exist_ok=True)


def opener(path: str, flags: int) -> int:
    """For `open` of a file that the user names: VidtrainError for a pipe that nobody reads, not a wait without end."""
    try:
        handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise VidtrainError(f"{path}: cannot be written: nobody reads this pipe") from None
        raise
    if hasattr(os, "O_NONBLOCK"):
        os.set_blocking(handle, True)
    return handle


@contextmanager
def part_file(path: Path) -> Iterator[Path]:
    """For what opens files by name: where to write what takes the place of `path` when the block ends; an error in it
    leaves `path` as it was."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)  # a stranger's link to something that is not to be written to
    try:
        yield part
        settle(part, path)
    finally:
        part.unlink(missing_ok=True)


def settle(part: Path, path: Path) -> int:
    """Give a file that something else has written its name, once its bytes are on the disk; returns how many."""
    with named_when_full(path), part.open("r+b") as file:
        os.fsync(file.fileno())
        size = file.seek(0, os.SEEK_END)
    part.replace(path)
    return size


def to_disk(file: IO[Any]) -> None:
    """What was written to it, as far as a power cut is concerned."""
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut; Windows has no such call."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
