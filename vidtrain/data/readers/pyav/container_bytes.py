"""A glance at a file's own bytes, for the few questions that PyAV cannot answer cheaply or at all.

MP4 and QuickTime files are trees of boxes: 4 bytes of size, 4 of type, the content. See ISO/IEC 14496-12.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from vidtrain.tar_members import open_bytes

_BOX: Final = struct.Struct(">I4s")
_MP4_STARTS: Final = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp")
_MATROSKA_START: Final = b"\x1a\x45\xdf\xa3"
_MATROSKA_PROJECTION: Final = b"\x76\x70"  # the element that may hold a rotation
_MATROSKA_HEADERS: Final = 64 << 10  # bytes within which the tracks are described
_LARGEST_MOOV: Final = 64 << 20


@dataclass(frozen=True)
class Glance:
    """What the first bytes tell, and in MP4 the box that describes the tracks.

    mp4: MP4, QuickTime and their kin.
    declares_streams: the header lists the streams, so that FFmpeg knows them before it probes packets.
    may_be_turned: False when the container certainly asks for no rotation or mirroring. PyAV tells the display
        matrix only with a decoded picture; False saves decoding one.
    encrypted: a video track is declared as protected.
    """

    mp4: bool = False
    declares_streams: bool = False
    may_be_turned: bool = False
    encrypted: bool = False


def glance(path: str) -> tuple[Glance, bytes | None]:
    """Look at a file without any video library. Raises OSError.

    Returns:
        What was seen, and `movie_box` of an MP4; None for other files.
    """
    with open_bytes(path) as file:
        head = file.read(8)
        if head[:4] == _MATROSKA_START:
            turned = _MATROSKA_PROJECTION in file.read(_MATROSKA_HEADERS)
            return Glance(declares_streams=True, may_be_turned=turned), None
        if head[4:] not in _MP4_STARTS:
            return Glance(), None  # AVI, FLV, MPEG and the like have no place for a rotation
        moov = movie_box(file)
    if moov is None:
        return Glance(mp4=True, declares_streams=True, may_be_turned=True), None
    turned = any(_turns(kind, box) for kind, box in _headers(moov))
    return Glance(mp4=True, declares_streams=True, may_be_turned=turned, encrypted=_protects(moov)), moov


def movie_box(file: BinaryIO) -> bytes | None:
    """The content of the box that describes the tracks, None when it is missing or absurdly large."""
    offset, end = 0, file.seek(0, 2)
    while offset + 8 <= end:
        file.seek(offset)
        size, kind, header = *_BOX.unpack(file.read(8)), 8
        if size == 1:  # the real size follows, in 64 bits
            extended = file.read(8)
            if len(extended) < 8:
                return None
            size, header = struct.unpack(">Q", extended)[0], 16
        elif size == 0:  # up to the end of the file
            size = end - offset
        if size < header:
            return None
        if kind == b"moov":
            return file.read(size - header) if size <= _LARGEST_MOOV else None
        offset += size
    return None


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, content) of the boxes that lie side by side in `data`."""
    offset, last = 0, len(data) - 8
    while offset <= last:
        size, kind = _BOX.unpack_from(data, offset)
        if size < 8:
            return
        yield kind, data[offset + 8 : offset + size]
        offset += size


def _headers(moov: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes that hold a matrix, one of the movie and one of each track; and a packed header, if it is one."""
    for kind, box in boxes(moov):
        if kind == b"trak":
            yield from ((inner, data) for inner, data in boxes(box) if inner == b"tkhd")
        elif kind in (b"mvhd", b"cmov"):
            yield kind, box


def _turns(kind: bytes, box: bytes) -> bool:
    if kind == b"cmov" or not box:
        return True  # a compressed header: let FFmpeg unpack it
    at = (40 if kind == b"tkhd" else 36) + (12 if box[0] == 1 else 0)  # version 1 has 64-bit times
    if len(box) < at + 20:
        return True
    a, b, _, c, d = struct.unpack_from(">5i", box, at)
    return a < 0 or b != 0 or c != 0 or d < 0


def _protects(moov: bytes) -> bool:
    """True when a sample description names its format as encrypted video."""
    at = moov.find(b"stsd")
    while at >= 0:
        if moov[at + 16 : at + 20] == b"encv":
            return True
        at = moov.find(b"stsd", at + 4)
    return False
