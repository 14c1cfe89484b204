"""predictions.csv: the most probable classes of every video."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any, Final

from vidtrain.runs.growing_csv import GrowingCsv
from vidtrain.tasks.classification import metrics
from vidtrain.tasks.task import Predictions
from vidtrain.types import ListedVideos

_AT_ONCE: Final = 4096  # videos whose classes are sorted together


class PredictionsFile(GrowingCsv):
    """A row per scored video: the path as the list has it, the absolute path, from when to when where rows are segments
    of files (seconds, "" for the end of the file), true class (several: joined by ;), the best classes with their
    probabilities.

    Raises:
        VidtrainError: the file cannot be written.
    """

    def __init__(self, file: Path, paths: Sequence[str], class_names: Sequence[str], top: int = 5) -> None:
        self._videos = paths if isinstance(paths, ListedVideos) else ListedVideos(paths)
        self._class_names = class_names
        self._top = min(top, len(class_names))
        ranks = [name for rank in range(1, self._top + 1) for name in (f"top{rank}", f"prob{rank}")]
        seconds = ["start", "end"] if self._videos.segmented else []
        super().__init__(file, ["path", "file", *seconds, "label", *ranks])

    def add(self, predictions: Predictions) -> None:
        """Write a row for each.

        Raises:
            OSError: they cannot be written.
        """
        columns = predictions.videos, predictions.columns["labels"], predictions.columns["probs"]
        for videos, labels, probs in zip(*(column.split(_AT_ONCE) for column in columns), strict=True):
            best, classes = metrics.best_classes(probs, self._top)
            parts = zip(videos.tolist(), labels.tolist(), classes.tolist(), best.tolist(), strict=True)
            self.write([self._cells(*part) for part in parts])

    def _cells(self, row: int, label: Any, classes: list[int], values: list[float]) -> list[str]:
        best = [x for c, p in zip(classes, values, strict=True) for x in (self._class_names[c], f"{p:.6f}")]
        numbers = [n for n, there in enumerate(label) if there] if isinstance(label, list) else [label]
        true = ";".join(self._class_names[n] for n in numbers if n >= 0)
        seconds = [f"{s:.10g}" if isfinite(s) else "" for s in self._videos.segment(row) or ()]
        return [self._videos.name(row), self._videos.file(row), *seconds, true, *best]
