"""Decoding just the wanted frames of a file: by its packet table where there is one, by counting where not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import Final, Protocol

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vidtrain.data.readers.opening import OpenFile
from vidtrain.data.readers.packets import PacketTable, count_packed, scan
from vidtrain.errors import VideoError

# Decoders, by FFmpeg's name, whose skip_frame=NONREF leaves the other pictures untouched. (HEVC would let a picture of
# a higher temporal layer refer to one that FFmpeg skips; encoders mark only the highest layer as not referred to.)
_SKIPS_NONREF: Final = frozenset({"h264", "hevc", "mpeg4", "mpeg1video", "mpeg2video"})
_NEAR: Final = 64  # packets that are read over rather than sought


class ShownFrames(Protocol):
    """The frames that a file shows, numbered from 0."""

    @property
    def table(self) -> PacketTable | None:
        """The packets they come from, where these tell."""
        ...

    @property
    def packed(self) -> bool:
        """True for MPEG-4 with two pictures in some packets, see `packets.count_packed`."""
        ...

    @property
    def count(self) -> int: ...

    @property
    def fps(self) -> float:
        """Their mean rate; above 0."""
        ...

    def get(self, wanted: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        """The frames numbered in `wanted` (ascending, unique), in any order, sound ones only, none twice."""
        ...


def find_frames(file: OpenFile) -> ShownFrames:
    """Number the frames that the file shows.

    Raises:
        VideoError: there are none.
    """
    table = scan(file)
    if table is not None:
        return _Indexed(file, table)
    file.reopen()
    counted = _Counted(file, count_packed(file))
    if counted.count == 0:
        raise VideoError(file.path, "no frame of it decodes")
    return counted


def _rate(file: OpenFile, count: int, first: int | None, last: int | None) -> float:
    """Frames per second from the first and the last pts; of a single frame, the container's word, or 1."""
    if count > 1 and first is not None and last is not None and last > first:
        seconds = (last - first) * (file.stream.time_base or Fraction(1))
        return float((count - 1) / seconds)
    return float(file.stream.average_rate or file.stream.guessed_rate or 1)


@dataclass(frozen=True)
class _Run:
    """A stretch of packets to decode in one go, from a keyframe to the last wanted one."""

    start: int
    wanted: list[int]


class _Indexed:
    """Frames by their packets: seek, decode, skip what nobody refers to."""

    def __init__(self, file: OpenFile, table: PacketTable) -> None:
        self._file = file
        self.table = table
        self.packed = False
        self._place = {pts: place for place, pts in enumerate(table.pts.tolist())}
        self._packets: Iterator[Packet[VideoStream]] = iter(())
        self._next: int | None = None  # the place of the packet that comes next, when it is known
        shown = table.pts[table.shown]
        self.count = len(shown)
        self.fps = _rate(file, self.count, int(shown[0]), int(shown[-1]))

    def get(self, wanted: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        number = {int(self.table.shown[n]): n for n in wanted}
        missing = dict(number)
        for run in self._runs(sorted(number)):
            for place, frame in self._decode(run, skip=True):
                if missing.pop(place, None) is not None:
                    yield number[place], frame
        if missing:
            # A keyframe that is none, or a decoder that guessed the order of pictures wrong: once more, in full.
            self._restart()
            for place, frame in self._decode(_Run(0, sorted(missing)), skip=False):
                if missing.pop(place, None) is not None:
                    yield number[place], frame

    def _runs(self, places: list[int]) -> list[_Run]:
        """Start anew at a keyframe where there is one between two wanted frames, decode on where not."""
        runs: list[_Run] = []
        for place in places:
            start = int(self.table.start[place])
            if runs and start <= runs[-1].wanted[-1]:
                runs[-1].wanted.append(place)
            else:
                runs.append(_Run(start, [place]))
        return runs

    def _decode(self, run: _Run, *, skip: bool) -> Iterator[tuple[int, VideoFrame]]:
        """(place, frame) of the wanted frames of a run, without those marked as corrupt."""
        self._go_to(run.start)
        context = self._file.stream.codec_context
        context.flush_buffers()
        skip = skip and context.name in _SKIPS_NONREF
        wanted, last = set(run.wanted), run.wanted[-1]
        for place, packet in self._from(run.start):
            if skip:
                context.skip_frame = "DEFAULT" if place in wanted else "NONREF"
            yield from self._sound(self._file.decode(packet), wanted)
            if place == last:
                break
        yield from self._sound(self._file.decode(None), wanted)

    def _sound(self, frames: list[VideoFrame], wanted: set[int]) -> Iterator[tuple[int, VideoFrame]]:
        for frame in frames:
            place = -1 if frame.pts is None else self._place.get(frame.pts, -1)
            if place in wanted and not frame.is_corrupt:
                yield place, frame

    def _from(self, start: int) -> Iterator[tuple[int, Packet[VideoStream]]]:
        """(place, packet) from packet `start` on."""
        for packet in self._packets:
            place = -1 if packet.pts is None else self._place.get(packet.pts, -1)
            self._next = place + 1 if place >= 0 else None
            if place >= start:
                yield place, packet

    def _go_to(self, start: int) -> None:
        """Be at packet `start` or before it; where a seek has led, the packet itself tells."""
        if self._next is not None and self._next <= start < self._next + _NEAR:
            return
        try:
            self._file.container.seek(int(self.table.pts[start]), stream=self._file.stream)
        except (av.error.FFmpegError, OSError):
            self._restart()
            return
        packets = self._file.packets()
        first = next(packets, None)
        place = -1 if first is None or first.pts is None else self._place.get(first.pts, -1)
        if first is not None and 0 <= place <= start:
            self._packets, self._next = chain([first], packets), place
        else:
            self._restart()

    def _restart(self) -> None:
        self._file.reopen()
        self._packets, self._next = self._file.packets(), 0


class _Counted:
    """Frames by counting what the decoder gives from the start of the file. Exact for every file, and slow.

    Unless their number is known, the file is decoded once just to count them.
    """

    def __init__(self, file: OpenFile, count: int | None) -> None:
        self._file = file
        self.table = None
        self.packed = count is not None
        first = last = None
        if count is None:
            times = [frame.pts for frame in self._all()]
            known = [time for time in times if time is not None]
            count = len(times)
            if len(known) == count > 0:
                first, last = min(known), max(known)
        self.count = count
        self.fps = _rate(file, count, first, last)

    def get(self, wanted: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        numbers = set(wanted)
        if not numbers:
            return
        for number, frame in enumerate(self._all()):
            if number in numbers and not frame.is_corrupt:
                yield number, frame
            if number == wanted[-1]:
                return

    def _all(self) -> Iterator[VideoFrame]:
        self._file.reopen()
        for packet in self._file.packets():
            yield from self._file.decode(packet)
        yield from self._file.decode(None)
