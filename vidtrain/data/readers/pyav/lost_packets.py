"""Where a file has lost packets whole, which no decoder notices when those that are left fit together.

    MPEG-TS   each stream counts its transport packets, modulo 16 (ISO/IEC 13818-1, 2.4.3): a number that is skipped
              is a hole, and so is a packet that does not start with the synchronisation byte or is marked as erroneous.
              A gap between two whole frames is a joint (`cat a.ts b.ts`): it spoils only what refers across it. A joint
              of two codecs is an error
    AVI       the index at the end of the file names packets that are not found where they should be
    AVI, Matroska, FLV    a packet is followed by zeros where the header of something else is due, or in AVI by anything
              that is not the four letters of a chunk

Otherwise Matroska, FLV and program streams say nothing of the kind; what the codec says: `frame_numbers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from vidtrain.data.readers.pyav.damaged_packets import crc32_remainder
from vidtrain.data.readers.pyav.opening import OpenFile
from vidtrain.data.readers.pyav.truncation import announced_bytes
from vidtrain.errors import VideoError
from vidtrain.tar_members import mapped

Longs = npt.NDArray[np.int64]

_SYNC: Final = 0x47
_PACKET: Final = 188
_LAYOUTS: Final = ((0, 188), (4, 192), (0, 204))  # (bytes before the packet, distance): plain, Blu-ray, with parity
_PROGRAM_MAP: Final = 2  # table_id
_STREAM_TYPES: Final = {  # MPEG-1 and -2 have one decoder
    0x01: "MPEG-2",
    0x02: "MPEG-2",
    0x10: "MPEG-4",
    0x1B: "H.264",
    0x24: "HEVC",
    0x33: "VVC",
    0x42: "AVS",
    0xD1: "Dirac",
    0xD2: "AVS2",
    0xD4: "AVS3",
    0xEA: "VC-1",
}
_AVI_CHUNK_HEADER: Final = 8  # bytes; the index points to it, the packet's position is behind it
_BEFORE_DATA: Final = {"avi": 0, "matroska": 4, "flv": 16}  # bytes from a packet's position to its data, at most
_HEADER: Final = 16  # bytes in which the next header begins
_LETTERS: Final = np.array([(chr(byte).isascii() and chr(byte).isalnum()) or byte == 32 for byte in range(256)])
_HEAD: Final = 6  # bytes of a packet that are looked at
_CHUNK: Final = 1 << 16  # packets at a time
_FIRST: Final = 5  # packets that a layout has to fit


class Holes(NamedTuple):
    """Packets behind which others may be missing, by their numbers.

    damaged: those that may themselves lack a part.
    joints: those that are whole.
    skips: those behind which the frames' own numbers skip some, see `frame_numbers`.
    """

    damaged: frozenset[int] = frozenset()
    joints: frozenset[int] = frozenset()
    skips: frozenset[int] = frozenset()

    @property
    def all(self) -> frozenset[int]:
        return self.damaged | self.joints | self.skips

    @property
    def only_joints(self) -> bool:
        """FFmpeg takes a joint for damage, and marks the packets next to it as corrupt."""
        return bool(self.joints) and not self.damaged


NO_HOLES: Final = Holes()


def find_holes(file: OpenFile, positions: Sequence[int | None], sizes: Sequence[int], index: Longs) -> Holes:
    """The packets that are damaged by a hole or precede one.

    Args:
        file: whose stream has been read to its end.
        positions: where each packet lies in the file, in file order; None where that is not known.
        sizes: their bytes.
        index: where FFmpeg's index of the stream has packets; empty where it is not known.

    Raises:
        VideoError: an MPEG-TS whose stream goes on in another codec; FFmpeg decodes nothing of that, or garbage.
    """
    name = file.container.format.name
    if name == "mpegts":
        holes, joints = _transport_holes(file.path, file.stream.id)
    else:
        holes, joints = _without_successor(file, positions, sizes), np.zeros(0, np.int64)
        if name == "avi":
            holes = np.union1d(holes, lost) if len(lost := _not_found(index, positions)) else holes
    if not len(holes) + len(joints):
        return NO_HOLES
    starts = np.maximum.accumulate([-1 if at is None else at for at in positions])
    damaged, whole = (
        frozenset((np.searchsorted(starts, offsets, side="right") - 1).clip(0).tolist()) for offsets in (holes, joints)
    )
    return Holes(damaged, whole - damaged)


def _transport_holes(path: str, stream: int) -> tuple[Longs, Longs]:
    """Byte offsets at which a stream's transport packets do not follow each other: holes, and joints.

    Raises:
        VideoError: the stream goes on in another codec.
    """
    data = mapped(path)
    for before, step in _LAYOUTS:
        count = (len(data) - before - _PACKET) // step + 1
        if count >= _FIRST and (data[before : before + _FIRST * step : step] == _SYNC).all():
            break
    else:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    heads = np.lib.stride_tricks.as_strided(data[before:], (count, _HEAD), (step, 1), writeable=False)
    tables = set[bytes]()
    lost, mine, ours = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros((0, _HEAD), np.uint8)]
    for first in range(0, count, _CHUNK):
        head = np.array(heads[first : first + _CHUNK])
        fine = (head[:, 0] == _SYNC) & (head[:, 1] < 0x80)
        lost.append(first + np.flatnonzero(~fine & np.append(True, fine[:-1])))  # where each run of them begins
        # Without an adaptation field, and at the beginning of a section.
        begins = fine & (head[:, 1] & 0x40 > 0) & (head[:, 3] & 0x30 == 0x10) & (head[:, 4] == 0)
        for row in (first + np.flatnonzero(begins & (head[:, 5] == _PROGRAM_MAP))).tolist():
            tables.add(data[before + row * step + _HEAD - 1 : before + row * step + _PACKET].tobytes())
        # With a payload; packets without do not count.
        rows = np.flatnonzero(fine & ((head[:, 1] & 0x1F) == stream >> 8) & (head[:, 2] == stream & 0xFF))
        head = head[rows]
        has_payload = head[:, 3] & 0x10 > 0
        mine.append(first + rows[has_payload])
        ours.append(head[has_payload])
    codecs = {_STREAM_TYPES[kind] for table in tables if (kind := _stream_type(table, stream)) in _STREAM_TYPES}
    if len(codecs) > 1:
        reason = f"recordings of different codecs are joined in it ({', '.join(sorted(codecs))})"
        raise VideoError(path, f"{reason}, and only one of them would be read: convert each before joining them")
    packets, head = np.concatenate(mine), np.concatenate(ours)
    counters, begins = head[:, 3] & 0x0F, head[:, 1] & 0x40 > 0
    has_field = (head[:, 3] & 0x20 > 0) & (head[:, 4] > 0)
    announced = has_field & (head[:, 5] & 0x80 > 0)
    steps = np.diff(counters) % 16
    jumps = (steps > 1) & ~announced[1:]  # 0 repeats a packet, which is allowed
    # The last transport packet of a frame is filled up with stuffing; one in its middle is full.
    fields = 1 + 6 * (head[:, 5] >> 4 & 1) + 6 * (head[:, 5] >> 3 & 1) + (head[:, 5] >> 2 & 1)
    ends = has_field & (head[:, 5] & 0x03 == 0) & (head[:, 4] > fields)
    whole = ends[:-1] & begins[1:]
    joints = np.flatnonzero((jumps | (steps == 0)) & whole)
    fresh = np.flatnonzero(jumps & ~whole & begins[1:] & (counters[1:] == 0))
    begun = [n for n in fresh.tolist() if _begins(heads, packets[n] + 1, packets[n + 1])]
    joints = np.append(joints, np.array(begun, np.int64))
    holes = np.setdiff1d(np.flatnonzero(jumps), joints)
    return before + step * np.union1d(np.concatenate(lost), packets[holes]), before + step * packets[joints]


def _stream_type(table: bytes, stream: int) -> int:
    """What the table of a program says of a stream (ISO/IEC 13818-1, 2.4.4.8); -1 for nothing, or if it is damaged."""
    end = 3 + (int.from_bytes(table[1:3], "big") & 0xFFF)
    if end > len(table) or crc32_remainder(table[:end], 0xFFFFFFFF):
        return -1
    end -= 4
    at = 12 + (int.from_bytes(table[10:12], "big") & 0xFFF)
    while at + 5 <= end:
        if int.from_bytes(table[at + 1 : at + 3], "big") & 0x1FFF == stream:
            return table[at]
        at += 5 + (int.from_bytes(table[at + 3 : at + 5], "big") & 0xFFF)
    return -1


def _begins(heads: npt.NDArray[np.uint8], first: int, last: int) -> bool:
    """Whether another recording begins in a stretch of transport packets: with the table of programs, number 0."""
    head = heads[first:last]
    return bool(((head[:, 1] & 0x1F == 0) & (head[:, 2] == 0) & (head[:, 3] & 0x0F == 0)).any())


def _without_successor(file: OpenFile, positions: Sequence[int | None], sizes: Sequence[int]) -> Longs:
    """Byte offsets of packets behind which no header follows."""
    before = next((size for name, size in _BEFORE_DATA.items() if file.container.format.name.startswith(name)), None)
    if before is None or None in positions or not positions:
        return np.zeros(0, np.int64)
    starts, data = np.array(positions, np.int64), mapped(file.path)
    ends = starts + np.array(sizes, np.int64) + before
    inside = ends + _HEADER <= len(data)
    found, ends = np.zeros(len(starts), bool), ends[inside]
    if before == 0:  # AVI, where an odd chunk may have a byte of padding
        first, *inner, last = (_LETTERS[data[ends + n]] for n in range(5))
        found[inside] = ~((first | last) & inner[0] & inner[1] & inner[2])
    else:
        found[inside] = _only_zeros(data, ends)
    if found[-1] and 0 < announced_bytes(file.path) <= ends[-1] + _HEADER:
        found[-1] = False  # zeros behind the end of the container
    return starts[found]


def _only_zeros(data: npt.NDArray[np.uint8], begins: Longs) -> npt.NDArray[np.bool_]:
    """Whether a header's length of zeros stands at each of these places."""
    zeros = np.ones(len(begins), bool)
    for n in range(_HEADER):
        zeros &= data[begins + n] == 0
        if not zeros.any():
            break
    return zeros


def _not_found(index: Longs, positions: Sequence[int | None]) -> Longs:
    """Byte offsets of packets that the index has and the file has not."""
    found = np.array([at for at in positions if at is not None], np.int64) - _AVI_CHUNK_HEADER
    if np.array_equal(index, found):
        return np.zeros(0, np.int64)
    lost = ~np.isin(index, found)
    if lost[:1].all():  # no index, or one that counts from elsewhere
        return np.zeros(0, np.int64)
    return np.union1d(index[lost], index[:-1][lost[1:]])  # the packet before may have lost its end
