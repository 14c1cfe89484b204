"""The errors a user can cause. Each message is one line: what is wrong, what was got, what is allowed, the fix.

The command line prints a VidtrainError as `vidtrain: error: MESSAGE` and exits with 2. Every other exception is
our own mistake and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VidtrainError(Exception):
    """Base of all errors that a user can mend.

    Attributes:
        already_printed: another of the processes that train together prints this line.
    """

    already_printed = False


class ConfigError(VidtrainError):
    """A key, a value or a combination of them that cannot be used."""


class DataError(VidtrainError):
    """An annotation file, a folder or a dataset that cannot be used."""


class VideoError(DataError):
    """One video file that cannot be read.

    Attributes:
        path: the file, as it was given.
        reason: why, without the path.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str]]:
        return type(self), (self.path, self.reason)  # so that it crosses from a loader's worker whole


class LoaderError(DataError):
    """A decoding process that died or stands still: nothing more comes from the loader."""


class CheckpointError(VidtrainError):
    """A checkpoint file that is missing, damaged, or of something else."""


EXIT_INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""
EXIT_CONFIG = 78
"""Exit code of a run of a sweep whose options cannot be used, for the sweep alone: EX_CONFIG."""
EXIT_UNFINISHED = 75
"""Exit code of a training that was told to stop and has saved: EX_TEMPFAIL, "try again". Requeue on it."""


class StoppedError(VidtrainError):
    """A training that was told to stop and has saved; the same command with resume=auto continues it.

    Attributes:
        exit_code: of the program.
    """

    def __init__(self, message: str, exit_code: int = EXIT_UNFINISHED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def did_you_mean(got: str, allowed: Iterable[str]) -> str:
    """' (did you mean X?)' for the nearest allowed word, '' when none is near."""
    near = difflib.get_close_matches(got, list(allowed), n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""


def one_of(allowed: Iterable[str], limit: int = 20) -> str:
    """A readable list of what is allowed, cut after `limit` words."""
    words = list(allowed)
    more = f", ... ({len(words)} in all)" if len(words) > limit else ""
    return ", ".join(words[:limit]) + more
