"""Files made of files, one of each: whole, or not there."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import av

from vidtrain.data.jobs.journal import Stamp
from vidtrain.data.jobs.pool import Executor, run
from vidtrain.data.jobs.progress import ProgressBar
from vidtrain.errors import DataError, VideoError
from vidtrain.runs.atomic import is_still, make_parent, settle

Made = TypeVar("Made")

_FULL: Final = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_CLOSED: Final = (errno.EROFS, errno.EACCES, errno.EPERM)
_LEAST_FREE: Final = 1 << 16  # bytes; below this a file that is no good is put down to the disk


@dataclass(frozen=True)
class Job:
    """A file to make.

    source, target: absolute paths. stamp: of the source when this was planned; None: there was none.
    """

    source: str
    target: str
    stamp: Stamp | None = None


def part_of(target: Path) -> Path:
    """Where a file is written before it is whole: the same name at each try, so that no litter gathers."""
    name = hashlib.blake2b(os.fsencode(target.name), digest_size=8).hexdigest()
    return target.with_name(f".prepare-{name}.part")


def make_all(
    function: Callable[[Job], Made],
    jobs: Sequence[Job],
    what: str,
    *,
    done: int,
    workers: int | Executor | None,
    timeout: float,
    made: Callable[[Made], str] = lambda _: "",
    unit: str = "file",
) -> dict[str, str]:
    """Do the jobs, with a progress bar.

    Args:
        function, workers, timeout: as in `pool.run`.
        what: is done to the files, "preparing".
        done: files that were finished before.
        made: called with what each job gave; returns what to show behind the bar.

    Returns:
        The reason for each that failed, by source.
    """
    bad: dict[str, str] = {}
    note = ""
    try:
        with (
            ProgressBar(len(jobs) + done, what, done=done, unit=unit) as progress,
            closing(run(function, jobs, workers=workers, timeout=timeout, progress=progress)) as outcomes,
        ):
            for outcome in outcomes:
                if outcome.error is not None:
                    bad[jobs[outcome.index].source] = outcome.error
                else:
                    note = made(outcome.value)  # type: ignore[arg-type]
                progress.note = ", ".join(filter(None, (note, f"{len(bad)} bad" if bad else "")))
    finally:
        for job in jobs:  # of processes that were killed
            with suppress(OSError):
                part_of(Path(job.target)).unlink(missing_ok=True)
    return bad


@contextmanager
def whole(job: Job, output: str) -> Iterator[Path]:
    """Where to write the file of a job, which is there and empty: it gets its name when the block ends, and is gone
    after an error.

    Raises:
        VideoError: of the block, as the source's; another process has begun the same file meanwhile, and goes on.
        DataError: the disk is full, or may not be written to.
    """
    target = Path(job.target)
    part = part_of(target)
    own: os.stat_result | None = None
    try:
        make_parent(target, Path(output))
        part.unlink(missing_ok=True)  # so that one who still writes to it, cut off from the others, spoils nothing
        with part.open("xb") as file:  # stays open, so that no other file gets its number
            own = os.fstat(file.fileno())
            yield part
            _check_own(part, own, job)
        settle(part, target)
    except (OSError, av.error.FFmpegError, VideoError) as error:
        if own is not None and is_still(part, own):
            with suppress(OSError):
                part.unlink(missing_ok=True)
        raise _as_told(error, job, output) from error


def _check_own(part: Path, own: os.stat_result, job: Job) -> None:
    if not is_still(part, own):
        raise VideoError(job.source, "another process makes its file at the same time")


def _as_told(error: OSError | av.error.FFmpegError | VideoError, job: Job, output: str) -> DataError:
    """What the user is told: DataError where going on is of no use, VideoError where it is the one file."""
    number = getattr(error, "errno", None)
    if number in _FULL or _is_full(output):
        return DataError(f"{output}: the disk is full; free some space and give the same command again: it goes on")
    if number in _CLOSED:
        return DataError(f"{output}: may not be written to ({os.strerror(number)})")
    if isinstance(error, VideoError):
        return VideoError(job.source, error.reason)
    reason = getattr(error, "strerror", None) or error
    return VideoError(job.source, f"its copy {Path(job.target).name} cannot be written ({reason})")


def _is_full(output: str) -> bool:
    try:
        return shutil.disk_usage(output).free < _LEAST_FREE
    except OSError:
        return False
