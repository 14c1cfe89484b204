"""Finding video files on disk: one pass of os.scandir, the same order on every machine."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vidtrain.errors import DataError
from vidtrain.remote import check_url, is_url

PACK_EXTENSION = ".jpack"
"""Of a video that `vidtrain data prepare` has turned into JPEGs, all in one file."""

VIDEO_EXTENSIONS = (
    PACK_EXTENSION,
    *(".264", ".265", ".3g2", ".3gp", ".amv", ".asf", ".avi", ".bik", ".cavs", ".dav", ".dif", ".divx", ".drc"),
    *(".dv", ".dvr-ms", ".evo", ".f4v", ".flc", ".fli", ".flv", ".gif", ".gxf", ".h261", ".h263", ".h264", ".h265"),
    *(".hevc", ".insv", ".ismv", ".ivf", ".lrv", ".m1v", ".m2p", ".m2t", ".m2ts", ".m2v", ".m4v", ".mj2", ".mjpeg"),
    *(".mjpg", ".mk3d", ".mkv", ".mod", ".mov", ".mp2v", ".mp4", ".mpe", ".mpeg", ".mpg", ".mpv", ".mqv", ".mts"),
    *(".mxf", ".nsv", ".nut", ".nuv", ".obu", ".ogg", ".ogm", ".ogv", ".ogx", ".qt", ".rm", ".rmvb", ".roq", ".smk"),
    *(".tod", ".trp", ".ts", ".vc1", ".vob", ".vro", ".webm", ".wmv", ".wtv", ".xvid", ".y4m"),
)
"""Names of what ffmpeg reads as video. Not .dat and .bin, which are anything, nor .swf and .webp, which seldom move."""

VIDEO_SUFFIXES = frozenset(VIDEO_EXTENSIONS)
_DIGITS = re.compile(r"(\d+)")
# what network drives, operating systems and archivers put beside files; compared in small letters
_SYSTEM_NAMES = frozenset(
    (
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@sharebin", "@tmp"),
        *("__macosx", "$recycle.bin", "recycler", "system volume information", "lost+found", "network trash folder"),
        *("recycled", "__pycache__", "temporary items", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    )
)


def suffix_of(name: str) -> str:
    """ ".mp4" of "a.MP4", "" of a name without a dot."""
    dot = name.rfind(".")
    return name[dot:].lower() if dot >= 0 else ""


def is_video(name: str) -> bool:
    """Whether a file of this name is taken for a video, by its extension."""
    return suffix_of(name) in VIDEO_SUFFIXES


def natural_key(path: str) -> tuple[object, ...]:
    """Sort key that puts clip2 before clip10, whatever the locale."""
    parts: list[Any] = [*_DIGITS.split(path), path]  # the path last: names that differ only in zeros keep one order
    parts[1:-1:2] = map(int, parts[1:-1:2])
    return tuple(parts)


def is_system(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or belongs to the system and not to the dataset."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def scan(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """What lies in `folder` but for hidden files and folders.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    yield entry
    except OSError as error:
        raise DataError(f"{os.fspath(folder)}: cannot be read: {error.strerror or error}") from None


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or leads to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, or a disk that does not answer
        return False


def list_folders(folder: str | Path) -> list[str]:
    """Names of the folders right below `folder`, without hidden and system ones, sorted by code point."""
    return sorted(entry.name for entry in scan(folder) if is_folder(entry) and not is_system(entry.name))


class Visited:
    """Recognises folders that were seen before: links may lead back."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, int]] = set()

    def again(self, folder: str) -> bool:
        """Whether `folder` was asked for before, under this name or another."""
        status = Path(folder).stat()
        key = (status.st_dev, status.st_ino)
        # Windows file systems without file numbers give 0
        if status.st_ino and key in self._seen:
            return True
        self._seen.add(key)
        return False


def walk_videos(folder: str | Path) -> Iterator[str]:
    """Paths of all videos below `folder`, each starting with `folder`, in the order of the disk.

    Links to folders are followed, each folder once. Hidden and system files and folders are skipped.
    """
    visited = Visited()
    waiting = [os.fspath(folder)]
    while waiting:
        here = waiting.pop()
        if visited.again(here):
            continue
        for entry in scan(here):
            if is_folder(entry):
                if not is_system(entry.name):
                    waiting.append(entry.path)
            elif is_video(entry.name):
                yield entry.path


def list_videos(folder: str | Path) -> list[str]:
    """Paths of all videos below `folder`, each starting with `folder`, in natural order."""
    return sorted(walk_videos(folder), key=natural_key)


class Disk:
    """Finds files and folders of images by listing each folder once: lists name many in few folders.

    A name that is nowhere as it is written is looked for with / in place of \\ (lists made on Windows), and in other
    Unicode forms of the same letters (macOS takes letters and accents apart); `notes` says so.
    """

    def __init__(self, homes: Sequence[str | Path]) -> None:
        """`homes` are the folders that relative names may start from, in the order they are tried.

        Where one of them is in a store all relative names of videos start there.
        """
        self._homes = [os.fspath(home) for home in homes]
        self._store = next((home.rstrip("/") for home in self._homes if is_url(home)), None)
        self._listed: dict[str, list[tuple[str, frozenset[str]]]] = {}
        self._composed: dict[str, dict[str, str]] = {}
        self._respelt: dict[str, list[str]] = {"\\ for /": [], "another Unicode form (NFC, NFD)": []}

    def find(self, path: str) -> str | None:
        """Where `path` is, absolute or below one of the homes, ~ being the user's home; None: nowhere.

        An address in a store is taken to be there: asking for each would take a list of any length hours.
        """
        if "://" in path and is_url(path):
            check_url(path)
            return path
        if self._store is not None:
            return f"{self._store}/{path}" if is_video(path) else None
        found = self._find_as_written(path)
        if found is not None:
            return found
        backslashes, unicode_form = self._respelt.values()
        slashed = path.replace("\\", "/") if os.sep == "/" else path
        if slashed != path and (found := self._find_as_written(slashed)) is not None:
            backslashes.append(path)
        elif not path.isascii() and (found := self._find_composed(unicodedata.normalize("NFC", slashed))) is not None:
            unicode_form.append(path)
        return found

    def notes(self, what: str) -> list[str]:
        """What the names looked like that were found in another spelling; `what` is the split or the list."""
        return [
            f"{what}: {len(names)} paths are written with {how} and were found so (first: {names[0]})"
            for how, names in self._respelt.items()
            if names
        ]

    def _find_as_written(self, path: str) -> str | None:
        folder, slash, name = path.replace(os.sep, "/").rpartition("/")
        places = self._listed.get(folder)
        if places is None:
            # an absolute folder makes the join forget the home
            there = os.path.expanduser(folder) if folder.startswith("~") else folder  # noqa: PTH111
            heres = [os.path.join(home, there + slash) for home in self._homes]  # noqa: PTH118 - keeps "./"
            places = self._listed[folder] = [(os.path.join(here, ""), _names_in(here)) for here in heres]  # noqa: PTH118
        for here, names in places:
            if name in names:
                return here + name
        return None

    def _find_composed(self, path: str) -> str | None:
        """Where a path in the form NFC is, each part of it in whatever form the disk has it."""
        for home in self._homes:
            here = os.path.join(home, "") if not path.startswith("/") else ""  # noqa: PTH118
            for part in path.split("/"):
                if not part or part in (".", ".."):
                    here += f"{part}/"
                    continue
                names = self._composed.get(here)
                if names is None:
                    there = _names_in(here)
                    names = self._composed[here] = {unicodedata.normalize("NFC", name): name for name in there}
                if part not in names:
                    break
                here += f"{names[part]}/"
            else:
                return here.rstrip("/")
        return None


def _names_in(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))  # noqa: PTH208 - as names, not as a Path each
    except (OSError, ValueError):  # a name with a zero byte
        return frozenset()
