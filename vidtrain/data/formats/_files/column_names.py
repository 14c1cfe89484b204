"""What tables call their columns: of videos, of when something begins and ends, of labels and splits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

# lower case, with one space for _ - and spaces; the more exact name first
VIDEO: Final = (
    *("media file name", "media file path", "media file", "video path", "clip path", "file path", "filepath", "path"),
    *("filename", "file name", "file", "video id", "video name", "video", "clip name", "clip", "id", "observation id"),
)
START: Final = (
    *("start (s)", "start s", "start sec", "start seconds", "start second", "start timestamp", "start time", "t start"),
    *("begin time ss.msec", "begin time hh:mm:ss.ms", "begin time", "begin", "start", "onset", "from"),
)
END: Final = (
    *("stop (s)", "end (s)", "end s", "end sec", "end seconds", "end second", "stop timestamp", "end timestamp"),
    *("stop time", "end time ss.msec", "end time hh:mm:ss.ms", "end time", "t end", "end", "stop", "offset", "to"),
)
START_FRAME: Final = ("start frame", "frame start", "first frame", "begin frame", "startframe")
END_FRAME: Final = ("end frame", "stop frame", "frame end", "last frame", "endframe")
DURATION: Final = ("duration (s)", "duration seconds", "duration sec", "duration ss.msec", "duration")
LABEL: Final = (
    *("label", "class name", "class", "action", "activity", "behavior", "behaviour", "category", "annotation"),
    *("verb", "event", "action label", "activity label", "tag", "type"),
)
SUBSET: Final = ("split", "subset", "set", "partition")


def find_column(names: Sequence[str], known: Sequence[str]) -> str | None:
    """The first of the known names (START, END ...) that a table has, as the table writes it."""
    plain = [plain_name(name) for name in names]
    return next((names[plain.index(name)] for name in known if name in plain), None)


def plain_name(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().lower()
