"""Videos inside tar files. The path of one says where its bytes lie, so that it is one read away from whoever has it:

    /data/shards/train-000003.tar@1536+203984/archery/v_12.mp4
    the tar                       offset and size of the content / its name within

Nothing is unpacked to disk. A tar file is a stranger's: of its headers only names and sizes are used, both bounded;
links, folders, devices and names that lead out of a folder are skipped.
"""

from __future__ import annotations

import io
import os
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt

from vidtrain.errors import DataError
from vidtrain.untrusted_data import is_below

BLOCK: Final = 512
"""Bytes of a header; contents are padded to a multiple of it."""
_PATH: Final = re.compile(r"(.+?\.tar)@([0-9]{1,18})\+([0-9]{1,18})/(.+)", re.DOTALL)
_LARGEST_NAME: Final = 1 << 16  # bytes of the extended headers of a member, which hold its name where that is long
_AHEAD: Final = (3 * BLOCK, BLOCK + 2 * _LARGEST_NAME)  # bytes looked through for a name: those of most, of the longest
_CHANGED: Final = "the tar file has changed since its index was written, which must be made again"
_REGULAR: Final = (b"0", b"\0", b"7")
_WITHOUT_CONTENT: Final = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders, pipes


@dataclass(frozen=True)
class Stretch:
    """Where the bytes of a video lie: `size` bytes of `file` from `start` on; size None: all of the file."""

    file: str
    start: int = 0
    size: int | None = None


@dataclass(frozen=True)
class Member:
    """A file in a tar file: its name there, where its content starts, and its size in bytes."""

    name: str
    start: int
    size: int

    def path(self, tar: str) -> str:
        """What the manifest calls it."""
        return f"{tar}@{self.start}+{self.size}/{self.name}"


def stretch_of(path: str) -> Stretch:
    """Where the bytes of a path lie, which is a file or a member of a tar file."""
    found = _PATH.fullmatch(path) if ".tar@" in path else None
    return Stretch(path) if found is None else Stretch(found[1], int(found[2]), int(found[3]))


def name_of(path: str) -> str:
    """What a member is called in its tar file; of a file its path."""
    found = _PATH.fullmatch(path) if ".tar@" in path else None
    return path if found is None else found[4]


def size_of(path: str) -> int:
    """Bytes of a file or of a member. Raises OSError."""
    stretch = stretch_of(path)
    found = Path(stretch.file).stat().st_size
    return found if stretch.size is None else stretch.size


def open_bytes(path: str, buffering: int = -1) -> BinaryIO:
    """Open a file or a member for reading, as `open(path, "rb", buffering)` does.

    Raises:
        OSError: there is none, or the tar file no longer has this member where the path says.
    """
    stretch = stretch_of(path)
    if stretch.size is None:
        return Path(path).open("rb", buffering)
    raw = Path(stretch.file).open("rb", buffering=0)  # noqa: SIM115 - closed with the window
    try:
        _check(raw, path)
        window = _Window(raw, stretch.start, stretch.size)
    except BaseException:
        raw.close()
        raise
    return window if buffering == 0 else io.BufferedReader(window)  # type: ignore[return-value]


def mapped(path: str) -> npt.NDArray[np.uint8]:
    """The bytes of a file or a member, uint8 (N,), memory-mapped read-only. Raises OSError, as `open_bytes` does."""
    stretch = stretch_of(path)
    shape = None if stretch.size is None else (stretch.size,)
    if shape is not None:
        with Path(stretch.file).open("rb", buffering=0) as raw:
            _check(raw, path)
    return np.memmap(stretch.file, np.uint8, "r", stretch.start, shape).view(np.ndarray)


class _Window(io.RawIOBase):
    """A part of an open file as a file."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if at < 0:
            raise ValueError(f"negative seek position {at}")
        self._at = at
        return at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        view = memoryview(buffer)[: max(0, self._size - self._at)]
        self._file.seek(self._start + self._at)
        got: int = self._file.readinto(view)  # type: ignore[attr-defined]
        self._at += got
        return got

    def close(self) -> None:
        self._file.close()
        super().close()


def _check(file: BinaryIO, path: str) -> None:
    """Raise OSError where the tar file has not the member that the path names."""
    stretch = stretch_of(path)
    start, size = stretch.start, stretch.size or 0

    def before(count: int) -> bytes:
        begin = max(0, start - count)
        file.seek(begin)
        return file.read(start - begin)

    check_header(before, size, name_of(path))
    if file.seek(0, os.SEEK_END) < start + size:
        raise OSError("the tar file is cut off within it")


def check_header(before: Callable[[int], bytes], size: int, name: str) -> None:
    """Raise OSError where there is no header of a file `name` of `size` bytes before a member.

    before: gives so many bytes that end where the content begins, or all up to there. Called again, for more, where the
        header itself has not the name: one that is long, or not ASCII, stands in an extended header before it.
    """
    header = before(BLOCK)
    if not _is_header(header) or header[156:157] not in _REGULAR or _number(header[124:136]) != size:
        raise OSError(_CHANGED)
    extended = chain.from_iterable(_names_in(before(count)[:-BLOCK]) for count in _AHEAD)
    if not any(_is_called(own, name) for own in chain([_name(header)], extended)):
        raise OSError(_CHANGED)


def _is_called(own: str, name: str) -> bool:
    """Whether a name in a tar file is the one in a path, which may have been normalized."""
    return posixpath.normpath(own) == posixpath.normpath(name)


def _names_in(before: bytes) -> Iterator[str]:
    """The names in the extended headers of a member that these bytes end with, the last one first."""
    end = len(before)
    for at in range(end - BLOCK, -1, -BLOCK):
        header = before[at : at + BLOCK]
        kind = header[156:157]
        if kind not in (b"L", b"K", b"x") or not _is_header(header):
            continue
        size = _number(header[124:136])
        if at + BLOCK + -(-size // BLOCK) * BLOCK != end:
            return
        text, end = before[at + BLOCK : at + BLOCK + size], at
        own = text.rstrip(b"\0") if kind == b"L" else _records(text).get(b"path", b"") if kind == b"x" else b""
        if own:
            yield own.decode("utf-8", "surrogateescape")


# ---------------------------------------------------------------- headers


def walk_tar(file: BinaryIO, name: str) -> Iterator[Member]:
    """The files in a tar file (ustar, GNU or PAX, not compressed), in its order, by its headers alone.

    Args:
        file: opened for reading bytes, at its start.
        name: what it is called in messages.

    Raises:
        DataError: not a tar file, cut off, or a member of a kind that cannot be read in place.
    """
    end = file.seek(0, os.SEEK_END)
    at, long_name, sparse, first = 0, "", False, True
    while at + BLOCK <= end:
        file.seek(at)
        header = file.read(BLOCK)
        if not header.strip(b"\0"):
            return  # the end of the archive
        if not _is_header(header):
            what = "not a tar file, or a compressed one" if first else f"damaged at byte {at}"
            raise DataError(f"{name}: {what}; shards must be plain .tar files")
        first = False
        kind, size = header[156:157], _number(header[124:136])
        start = at + BLOCK
        content = 0 if kind in _WITHOUT_CONTENT else size
        if start + content > end:
            raise DataError(f"{name}: is cut off within {_name(header) or 'a member'}: {end} bytes; copy it again")
        if kind in (b"L", b"x"):
            if size > _LARGEST_NAME:
                raise DataError(f"{name}: a name of {size} bytes at byte {at}; at most {_LARGEST_NAME} are read")
            text = file.read(size)
            if kind == b"L":
                long_name = text.rstrip(b"\0").decode("utf-8", "surrogateescape")
            else:
                records = _records(text)
                sparse = any(key.startswith(b"GNU.sparse") for key in records) or b"size" in records
                long_name = records.get(b"path", b"").decode("utf-8", "surrogateescape") or long_name
        elif kind == b"S":
            raise DataError(f"{name}: {_name(header)} is sparse, which cannot be read in place; write the tar again")
        elif kind not in (b"K", b"g"):
            own = (long_name or _name(header)).removeprefix("./")
            if kind in _REGULAR and is_below(own) and not sparse:
                yield Member(own, start, size)
            long_name, sparse = "", False
        at = start + -(-content // BLOCK) * BLOCK
    if first:
        raise DataError(f"{name}: not a tar file: {end} bytes")


def ends_behind(file: BinaryIO, last: Member) -> bool:
    """Whether a tar file ends right behind its last member, without the blocks of zeros that end an archive."""
    return file.seek(0, os.SEEK_END) - last.start - -(-last.size // BLOCK) * BLOCK < BLOCK


def _is_header(header: bytes) -> bool:
    """Whether the checksum of a header is right, and its size a number."""
    if len(header) < BLOCK:
        return False
    claimed = _number(header[148:156])
    return claimed == sum(header) - sum(header[148:156]) + 8 * 0x20 and _number(header[124:136]) >= 0


def _number(field: bytes) -> int:
    """A number of a header: octal digits, or, for what they cannot hold, binary behind a byte of 0x80; -1: none."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    return int(digits, 8) if digits and not digits.strip(b"01234567") else -1 if digits else 0


def _name(header: bytes) -> str:
    name, prefix = header[:100].split(b"\0")[0], header[345:500].split(b"\0")[0]
    if prefix and header[257:263] == b"ustar\0":
        name = prefix + b"/" + name
    return name.decode("utf-8", "surrogateescape")


def _records(text: bytes) -> dict[bytes, bytes]:
    """The records of a PAX header, "LENGTH KEY=VALUE\\n" each, up to one that is damaged."""
    found: dict[bytes, bytes] = {}
    while text:
        digits, space, _ = text.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 7 else 0
        record = text[len(digits) + 1 : length]
        if not space or not record.endswith(b"\n"):
            break
        key, _, value = record[:-1].partition(b"=")
        found[key] = value
        text = text[length:]
    return found
