"""The result of a training run: the table on the terminal, result.json on disk. And what a test has left in its folder,
as everything reads it that draws, compares or publishes."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from vidtrain.errors import DataError
from vidtrain.reports.result_format import RESULT_FORMAT, check_result, check_run
from vidtrain.reports.table import counted, table
from vidtrain.runs.names import PREDICTIONS, PROBABILITIES, RESULT
from vidtrain.terminal import EXACT_NAMES, rate_text
from vidtrain.untrusted_data import check_regular, map_array, read_json


def summary_cells(result: dict[str, Any]) -> dict[str, str]:
    """The cells of the table by column, of the numbers that the run has."""
    test, val, rate = result["test"], result["val"], result["clips_per_second"]
    shown = [(key, title) for key, title in result["titles"].items() if key != "loss"]
    return {
        **{f"test {title}": f"{test[key]:.3f}" for key, title in shown if test and key in test},
        **({"test scored": f"{test['scored']}/{test['listed']}"} if test else {}),
        **{f"val {title}": f"{val[key]:.3f}" for key, title in shown if val and key in val},
        "params": f"{result['params'] / 1e6:.3f} M",
        "clips/s": rate_text(rate) if rate else "",
        "minutes": f"{result['minutes']:.1f}",
    }


def primary(result: dict[str, Any]) -> float | None:
    """The number of a run that a sweeper may optimise, of its test, else of its validation; None without either."""
    scores = result["test"] or result["val"]
    return None if not scores else float(scores[result["primary"]])


def read_result(folder: Path) -> dict[str, Any] | None:
    """What the finished run in `folder` has written; None when it has not finished, or the file is damaged."""
    try:
        result: dict[str, Any] = read_json(folder / RESULT)
        check_run(result)
    except (OSError, ValueError):
        return None
    return result


def scored_line(test: dict[str, Any]) -> str:
    """'scored 65 of 104 (39 not on disk); 16x2 clips at 112 px ...'."""
    why = [f"{test['missing']} not on disk"] if test["missing"] else []
    why += [f"{test['unreadable']} unreadable"] if test["unreadable"] else []
    why += [f"{len(test['not_finite'])} without a finite output"] if test.get("not_finite") else []
    reasons = f" ({', '.join(why)})" if why else ""
    return f"scored {test['scored']} of {test['listed']}{reasons}; {test['protocol']}"


def interval_line(test: dict[str, Any], primary: str, title: str) -> str:
    """'top-1 0.892 (95 % interval 0.80-0.95 over 65 videos)'; "" where there is none."""
    found = test.get("intervals")
    if not found or primary not in found["values"]:
        return ""
    low, high = found["values"][primary]
    return (
        f"{title} {test[primary]:.3f} ({found['level'] * 100:g} % interval {low:.2f}-{high:.2f} "
        f"over {found['count']} {found['over']})"
    )


def scored_sentence(test: dict[str, Any]) -> str:
    """The same as sentences, the notation of the clips explained."""
    return f"S{scored_line(test)[1:]}.{notation_in_words(test['protocol'])}"


def notation_in_words(protocol: str) -> str:
    """' 16x2 clips: 16 frames each, 2 frames of the video apart.'; "" where the protocol counts no frames so."""
    found = re.match(r"(\d{1,9})x(\d{1,9}) clips ", protocol)
    if found is None:
        return ""
    return f" {found[0].strip()}: {found[1]} frames each, {counted(int(found[2]), 'frame')} of the video apart."


def print_result(result: dict[str, Any]) -> None:
    """The table of one run."""
    cells = result["summary"]
    print(table(list(cells), [list(cells.values())]))
    if test := result["test"]:
        key = result["primary"]
        print(*filter(None, (interval_line(test, key, result["titles"][key]), scored_line(test))), sep="\n")
    print(f"checkpoint: {result['checkpoint']}")


# ---------------------------------------------------------------- the files of a test, as anybody may have written them


@dataclass(frozen=True)
class ScoredVideo:
    """A row of predictions.csv.

    path: as the list of the dataset has it, relative to its root. file: the absolute path. start, end: seconds of the
    file where a row is a segment of it, end None for the file's own. labels: its classes, () where unknown. top: the
    most probable classes with their probabilities, the best first.
    """

    path: str
    file: str
    labels: tuple[str, ...]
    top: tuple[tuple[str, float], ...]
    start: float | None = None
    end: float | None = None

    @property
    def key(self) -> tuple[str, float | None, float | None]:
        """Which video it is, in every test of the dataset."""
        return self.path, self.start, self.end


@contextmanager
def opened_test(folder: str | Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folder of a test and its result.json, which is a mapping in today's format and not checked otherwise.

    Raises:
        DataError: there is none; and for every ValueError within.
    """
    folder = Path(folder)
    file = folder / RESULT
    try:
        content = read_json(file)
        if not isinstance(content, dict):
            raise ValueError("expected a mapping")  # noqa: TRY004, TRY301 - one type for all that is wrong
        if content.get("format") != RESULT_FORMAT:
            raise DataError(
                f"{file}: not the result of a test in format {RESULT_FORMAT} (its format: "
                f"{str(content.get('format'))[:40]}): test again, `vidtrain eval checkpoint=...` writes one"
            )
        yield folder, content
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{file}: not the result of a test: {error}") from None


def is_of_segments(content: Mapping[str, Any]) -> bool:
    """Whether a result.json is that of a test with task=segments."""
    return "segment_classes" in content and "multi_label" not in content


@dataclass(frozen=True)
class TestFolder:
    """What a test has left in a folder, RUN/test or the output of `vidtrain eval`: the files of docs/testing.md.

    content: result.json, every part of it of the types and sizes that are described there; a part that the file does
    not have is None in `part`. class_names: (K,).
    """

    __test__: ClassVar[bool] = False  # what pytest asks a class of this name

    folder: Path
    content: Mapping[str, Any]
    class_names: tuple[str, ...]

    def part(self, name: str) -> Any:
        """A part of result.json; None where there is none."""
        return self.content.get(name)

    @property
    def numbers(self) -> dict[str, float]:
        """The metrics by key, those that have a value."""
        counts = ("format", "scored", "listed", "missing", "unreadable")
        return {k: float(v) for k, v in self.content.items() if type(v) in (int, float) and k not in counts}

    @property
    def scored(self) -> int:
        """n, the videos that the numbers are of."""
        return int(self.content["scored"])


@dataclass(frozen=True)
class TestResult(TestFolder):
    """The test of a classification."""

    @classmethod
    def read(cls, folder: str | Path) -> TestResult:
        """Read result.json.

        Raises:
            DataError: there is none, of another format or task, or not as described.
        """
        with opened_test(folder) as (home, content):
            return cls.of(home, content)

    @classmethod
    def of(cls, folder: Path, content: dict[str, Any]) -> TestResult:
        """From `opened_test`, within it."""
        if is_of_segments(content):
            raise DataError(
                f"{folder / 'result.json'}: the test of a run with task=segments, not of a classification: "
                f"`vidtrain report {folder}` shows it"
            )
        check_result(content)
        return cls(folder, content, tuple(content["class_names"]))

    @property
    def multi_label(self) -> bool:
        return bool(self.content["multi_label"])

    @property
    def confusion(self) -> npt.NDArray[np.int64] | None:
        """(K, K), rows are true classes; None of several classes per video, or of more than a thousand."""
        found = self.content.get("confusion")
        return np.array(found, dtype=np.int64) if found else None

    def predictions(self) -> list[ScoredVideo]:
        """The rows of predictions.csv, n of them.

        Raises:
            DataError: they cannot be read.
        """
        file = self.folder / PREDICTIONS
        try:
            check_regular(file)
            with file.open(newline="", encoding="utf-8", errors=EXACT_NAMES) as lines:
                rows = csv.DictReader(lines, strict=True)
                videos = [self._video(row) for row in islice(rows, self.scored + 1)]
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {error.strerror}") from None
        except (csv.Error, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{file}: not the predictions of a test: {error}") from None
        if len(videos) != self.scored:
            raise DataError(f"{file}: result.json says {self.scored} videos, here are {len(videos)} or more")
        return videos

    def _video(self, row: Mapping[str, str]) -> ScoredVideo:
        count, known = sum(name.startswith("prob") for name in row), self._numbers
        top = tuple((row[f"top{n}"], float(row[f"prob{n}"])) for n in range(1, count + 1))
        labels = tuple(filter(None, row["label"].split(";") if self.multi_label else [row["label"]]))
        if unknown := [name for name in (*labels, *(name for name, _ in top)) if name not in known]:
            raise ValueError(f"{unknown[0][:80]!r} is none of the classes")
        start, end = (float(row[name]) if row.get(name) else None for name in ("start", "end"))
        if not all(value is None or 0 <= value < math.inf for value in (start, end)):
            raise ValueError(f"start={row.get('start')} end={row.get('end')}: expected seconds of the file")
        return ScoredVideo(row["path"], row["file"], labels, top, start, end)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.class_names)}

    def labels(self, videos: Sequence[ScoredVideo]) -> npt.NDArray[np.int64]:
        """The class numbers of the rows of `predictions`: (n,), -1 where unknown, or (n, K) of 0 and 1 of a multi-label
        dataset."""
        if not self.multi_label:
            return np.array([self._numbers[v.labels[0]] if v.labels else -1 for v in videos], dtype=np.int64)
        found = np.zeros((len(videos), len(self.class_names)), dtype=np.int64)
        for row, video in enumerate(videos):
            found[row, [self._numbers[name] for name in video.labels]] = 1
        return found

    def probabilities(self) -> npt.NDArray[np.float32]:
        """float32 (n, K), in the order of `predictions`, memory-mapped; values are not looked at.

        Raises:
            DataError: they cannot be read, or are of another shape.
        """
        file, shape = self.folder / PROBABILITIES, (self.scored, len(self.class_names))
        try:
            found = map_array(file)
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise DataError(f"{file}: {error}") from None
        if found.dtype != np.float32 or found.shape != shape:
            raise DataError(f"{file}: {found.dtype} {found.shape}, expected float32 {shape}")
        return found
