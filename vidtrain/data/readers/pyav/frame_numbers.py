"""Where coded pictures are missing, by the numbers that they carry.

    H.264        frame_num counts the pictures that others refer to; a gap is a loss unless the stream's header allows
                 gaps (ITU-T H.264, 7.4.3). After an operation that forgets all references (memory management control
                 operation 5) the count starts again, so that 0 and 1 always fit
    MPEG-1, -2   temporal_reference counts the pictures of a group in the order they are shown in (ISO/IEC 13818-2,
                 6.3.9). At the beginning of a group some may be missing: editors drop what refers to the one before

MPEG-4, H.263, VP8 and VP9 have no such count: a camera that records unevenly leaves the same gaps as a loss.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from vidtrain.data.readers.pyav.keyframes import HEAD, Bits, length_size, nal_units

_SLICES: Final = frozenset({1, 2, 5})
_IDR, _SPS, _PPS = 5, 7, 8
_HEADER: Final = 16  # bytes of a slice in which its frame_num lies
_BEGIN: Final = 24  # bytes of a packet
_REFERRED: Final = 0x60  # nal_ref_idc
_WITH_CHROMA: Final = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})  # profile_idc
_CYCLE: Final = 255  # the longest list of offsets in a parameter set
_PICTURE, _GROUP = b"\0\0\1\0", b"\0\0\1\xb8"
_I_PICTURE: Final = 1
_MODULO: Final = 1024
_BELIEVED: Final = 0.5  # share of steps by 1; with less, the encoder has not counted

Skips = Callable[["Packet[VideoStream]"], bool]
"""From the next packet in decode order to whether others are missing before it."""


def skip_test(context: VideoCodecContext) -> Callable[[], Skips] | None:
    """What makes a test that is given the packets from some place on; None for codecs without such numbers.

    Packets that no other refers to need not be given.
    """
    return _H264(context).start if context.name == "h264" else None


class _H264:
    def __init__(self, context: VideoCodecContext) -> None:
        extra = context.extradata or b""
        self._size = length_size("h264", extra)
        self._widths: dict[int, tuple[int, int]] = {}  # bits before frame_num, and of it, by sequence parameter set
        self._sequence: dict[int, int] = {}  # by picture parameter set
        self._last: int | None = None  # of the last picture that others refer to
        for unit in parameter_sets(extra):
            self._note(unit)

    def start(self) -> Skips:
        self._last = None
        return self._skips

    def _skips(self, packet: Packet[VideoStream]) -> bool:
        begin = bytes(memoryview(packet)[:_BEGIN])
        at = self._size or begin.find(b"\0\0\1") + 3
        if len(begin) > at and begin[at] & 31 in _SLICES:  # of most packets
            return self._skips_before(begin[at:], begin[at] & 31)
        for unit in nal_units(bytes(memoryview(packet)[:HEAD]), self._size):
            kind = unit[0] & 31 if unit else 0
            if kind in _SLICES:
                return self._skips_before(unit, kind)
            if kind in (_SPS, _PPS):
                self._note(unit)
        return False

    def _skips_before(self, unit: bytes, kind: int) -> bool:
        last, number = self._last, 0 if kind == _IDR else self._number(unit)
        referred = unit[0] & _REFERRED
        if number is None or (number < 2 and kind != _IDR):
            self._last = number
            return False
        self._last = number if referred or number == 0 else number - 1
        if last is None or kind == _IDR:
            return False
        return number not in (last, last + 1)

    def _number(self, slice_: bytes) -> int | None:
        """frame_num; None where it is not known or where gaps are allowed."""
        data = slice_[1:_HEADER].replace(b"\0\0\3", b"\0\0")
        rest, left, code = int.from_bytes(data, "big"), 8 * len(data), 0
        for _ in range(3):  # first_mb_in_slice, slice_type, pic_parameter_set_id: Bits.golomb takes three times as long
            left = 2 * rest.bit_length() - left - 1
            if left < 0:
                return None
            code = (rest >> left) - 1
            rest &= (1 << left) - 1
        before, length = self._widths.get(self._sequence.get(code, -1), (0, 0))
        left -= before + length
        return rest >> left & ((1 << length) - 1) if length and left >= 0 else None

    def _note(self, unit: bytes) -> None:
        data = unit[1:].replace(b"\0\0\3", b"\0\0")
        if unit and unit[0] & 31 == _PPS:
            bits = Bits(data[:16])
            number = bits.golomb()
            self._sequence[number] = bits.golomb()
        elif unit and unit[0] & 31 == _SPS and len(data) > 3:
            found = _sequence_parameters(data)
            self._widths[found.number] = found.before, found.length


class _Sequence(NamedTuple):
    """What an H.264 sequence parameter set says (ITU-T H.264, 7.3.2.1.1).

    before, length: bits before frame_num in a slice, and of it; 0 if gaps are allowed.
    size: (height, width) of its frames.
    """

    number: int
    before: int
    length: int
    size: tuple[int, int]


@lru_cache(maxsize=64)
def _sequence_parameters(data: bytes) -> _Sequence:
    """data: behind the header of the NAL unit, without emulation prevention."""
    bits, before, chroma = Bits(data, at=24), 0, 1
    number = bits.golomb()
    if data[0] in _WITH_CHROMA:
        chroma = bits.golomb()
        before = 2 * bits.take(1) if chroma == 3 else 0
        bits.golomb(), bits.golomb(), bits.take(1)
        if bits.take(1):
            for matrix in range(8 if chroma != 3 else 12):
                if bits.take(1):
                    _skip_matrix(bits, 16 if matrix < 6 else 64)
    length = bits.golomb() + 4
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1), bits.golomb(), bits.golomb()
        for _ in range(min(bits.golomb(), _CYCLE)):
            bits.golomb()
    bits.golomb()
    allowed = bits.take(1)
    width, height, fields = bits.golomb() + 1, bits.golomb() + 1, 2 - bits.take(1)
    bits.take(fields)
    cropped = [bits.golomb() for _ in range(4)] if bits.take(1) else [0] * 4
    width = 16 * width - sum(cropped[:2]) * (2 if chroma in (1, 2) else 1)
    height = fields * (16 * height - sum(cropped[2:]) * (2 if chroma == 1 else 1))
    return _Sequence(number, *((0, 0) if allowed or length > 16 else (before, length)), (height, width))


def frame_size(context: VideoCodecContext) -> tuple[int, int]:
    """(height, width) of the frames that a stream begins with, before one is decoded.

    The container's word holds unless H.264's header says less; as in FFmpeg, it may cut off what fills up a macroblock.
    """
    told = context.height, context.width
    units = parameter_sets(context.extradata or b"") if context.name == "h264" else []
    for unit in units:
        data = unit[1:].replace(b"\0\0\3", b"\0\0")
        if unit and unit[0] & 31 == _SPS and len(data) > 3:
            size = _sequence_parameters(data).size
            cut = all(ours <= own and -ours // 16 == -own // 16 for ours, own in zip(told, size, strict=True))
            return told if cut or min(size) < 1 else size
    return told


def _skip_matrix(bits: Bits, count: int) -> None:
    last = following = 8
    for _ in range(count):
        if following:
            code = bits.golomb()
            following = (last + (code + 1) // 2 * (1 if code % 2 else -1)) % 256
        last = following or last


def parameter_sets(extra: bytes) -> list[bytes]:
    """The NAL units of H.264's extradata, which has a form of its own in MP4 (ISO/IEC 14496-15, 5.3.3.1)."""
    if not extra or not extra[0]:
        return list(nal_units(extra, 0))
    units, at = [], 5
    for mask in (31, 255):  # the sequence's, then the pictures'
        count, at = (extra[at] & mask if at < len(extra) else 0), at + 1
        for _ in range(count):
            length = int.from_bytes(extra[at : at + 2], "big")
            units.append(extra[at + 2 : at + 2 + length])
            at += 2 + length
    return units


class TemporalReferences:
    """Those of an MPEG-1 or MPEG-2 stream, filled packet by packet in decode order."""

    def __init__(self) -> None:
        self._groups: list[int] = []  # how many have begun up to each packet
        self._numbers: list[int] = []  # -1 where there is none
        self._most = -1  # in the group

    @staticmethod
    def of(context: VideoCodecContext) -> TemporalReferences | None:
        """None for other codecs."""
        return TemporalReferences() if context.name in ("mpeg1video", "mpeg2video") else None

    def add(self, head: bytes) -> None:
        """Args: the first `HEAD` bytes of the next packet."""
        at, group = head.find(_PICTURE), head.find(_GROUP)
        number, intra = -1, False
        if 0 <= at <= len(head) - 6:
            number, intra = int.from_bytes(head[at + 4 : at + 6], "big") >> 6, head[at + 5] >> 3 & 7 == _I_PICTURE
        begins = 0 <= group < at or (intra and number <= self._most)
        self._most = number if begins else max(number, self._most)
        self._groups.append((self._groups[-1] if self._groups else 0) + begins)
        self._numbers.append(number)

    def skips(self) -> frozenset[int]:
        """The packets behind which others are missing; none where the encoder has not counted."""
        places = np.flatnonzero(np.array(self._numbers, np.int64) >= 0)
        groups, numbers = (np.array(values, np.int64)[places] for values in (self._groups, self._numbers))
        found, usual, steps = set[int](), 0, 0
        for begin, end in zip(*_stretches(groups), strict=True):
            one = numbers[begin:end]
            one = one[0] + np.cumsum(np.append(0, (np.diff(one) + _MODULO // 2) % _MODULO - _MODULO // 2))
            order = np.argsort(one, kind="stable")
            step = np.diff(one[order])
            usual, steps = usual + np.count_nonzero(step == 1), steps + len(step)
            for place in np.flatnonzero(step > 1).tolist():
                found.add(int(places[begin + order[place + 1 :].min()]) - 1)
            twice = (step == 0) & (np.diff(order) > 1)  # not two fields: the header of a group is missing
            found.update(places[begin + order[:-1][twice]].tolist())
        return frozenset(found) if usual > _BELIEVED * steps else frozenset()


def _stretches(values: npt.NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """Where stretches of equal values begin and end."""
    changes = (np.flatnonzero(np.diff(values)) + 1).tolist()
    return [0, *changes][: len(values)], [*changes, len(values)][: len(values)]
