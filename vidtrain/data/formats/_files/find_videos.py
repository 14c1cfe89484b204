"""Finding the videos that lists name wherever they lie, and the videos that a folder holds.

A video is a file, or a folder of images (`00001.jpg`, `img_00001.jpg` ...). A folder whose name is that of a wanted
video is never looked into: 200,000 folders of images are found by listing the one above them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

from vidtrain.data.formats._files.text_files import some
from vidtrain.data.manifest.files import (
    VIDEO_SUFFIXES,
    Visited,
    is_folder,
    is_system,
    is_video,
    natural_key,
    scan,
    suffix_of,
)

IMAGES_PER_SECOND = 30.0
"""The rate that the reader of folders gives to images: lists count images, a manifest counts seconds."""

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_IMAGES = frozenset(IMAGE_EXTENSIONS)


def find_by_name(
    homes: Iterable[str | Path],
    wanted: Container[str],
    *,
    parents: bool = False,
    several: dict[str, list[str]] | None = None,
) -> dict[str, str]:
    """Where the videos of these names are, anywhere below the homes.

    Args:
        homes: folders; a video in an earlier one is taken before one in a later. Those that do not exist are skipped.
        wanted: names without extension.
        parents: the names are `folder/name`, folder being the one that the video is in.
        several: takes all videos of each name that are found, files and folders, by name.

    Returns:
        {name: path}. Of several in one home a file is taken before a folder, then the first by path.
    """
    found: dict[str, str] = {}
    for home in homes:
        if Path(home).is_dir():
            for name, path in _below(os.fspath(home), wanted, parents, several).items():
                found.setdefault(name, path)
    return found


def _below(home: str, wanted: Container[str], parents: bool, several: dict[str, list[str]] | None) -> dict[str, str]:
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    visited = Visited()
    waiting = [home]
    while waiting:
        here = waiting.pop()
        if visited.again(here):
            continue
        above = f"{Path(here).name}/" if parents else ""
        for entry in scan(here):
            name = entry.name
            if is_folder(entry):
                if is_system(name):
                    continue
                if above + name not in wanted:
                    waiting.append(entry.path)
                    continue
                key, into = above + name, folders
            else:
                key, into = above + name[: name.rfind(".")], files
                if key not in wanted or not is_video(name):
                    continue
            if several is not None:
                several.setdefault(key, []).append(entry.path)
            if key not in into or entry.path < into[key]:
                into[key] = entry.path
    return {**folders, **files}


def find_clips(folder: str | Path, skipped: Counter[str]) -> list[tuple[str, int]]:
    """(path, identity) of all videos below `folder`, files and folders of images, in natural order.

    A folder below `folder` that holds images but neither video files nor folders is a video. Files that are no part
    of a video are added to `skipped`, but for hidden ones and those of the system.

    identity: the same number for the same file or folder under any name (links), 0 where the disk has no numbers.
    skipped: files by extension in small letters, "" without one.
    """
    return sorted(_walk_clips(os.fspath(folder), skipped), key=lambda clip: natural_key(clip[0]))


def skipped_note(skipped: Counter[str]) -> list[str]:
    """A note like 'skipped 12 files that are not videos: 8 .txt, 4 .json'; none without such files."""
    if not skipped:
        return []
    kinds = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    shown = some([f"{count} {kind or 'without extension'}" for kind, count in kinds], 8)
    number = skipped.total()
    what = "file that is not a video" if number == 1 else "files that are not videos"
    return [f"skipped {number} {what}: {shown}"]


def _walk_clips(folder: str, skipped: Counter[str]) -> Iterator[tuple[str, int]]:
    visited = Visited()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        if visited.again(here):
            continue
        images: Counter[str] = Counter()
        others = False
        device = Path(here).stat().st_dev
        for entry in scan(here):
            name = entry.name
            suffix = suffix_of(name)
            # images first: folders of them hold thousands, and nothing has to be asked of the disk
            if suffix in _IMAGES:
                images[suffix] += 1
            elif is_folder(entry):
                if not is_system(name):
                    waiting.append(entry.path)
                    others = True
            elif suffix in VIDEO_SUFFIXES:
                yield entry.path, _identity(entry, device)
                others = True
            elif not is_system(name):
                skipped[suffix] += 1
        if images and not others and here != folder:
            status = Path(here).stat()
            yield here, _number(status.st_dev, status.st_ino)
        else:
            skipped.update(images)


def _identity(entry: os.DirEntry[str], device: int) -> int:
    if os.name == "nt":  # would have to open each file
        return 0
    if not entry.is_symlink():
        return _number(device, entry.inode())
    try:
        status = entry.stat()
    except OSError:  # leads nowhere
        return 0
    return _number(status.st_dev, status.st_ino)


def _number(device: int, inode: int) -> int:
    return device << 64 | inode if inode else 0
