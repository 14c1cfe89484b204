"""What a packet says of the picture in it, read from its first bits and without decoding.

Whether other pictures refer to it; if none does, it need not be decoded unless it is wanted:

    H.264         nal_ref_idc is 0 in every slice                        (ITU-T H.264, 7.4.1)
    HEVC          the NAL unit types of sub-layer non-reference pictures (ITU-T H.265, table 7-1). A picture of a
                  higher temporal layer may refer to one; encoders mark only pictures of the highest layer so.
    MPEG-4        B-VOPs                                                 (ISO/IEC 14496-2, 6.3.5)
    MPEG-1, -2    B-pictures                                             (ISO/IEC 13818-2, 6.3.9)

With one exception: FFmpeg takes the distance of the first B-VOP behind an MPEG-4 header for the time of a frame, by
which it predicts the fields of those that follow. So where there are fields this one is decoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

from vidtrain.data.readers.pyav.keyframes import HEAD, Bits, length_size

Test = Callable[["Packet[Any]"], bool]

VOP: Final = b"\0\0\1\xb6"
"""Starts an MPEG-4 picture; the two highest bits of the next byte are its type."""

B_VOP: Final = 2
_VOL: Final = re.compile(rb"\0\0\x01[\x20-\x2f]")  # starts an MPEG-4 header
_VOL_BYTES: Final = 48  # at most up to the flag for fields
_START_CODE: Final = b"\0\0\1"
_PICTURE: Final = b"\0\0\1\0"
_B_PICTURE: Final = 3
_H264_SLICES: Final = frozenset({1, 2, 5})
_H264_REF_IDC: Final = 0x60
_HEVC_SLICES: Final = 32  # NAL unit types below this one
_HEVC_UNREFERRED: Final = frozenset({0, 2, 4, 6, 8, 10, 12, 14})


def unreferred_test(context: VideoCodecContext) -> Test:
    """From a stream's packet to whether it may be dropped. What it does not understand it keeps."""
    name, extra = context.name, context.extradata or b""
    if name not in ("h264", "hevc"):
        return _UNREFERRED.get(name, _never)
    size = length_size(name, extra)
    nals = _lengths(size) if size else _start_codes
    unreferred = _h264_unreferred if name == "h264" else _hevc_unreferred
    return lambda packet: unreferred(nals(bytes(packet)))


def needed_test(context: VideoCodecContext) -> Test:
    """From the packets of a run, one after the other, to whether one is needed although no other refers to it."""
    if context.name != "mpeg4":
        return _never
    fields, first = has_fields(context.extradata or b""), True

    def test(packet: Packet[Any]) -> bool:
        nonlocal fields, first
        head = bytes(memoryview(packet)[:HEAD])
        if _VOL.search(head):
            fields, first = has_fields(head), True
        needed = fields and first and _mpeg4_unreferred(packet)
        first = first and not needed
        return needed

    return test


def has_fields(data: bytes) -> bool:
    """The flag "interlaced" of an MPEG-4 header, if there is one in `data` (ISO/IEC 14496-2, 6.2.3)."""
    found = _VOL.search(data)
    if found is None:
        return False
    bits = Bits(data[found.end() : found.end() + _VOL_BYTES], at=9)
    version = bits.take(7) >> 3 if bits.take(1) else 1
    bits.take(16 if bits.take(4) == 15 else 0)  # the aspect of a pixel
    if bits.take(1):  # control parameters
        bits.take(3)
        bits.take(79 if bits.take(1) else 0)
    shape = bits.take(2)
    bits.take(4 if shape == 3 and version != 1 else 0)
    bits.take(1)
    resolution = bits.take(16)
    bits.take(1)
    bits.take(max(1, (resolution - 1).bit_length()) if bits.take(1) else 0)
    bits.take(29 if shape == 0 else 0)  # width and height
    return bool(bits.take(1))


def _h264_unreferred(nals: Iterator[bytes]) -> bool:
    found = False
    for nal in nals:
        if not nal:
            return False
        if nal[0] & 31 in _H264_SLICES:
            if nal[0] & _H264_REF_IDC:
                return False
            found = True
    return found


def _hevc_unreferred(nals: Iterator[bytes]) -> bool:
    found = False
    for nal in nals:
        if not nal:
            return False
        kind = nal[0] >> 1 & 63
        if kind < _HEVC_SLICES:
            if kind not in _HEVC_UNREFERRED:
                return False
            found = True
    return found


def _lengths(size: int) -> Callable[[bytes], Iterator[bytes]]:
    """The first two bytes of each NAL unit, after a length of `size` bytes each; b"" for one that does not fit."""

    def heads(data: bytes) -> Iterator[bytes]:
        at, end = size, len(data)
        while at < end:
            length = int.from_bytes(data[at - size : at], "big")
            yield data[at : at + 2] if 0 < length <= end - at else b""
            at += length + size

    return heads


def _start_codes(data: bytes) -> Iterator[bytes]:
    """The first two bytes of each NAL unit where a start code precedes each."""
    at = data.find(_START_CODE)
    while 0 <= at < len(data) - 3:
        yield data[at + 3 : at + 5]
        at = data.find(_START_CODE, at + 3)


def _mpeg4_unreferred(packet: Packet[Any]) -> bool:
    data = bytes(packet)
    at = data.find(VOP)
    return 0 <= at < len(data) - 4 and data[at + 4] >> 6 == B_VOP


def _mpeg12_unreferred(packet: Packet[Any]) -> bool:
    data = bytes(packet)
    at = data.find(_PICTURE)
    return 0 <= at < len(data) - 5 and data[at + 5] >> 3 & 7 == _B_PICTURE


def _never(packet: Packet[Any]) -> bool:
    return False


_UNREFERRED: Final[dict[str, Test]] = {
    "mpeg4": _mpeg4_unreferred,
    "mpeg1video": _mpeg12_unreferred,
    "mpeg2video": _mpeg12_unreferred,
}
