"""Where a file has lost packets whole, which no decoder notices when those that are left fit together.

    MPEG-TS   each stream counts its transport packets, modulo 16 (ISO/IEC 13818-1, 2.4.3): a number that is left out
              is a hole, and so is a packet that does not start with the synchronisation byte or is marked as erroneous
    AVI       the index at the end of the file names packets that are not found where they should be

Matroska and program streams say nothing of the kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from vidtrain.data.readers.opening import OpenFile

_SYNC: Final = 0x47
_PACKET: Final = 188
_LAYOUTS: Final = ((0, 188), (4, 192), (0, 204))  # (bytes before the packet, distance): plain, Blu-ray, with parity
_AVI_CHUNK_HEADER: Final = 8  # bytes; the index points to it, the packet's position is behind it
_HEAD: Final = 6  # bytes of a packet that are looked at
_CHUNK: Final = 1 << 16  # packets at a time
_FIRST: Final = 5  # packets that a layout has to fit


def after_holes(file: OpenFile, positions: Sequence[int | None]) -> list[int]:
    """The packets that are damaged by a hole or precede one.

    Args:
        file: whose stream has been read to its end.
        positions: where each packet lies in the file, in file order; None where that is not known.
    """
    name = file.container.format.name
    if name == "mpegts":
        holes = _transport_holes(file.path, file.stream.id)
    elif name == "avi":
        holes = _not_found(file, positions)
    else:
        return []
    if not len(holes):
        return []
    starts = np.maximum.accumulate([-1 if at is None else at for at in positions])
    return np.unique(np.searchsorted(starts, holes, side="right") - 1).clip(0).tolist()


def _transport_holes(path: str, stream: int) -> npt.NDArray[np.int64]:
    """Byte offsets at which a stream's transport packets do not follow each other."""
    data = np.memmap(path, np.uint8, "r")
    for before, step in _LAYOUTS:
        count = (len(data) - before - _PACKET) // step + 1
        if count >= _FIRST and (data[before : before + _FIRST * step : step] == _SYNC).all():
            break
    else:
        return np.zeros(0, np.int64)
    heads = np.lib.stride_tricks.as_strided(data[before:], (count, _HEAD), (step, 1), writeable=False)
    lost, mine, counters, free = [np.zeros(0, np.int64)], [], [], []
    for first in range(0, count, _CHUNK):
        head = np.array(heads[first : first + _CHUNK])
        fine = (head[:, 0] == _SYNC) & (head[:, 1] < 0x80)
        lost.append(first + np.flatnonzero(~fine & np.append(True, fine[:-1])))  # where each run of them begins
        # With a payload; packets without do not count.
        rows = np.flatnonzero(fine & ((head[:, 1] & 0x1F) == stream >> 8) & (head[:, 2] == stream & 0xFF))
        head = head[rows]
        has_payload = head[:, 3] & 0x10 > 0
        mine.append(first + rows[has_payload])
        head = head[has_payload]
        counters.append(head[:, 3] & 0x0F)
        free.append((head[:, 3] & 0x20 > 0) & (head[:, 4] > 0) & (head[:, 5] & 0x80 > 0))  # a jump is announced
    ours, steps = np.concatenate(mine), np.diff(np.concatenate(counters)) % 16
    jumps = (steps > 1) & ~np.concatenate(free)[1:]  # 0 repeats a packet, which is allowed
    return before + step * np.union1d(np.concatenate(lost), ours[:-1][jumps])


def _not_found(file: OpenFile, positions: Sequence[int | None]) -> npt.NDArray[np.int64]:
    """Byte offsets of packets that the index has and the file has not; PyAV tells the index from version 16 on."""
    index = np.array([entry.pos for entry in getattr(file.stream, "index_entries", ())], np.int64)
    found = np.array([at for at in positions if at is not None], np.int64) - _AVI_CHUNK_HEADER
    return np.setdiff1d(index, found) if np.isin(index[:1], found).all() else np.zeros(0, np.int64)
