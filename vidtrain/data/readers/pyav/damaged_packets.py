"""Which packets may be damaged, by what their bytes say; the decoder has the last word where it can tell.

Files that were copied badly hold zeros in place of data. Sound packets hold runs of zeros, too: behind the data of a
slice where an encoder keeps a constant rate, behind a JPEG, in its comments, and within the data of flat pictures. So a
run of zeros is a reason to look, and no proof:

    H.264, HEVC, VP8, VP9, AV1    Arithmetic decoders read on beyond the data and never complain. Sound zeros are not
                                  read: something else in their place changes no frame. Both are decoded and compared.
    H.264 with CAVLC, MPEG-4      The decoder misses the macroblocks that the zeros stand for, and complains.
    JPEG                          Zeros are valid codes. Of a sound scan the decoder needs the last byte, and no more:
                                  a damaged one is out of step. Tried out with ones in place of the byte and behind it.

Proof is what does not fit: NAL units that are longer than their packet, VP8, VP9 and AV1 that begin with zeros, and the
checksums of FFV1's slices (RFC 9043, 4.9.3), in whose place the decoder puts the last frame's without a mark.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import av
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from vidtrain.data.readers.pyav.frame_numbers import parameter_sets
from vidtrain.data.readers.pyav.keyframes import Bits, length_size, nal_units, slice_header
from vidtrain.data.readers.pyav.opening import STRICT, packet_of
from vidtrain.data.readers.pyav.to_rgb import ONE_THREAD

_RUN: Final = 16
_ZEROS: Final = bytes(_RUN)
_MANY_ZEROS: Final = bytes(256)  # shorter runs do occur in VP8, VP9 and AV1
_H264_SLICES: Final = frozenset({1, 2, 5})
_H264_PPS: Final = 8
_HEVC_SLICES: Final = 32  # NAL unit types below this one
_START_CODE: Final = b"\0\0\1"

_FFV1_FOOTER: Final = 8  # bytes: size 3, status 1, CRC 4
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # each byte's bits

_JPEG_ENTROPY_CODED: Final = re.compile(rb"\xff[\xc0-\xfe]")  # what ends it, restart markers among them
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9
_JPEG_SCANS, _JPEG_LOSSLESS = b"\xff\xda", b"\xff\xc3"
_JPEG_BARE: Final = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without content
_JPEG_ONES: Final = b"\xff\0" * 6  # no Huffman code is all ones


@dataclass(frozen=True)
class Doubt:
    """Why a packet may be damaged.

    broken: it certainly is.
    other: the packet with something else in place of the zeros, which decodes to the same frame if it is sound; None
        where the decoder itself complains of damage.
    """

    broken: bool = False
    other: bytes | None = None


BROKEN: Final = Doubt(broken=True)
Look = Callable[["Packet[Any]"], "Doubt | None"]
"""From a packet to what speaks against it; None for most."""


def look_for(context: VideoCodecContext) -> Look:
    """How to look at the packets of a stream."""
    if context.name in ("h264", "hevc"):
        return _Nals(context)
    if context.name == "mjpeg":
        return _Jpegs(context)
    if context.name == "ffv1":
        return _ffv1(context)
    return _LOOKS.get(context.name, lambda packet: None)


def filled(packet: Packet[Any], other: bytes) -> Packet[Any]:
    """A packet with `Doubt.other` as its data."""
    copy = packet_of(other)
    copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
    copy.is_keyframe = packet.is_keyframe
    return copy


def fingerprint(frame: VideoFrame) -> bytes:
    """The same for frames that show the same."""
    pixels = frame.reformat(format="rgb24", **ONE_THREAD).to_ndarray()
    return hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()


class _Nals:
    """H.264 and HEVC."""

    def __init__(self, context: VideoCodecContext) -> None:
        extra = context.extradata or b""
        self._h264, self._size = context.name == "h264", length_size(context.name, extra)
        # Within NAL units there are no three zeros (ITU-T H.264, 7.4.1), before a start code there may be any number.
        self._zeros = bytes(3) if self._size else _ZEROS
        self._cavlc = frozenset[int]()  # the parameter sets of slices without arithmetic coding
        if self._h264:
            self._note(parameter_sets(extra))

    def __call__(self, packet: Packet[Any]) -> Doubt | None:
        data = bytes(packet)
        at, end, zeros = 0, len(data), not self._size and _ZEROS in data
        while self._size and at < end:
            begin = at + self._size
            at = begin + int.from_bytes(data[at:begin], "big")
            zeros = zeros or data.find(self._zeros, begin, at) >= 0
            if at == begin:
                return BROKEN
        if self._size and at != end:
            return BROKEN
        if not zeros:
            return None
        units = list(nal_units(data, self._size))
        if self._h264:
            self._note(units)
        return self._doubt(units)

    def _doubt(self, units: list[bytes]) -> Doubt | None:
        others, doubtful, read_on = [], False, False
        slices = [number for number, unit in enumerate(units) if self._is_slice(unit)]
        for number, unit in enumerate(units):
            if number in slices and self._zeros in unit:
                doubtful = True
                # Without arithmetic coding a slice ends where its bits do, but for the last, which ends with the frame.
                if number == slices[-1] or not (self._h264 and slice_header(unit)[2] in self._cavlc):
                    read_on, unit = True, _filled(unit, len(self._zeros))
            others.append((len(unit).to_bytes(self._size, "big") if self._size else _START_CODE) + unit)
        if not doubtful:
            return None
        return Doubt(other=b"".join(others) if read_on else None)

    def _is_slice(self, unit: bytes) -> bool:
        if not unit:
            return False
        return unit[0] & 31 in _H264_SLICES if self._h264 else unit[0] >> 1 & 63 < _HEVC_SLICES

    def _note(self, units: list[bytes]) -> None:
        for unit in units:
            if unit and unit[0] & 31 == _H264_PPS:
                bits = Bits(unit[1:16].replace(b"\0\0\3", b"\0\0"))
                number = bits.golomb(), bits.golomb()
                if bits.take(1):
                    self._cavlc -= {number[0]}
                else:
                    self._cavlc |= {number[0]}


def _filled(data: bytes, least: int) -> bytes:
    """With ones in place of the zeros of each run of at least so many."""
    return re.sub(rb"\0{%d,}" % least, lambda run: b"\xff" * len(run[0]), data)


def _with_zeros(packet: Packet[Any]) -> Doubt | None:
    return Doubt() if _ZEROS in bytes(packet) else None


def _ffv1(context: VideoCodecContext) -> Look:
    """Version 3 has a global header, and slices that end with their size, a status byte and a CRC where they have one.

    Slices that are as long as this says to the byte do have one.
    """

    def look(packet: Packet[Any]) -> Doubt | None:
        data = bytes(packet)
        if data.endswith(_ZEROS):
            return BROKEN
        ends = [len(data)]
        while ends[-1] > _FFV1_FOOTER:
            size = int.from_bytes(data[ends[-1] - _FFV1_FOOTER : ends[-1] - _FFV1_FOOTER + 3], "big")
            ends.append(ends[-1] - _FFV1_FOOTER - size)
        if ends[-1]:
            return None
        slices = (data[begin:end] for end, begin in pairwise(ends))
        return BROKEN if any(map(crc32_remainder, slices)) else None

    return look if context.extradata else lambda packet: None


def crc32_remainder(data: bytes, start: int = 0) -> int:
    """0 for data that end with their CRC-32, highest bit first.

    zlib's begins with the lowest bit, and inverts what it is given and gives.

    Args:
        data: with the CRC.
        start: 0 or 0xFFFFFFFF, what the register holds at first.
    """
    return zlib.crc32(data.translate(_REVERSED), start ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def _arithmetic(packet: Packet[Any]) -> Doubt | None:
    data = bytes(packet)
    if data.startswith(_ZEROS):
        return BROKEN
    if data.endswith(_ZEROS) or _MANY_ZEROS in data:
        return Doubt(other=_filled(data, _RUN))
    return None


class _Jpegs:
    """JPEG, with a decoder of its own to try out what it needs."""

    def __init__(self, context: VideoCodecContext) -> None:
        self._context = context
        self._decoder: VideoCodecContext | None = None

    def __call__(self, packet: Packet[Any]) -> Doubt | None:
        data = bytes(packet)
        if _ZEROS not in data:
            return None
        if _JPEG_LOSSLESS in data[: data.find(_JPEG_SCANS)]:
            return Doubt()  # its decoder reads nothing in vain, and complains of nothing either
        shown = self._shows(data)
        for begin, end in _intervals(data):
            rest = data[end:]
            if rest and _ZEROS not in data[begin:end]:
                continue
            filled_up = begin + len(data[begin:end].rstrip(b"\0"))
            if shown is None or not any(self._ends(data[:at], rest, shown) for at in sorted({end, filled_up})):
                return BROKEN
        return Doubt()

    def _ends(self, data: bytes, rest: bytes, shown: bytes) -> bool:
        """Whether a scan needs the last byte of `data` and nothing behind it; rest: the markers that follow it."""
        last = len(data) - (2 if data.endswith(b"\xff\0") else 1)
        return self._shows(data + _JPEG_ONES + rest) == shown != self._shows(data[:last] + _JPEG_ONES + rest)

    def _shows(self, data: bytes) -> bytes | None:
        """What a JPEG decodes to, None where the decoder complains."""
        if self._decoder is None:
            decoder = av.CodecContext.create("mjpeg", "r")
            assert isinstance(decoder, VideoCodecContext)
            decoder.width, decoder.height = self._context.width, self._context.height
            decoder.extradata, decoder.thread_count = self._context.extradata, 1
            decoder.options = {"err_detect": STRICT["mjpeg"]}
            self._decoder = decoder
        try:
            frames = self._decoder.decode(packet_of(data))
        except (av.error.FFmpegError, OSError, ValueError):
            return None
        return fingerprint(frames[-1]) if frames and not any(frame.is_corrupt for frame in frames) else None


def _intervals(data: bytes) -> Iterator[tuple[int, int]]:
    """Where entropy-coded data lies in a JPEG (ITU-T T.81, B.1.1): behind a scan's header or a restart marker."""
    at = 0
    while 0 <= at < len(data) - 3:
        if data[at] != 0xFF or data[at + 1] in (0xFF, 0):
            at = data.find(b"\xff", at + 1)
            continue
        kind = data[at + 1]
        at += 2
        if kind in _JPEG_BARE or kind == _JPEG_END:
            continue
        at += int.from_bytes(data[at : at + 2], "big")
        while kind == _JPEG_SCAN and at < len(data):
            found = _JPEG_ENTROPY_CODED.search(data, at)
            end = found.start() if found else len(data)
            yield at, end
            if found is None or not 0xD0 <= data[end + 1] <= 0xD7:
                at = end
                break
            at = end + 2


_LOOKS: Final[dict[str, Look]] = {
    "mpeg4": _with_zeros,
    **dict.fromkeys(("vp8", "vp9", "libvpx", "libvpx-vp9", "av1", "libdav1d", "libaom-av1"), _arithmetic),
}
