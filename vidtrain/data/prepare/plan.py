"""Where the copies go, and which of them are finished: names below the output folder, and the journal.

<output>/copies.jsonl    a line per finished copy: its source (size, time of change), the settings, its own size
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vidtrain.data.jobs.journal import Journal, Stamp, stamp_of
from vidtrain.data.jobs.parts import Part
from vidtrain.data.manifest.files import is_video
from vidtrain.tar_members import name_of
from vidtrain.untrusted_data import as_dataclass, is_below

JOURNAL: Final = "copies.jsonl"


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


def open_journal(output: Path, part: Part | None = None) -> Journal[Copy]:
    """The finished copies of a folder, the last one of each source, whether it still fits or not."""
    return Journal(output / JOURNAL, "source", _read_copy, part=part)


def _read_copy(content: Any) -> Copy:
    copy = as_dataclass(Copy, content)
    if not is_below(copy.target):  # a copy that no longer fits is deleted: nothing elsewhere, whatever the journal says
        raise ValueError(copy.target)
    return copy


def finished(journal: Journal[Copy], source: str, stamp: Stamp | None, settings: Mapping[str, Any]) -> Copy | None:
    """The copy of this source with these settings, if it is whole and on disk."""
    copy = journal.entries.get(source)
    if copy is None or copy.stamp != stamp or copy.settings != settings:
        return None
    found = stamp_of(str(journal.file.parent / copy.target))
    return copy if found is not None and found.size == copy.bytes else None


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
    whole = below_common(sources)
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


def below_common(paths: Sequence[str]) -> list[str]:
    """The paths below the folder they share, with drives and all where they share none; of members their names."""
    if all(name_of(path) != path for path in paths):
        return [name_of(path) for path in paths]
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
