"""How much of a file is missing at its end, by what the container says of its own length.

A copy that was broken off still opens when its index lies at the front, and shows fewer frames. The frames themselves
do not tell; the outermost length fields do:

    MP4, QuickTime    boxes side by side: 4 bytes of size, 4 of type (ISO/IEC 14496-12)
    AVI               RIFF chunks side by side: 4 bytes of type, 4 of size, little-endian
    Matroska, WebM    an EBML header, then one segment: an id, and a size of 1 to 8 bytes (RFC 8794)

Other containers (MPEG streams, FLV) say nothing of their length.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, Final

from vidtrain.tar_members import open_bytes, size_of

_MP4_STARTS: Final = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp")
_MP4_BOXES: Final = (*_MP4_STARTS, b"moof", b"mfra", b"sidx", b"ssix", b"uuid", b"meta", b"emsg", b"prft", b"udta")
_EBML: Final = b"\x1a\x45\xdf\xa3"
_SEGMENT: Final = b"\x18\x53\x80\x67"


def missing_bytes(path: str) -> int:
    """Bytes that the container announces beyond the end of the file; 0 where it says nothing. Raises OSError."""
    return max(0, announced_bytes(path) - size_of(path))


def announced_bytes(path: str) -> int:
    """Bytes that the file has by its container's word; 0 where that says nothing. Raises OSError."""
    with open_bytes(path) as file:
        end = file.seek(0, 2)
        file.seek(0)
        head = file.read(12)
        if head[4:8] in _MP4_STARTS:
            return _mp4(file, end)
        if head[:4] == b"RIFF" and head[8:] == b"AVI ":
            return _avi(file, end)
        if head[:4] == _EBML:
            return _matroska(file)
        return 0


def _mp4(file: BinaryIO, end: int) -> int:
    """Where the last of the boxes ends."""
    offset = 0
    while offset + 8 <= end:
        file.seek(offset)
        size, kind = struct.unpack(">I4s", file.read(8))
        if size == 1:  # the real size follows, in 64 bits
            extended = file.read(8)
            size = struct.unpack(">Q", extended)[0] if len(extended) == 8 else 0
        if size < 8 or kind not in _MP4_BOXES:
            return 0  # up to the end of the file, or something appended that is no box
        offset += size
    return offset


def _avi(file: BinaryIO, end: int) -> int:
    """Where the last of the RIFF chunks ends; a large file has several."""
    offset = 0
    while offset + 8 <= end:
        file.seek(offset)
        kind, size = struct.unpack("<4sI", file.read(8))
        if kind != b"RIFF":
            return offset  # something appended
        if size in (0, 0xFFFFFFFF):
            return 0  # a recording that never was completed
        offset += 8 + size
    return offset


def _matroska(file: BinaryIO) -> int:
    """Where the segment ends; 0 for a live recording, which does not know."""
    file.seek(len(_EBML))
    header = _size(file)
    if header is None:
        return 0
    file.seek(header, 1)
    if file.read(4) != _SEGMENT:
        return 0
    size = _size(file)
    return 0 if size is None else file.tell() + size


def _size(file: BinaryIO) -> int | None:
    """An EBML size: the leading zero bits of the first byte count the bytes that follow; all ones mean unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    rest = file.read(length - 1)
    bits = 7 * length
    value = int.from_bytes(first + rest, "big") & ((1 << bits) - 1)
    return None if len(rest) < length - 1 or value == (1 << bits) - 1 else value
