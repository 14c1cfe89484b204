"""Decoding just the wanted frames of a file: by its packet table where there is one, by counting where not.

A broken picture spoils those that refer to it, directly or through others, and FFmpeg marks the broken one at best.
Here a frame is refused as well when, between the keyframe that it is decoded from and itself, a packet did not become
a sound picture: one that the decoder complains of, that comes out marked as corrupt, that does not come out at all,
whose damage shows in its bytes (see `damaged_packets`) or behind which others are missing (see `lost_packets` and
`frame_numbers`).
Packets that no other refers to spoil nothing. Where zeros may stand in place of data that the decoder does not miss,
the run is decoded once more with something else in their place, and frames that come out different are refused.

What is left: bytes that were changed and still decode without a complaint, which no decoder sees; and packets that were
lost whole between two keyframes, where neither container nor codec counts them (MPEG-4, H.263, VP8, VP9 in anything but
MPEG-TS): a recording with uneven times looks the same.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final, Protocol

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vidtrain.data.readers.pyav.damaged_packets import filled, fingerprint, look_for
from vidtrain.data.readers.pyav.decoded_count import Counted
from vidtrain.data.readers.pyav.frame_numbers import frame_size, skip_test
from vidtrain.data.readers.pyav.frame_times import Timing, timing
from vidtrain.data.readers.pyav.opening import OpenFile
from vidtrain.data.readers.pyav.packed_avi import PackedTable, scan_packed, units
from vidtrain.data.readers.pyav.packet_table import PacketTable, scan
from vidtrain.data.readers.pyav.references import needed_test, unreferred_test
from vidtrain.errors import VideoError

_NEAR: Final = 64  # packets that are read over rather than sought


class ShownFrames(Protocol):
    """The frames that a file shows, numbered from 0."""

    @property
    def table(self) -> PacketTable | None:
        """The packets they come from, where these tell."""
        ...

    @property
    def packed(self) -> bool:
        """True for MPEG-4 with two pictures in some packets, see `vidtrain.data.readers.pyav.packed_avi`."""
        ...

    @property
    def count(self) -> int: ...

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the first as it is stored; others may have another."""
        ...

    @property
    def timing(self) -> Timing:
        """When they are shown."""
        ...

    def get(self, wanted: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        """The frames numbered in `wanted` (ascending, unique), in any order; of one given twice the second is right.

        Those that do not decode are skipped.

        Raises:
            VideoError: one of those given so far turned out to be spoiled by another that is broken.
        """
        ...

    def close(self) -> None: ...


def find_frames(file: OpenFile, *, inspect: bool = False) -> ShownFrames:
    """Number the frames that the file shows.

    Args:
        file: just opened.
        inspect: look for damage on the way, for `PacketTable.damaged`.

    Raises:
        VideoError: there are none.
    """
    table = scan(file, inspect=inspect)
    if table is not None:
        frames = _Indexed(file, table)
        return _Indexed(file, replace(table, damaged=table.damaged + frames.unsound())) if inspect else frames
    file.reopen()
    table = scan_packed(file)
    if table is not None:
        return _Packed(file, table)
    counted = Counted(file)
    if counted.count == 0:
        raise VideoError(file.path, "no frame of it decodes")
    return counted


@dataclass(frozen=True)
class _Run:
    """A stretch of packets to decode in one go, from a keyframe to the last wanted one."""

    start: int
    wanted: list[int]


class _Indexed:
    """Frames by their packets: seek, decode, skip what nobody refers to."""

    packed = False

    def __init__(self, file: OpenFile, table: PacketTable) -> None:
        self._file = file
        self.table = table
        self._unreferred = unreferred_test(file.stream.codec_context)
        self._look = look_for(file.stream.codec_context)
        self._skip_test = skip_test(file.stream.codec_context)
        self._place = {pts: place for place, pts in enumerate(table.pts.tolist())}
        self._visible = frozenset(table.shown.tolist())
        self._packets: Iterator[tuple[int, Packet[VideoStream]]] = iter(())
        self._next: int | None = None  # the place of the packet that comes next, when it is known
        self._broken: set[int] = set()  # the last run's packets that spoil what refers to them
        self._complained = False  # the decoder, in the last run
        self._doubtful = False  # the last run had packets whose zeros may stand in place of data
        self.count, self.size = len(table.shown), frame_size(file.stream.codec_context)
        self.timing = timing(file, table.ticks)

    def get(self, wanted: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        number = {int(self.table.shown[n]): n for n in wanted}
        missing, spoiled = set(number), set[int]()
        for run in self._runs(sorted(number)):
            seen: dict[int, bytes] = {}
            for place, frame in self._decode(run, sparing=True):
                if place in missing:
                    missing.remove(place)
                    self._remember(seen, place, frame)
                    yield number[place], frame
            spoiled.update(self._spoiled(run.wanted), self._changed(run, seen, sparing=True))
        if not missing and not spoiled:
            return
        # A keyframe that is none, or a decoder that guessed the order of pictures wrong: once more, in full.
        again = sorted(missing | spoiled)
        self._restart()
        run, seen = _Run(0, again), {}
        for place, frame in self._decode(run, sparing=False):
            if place in again and place not in seen:
                missing.discard(place)
                self._remember(seen, place, frame)
                yield number[place], frame  # perhaps in the place of another
        refused = {number[place] for place in self._spoiled(again) if place not in missing}
        changed = {number[place] for place in self._changed(run, seen, sparing=False)}
        if changed:
            reason = "is damaged or refers to a damaged frame: zeros stand in place of data"
            raise VideoError(self._file.path, f"frame {min(changed)} of {self.count} {reason}")
        if refused:
            reason = f"frame {min(refused)} of {self.count} follows a broken one, which it may refer to"
            raise VideoError(self._file.path, reason)

    def unsound(self) -> int:
        """How many of the doubtful packets' frames are not sound; 1 when that is not known."""
        number = {place: n for n, place in enumerate(self.table.shown.tolist())}
        wanted = sorted(number[place] for place in self.table.doubtful if place in number)
        try:
            return len(wanted) - len({n for n, _ in self.get(wanted)})
        except VideoError:
            return 1

    def close(self) -> None:
        """Let go of the packets: they refer back to here, and would be kept until Python looks for such circles."""
        self._packets = iter(())

    def _runs(self, places: list[int]) -> list[_Run]:
        """Start again at a keyframe where there is one between two wanted frames, decode on where not."""
        runs: list[_Run] = []
        for place in places:
            start = int(self.table.start[place])
            if runs and start <= runs[-1].wanted[-1]:
                runs[-1].wanted.append(place)
            else:
                runs.append(_Run(start, [place]))
        return runs

    def _spoiled(self, wanted: list[int]) -> Iterator[int]:
        """Of the places wanted in the last run, those with a broken one between their keyframe and themselves."""
        if self._broken:
            broken = sorted(self._broken)
            for place in wanted:
                at = bisect_left(broken, int(self.table.start[place]))
                if at < len(broken) and broken[at] < place:
                    yield place

    def _remember(self, seen: dict[int, bytes], place: int, frame: VideoFrame) -> None:
        """Note what a frame shows, if it may depend on zeros that stand in place of data."""
        seen[place] = fingerprint(frame) if self._doubtful else b""

    def _changed(self, run: _Run, seen: dict[int, bytes], *, sparing: bool) -> list[int]:
        """The places among those seen in the last run whose frames are others without the zeros."""
        if not any(seen.values()):
            return []
        broken = self._broken
        others = {place: fingerprint(frame) for place, frame in self._decode(run, sparing=sparing, fill=True)}
        self._broken = broken
        return [place for place, mark in seen.items() if mark and others.get(place) != mark]

    def _decode(self, run: _Run, *, sparing: bool, fill: bool = False) -> Iterator[tuple[int, VideoFrame]]:
        """(place, frame) of the wanted frames of a run, without those marked as corrupt.

        Args:
            run: what to decode.
            sparing: skip what no other refers to.
            fill: put something else in the place of doubtful zeros.
        """
        if self._complained or self._broken - self.table.holes.joints - self.table.holes.skips:
            self._restart()  # FFmpeg's H.264 decoder remembers errors beyond a flush, and patches up sound frames
        self._go_to(run.start)
        self._file.stream.codec_context.flush_buffers()
        wanted, last = set(run.wanted), run.wanted[-1]
        holes = self.table.holes
        self._broken = broken = set(holes.all)
        self._doubtful = self._complained = False
        skips = self._skip_test() if self._skip_test else None
        needed = needed_test(self._file.stream.codec_context)
        due = set[int]()  # what has to come out, since other pictures may refer to it
        for place, packet in self._from(run.start):
            alone = self._unreferred(packet)
            if needed(packet) or not (sparing and alone) or place in wanted:
                if skips is not None and skips(packet):
                    broken.add(place - 1)
                doubt = self._look(packet)
                cut = packet.is_corrupt and not holes.only_joints
                if cut or place in holes.damaged or (doubt is not None and doubt.broken):
                    wanted.discard(place)
                    broken.add(place)
                if doubt is not None and doubt.other is not None:
                    self._doubtful = True
                    packet = filled(packet, doubt.other) if fill else packet
                frames = self._file.decode(packet)
                self._complained = self._complained or frames is None
                if not alone:
                    due.add(place)
                    if frames is None:
                        broken.add(place)
                yield from self._sound(frames, wanted, due)
            if place == last:
                break
        yield from self._sound(self._file.decode(None), wanted, due)
        broken |= due & self._visible

    def _sound(
        self, frames: list[VideoFrame] | None, wanted: set[int], due: set[int]
    ) -> Iterator[tuple[int, VideoFrame]]:
        for frame in frames or ():
            place = -1 if frame.pts is None else self._place.get(frame.pts, -1)
            if not frame.is_corrupt:
                due.discard(place)
                if place in wanted:
                    yield place, frame

    def _from(self, start: int) -> Iterator[tuple[int, Packet[VideoStream]]]:
        """(place, packet) from packet `start` on."""
        for place, packet in self._packets:
            self._next = place + 1 if place >= 0 else None
            if place >= start:
                yield place, packet

    def _go_to(self, start: int) -> None:
        """Be at packet `start` or before it; where a seek has led, the packet itself tells."""
        if self._next is not None and self._next <= start < self._next + _NEAR:
            return
        try:
            self._file.container.seek(self._time(start), stream=self._file.stream)
        except (av.error.FFmpegError, OSError):
            self._restart()
            return
        packets = self._placed()
        first = next(packets, None)
        if first is not None and 0 <= first[0] <= start:
            self._packets, self._next = chain([first], packets), first[0]
        else:
            self._restart()

    def _restart(self) -> None:
        self._file.reopen()
        self._packets, self._next = self._placed(), 0

    def _time(self, place: int) -> int:
        """Where to seek for the packet in a place, in the stream's time base."""
        return int(self.table.pts[place])

    def _placed(self) -> Iterator[tuple[int, Packet[VideoStream]]]:
        """(place, packet) from where the file is read; -1 for one that the table does not have."""
        for packet in self._file.packets():
            yield -1 if packet.pts is None else self._place.get(packet.pts, -1), packet


class _Packed(_Indexed):
    """The same for pictures that share packets: each gets a packet of its own, with its number as its pts."""

    packed = True

    def __init__(self, file: OpenFile, table: PackedTable) -> None:
        super().__init__(file, table)
        self._packet, self._first = table.packet.tolist(), table.first.tolist()
        self._header = file.stream.codec_context.extradata or b""

    def _time(self, place: int) -> int:
        return int(self._packet[place])

    def _placed(self) -> Iterator[tuple[int, Packet[VideoStream]]]:
        for packet in self._file.packets():
            # An AVI's dts is the number of the packet.
            if packet.dts is None or not 0 <= packet.dts < len(self._first) - 1:
                yield -1, packet
                continue
            place, end = self._first[packet.dts : packet.dts + 2]
            for picture in units(packet, self._header)[: end - place]:
                picture.pts = int(self.table.pts[place])
                yield place, picture
                place += 1
