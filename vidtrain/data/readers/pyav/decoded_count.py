"""The frames of files whose packets do not tell them: by counting what the decoder gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from av.video.frame import VideoFrame

from vidtrain.data.readers.pyav.damaged_packets import filled, fingerprint, look_for
from vidtrain.data.readers.pyav.frame_numbers import TemporalReferences, skip_test
from vidtrain.data.readers.pyav.frame_times import by_decoding, timing
from vidtrain.data.readers.pyav.keyframes import HEAD, Worth, keyframe_test, true_keyframes
from vidtrain.data.readers.pyav.lost_packets import Holes, find_holes
from vidtrain.data.readers.pyav.opening import OpenFile
from vidtrain.data.readers.pyav.packet_table import stores_no_pts
from vidtrain.errors import VideoError

_STARTS_ANYWHERE: Final = frozenset(
    {"mpeg4", "h263", "h263p", "flv", "wmv1", "wmv2", "msmpeg4v1", "msmpeg4v2", "msmpeg4", "svq1"}
)
"""FFmpeg's decoders that begin at any frame, with grey in place of what it refers to and without a mark."""


class Counted:
    """Frames by counting what the decoder gives from the start of the file. Exact for every file, and slow.

    The file is decoded once just to count them.
    """

    table = None
    packed = False
    size = (0, 0)

    def __init__(self, file: OpenFile) -> None:
        self._file = file
        self._look = look_for(file.stream.codec_context)
        self._doubtful = False  # there were packets whose zeros may stand in place of data
        self._holes = Holes()
        self._sizes: list[int] = []  # of each packet
        self._positions: list[int | None] = []  # of each packet in the file
        self._times: list[int | None] = []  # the pts of each packet, or the dts where the pts are guesses
        self._stores_no_pts = stores_no_pts(file)
        self._test = keyframe_test(file.stream.codec_context)
        self._headless = False  # the first frame refers to one before it, which the file has lost
        self._worth: list[Worth | None] = []  # of each packet's mark as a keyframe
        self._broken: set[int] = set()  # packets that spoil those after them, up to the next keyframe
        self._skip_test = skip_test(file.stream.codec_context)
        self._skips: set[int] = set()  # packets behind which others are missing, by the numbers of frames
        self._numbers = TemporalReferences.of(file.stream.codec_context)
        packets: list[int | None] = []
        held = 0  # packets for which the decoder holds back the first frame
        for frame in self._all():
            if not packets:
                self.size = frame.height, frame.width
                held = len(self._times) - 1 - (frame.pts or 0) if self._stores_no_pts else 0
            packets.append(frame.pts)
        # A number that is none of ours is PyAV's guess for a frame without one.
        times = [self._times[n] if n is not None and 0 <= n < len(self._times) else None for n in packets]
        self._number = {packet: number for number, packet in enumerate(packets)}
        self._holes = find_holes(file, self._positions, self._sizes, *file.entries("pos"))
        if self._numbers is not None:
            self._holes = self._holes._replace(skips=self._numbers.skips())
        self._numbers = None
        self.count = len(packets)
        # By FFmpeg or a muxer, in file order.
        in_file_order = None not in self._times and self._times == sorted(self._times)  # type: ignore[type-var]
        made_up = bool(times) and None not in times and (self._stores_no_pts or in_file_order)
        self.timing = timing(file, by_decoding(packets, times, held) if made_up else times)

    def get(self, wanted: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        numbers = set(wanted)
        if not numbers:
            return
        packets: dict[int, int] = {}
        seen: dict[int, bytes] = {}
        for number, frame in enumerate(self._all()):
            if number in numbers and not frame.is_corrupt and frame.pts not in self._broken:
                packets[number] = frame.pts or 0
                if self._doubtful:
                    seen[number] = fingerprint(frame)
                yield number, frame
            if number == wanted[-1]:
                break
        broken = self._broken | self._skips | self._holes.all
        self._refuse_changed(seen)
        starts = [place for place, key in enumerate(true_keyframes(self._worth)) if key]
        for number, packet in packets.items():
            # A picture that is shown before the keyframe that it lies behind needs the one before that.
            keys = (key for key in starts if key <= packet and self._number.get(key, number + 1) <= number)
            start = max(keys, default=-1 if self._headless else 0)
            if start < 0:
                reason = f"frame {number} of {self.count} refers to one before the beginning of the file"
                raise VideoError(self._file.path, reason)
            if any(start <= place < packet for place in broken) or packet in self._holes.damaged:
                reason = f"frame {number} of {self.count} follows a broken one, which it may refer to"
                raise VideoError(self._file.path, reason)

    def _refuse_changed(self, seen: dict[int, bytes]) -> None:
        """Raise VideoError if a frame is another with something else in the place of zeros."""
        if not seen:
            return
        last = max(seen)
        for number, frame in enumerate(self._all(fill=True)):
            if number in seen and seen[number] != fingerprint(frame):
                reason = "is damaged or refers to a damaged frame: zeros stand in place of data"
                raise VideoError(self._file.path, f"frame {number} of {self.count} {reason}")
            if number == last:
                return
        raise VideoError(self._file.path, f"frame {last} of {self.count} does not decode")

    def close(self) -> None:
        """Nothing is kept between two reads."""

    def _all(self, *, fill: bool = False) -> Iterator[VideoFrame]:
        """All frames; their pts are the numbers of the packets they come from.

        Args:
            fill: put something else in the place of doubtful zeros.
        """
        self._file.reopen()
        self._doubtful = False
        self._positions, self._sizes, self._times, self._worth, self._broken = [], [], [], [], set[int]()
        self._skips = set()
        skips = self._skip_test() if self._skip_test else None
        for number, packet in enumerate(self._file.packets()):
            self._positions.append(packet.pos)
            self._sizes.append(packet.size)
            self._times.append(packet.dts if self._stores_no_pts else packet.pts)
            worth = self._test(bytes(memoryview(packet)[:HEAD]))
            self._worth.append(worth if packet.is_keyframe else None)
            if not number and self._file.stream.codec_context.name in _STARTS_ANYWHERE:
                self._headless = worth is Worth.FALSE
            if self._numbers is not None:
                self._numbers.add(bytes(memoryview(packet)[:HEAD]))
            if skips is not None and skips(packet):
                self._skips.add(number - 1)
            packet.pts = number
            doubt = self._look(packet)
            if (packet.is_corrupt and not self._holes.only_joints) or (doubt is not None and doubt.broken):
                self._broken.add(number)
            if doubt is not None and doubt.other is not None:
                self._doubtful = True
                packet = filled(packet, doubt.other) if fill else packet
            frames = self._file.decode(packet)
            if frames is None:
                self._broken.add(number)
            yield from self._noted(frames)
        yield from self._noted(self._file.decode(None))

    def _noted(self, frames: list[VideoFrame] | None) -> Iterator[VideoFrame]:
        for frame in frames or ():
            if frame.is_corrupt and frame.pts is not None:
                self._broken.add(frame.pts)
            yield frame
