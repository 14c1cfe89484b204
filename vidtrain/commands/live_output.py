"""What `vidtrain predict` prints and writes of a stream."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol

import numpy as np
import torch

from vidtrain.commands.live_answers import Answer
from vidtrain.commands.predictor import Predictor
from vidtrain.errors import ConfigError
from vidtrain.live.alarm import Alarm, Alarms
from vidtrain.live.decoding_thread import Capture
from vidtrain.live.latency import Latencies
from vidtrain.live.settings import LiveConfig
from vidtrain.live.sources import StreamSource
from vidtrain.live.windows import LiveWindow
from vidtrain.reports.annotation_files import COLUMNS, clock
from vidtrain.segments import Segment
from vidtrain.tasks.classification.task import Classification
from vidtrain.tasks.segments.online import OnlineSegments
from vidtrain.tasks.segments.task import Segments
from vidtrain.tasks.settings import SegmentsConfig
from vidtrain.terminal import EXACT_NAMES
from vidtrain.types import FilePath

log = logging.getLogger("vidtrain")

_RUNS: Final = 4096  # of a stream, whose times are kept: as many as windows are before a segment is cut


class StreamOptions(Protocol):
    """What of PredictConfig a stream is watched by."""

    live: LiveConfig
    segments: SegmentsConfig
    top: int
    output: FilePath | None
    overlay: bool


class Said:
    """A line of JSON per answer and per alarm on stdout; latency on stderr; both lines and segments in files.

    options: the command's.
    """

    def __init__(self, predictor: Predictor, source: StreamSource, options: StreamOptions) -> None:
        assert isinstance(predictor.task, (Classification, Segments))
        self._names, self._calibration = predictor.class_names, predictor.task.calibration
        self._source = source
        self._live, self._top = options.live, options.top
        self._alarms = Alarms(self._live.alarm)
        self._all, self._since = Latencies(), Latencies()
        self._report_at = time.monotonic() + self._live.report
        self._not_finite = self._covered = self._lost = 0
        self._windows_dropped = self._frames_dropped = 0  # of the whole stream
        self._windows, self._frames = 0, 0  # dropped since the last answer
        self._skips = False
        self._files: LiveFiles | None = None
        if options.output is not None:
            folder = Path(options.output)
            segments = OnlineSegments(self._names, options.segments, multi_label=predictor.task.multi_label)
            timed = source.passes or self._live.drop is True
            self._files = LiveFiles(folder, source.name, segments, timed=timed)

    def __enter__(self) -> Said:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._files is not None:
            self._files.close()

    def dropped(self, windows: int, lost: int) -> None:
        """Windows that the network was not asked about. lost: see Capture."""
        if windows or lost > self._lost:
            self._skips, self._lost = True, lost
            self._windows += windows
            self._windows_dropped += windows

    def seen(self, windows: Sequence[LiveWindow]) -> None:
        """The network is asked about these."""
        for window in windows:
            gap = window.first - self._covered
            if self._skips and gap > 0:
                self._frames += gap
                self._frames_dropped += gap
            self._skips = False
            self._covered = max(self._covered, window.last.number + 1)

    def add(self, answer: Answer | None) -> None:
        """Print an answer, and the alarms that it raises; None: only what is due by the clock."""
        if answer is not None and np.isfinite(answer.probs).all():
            self._say(answer)
        elif answer is not None:
            if not self._not_finite:
                log.warning("%s: the network's output is not finite at %s", self._source.name, clock(answer.end))
            self._not_finite += 1
        if time.monotonic() >= self._report_at:
            self._report_at = time.monotonic() + self._live.report
            log.info("%s: %s", self._source.name, _latency(self._since))
            self._since = Latencies()

    def _say(self, answer: Answer) -> None:
        probs = answer.probs
        best = np.argsort(-probs, kind="stable")[: self._top].tolist()
        latency = time.monotonic() - answer.since
        line: dict[str, Any] = {
            "start": round(answer.start, 3),
            "end": round(answer.end, 3),
            "time": _iso(answer.last.wall),
            "label": self._names[best[0]],
            "prob": _rounded(probs[best[0]]),
            "top": [[self._names[place], _rounded(probs[place])] for place in best],
            "latency_ms": round(1000 * latency, 1),
            "dropped_windows": self._windows,
            "dropped_frames": self._frames,
        }
        if self._calibration.threshold is not None:
            line["unknown"] = bool(self._calibration.rejects(torch.from_numpy(probs)))
        self._windows = self._frames = 0
        self._all.add(latency)
        self._since.add(latency)
        watched = {name: float(probs[self._names.index(name)]) for name in self._live.alarm.classes}
        alarms = [_alarm_line(alarm, answer) for alarm in self._alarms.add(answer.end, watched)]
        lines = [json.dumps(part) for part in (line, *alarms)]
        if self._files is not None:  # before the print, whose reader may have gone
            self._files.add(lines, answer)
        with _named("stdout"):
            print("\n".join(lines), flush=True)

    def summary(self, capture: Capture) -> None:
        """What there was, on stderr."""
        more = [
            (self._windows_dropped, "windows dropped as too late"),
            (self._frames_dropped, "frames dropped with them"),
            (capture.spoiled, "frames that did not decode"),
            (self._not_finite, "windows without a finite output"),
            (capture.opened - 1, "times opened again"),
        ]
        said = "".join(f"; {count} {what}" for count, what in more if count > 0)
        log.info("%s: %d frames, %s%s", self._source.name, capture.number, _latency(self._all), said)


def _latency(latencies: Latencies) -> str:
    count = len(latencies)
    said = f"{count} window{'s' * (count != 1)}"
    if not count:
        return said
    p50, p95 = (1000 * latencies.percentile(share) for share in (0.5, 0.95))
    return f"{said}, latency p50 {p50:.0f} ms, p95 {p95:.0f} ms"


def _rounded(prob: Any) -> float:
    return round(float(prob), 6)


def _iso(wall: float) -> str:
    return datetime.fromtimestamp(wall).astimezone().isoformat(timespec="milliseconds")


def _alarm_line(alarm: Alarm, answer: Answer) -> dict[str, Any]:
    return {
        "alarm": alarm.label,
        "end": round(alarm.seconds, 3),
        "time": _iso(answer.last.wall),
        "prob": _rounded(alarm.prob),
        "windows": alarm.hits,
        "of": alarm.of,
    }


class LiveFiles:
    """windows.jsonl, the lines of stdout, and segments.csv, a row when a segment is certain. Both are added to.

    folder: is there. name: of the stream, in segments.csv. timed: it plays as it happens, so that its seconds have a
    time on the wall; what is read as fast as it can be has none.
    """

    def __init__(self, folder: Path, name: str, segments: OnlineSegments, *, timed: bool) -> None:
        self._name, self._segments, self._timed, self._folder = name, segments, timed, folder
        self._lines = _appended(folder / "windows.jsonl")
        self._rows = _appended(folder / "segments.csv")
        # of each run of the stream, by its first answer: its number, where it begins, the wall's time at second 0
        self._runs: deque[tuple[int, float, float]] = deque(maxlen=_RUNS)
        if not self._rows.tell():
            self._write_row((*COLUMNS, "time"))

    def add(self, lines: Iterable[str], answer: Answer) -> None:
        with _named(self._folder):
            self._lines.writelines(f"{line}\n" for line in lines)
            self._lines.flush()
        last = answer.last
        if (
            not self._runs or last.run != self._runs[-1][0]
        ):  # not by each answer: frames wait differently, times step back
            self._runs.append((last.run, answer.start, last.wall - last.seconds))
        self._write(self._segments.add(answer.start, answer.end, answer.probs, answer.number))

    def close(self) -> None:
        """Also writes the segments that were still open."""
        self._write(self._segments.end())
        with _named(self._folder), self._rows, self._lines:
            pass

    def _write(self, segments: Iterable[Segment]) -> None:
        with _named(self._folder):
            for s in segments:
                times = f"{s.start:.3f}", f"{s.end:.3f}"
                self._write_row((self._name, *times, s.label, f"{s.score:.4f}", self._time(s.start)))
            self._rows.flush()

    def _time(self, seconds: float) -> str:
        """On the wall, by the run that it is in: a segment may be certain only in a later one."""
        if not self._timed:
            return ""
        zeros = [zero for _, start, zero in self._runs if start <= seconds] or [self._runs[0][2]]
        return _iso(zeros[-1] + seconds)

    def _write_row(self, row: Iterable[Any]) -> None:
        line = io.StringIO(newline="")
        csv.writer(line).writerow(row)
        self._rows.write(line.getvalue())


@contextmanager
def _named(where: Path | str) -> Iterator[None]:
    """A full disk is an error without a name where it is found by a write."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(where)
        raise


def _appended(path: Path) -> io.TextIOWrapper:
    """A text file that is added to; not one that a link leads to."""
    if path.is_symlink():
        raise ConfigError(f"{path}: is a link, and lines would be added to where it leads: remove it")

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)

    return open(path, "a", encoding="utf-8", errors=EXACT_NAMES, newline="", opener=opener)
