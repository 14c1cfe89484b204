"""Finding video files on disk: one pass of os.scandir, the same order on every machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

PACK_EXTENSION = ".jpack"
"""Of a video that `vidtrain data prepare` has turned into JPEGs, all in one file."""

VIDEO_EXTENSIONS = (
    PACK_EXTENSION,
    *(".3gp", ".asf", ".avi", ".divx", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
    *(".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
)

_EXTENSIONS = frozenset(VIDEO_EXTENSIONS)
_DIGITS = re.compile(r"(\d+)")


def is_video(name: str) -> bool:
    """Whether a file of this name is taken for a video, by its extension."""
    return name[name.rfind(".") :].lower() in _EXTENSIONS


def natural_key(path: str) -> tuple[object, ...]:
    """Sort key that puts clip2 before clip10, whatever the locale."""
    # the path itself comes last, so that names that differ only in zeros keep one order
    return (*(int(part) if odd % 2 else part for odd, part in enumerate(_DIGITS.split(path))), path)


def list_folders(folder: str | Path) -> list[str]:
    """Names of the folders right below `folder`, hidden ones left out, sorted by code point."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())


def walk_videos(folder: str | Path) -> Iterator[str]:
    """Paths of all videos below `folder`, each starting with `folder`, in the order of the disk.

    Links to folders are followed, each folder once. Hidden files and folders are left out.
    """
    visited: set[tuple[int, int]] = set()
    waiting = [os.fspath(folder)]
    while waiting:
        here = waiting.pop()
        status = Path(here).stat()
        # Windows file systems without file numbers give 0
        if status.st_ino and (status.st_dev, status.st_ino) in visited:
            continue
        visited.add((status.st_dev, status.st_ino))
        with os.scandir(here) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    waiting.append(entry.path)
                elif is_video(entry.name):
                    yield entry.path


def list_videos(folder: str | Path) -> list[str]:
    """Paths of all videos below `folder`, each starting with `folder`, in natural order."""
    return sorted(walk_videos(folder), key=natural_key)


class Disk:
    """Finds files and folders of pictures by listing each folder once: lists name many in few folders."""

    def __init__(self, homes: Sequence[str | Path]) -> None:
        """`homes` are the folders that relative names may start from, in the order they are tried."""
        self._homes = [os.fspath(home) for home in homes]
        self._listed: dict[str, list[tuple[str, frozenset[str]]]] = {}

    def find(self, path: str) -> str | None:
        """Where `path` is, absolute or below one of the homes; None: nowhere."""
        folder, slash, name = path.replace(os.sep, "/").rpartition("/")
        places = self._listed.get(folder)
        if places is None:
            # an absolute folder makes the join forget the home
            heres = [os.path.join(home, folder + slash) for home in self._homes]  # noqa: PTH118 - keeps "./"
            places = self._listed[folder] = [(os.path.join(here, ""), _names_in(here)) for here in heres]  # noqa: PTH118
        for here, names in places:
            if name in names:
                return here + name
        return None


def _names_in(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))  # noqa: PTH208 - as names, not as a Path each
    except OSError:
        return frozenset()
