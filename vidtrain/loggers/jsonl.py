"""metrics.jsonl: the numbers of a run, for programs."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from vidtrain.loggers.logger import LoggedRun, Logger, cannot_write
from vidtrain.runs.atomic import whole_file
from vidtrain.runs.names import METRICS_LOG
from vidtrain.untrusted_data import parse_json

log = logging.getLogger("vidtrain")


class JsonLines(Logger):
    """One object per line: kind (train, train_epoch, val), update, epoch, time, and the values by name.

    When a run is resumed at update u, the lines after u are dropped, since those updates are made again. What a full
    disk does not take is kept, and written when there is room again.
    """

    output = METRICS_LOG

    def __init__(self) -> None:
        self._file: TextIO | None = None
        self._folder = Path()
        self._warned = False

    def start(self, run: LoggedRun) -> None:
        self._folder = run.folder
        file = run.folder / self.output
        if run.resumed_at is not None and file.is_file():
            _drop_after(file, *run.resumed_at)
        self._file = file.open("w" if run.resumed_at is None else "a", encoding="utf-8")

    def scalars(self, kind: str, update: int, epoch: float, values: dict[str, float]) -> None:
        head = {"kind": kind, "update": update, "epoch": round(epoch, 4), "time": round(time.time(), 3)}
        line = json.dumps({**head, **values}) + "\n"
        with self._trying_again():
            if self._file is not None:
                self._file.write(line)
                self._file.flush()  # what a full disk has not taken stays in its buffer, and comes with the next line

    def close(self) -> None:
        with self._trying_again():
            if self._file is not None:
                self._file.close()

    @contextmanager
    def _trying_again(self) -> Iterator[None]:
        """Log an error of the disk once; the next line may find room."""
        try:
            yield
        except OSError as error:
            if not self._warned:
                self._warned = True
                log.warning("%s", cannot_write(self.output, self._folder, error))


def _drop_after(file: Path, update: int, epoch: int) -> None:
    """Keep what was written up to `update`, and of whole epochs what belongs to the first `epoch` ones.

    Damaged lines are skipped; the file as it was is then kept beside it. The last line may be half written.
    """
    kept, damaged = [], 0
    lines = file.read_bytes().decode("utf-8", "replace").split("\n")
    for line in lines[:-1]:
        try:
            record = parse_json(line)
            within = record["update"] <= update and (record["kind"] == "train" or record["epoch"] <= epoch)
        except (ValueError, KeyError, TypeError):
            damaged += 1
            continue
        if within:
            kept.append(line + "\n")
    if damaged:
        aside = file.with_suffix(".damaged.jsonl")
        file.replace(aside)
        log.warning("%s: %d damaged lines are skipped; the file as it was is kept as %s", file, damaged, aside.name)
    with whole_file(file, "w", encoding="utf-8") as out:
        out.writelines(kept)
