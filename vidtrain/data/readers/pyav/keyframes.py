"""Whether decoding may start at a packet that the container marks as a keyframe.

The mark is a claim: an MP4 without its table of keyframes and a remuxer that knows no better mark every packet, and
encoders mark frames that are clean only some frames later. The coded frame itself says what it is:

    H.264             an IDR picture, or I-slices behind a recovery point of 0 frames   (ITU-T H.264, 7.4.1.2.4, D.2.8)
    HEVC              the NAL unit types of IRAP pictures                               (ITU-T H.265, table 7-1)
    MPEG-4            vop_coding_type                                                   (ISO/IEC 14496-2, 6.3.5)
    MPEG-1, -2        picture_coding_type                                               (ISO/IEC 13818-2, 6.3.9)
    H.263             the picture coding type in PTYPE or PLUSPTYPE                     (ITU-T H.263, 5.1.3, 5.1.4)
    VP8, VP9, AV1     the frame type, and show_existing_frame           (RFC 6386, 9.1; VP9, 7.2; AV1, 5.9.2)
    FFV1              the first symbol of its range coder                               (RFC 9043, 4.4)
    FLV1, MS-MPEG-4, WMV, SVQ1, VP3, VP6, Theora    the type of picture, as FFmpeg's decoders read it

Codecs that only have frames that stand alone are believed. Of others that nothing is known of here, and of H.264's
I-slices without a recovery point, the mark is believed unless every packet has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from typing import Final

from av.video.codeccontext import VideoCodecContext

HEAD: Final = 4096
"""Bytes of a packet within which its first slice begins."""


class Worth(IntEnum):
    """What a keyframe's mark is worth."""

    FALSE = 0
    """The frame refers to others."""
    CLAIMED = 1
    """Nothing speaks against it."""
    PROVEN = 2
    """The frame says so itself."""


Test = Callable[[bytes], Worth]

_START_CODE: Final = b"\0\0\1"
_H264_SLICE, _H264_IDR, _H264_SEI = (1, 2), 5, 6
_HEVC_SLICES, _HEVC_IRAP = range(32), range(16, 24)
_RECOVERY_POINT: Final = 6
_I_SLICES: Final = (2, 4, 7, 9)  # I and SI
_B_SLICES: Final = (1, 6)
_AV1_SEQUENCE, _AV1_FRAMES = 1, (3, 6)
_ALWAYS_ALONE: Final = frozenset({"png", "cfhd"})  # FFmpeg's list of such codecs lacks them


def keyframe_test(context: VideoCodecContext) -> Test:
    """From the first `HEAD` bytes of a packet that is marked as a keyframe to what the mark is worth."""
    name = context.name
    if name in ("h264", "hevc"):
        size = length_size(name, context.extradata or b"")
        test = _h264 if name == "h264" else _hevc
        return lambda data: test(nal_units(data, size))
    if context.codec.intra_only or name in _ALWAYS_ALONE:
        return lambda data: Worth.PROVEN
    return _TESTS.get(name, lambda data: Worth.CLAIMED)


def refers_ahead_test(context: VideoCodecContext) -> Callable[[bytes], bool]:
    """From the first `HEAD` bytes of a packet to whether its frame may refer to one that is shown later.

    For codecs whose frames do not tell at a glance, the answer is what the stream's header announces.
    """
    if context.name != "h264" or not context.has_b_frames:
        announced = bool(context.has_b_frames)
        return lambda data: announced
    size = length_size("h264", context.extradata or b"")

    def test(data: bytes) -> bool:
        slices = (nal for nal in nal_units(data, size) if len(nal) > 1 and nal[0] & 31 in _H264_SLICE)
        return any(slice_header(nal)[1] in _B_SLICES for nal in slices)

    return test


def true_keyframes(worth: Iterable[Worth | None]) -> list[bool]:
    """Which packets are keyframes, by what each one's mark is worth; None for packets without a mark.

    The first packet is believed as long as nothing speaks against it.
    """
    worth = list(worth)
    least = Worth.PROVEN if None not in worth else Worth.CLAIMED
    return [mark is not None and mark >= (least if number else Worth.CLAIMED) for number, mark in enumerate(worth)]


def length_size(name: str, extra: bytes) -> int:
    """Bytes of the length before each NAL unit (ISO/IEC 14496-15); 0 where start codes separate them."""
    at = 4 if name == "h264" else 21
    return extra[at] % 4 + 1 if len(extra) > at and extra[0] else 0


def nal_units(data: bytes, size: int) -> Iterator[bytes]:
    """The NAL units of a packet, the last one perhaps cut off.

    Args:
        data: a packet or its beginning.
        size: bytes of the length before each, 0 where start codes separate them.
    """
    if size:
        at = 0
        while at + size < len(data):
            end = at + size + int.from_bytes(data[at : at + size], "big")
            yield data[at + size : end]
            at = end
        return
    at = data.find(_START_CODE)
    while at >= 0:
        end = data.find(_START_CODE, at + 3)
        yield data[at + 3 : end if end >= 0 else None]
        at = end


class Bits:
    """Reads numbers bit by bit; zeros follow the end."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._value, self._left = int.from_bytes(data + bytes(8), "big"), 8 * len(data) + 64 - at

    def take(self, count: int) -> int:
        self._left = max(self._left - count, 0)
        return self._value >> self._left & ((1 << count) - 1)

    def golomb(self) -> int:
        """An unsigned Exp-Golomb code; 0 where there is none."""
        rest = self._value & ((1 << self._left) - 1)
        zeros = self._left - rest.bit_length()
        if not rest or zeros > 31:
            self._left = max(self._left - zeros - 1, 0)
            return 0
        self._left -= 2 * zeros + 1
        return (rest >> self._left) - 1


def slice_header(nal: bytes) -> tuple[int, int, int]:
    """first_mb_in_slice, slice_type and pic_parameter_set_id of an H.264 slice."""
    bits = Bits(nal[1:16].replace(b"\0\0\3", b"\0\0"))
    return bits.golomb(), bits.golomb(), bits.golomb()


def _h264(nals: Iterable[bytes]) -> Worth:
    worth, recovers, begun = Worth.CLAIMED, False, False
    for nal in nals:
        kind = nal[0] & 31 if nal else 0
        if kind == _H264_IDR:
            return Worth.PROVEN
        if kind == _H264_SEI:
            recovers = recovers or _recovers_at_once(nal[1:].replace(b"\0\0\3", b"\0\0"))
        elif kind in _H264_SLICE and len(nal) > 1:
            first_block, slice_type, _ = slice_header(nal)
            if not first_block and begun:
                break  # the other field, which may refer to this one
            if slice_type not in _I_SLICES:
                return Worth.FALSE
            begun = True
            worth = Worth.PROVEN if recovers else Worth.CLAIMED
    return worth


def _recovers_at_once(messages: bytes) -> bool:
    """Whether H.264's SEI messages hold a recovery point of 0 frames."""
    at = 0
    while at + 2 < len(messages):
        kind, at = _counted_in_255(messages, at)
        size, at = _counted_in_255(messages, at)
        if kind == _RECOVERY_POINT:
            return Bits(messages[at : at + size]).golomb() == 0
        at += size
    return False


def _counted_in_255(data: bytes, at: int) -> tuple[int, int]:
    """A number as SEI messages store it, and where it ends."""
    value = 0
    while at < len(data) and data[at] == 255:
        value, at = value + 255, at + 1
    return value + (data[at] if at < len(data) else 0), at + 1


def _hevc(nals: Iterable[bytes]) -> Worth:
    for nal in nals:
        if nal and nal[0] >> 1 & 63 in _HEVC_SLICES:
            return Worth.PROVEN if nal[0] >> 1 & 63 in _HEVC_IRAP else Worth.FALSE
    return Worth.CLAIMED


def _is(intra: bool) -> Worth:
    return Worth.PROVEN if intra else Worth.FALSE


def _behind(code: bytes, byte: int, shift: int, mask: int, intra: int) -> Test:
    """For codecs with the type in the bits `mask` of the `byte`-th byte behind the first start code."""

    def test(data: bytes) -> Worth:
        at = data.find(code) + len(code) + byte
        if at < len(code) + byte or at >= len(data):
            return Worth.CLAIMED
        return _is(data[at] >> shift & mask == intra)

    return test


def _first(byte: int, shift: int, mask: int, intra: int) -> Test:
    """For codecs with the type in the bits `mask` of a byte of the packet."""
    return lambda data: _is(data[byte] >> shift & mask == intra) if len(data) > byte else Worth.CLAIMED


def _h263(data: bytes) -> Worth:
    bits = Bits(data[:16], at=35)
    if bits.take(3) != 7:  # a source format
        return _is(bits.take(1) == 0)
    if bits.take(3) == 1:  # the optional part of PLUSPTYPE comes first
        bits.take(18)
    return _is(bits.take(3) == 0)


def _flv1(data: bytes) -> Worth:
    bits = Bits(data[:16], at=30)
    size = bits.take(3)
    bits.take({0: 16, 1: 32}.get(size, 0))
    return _is(bits.take(2) == 0)


def _vp9(data: bytes) -> Worth:
    bits = Bits(data[:2], at=2)
    if bits.take(2) == 3:  # profile 3 has a reserved bit more
        bits.take(1)
    return _is(bits.take(2) == 0)  # show_existing_frame, then frame_type


def _av1(data: bytes) -> Worth:
    at = 0
    while at < len(data):
        kind, extended, sized = data[at] >> 3 & 15, data[at] >> 2 & 1, data[at] >> 1 & 1
        at += 1 + extended
        size, shift = 0, 0
        while sized and at < len(data):
            size |= (data[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if data[at - 1] < 128:
                break
        if at >= len(data):
            break
        if kind == _AV1_SEQUENCE and data[at] & 0x08:  # reduced_still_picture_header
            return Worth.PROVEN
        if kind in _AV1_FRAMES:
            return _is(data[at] & 0xE0 == 0)  # show_existing_frame, then frame_type
        if not sized:
            break
        at += size
    return Worth.CLAIMED


def _ffv1(data: bytes) -> Worth:
    return _is(int.from_bytes(data[:2], "big") >= 0x7F80)


_TESTS: Final[dict[str, Test]] = {
    "mpeg4": _behind(b"\0\0\1\xb6", 0, 6, 3, 0),
    **dict.fromkeys(("mpeg1video", "mpeg2video"), _behind(b"\0\0\1\0", 1, 3, 7, 1)),
    **dict.fromkeys(("h263", "h263p"), _h263),
    "flv": _flv1,
    **dict.fromkeys(("vp8", "libvpx"), _first(0, 0, 1, 0)),
    **dict.fromkeys(("vp9", "libvpx-vp9"), _vp9),
    **dict.fromkeys(("av1", "libdav1d", "libaom-av1"), _av1),
    "ffv1": _ffv1,
    **dict.fromkeys(("msmpeg4v2", "msmpeg4", "wmv1"), _first(0, 6, 3, 0)),
    "wmv2": _first(0, 7, 1, 0),
    "svq1": _first(3, 0, 3, 0),
    "theora": _first(0, 6, 3, 0),
    **dict.fromkeys(("vp3", "vp6", "vp6f"), _first(0, 7, 1, 0)),
}
