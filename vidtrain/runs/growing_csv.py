"""A table that is on disk as far as it is known."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from vidtrain.errors import VidtrainError
from vidtrain.runs.atomic import opener
from vidtrain.terminal import EXACT_NAMES


class GrowingCsv:
    """A CSV that grows by rows as they are found, so that what ends the program loses none of them.

    The file is opened at once: where it cannot be written, that shows before the work.

    Raises:
        VidtrainError: the file cannot be written.
    """

    def __init__(self, file: Path, header: Sequence[str]) -> None:
        self.file = file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._handle = open(  # noqa: SIM115 - Path.open has no opener
                file, "w", newline="", encoding="utf-8", errors=EXACT_NAMES, opener=opener
            )
        except OSError as error:
            raise VidtrainError(f"{file}: cannot be written: {error.strerror}") from None
        self._writer = csv.writer(self._handle)
        self.write([header])

    def write(self, rows: Iterable[Sequence[str]]) -> None:
        """Raises OSError where they cannot be written; the file is closed then."""
        try:
            self._writer.writerows(rows)
            self._handle.flush()
        except OSError as error:
            error.filename = str(self.file)
            with suppress(OSError):
                self._handle.close()  # now, or the next attempt would hide this error
            raise

    def close(self) -> None:
        self._handle.close()

    def __enter__(self) -> GrowingCsv:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
