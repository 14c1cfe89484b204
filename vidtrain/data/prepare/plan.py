"""Where the copies go, and which of them are finished: names below the output folder, and the journal.

    <output>/copies.jsonl    one line a finished copy: its source (size, time of change), the settings, its own size

The journal is only ever appended to, after the copy is safely on disk: a run that is killed loses the line it was at.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from vidtrain.data.files import is_video
from vidtrain.plain import has_types, is_below, parse_json
from vidtrain.runs.atomic import whole_file

JOURNAL: Final = "copies.jsonl"


@dataclass(frozen=True)
class Stamp:
    """What tells that a source has not changed. A folder of pictures: bytes in all and the latest change.

    size: bytes. mtime_ns: nanoseconds. folder: whether it is one.
    """

    size: int
    mtime_ns: int
    folder: bool = False


@dataclass(frozen=True)
class Copy:
    """A finished copy.

    source: absolute path. target: below the output folder, with slashes. settings: all that its pixels depend on.
    bytes: its size. psnr: of its worst frame looked at (dB). note: what is odd about the source, "" for nothing.
    """

    source: str
    stamp: Stamp
    settings: Mapping[str, Any]
    target: str
    bytes: int
    frames: int
    fps: float
    height: int
    width: int
    psnr: float
    note: str


def stamp_of(path: str) -> Stamp | None:
    """The stamp of a file or a folder; None where there is nothing to be read."""
    try:
        found = Path(path).stat()
        if not stat.S_ISDIR(found.st_mode):
            return Stamp(found.st_size, found.st_mtime_ns)
        with os.scandir(path) as entries:
            inside = [entry.stat() for entry in entries]
    except (OSError, ValueError):
        return None
    return Stamp(sum(s.st_size for s in inside), max(s.st_mtime_ns for s in (found, *inside)), folder=True)


def part_of(target: Path) -> Path:
    """Where a copy is written before it is whole: the same name at each try, so that no litter gathers."""
    name = hashlib.blake2b(os.fsencode(target.name), digest_size=8).hexdigest()
    return target.with_name(f".prepare-{name}.part")


class Journal:
    """The finished copies of an output folder."""

    def __init__(self, folder: Path) -> None:
        """Read what is there, and write it again without the lines that are of no use."""
        self._folder = folder
        self._file = folder / JOURNAL
        self._copies: dict[str, Copy] = {}
        if self._file.is_file():
            for line in self._file.read_bytes().splitlines():
                copy = _parse(line)
                if copy is not None:
                    self._copies[copy.source] = copy
        with whole_file(self._file, "w", encoding="ascii") as file:
            file.write("".join(map(_line, self._copies.values())))
        self._out = self._file.open("a", encoding="ascii")

    def finished(self, source: str, stamp: Stamp | None, settings: Mapping[str, Any]) -> Copy | None:
        """The copy of this source with these settings, if it is whole and on disk."""
        copy = self._copies.get(source)
        if copy is None or copy.stamp != stamp or copy.settings != settings:
            return None
        found = stamp_of(str(self._folder / copy.target))
        return copy if found is not None and found.size == copy.bytes else None

    @property
    def copies(self) -> Mapping[str, Copy]:
        """The last copy made of each source, whether it still fits or not."""
        return self._copies

    def add(self, copy: Copy) -> None:
        self._copies[copy.source] = copy
        self._out.write(_line(copy))
        self._out.flush()

    def close(self) -> None:
        self._out.close()


def _line(copy: Copy) -> str:
    # escapes all but ASCII, so that names that are not UTF-8 come through, too
    return json.dumps(asdict(copy)) + "\n"


_TYPES: Final[dict[str, Any]] = {
    **dict.fromkeys(("source", "target", "note"), str),
    **dict.fromkeys(("bytes", "frames", "height", "width"), int),
    "stamp": dict,
    "settings": dict,
    "fps": (int, float),
    "psnr": (int, float),
}


def _parse(line: bytes) -> Copy | None:
    """None for the half line of a run that was killed."""
    try:
        content = parse_json(line)
        if content.keys() != {field.name for field in fields(Copy)} or not has_types(content, **_TYPES):
            return None
        if not is_below(
            content["target"]
        ):  # a copy that no longer fits is deleted: nothing elsewhere, whatever it says
            return None
        return Copy(**{**content, "stamp": Stamp(**content["stamp"])})
    except (ValueError, TypeError, AttributeError):
        return None


def name_copies(
    sources: Sequence[str], folders: Iterable[bool], suffix: str, given: Mapping[str, str], taken: Iterable[str]
) -> dict[str, str]:
    """A path below the output folder for each source, with slashes: that below the sources' common folder.

    The extension gives way to `suffix`. Sources that would get the same name, on a disk that does not tell capitals or
    ways to write an accent apart either, keep their own extension before it; what still agrees is numbered.

    Args:
        sources: absolute paths, unique.
        folders: for each whether it is a folder, whose name has no extension.
        suffix: of the copies, ".mp4".
        given: names of some of the sources, which they keep.
        taken: other names that are in use.
    """
    whole = _below_common(sources)
    short = [_stem(name, folder) + suffix for name, folder in zip(whole, folders, strict=True)]
    count = Counter(map(_key, short))
    used = {_key(name) for name in (*given.values(), *taken)}
    names = dict(given)
    for source, path, choice in zip(sources, whole, short, strict=True):
        if source in given:
            continue
        if count[_key(choice)] > 1 or _key(choice) in used:
            choice, number = path + suffix, 1
            while _key(choice) in used or count[_key(choice)]:
                number += 1
                choice = f"{path}-{number}{suffix}"
        used.add(_key(choice))
        names[source] = choice
    return names


def _below_common(paths: Sequence[str]) -> list[str]:
    """The paths below the folder they share; with drives and all where they share none."""
    folders = {os.path.dirname(path) for path in paths}  # noqa: PTH120 - pathlib is slow for millions
    try:
        common = os.path.join(os.path.commonpath(folders), "") if folders else ""  # noqa: PTH118
    except ValueError:  # on several drives
        common = ""
    names = [path.removeprefix(common).replace(os.sep, "/") for path in paths]
    return [name.replace(":", "").lstrip("/") for name in names] if not common else names


def _stem(name: str, folder: bool) -> str:
    base = name.rpartition("/")[2]
    return name if folder or not is_video(base) else name[: name.rindex(".")]


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
