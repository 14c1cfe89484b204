"""One process at a time writes to a folder: a run's, or one of copies, flow or features."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from vidtrain.errors import VidtrainError

log = logging.getLogger("vidtrain")

LOCK = ".lock"
_PATIENCE = 20.0  # seconds: what a killed process has started outlives it by some
_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


@contextmanager
def sole_writer(folder: Path, key: str, name: str = LOCK, *, stays: bool = True) -> Iterator[None]:
    """Keep other processes from writing to `folder`, which is there, as long as the block runs.

    The lock is one of the operating system on <folder>/.lock and ends with its process, however that ends. Where a file
    system has no locks, the block runs without one.

    Args:
        key: that the folder was given by, for the message.
        name: of the lock, where several processes write to files of their own in the folder.
        stays: the file of the lock does, when the block has ended; not in a folder that is handed on.

    Raises:
        VidtrainError: another process holds the folder and keeps it, or it cannot be written to.
    """
    lock = FileLock(folder / name)
    _acquire(lock, folder, key)
    try:
        yield
    finally:
        if not stays:
            with suppress(OSError):  # Windows removes no file that is open
                (folder / name).unlink()
        lock.release()


def is_held(folder: Path, name: str = LOCK) -> bool:
    """Whether a process, this one excluded, writes to `folder` at this moment. False where there are no locks."""
    if not (folder / name).exists():
        return False
    lock = FileLock(folder / name)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False
    lock.release()
    return False


def _acquire(lock: FileLock, folder: Path, key: str) -> None:
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("waiting for another process that writes to %s", folder)
            lock.acquire(timeout=_PATIENCE)
    except Timeout:
        raise VidtrainError(
            f"{key}={folder}: another vidtrain process is writing there; wait for its end, or choose another folder"
        ) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _UNSUPPORTED:
            raise VidtrainError(f"{key}={folder}: cannot be written to ({error.strerror})") from None
        log.debug("%s: this file system has no locks", folder)
