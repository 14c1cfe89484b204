"""MPEG-4 in AVI with two pictures in some packets, as DivX and Xvid wrote them to get B-frames past old players.

FFmpeg decodes one picture a packet as long as each pair is made up for by an empty packet:

    packet      I   P+B  B   -   P+B  B   -
    decoded     I   P    B   B   P    B   B       the second of a pair waits for the next packet

(One that still waits at the end of the file is never shown.) Taken apart, the pictures are a stream like any other,
with keyframes to seek to and B-frames to leave out, and decode to the same pixels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from av.packet import Packet
from av.video.stream import VideoStream

from vidtrain.data.readers.pyav.opening import OpenFile, packet_of
from vidtrain.data.readers.pyav.packet_table import LARGEST_EMPTY_VOP, PacketTable, starts
from vidtrain.data.readers.pyav.references import B_VOP, VOP

_I_VOP: Final = 0
_NOTE: Final = re.compile(rb"(DivX\d+(?:Build|b)\d+)p")


@dataclass(frozen=True)
class PackedTable(PacketTable):
    """The pictures in the order of decoding, as if each had a packet of its own; pts are their numbers.

    packet: int64 (N,), the number of the packet that each lies in.
    first: int64 (packets + 1,), the place of the first picture of each packet, and the end.
    """

    packet: npt.NDArray[np.int64] = field(kw_only=True)
    first: npt.NDArray[np.int64] = field(kw_only=True)


def units(packet: Packet[VideoStream], header: bytes) -> list[Packet[Any]]:
    """The pictures of a packet, each with what lies behind it in the packet, as FFmpeg's decoder sees them.

    The note that pictures are packed is changed, or the decoder would keep the second picture for the next packet.

    Args:
        packet: one of the file's.
        header: the stream's, set before keyframes that bring none: the decoder then believes the note in it.
    """
    data = bytes(packet)
    if len(data) <= LARGEST_EMPTY_VOP:
        return []
    parts = [data[at:] for at in _pictures(data)]
    if parts:
        head = data[: len(data) - len(parts[0])] or (header if packet.is_keyframe else b"")
        parts[0] = _NOTE.sub(rb"\1n", head) + parts[0]
    return [packet_of(part) for part in parts]


def scan_packed(file: OpenFile) -> PackedTable | None:
    """Read all packets of the stream, to the end of the file, and decode none.

    Returns:
        None for any pattern but the one above, and for other kinds of file.
    """
    context = file.stream.codec_context
    if context.name != "mpeg4" or file.container.format.name != "avi":
        return None
    kinds: list[int] = []
    false_keys = 0
    first = [0]
    waiting = 0
    for number, packet in enumerate(file.packets()):
        data = bytes(packet)
        begins, empty = _pictures(data), len(data) <= LARGEST_EMPTY_VOP
        last = begins[-1] if begins else 0
        if not number and not _NOTE.search((context.extradata or b"") + data[:last]):
            return None
        pictures = len(begins)
        if packet.dts != number or packet.is_corrupt or packet.is_discard or pictures + waiting not in (1, 2):
            return None
        if empty > waiting or last + 4 >= len(data):
            return None
        waiting = int(pictures + waiting == 2 and not empty)
        kinds += [] if empty else [data[at + 4] >> 6 for at in begins]
        false_keys += packet.is_keyframe and _I_VOP not in kinds[first[-1] :]
        first.append(len(kinds))
    if waiting:  # never shown
        kinds.pop()
        first[-1] -= 1
    return _table(np.array(kinds, np.int64), np.array(first, np.int64), false_keys)


def _table(kinds: npt.NDArray[np.int64], first: npt.NDArray[np.int64], false_keys: int) -> PackedTable | None:
    """Number the pictures: a B-VOP is shown at once, any other when the next other comes."""
    count, others = len(kinds), np.flatnonzero(kinds != B_VOP)
    if count != len(first) - 1 or len(others) < 2 or others[0] != 0 or others[1] != 1 or kinds[0] != _I_VOP:
        return None  # not one picture a packet, or B-VOPs before there are two others to refer to
    pts = np.arange(count) - 1
    pts[others] = np.append(others[1:], count) - 1
    packet = np.repeat(np.arange(count), np.diff(first))
    return PackedTable(
        pts=pts,
        shown=np.argsort(pts),
        start=starts(pts, kinds == _I_VOP),
        false_keys=false_keys,
        packet=packet,
        first=first,
    )


def _pictures(data: bytes) -> list[int]:
    """Where pictures begin."""
    begins, at = [], data.find(VOP)
    while at >= 0:
        begins.append(at)
        at = data.find(VOP, at + 4)
    return begins
