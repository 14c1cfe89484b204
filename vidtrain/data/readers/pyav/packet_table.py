"""The frames a video shows, found from its packets without decoding them.

A packet table lists the packets in file order (decode order) and which of them is frame 0, 1, 2 ... of those shown, in
presentation order:

    packet      0   1   2   3   4   5   6        I, B and P pictures as they lie in the file
    kind        I   P   B   B   I   P   B
    pts         0   3   1   2   4   6   5
    shown       0 -> packet 0, 1 -> 2, 2 -> 3, 3 -> 1, 4 -> 4, 5 -> 6, 6 -> 5

Not shown: packets that an edit list discards, pictures that only serve as a reference (VP8, VP9), and the last packet
when the file ends within it. The table holds for files whose packets carry a pts each and give one picture each.
`scan` returns None for all others; those have to be counted by decoding them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Final

import numpy as np
import numpy.typing as npt
from av.packet import Packet
from av.video.stream import VideoStream

from vidtrain.data.readers.pyav.damaged_packets import look_for
from vidtrain.data.readers.pyav.frame_numbers import TemporalReferences, skip_test
from vidtrain.data.readers.pyav.frame_times import allows_new_clocks, jump_ticks, one_clock, stuck
from vidtrain.data.readers.pyav.keyframes import HEAD, Worth, keyframe_test, refers_ahead_test, true_keyframes
from vidtrain.data.readers.pyav.lost_packets import NO_HOLES, Holes, find_holes
from vidtrain.data.readers.pyav.mp4_index import read_index
from vidtrain.data.readers.pyav.opening import OpenFile
from vidtrain.data.readers.pyav.references import VOP, unreferred_test
from vidtrain.types import Indices

# Decoders, by FFmpeg's name, that give pictures in the order of their pts, one a packet.
_REORDERING: Final = frozenset({"h264", "hevc", "vvc", "mpeg4", "mpeg1video", "mpeg2video"})
_IN_ORDER: Final = frozenset(
    {"vp8", "vp9", "libvpx", "libvpx-vp9", "libdav1d", "av1", "libaom-av1"}
    | {"mjpeg", "png", "gif", "ffv1", "rawvideo", "huffyuv", "ffvhuff", "utvideo", "magicyuv"}
    | {"prores", "dnxhd", "cfhd", "dvvideo", "qtrle", "flv", "h263", "h263p"}
)
# Of these a B-frame is always shown before the frame that precedes it in the file and is none.
_WITH_B_FRAMES: Final = frozenset({"mpeg4", "mpeg1video", "mpeg2video"})
# Of these FFmpeg does not see which pictures are reordered where a container stores no pts.
_GUESSED: Final = frozenset({"h264", "hevc", "vvc"})
# Containers that cut the stream into whole frames. In others (MPEG-TS, raw streams) an H.264 field can be a packet.
_FRAMED: Final = ("mov", "matroska", "avi", "flv")
_PALETTE_OUTSIDE: Final = frozenset({"rawvideo", "qtrle"})  # PNG and GIF have it in each frame
_PROGRESSIVE: Final = 1
LARGEST_EMPTY_VOP: Final = 19
"""Bytes; MPEG-4 marks "no picture here" with a packet no larger than this."""


@dataclass(frozen=True)
class PacketTable:
    """The packets of a video stream in file order, N of them, and the F of them that are shown.

    pts: int64 (N,) in the stream's time base; unique.
    shown: int64 (F,), the packet of each frame shown, in presentation order.
    start: int64 (N,), for each packet the keyframe that decoding has to start from to get it.
    false_keys: packets that the container marks as keyframes and that are none, see
        `vidtrain.data.readers.pyav.keyframes`.
    damaged: packets that are damaged; 0 when nobody looked.
    doubtful: packets that may be damaged, see `vidtrain.data.readers.pyav.damaged_packets`; none when nobody looked.
    holes: packets that are damaged or behind which others are missing.
    dts: int64 (N,) where the pts are FFmpeg's guesses; None elsewhere.
    """

    pts: npt.NDArray[np.int64]
    shown: Indices
    start: npt.NDArray[np.int64]
    false_keys: int = 0
    damaged: int = 0
    doubtful: tuple[int, ...] = ()
    holes: Holes = NO_HOLES
    dts: npt.NDArray[np.int64] | None = None

    @property
    def ticks(self) -> npt.NDArray[np.int64]:
        """int64 (F,): when the frames are shown, in the stream's time base."""
        return (self.pts if self.dts is None else self.dts)[self.shown]


@dataclass
class _Columns:
    """What the packets said, one entry a packet."""

    pts: list[int | None] = field(default_factory=list)
    key: list[bool] = field(default_factory=list)
    hidden: list[bool] = field(default_factory=list)
    positions: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    index: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))  # positions in FFmpeg's
    b_frames: list[bool] = field(default_factory=list)  # of MPEG-1, -2 and -4
    refers_ahead: bool = False
    false_keys: int = 0
    damaged: int = 0
    doubtful: list[int] = field(default_factory=list)


def scan(file: OpenFile, *, inspect: bool = False) -> PacketTable | None:
    """Read all packets of the stream, to the end of the file, and decode none.

    Args:
        file: just opened.
        inspect: look for damage as well.

    Returns:
        None when the packets do not tell the frames shown for certain.
    """
    context = file.stream.codec_context
    reorders = context.name in _REORDERING
    if not (reorders or context.name in _IN_ORDER) or _may_hold_fields(file) or loses_palette(file):
        return None
    peek = _PEEKS.get(context.name)
    numbers = TemporalReferences.of(context)
    index = read_index(file) if peek is None and numbers is None and not inspect else None
    if index is not None:
        told = _Columns(key=index.key.tolist(), hidden=index.hidden.tolist(), false_keys=index.false_keys)
        return _table(index.pts, told, NO_HOLES, reorders=reorders)
    columns = _read(file, peek, numbers, inspect=inspect)
    if columns is None or not columns.pts or None in columns.pts:
        return None
    pts, unit = np.array(columns.pts, dtype=np.int64), file.stream.time_base or Fraction(1)
    decoded = np.array([time for time in columns.dts if time is not None], dtype=np.int64)
    if reorders and stuck(decoded[1:] - decoded[:-1], unit, least=2).any():
        return None  # the times were made up by a muxer, in file order
    if columns.b_frames and mostly_late(pts, np.array(columns.b_frames, np.bool_)):
        return None  # the same
    made_up = context.name in _GUESSED and context.has_b_frames and _in_file_order(pts, columns.key)
    if made_up and (stores_no_pts(file) or columns.refers_ahead):
        return None  # by FFmpeg or a muxer, in file order, for frames that are shown in another
    holes = find_holes(file, columns.positions, columns.sizes, columns.index)
    if holes.damaged and stores_no_pts(file):
        return None  # the pts of what follows are made up
    jump = jump_ticks(unit) if allows_new_clocks(file) else None
    table = _table(pts, columns, holes, reorders=reorders, jump=jump)
    if table is not None and context.name in _GUESSED and stores_no_pts(file) and len(decoded) == len(pts):
        table = replace(table, dts=decoded)  # without frames that are reordered
    if table is None or numbers is None or not (skips := numbers.skips()):
        return table
    return replace(table, holes=holes._replace(skips=skips), damaged=table.damaged + len(skips))


def false_keys(table: PacketTable) -> str:
    """Why a reader that believes the container's marks of keyframes cannot be trusted with a file."""
    return f"{table.false_keys} of {len(table.pts)} packets are marked as keyframes and refer to other frames"


def loses_palette(file: OpenFile) -> bool:
    """True where the container gives the palette with the first packet only: after a seek all frames are black."""
    context = file.stream.codec_context
    return context.name in _PALETTE_OUTSIDE and context.pix_fmt == "pal8"


def _may_hold_fields(file: OpenFile) -> bool:
    context = file.stream.codec_context
    if context.name != "h264" or file.container.format.name.startswith(_FRAMED):
        return False
    return getattr(context, "field_order", 0) != _PROGRESSIVE  # not told before PyAV 18


def stores_no_pts(file: OpenFile) -> bool:
    """True for AVI and ASF, and for Matroska that carries a stream the AVI way, which shows by its four-letter code."""
    name = file.container.format.name
    return name in ("avi", "asf") or (name.startswith("matroska") and file.stream.codec_context.codec_tag.isalnum())


def _read(
    file: OpenFile,
    peek: Callable[[Packet[VideoStream]], bool | None] | None,
    numbers: TemporalReferences | None,
    *,
    inspect: bool,
) -> _Columns | None:
    """The columns, or None as soon as a packet is of a kind that cannot be counted."""
    columns, look = _Columns(), look_for(file.stream.codec_context)
    test, refers_ahead = keyframe_test(file.stream.codec_context), refers_ahead_test(file.stream.codec_context)
    context = file.stream.codec_context
    is_b = unreferred_test(context) if context.name in _WITH_B_FRAMES and context.has_b_frames else None
    skips = begin() if inspect and (begin := skip_test(file.stream.codec_context)) else None
    skipped: list[int] = []
    worth: list[Worth | None] = []
    cut = False
    for packet in file.packets():
        hidden = packet.is_discard
        if peek is not None and not hidden:
            verdict = peek(packet)
            if verdict is None:
                return None
            hidden = verdict
        worth.append(test(bytes(memoryview(packet)[:HEAD])) if packet.is_keyframe else None)
        if is_b is not None:
            columns.b_frames.append(is_b(packet))
        if not columns.refers_ahead:
            columns.refers_ahead = refers_ahead(bytes(memoryview(packet)[:HEAD]))
        if numbers is not None:
            numbers.add(bytes(memoryview(packet)[:HEAD]))
        if skips is not None and skips(packet):
            skipped.append(len(columns.pts))
        doubt = look(packet) if inspect else None
        if doubt is not None and doubt.broken:
            columns.damaged += 1
        elif doubt is not None:
            columns.doubtful.append(len(columns.pts))
        columns.pts.append(packet.pts)
        columns.dts.append(packet.dts)
        columns.positions.append(packet.pos)
        columns.sizes.append(packet.size)
        columns.hidden.append(hidden)
        cut = packet.is_corrupt
    columns.key = true_keyframes(worth)
    columns.damaged += sum(not columns.key[place] for place in skipped)
    # FFmpeg mends the marks of some packets as it reads them, but not those in the index, by which it seeks.
    columns.index, indexed = file.entries("pos", "is_keyframe")
    columns.false_keys = max(sum(mark is not None for mark in worth), int(indexed.sum())) - sum(columns.key)
    if cut:  # the file ends within the last packet
        columns.hidden[-1] = True
    return columns


def _table(
    pts: npt.NDArray[np.int64],
    columns: _Columns,
    holes: Holes,
    *,
    reorders: bool,
    jump: int | None = None,
) -> PacketTable | None:
    """jump: as in `one_clock`; None where the container has one clock."""
    ordered = np.sort(pts)
    if (ordered[1:] == ordered[:-1]).any():
        return None
    visible = np.flatnonzero(~np.array(columns.hidden))
    clock = pts if jump is None else one_clock(pts, columns.dts, np.array(columns.key), jump)
    if clock is None or (not reorders and (np.diff(clock[visible]) < 0).any()):
        return None  # the decoder gives them in another order than the pts say
    start = starts(clock, np.array(columns.key))
    if len(visible) == 0 or (start[visible] < 0).any():
        return None  # begins before the first keyframe: what is shown is up to the decoder
    shown = visible[np.argsort(clock[visible])]
    return PacketTable(
        pts=pts,
        shown=shown,
        start=start,
        false_keys=columns.false_keys,
        damaged=columns.damaged + len(holes.damaged),
        doubtful=tuple(columns.doubtful),
        holes=holes,
    )


def mostly_late(pts: npt.NDArray[np.int64], b_frames: npt.NDArray[np.bool_]) -> bool:
    """Whether most B-frames come after the frame that they are shown before: the times follow the order of the file.

    Where packets were lost a few may seem to.
    """
    before = np.maximum.accumulate(np.where(b_frames, -1, np.arange(len(b_frames))))
    inner = np.flatnonzero(b_frames & (before >= 0))
    return 2 * np.count_nonzero(pts[inner] > pts[before[inner]]) > len(inner)


def _in_file_order(pts: npt.NDArray[np.int64], key: Sequence[bool]) -> bool:
    """Whether no frame is shown before one that precedes it in the file; at a keyframe another clock may begin."""
    return bool(((pts[1:] > pts[:-1]) | np.array(key[1:], np.bool_)).all())


def starts(pts: npt.NDArray[np.int64], key: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """For each packet the last keyframe before it in the file that is not shown after it; -1 where there is none.

    A picture that lies behind a keyframe but is shown before it (open GOP) needs the keyframe before that.
    """
    places = np.arange(len(pts))
    start = np.maximum.accumulate(np.where(key, places, -1))
    before = np.concatenate([[-1], start[:-1]])  # per packet, the keyframe strictly before it
    late = (start >= 0) & (pts[start] > pts)
    while late.any():
        start[late] = before[start[late]]
        late = (start >= 0) & (pts[start] > pts)
    return start


def _vp8_hidden(packet: Packet[VideoStream]) -> bool | None:
    return not memoryview(packet)[0] & 0x10  # the show_frame bit


def _vp9_hidden(packet: Packet[VideoStream]) -> bool | None:
    data = memoryview(packet)
    if data[-1] & 0xE0 == 0xC0:
        return False  # a superframe: hidden pictures and the one shown together
    profile3 = data[0] & 0x30 == 0x30  # has a reserved bit more
    shift = 0 if profile3 else 1
    show_existing, show = data[0] >> (2 + shift) & 1, data[0] >> shift & 1
    return not (show_existing or show)


def _mpeg4_hidden(packet: Packet[VideoStream]) -> bool | None:
    """None for a packet with two pictures in it or with perhaps none, as in packed AVI files."""
    if packet.size <= LARGEST_EMPTY_VOP or bytes(packet).count(VOP) != 1:
        return None
    return False


_PEEKS: Final = {"vp8": _vp8_hidden, "vp9": _vp9_hidden, "libvpx": _vp8_hidden, "mpeg4": _mpeg4_hidden}
