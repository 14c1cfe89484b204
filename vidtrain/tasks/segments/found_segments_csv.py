"""The segments that a test has found, in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vidtrain.runs.growing_csv import GrowingCsv
from vidtrain.tasks.task import Predictions
from vidtrain.types import ListedVideos

COLUMNS = ("path", "file", "start", "end", "label", "score")


class SegmentsFile(GrowingCsv):
    """A row per segment: the path as the list has it, the absolute path, seconds, class, score; data=segments reads it.

    Raises:
        VidtrainError: the file cannot be written.
    """

    def __init__(self, file: Path, paths: Sequence[str], class_names: Sequence[str]) -> None:
        self._videos = paths if isinstance(paths, ListedVideos) else ListedVideos(paths)
        self._class_names = class_names
        super().__init__(file, COLUMNS)

    def add(self, predictions: Predictions) -> None:
        """Write the segments of each video. Raises OSError where they cannot be written."""
        for row, table in zip(predictions.videos.tolist(), predictions.columns["found"].each(), strict=True):
            names = self._videos.name(row), self._videos.file(row)
            self.write(
                [*names, f"{start:.3f}", f"{end:.3f}", self._class_names[int(label)], f"{score:.4f}"]
                for start, end, label, score in table.tolist()
            )
