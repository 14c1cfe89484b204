"""Finding the videos that lists name wherever they lie, and the videos that a folder holds.

A video is a file, or a folder of pictures (`00001.jpg`, `img_00001.jpg` ...). A folder whose name is that of a wanted
video is never looked into: 200,000 folders of pictures are found by listing the one above them.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

from vidtrain.data.files import is_video, natural_key

PICTURES_PER_SECOND = 30.0
"""The rate that the reader of folders gives to pictures: lists count pictures, a manifest counts seconds."""

PICTURE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def find_by_name(homes: Iterable[str | Path], wanted: Container[str], *, parents: bool = False) -> dict[str, str]:
    """Where the videos of these names are, anywhere below the homes.

    Args:
        homes: folders; a video in an earlier one is taken before one in a later. Those that do not exist are skipped.
        wanted: names without extension.
        parents: the names are `folder/name`, folder being the one that the video is in.

    Returns:
        {name: path}. Of several in one home a file is taken before a folder, then the first by path.
    """
    found: dict[str, str] = {}
    for home in homes:
        if Path(home).is_dir():
            for name, path in _below(os.fspath(home), wanted, parents).items():
                found.setdefault(name, path)
    return found


def _below(home: str, wanted: Container[str], parents: bool) -> dict[str, str]:
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    visited = _Visited()
    waiting = [home]
    while waiting:
        here = waiting.pop()
        if visited.again(here):
            continue
        above = f"{Path(here).name}/" if parents else ""
        with os.scandir(here) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    continue
                if entry.is_dir():
                    if above + name not in wanted:
                        waiting.append(entry.path)
                        continue
                    key, into = above + name, folders
                else:
                    key, into = above + name[: name.rfind(".")], files
                    if key not in wanted or not is_video(name):
                        continue
                if key not in into or entry.path < into[key]:
                    into[key] = entry.path
    return {**folders, **files}


def list_clips(folder: str | Path) -> list[str]:
    """Paths of all videos below `folder`, files and folders of pictures, in natural order.

    A folder below `folder` that holds pictures but neither video files nor folders is a video.
    """
    return sorted(_walk_clips(os.fspath(folder)), key=natural_key)


def _walk_clips(folder: str) -> Iterator[str]:
    visited = _Visited()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        if visited.again(here):
            continue
        pictures = others = False
        with os.scandir(here) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    continue
                # pictures first: folders of them hold thousands, and nothing has to be asked of the disk
                if name.lower().endswith(PICTURE_EXTENSIONS):
                    pictures = True
                elif entry.is_dir():
                    waiting.append(entry.path)
                    others = True
                elif is_video(name):
                    yield entry.path
                    others = True
        if pictures and not others and here != folder:
            yield here


class _Visited:
    """Tells folders that were seen before: links may lead back."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, int]] = set()

    def again(self, folder: str) -> bool:
        status = Path(folder).stat()
        key = (status.st_dev, status.st_ino)
        # Windows file systems without file numbers give 0
        if status.st_ino and key in self._seen:
            return True
        self._seen.add(key)
        return False
