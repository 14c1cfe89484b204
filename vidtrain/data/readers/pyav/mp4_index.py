"""The packet table of an MP4 from its own index, without reading the packets.

FFmpeg builds the index from the box that describes the tracks, edit lists included: for each packet its place in the
file, its dts, whether it is a keyframe and whether it is hidden. PyAV tells it from version 16 on. The pts are missing
there; they are the dts plus the offsets of the box `ctts` (ISO/IEC 14496-12, 8.6.1.3), read here. This spares opening
a long video from reading all of it. The table is the one that `packet_table.scan` makes; where that is not certain,
there is none.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import BinaryIO, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from vidtrain.data.readers.pyav.container_bytes import boxes
from vidtrain.data.readers.pyav.frame_times import stuck
from vidtrain.data.readers.pyav.keyframes import HEAD, Worth, keyframe_test, true_keyframes
from vidtrain.data.readers.pyav.opening import OpenFile
from vidtrain.tar_members import open_bytes

_KEYFRAME, _DISCARD = 1, 2  # AVINDEX_KEYFRAME, AVINDEX_DISCARD_FRAME
_MOST_KEYS: Final = 512  # keyframes that are looked at; with more the packets are read
Longs = npt.NDArray[np.int64]


class Index(NamedTuple):
    """One entry for each packet in file order: int64 (N,) and bool (N,).

    false_keys: packets that are marked as keyframes and are none, see `keyframes`; they are not among `key`.
    """

    pts: Longs
    key: npt.NDArray[np.bool_]
    hidden: npt.NDArray[np.bool_]
    false_keys: int


def read_index(file: OpenFile) -> Index | None:
    """The index of a file's stream; None where there is none, or where it may be wrong."""
    movie = file.take_movie()
    offsets = None if movie is None else _offsets(movie, file.stream.id)
    if offsets is None:
        return None
    dts, positions, sizes, flags = file.entries("timestamp", "pos", "size", "flags")
    if not len(dts) or len(offsets) != len(dts):
        return None
    pts = dts + offsets + max(0, -int(offsets.min()))
    if file.stream.codec_context.has_b_frames and (pts[1:] > pts[:-1]).all():
        return None  # the times may be made up in file order
    key, steps = flags & _KEYFRAME > 0, dts[1:] - dts[:-1]
    if (steps <= 0).any() or stuck(steps, file.stream.time_base or Fraction(1)).any():
        return None
    keys = np.flatnonzero(key)
    if len(keys) > _MOST_KEYS:
        return None
    test = keyframe_test(file.stream.codec_context)
    with open_bytes(file.path) as data:
        if (positions + sizes).max() > data.seek(0, 2):
            return None
        worth = {n: test(_head(data, int(positions[n]))) for n in keys.tolist()}
    if not all(mark is Worth.PROVEN for mark in worth.values()):
        key = np.array(true_keyframes(worth.get(n) for n in range(len(key))))
    first = next(file.packets(), None)
    if first is None or (first.pts, first.dts, first.pos) != (pts[0], dts[0], positions[0]):
        file.reopen()
        return None
    return Index(pts, key, flags & _DISCARD > 0, len(keys) - int(key.sum()))


def _head(file: BinaryIO, at: int) -> bytes:
    file.seek(at)
    return file.read(HEAD)


def _offsets(moov: bytes, track: int) -> Longs | None:
    """What to add to each dts of a track; None for anything but a plain table and at most one edit."""
    movie = list(boxes(moov))
    if any(kind == b"mvex" for kind, _ in movie):  # in fragments
        return None
    for kind, trak in movie:
        parts = dict(boxes(trak)) if kind == b"trak" else {}
        header = parts.get(b"tkhd", b"")
        at = 20 if header[:1] == b"\1" else 12
        if len(header) >= at + 4 and struct.unpack_from(">I", header, at)[0] == track:
            if _edits(dict(boxes(parts.get(b"edts", b""))).get(b"elst", b"")) > 1:
                return None
            media = dict(boxes(parts.get(b"mdia", b"")))
            return _composition(dict(boxes(dict(boxes(media.get(b"minf", b""))).get(b"stbl", b""))))
    return None


def _edits(box: bytes) -> int:
    """The edits of a list that show something; there may be a wait before the first."""
    if len(box) < 8:
        return 0
    entry = struct.Struct(">Qq4x" if box[0] == 1 else ">Ii4x")
    count = min(struct.unpack_from(">I", box, 4)[0], (len(box) - 8) // entry.size)
    return sum(entry.unpack_from(box, 8 + n * entry.size)[1] != -1 for n in range(count))


def _composition(table: dict[bytes, bytes]) -> Longs | None:
    """Boxes of the sample table -> int64 (N,)."""
    sizes, runs = table.get(b"stsz", b""), table.get(b"ctts")
    if len(sizes) < 12:
        return None
    count = struct.unpack_from(">I", sizes, 8)[0]
    if runs is None:
        return np.zeros(count, np.int64)
    number = struct.unpack_from(">I", runs, 4)[0]
    if len(runs) < 8 + 8 * number:
        return None
    pairs = np.frombuffer(runs, ">i4", 2 * number, 8).reshape(-1, 2).astype(np.int64)
    if (pairs[:, 0] < 0).any() or pairs[:, 0].sum() != count:
        return None
    return np.repeat(pairs[:, 1], pairs[:, 0])
