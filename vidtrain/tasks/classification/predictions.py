"""predictions.csv: the most probable classes of every video."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from vidtrain.errors import VidtrainError
from vidtrain.runs.atomic import opener
from vidtrain.tasks.classification import metrics
from vidtrain.tasks.task import Predictions
from vidtrain.terminal import EXACT_NAMES


class PredictionsFile:
    """A CSV of predictions that grows by a row per scored video, so that what ends the program loses none of them.

    Columns: absolute path, true class (several: joined by ;), the best classes with their probabilities. The file is
    opened at once: where it cannot be written, that shows before the work.

    Raises:
        VidtrainError: the file cannot be written.
    """

    def __init__(self, file: Path, paths: Sequence[str], class_names: Sequence[str], top: int = 5) -> None:
        self.file = file
        self.rows = 0
        self._paths = paths
        self._class_names = class_names
        self._top = min(top, len(class_names))
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._handle = open(  # noqa: SIM115 - Path.open has no opener
                file, "w", newline="", encoding="utf-8", errors=EXACT_NAMES, opener=opener
            )
        except OSError as error:
            raise VidtrainError(f"{file}: cannot be written: {error.strerror}") from None
        self._writer = csv.writer(self._handle)
        ranks = [name for rank in range(1, self._top + 1) for name in (f"top{rank}", f"prob{rank}")]
        self._write([["path", "label", *ranks]])

    def add(self, predictions: Predictions) -> None:
        """Write a row for each.

        Raises:
            OSError: they cannot be written.
        """
        rows = []
        best, numbers_of_best = metrics.best_classes(predictions.columns["probs"], self._top)
        columns = predictions.videos, predictions.columns["labels"], numbers_of_best, best
        for row, label, classes, values in zip(*(column.tolist() for column in columns), strict=True):
            cells = [x for c, p in zip(classes, values, strict=True) for x in (self._class_names[c], f"{p:.6f}")]
            numbers = [n for n, there in enumerate(label) if there] if isinstance(label, list) else [label]
            true = ";".join(self._class_names[n] for n in numbers if n >= 0)
            rows.append([str(Path(self._paths[row]).absolute()), true, *cells])
        self._write(rows)
        self.rows += len(rows)

    def _write(self, rows: Sequence[Sequence[str]]) -> None:
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

    def __enter__(self) -> PredictionsFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
