"""The segments that a test has found, in a file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from vidtrain.errors import VidtrainError
from vidtrain.runs.atomic import opener
from vidtrain.tasks.task import Predictions
from vidtrain.terminal import EXACT_NAMES
from vidtrain.types import ListedVideos

COLUMNS = ("path", "file", "start", "end", "label", "score")


class SegmentsFile:
    """A CSV that grows by a row per segment: the path as the list has it, the absolute path, seconds, class, score.

    `data=segments` reads it.

    Raises:
        VidtrainError: the file cannot be written.
    """

    def __init__(self, file: Path, paths: Sequence[str], class_names: Sequence[str]) -> None:
        self._videos = paths if isinstance(paths, ListedVideos) else ListedVideos(paths)
        self._class_names = class_names
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._handle = open(  # noqa: SIM115 - Path.open has no opener
                file, "w", newline="", encoding="utf-8", errors=EXACT_NAMES, opener=opener
            )
        except OSError as error:
            raise VidtrainError(f"{file}: cannot be written: {error.strerror}") from None
        self._writer = csv.writer(self._handle)
        self._writer.writerow(COLUMNS)

    def add(self, predictions: Predictions) -> None:
        """Write the segments of each video. Raises OSError where they cannot be written."""
        try:
            for row, table in zip(predictions.videos.tolist(), predictions.columns["found"].each(), strict=True):
                names = self._videos.name(row), self._videos.file(row)
                for start, end, label, score in table.tolist():
                    cells = f"{start:.3f}", f"{end:.3f}", self._class_names[int(label)], f"{score:.4f}"
                    self._writer.writerow([*names, *cells])
            self._handle.flush()
        except OSError:
            with suppress(OSError):
                self._handle.close()  # now, or the next attempt would hide this error
            raise

    def close(self) -> None:
        self._handle.close()
