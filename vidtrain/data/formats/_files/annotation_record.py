"""What annotators say happens when: the segments of one annotation file, whatever wrote it, on their way to rows."""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vidtrain.data.formats._files.text_files import BadRows
from vidtrain.errors import DataError

MOST_BYTES: Final = 1 << 29
"""Of an annotation file: the 200,000 segments of the largest public sets take 60 MB as JSON."""
_CLOCK: Final = re.compile(r"(?:(\d{1,9}):(?=[0-5]?\d:))?(\d{1,9}):([0-5]?\d(?:[.,]\d+)?)")
THOUSANDS: Final = re.compile(r"[1-9]\d{0,2},\d{3}")
WITH_COMMA, WITH_POINT = re.compile(r"[\d:]*\d,\d+"), re.compile(r"[\d:]*\d\.\d+")
NO_LENGTH: Final = "have no length"
POINTS: Final = "are single points in time"


@dataclass(frozen=True, slots=True)
class Annotation:
    """A segment. video: as the file names it. start, end: seconds, or, `frames`, frame numbers from 0, the end not
    included. place: its line or entry. subset: the split that the file says, in its own word, "" for none."""

    video: str
    start: float
    end: float
    label: str
    place: int
    frames: bool = False
    subset: str = ""


@dataclass
class Annotations:
    """The segments of a file as they are read from it.

    bad: takes what cannot be read. entries: places are entries of a JSON, not lines. skipped: what is no segment and
    no mistake either, by the reason. videos: all that the file names, with and without segments; subset by name.
    subset_column: what the file calls the split. notes: what the user should know of the file. decimal_comma: 1,500 is
    one and a half; elsewhere it may as well be 1500, and is refused. own_name: no column names videos, so that
    the file's name is that of its video.
    """

    file: Path
    bad: BadRows
    entries: bool = False
    found: list[Annotation] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    videos: dict[str, str] = field(default_factory=dict)
    subset_column: str = "subset"
    notes: list[str] = field(default_factory=list)
    decimal_comma: bool = False
    own_name: bool = False

    def seconds(self, value: Any) -> float | None:
        """As `seconds_of`; None for 1,500 where it is not known what the comma is."""
        return None if self._is_unclear(value) else seconds_of(value)

    def wrong(self, place: int, shown: str, expected: str, *times: Any) -> None:
        """Note what cannot be read. times: of it, as they stand in the file; one of them may be the reason."""
        if (unclear := next(filter(self._is_unclear, times), None)) is not None:
            text = unclear.strip()
            plain, decimal = text.replace(",", ""), text.replace(",", ".")
            expected = f"{plain} or {decimal} instead of {text!r}, which may be either"
        self.bad.add(self.file, place, shown, expected, entry=self.entries)

    def _is_unclear(self, value: Any) -> bool:
        return not self.decimal_comma and isinstance(value, str) and bool(THOUSANDS.fullmatch(value.strip()))

    def add(
        self,
        times: tuple[Any, Any],
        place: int,
        video: str,
        label: str,
        *,
        frames: bool = False,
        subset: str = "",
        ordered: bool = False,
    ) -> bool:
        """Take a segment; False where it cannot be one.

        Args:
            times: (start, end), text or numbers.
            ordered: an end before the start is a mistake, as in a table that somebody has made; published files have
                a few, which are skipped and counted.
        """
        start, end = map(self.seconds, times)
        if start is None or end is None or not video or not label or (ordered and end < start):
            return False
        self.videos.setdefault(video, subset)
        start = max(start, 0.0)  # some published files begin just before
        if end <= start:
            self.skipped[NO_LENGTH] += 1
        else:
            self.found.append(Annotation(video, start, end, label, place, frames, subset))
        return True


def has_decimal_commas(cells: Sequence[str]) -> bool:
    """Whether the times of a file tell what their commas are: one is like 2,5, which is no thousand, and none has a
    point."""
    commas = list(filter(WITH_COMMA.fullmatch, cells))
    return not all(map(THOUSANDS.fullmatch, commas)) and not any(map(WITH_POINT.fullmatch, cells))


def seconds_of(value: Any) -> float | None:
    """Of 12.5, "12.5", "12,5" or "0:00:12.5" (hours may lack, as in "90:12.5"); None for what is no finite number."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return float(value) if abs(value) <= sys.float_info.max else None  # JSON has whole numbers of any length
    text = str(value).strip()
    if "_" in text:  # which Python reads over
        return None
    clock = _CLOCK.fullmatch(text)
    if clock:
        return 3600 * int(clock[1] or 0) + 60 * int(clock[2]) + float(clock[3].replace(",", "."))
    try:
        found = float(text.replace(",", ".", 1) if text.count(",") == 1 and "." not in text else text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def check_size(file: Path) -> None:
    """Raise DataError for a file that is too large to be an annotation file."""
    try:
        size = file.stat().st_size
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from None
    if size > MOST_BYTES:
        raise DataError(f"{file}: {size} bytes; annotation files of {MOST_BYTES} bytes at most are read")


class Toggles:
    """Starts and stops of states, as BORIS notes them, become segments; a state is who does what in which video."""

    def __init__(self, into: Annotations) -> None:
        self._into = into
        self._open: dict[tuple[str, str, str], tuple[float, int]] = {}

    def note(self, time: Any, place: int, key: tuple[str, str, str], *, starts: bool | None = None) -> bool:
        """A change of a state (video, label, who). starts: whether it begins; None: it is the other of the two."""
        seconds = self._into.seconds(time)
        begun = self._open.get(key)
        if seconds is None or starts is (begun is not None):
            return False
        if begun is None:
            self._open[key] = seconds, place
            return True
        del self._open[key]
        return self._into.add((begun[0], seconds), begun[1], key[0], key[1])

    def close(self) -> None:
        """What has no end is a mistake of the annotator."""
        for (video, label, _), (seconds, place) in self._open.items():
            self._into.wrong(place, f"{video}: {label} from {seconds:g} s", "an end of it, too")
