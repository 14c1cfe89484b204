"""Frames of a stream, decoded in a thread and kept at the size of the network, as few as a window needs.

A reader that is late does not hold up a camera: of what it has not taken, the oldest frames go. A pipe or a file waits.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vidtrain.data.readers.pyav.opening import STRICT, default_video
from vidtrain.data.readers.pyav.to_rgb import Converter, Orientation
from vidtrain.errors import VideoError
from vidtrain.live.settings import LiveConfig
from vidtrain.live.sources import SourceKind, StreamSource, open_source
from vidtrain.live.timestamps import StreamClock
from vidtrain.types import Frames, VideoInfo

log = logging.getLogger("vidtrain")

_NO_TIMESTAMPS: Final = 0x80  # AVFMT_NOTIMESTAMPS
_NEW_CLOCKS: Final = 0x200  # AVFMT_TS_DISCONT
_MOST_PIXELS: Final = 1 << 26  # of a frame, as it comes and as it is scaled
_BARREN: Final = 2000  # packets without a frame
_END: Final = 2.0  # seconds that the thread may take to end


class Cut(Protocol):
    """How a frame becomes what the network reads, as data.clips.crop.Crop."""

    @property
    def read_size(self) -> tuple[int, int]: ...
    def apply(self, frames: Frames) -> Frames: ...


@dataclass(frozen=True, eq=False)
class LiveFrame:
    """image: uint8 (size, size, 3). number: among all that were decoded. seconds: of the stream, from 0. run: how often
    the stream had been opened; windows do not reach from one run to the next. rate: frames per second of the run as its
    container says, None where it does not. arrived, wall: when its packet came, by time.monotonic and time.time."""

    image: Frames
    number: int
    seconds: float
    run: int
    rate: float | None
    arrived: float
    wall: float


@dataclass(frozen=True)
class Hold:
    """How much is kept for a reader that is late: these frames, all of the last seconds, and never more than `most`."""

    frames: int
    seconds: float = 0.0
    most: int = 1 << 20

    def is_over(self, frames: deque[LiveFrame]) -> bool:
        if len(frames) <= self.frames:
            return False
        return len(frames) > self.most or frames[-1].seconds - frames[0].seconds > self.seconds


class Capture:
    """A stream that is being read, while it is entered.

    Args:
        cut_of: how frames of this height and width are cut.
        hold: how much is kept.
        drop: the oldest frames go when there is more; false: reading waits.

    Attributes:
        error: why it has ended, where that is one. opened: how often the stream was opened. number: frames that were
        decoded, spoiled: those that could not be. lost: frames that had to go before they were taken.
    """

    def __init__(
        self, source: StreamSource, config: LiveConfig, cut_of: Callable[[VideoInfo], Cut], hold: Hold, *, drop: bool
    ) -> None:
        self._source, self._config, self._cut_of, self._hold, self._drop = source, config, cut_of, hold, drop
        self._frames: deque[LiveFrame] = deque()
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._clock = StreamClock()
        self._thread = threading.Thread(target=self._read, name="capture", daemon=True)
        self._raised: BaseException | None = None
        self._whole = False  # a file that is played from far away: it ends, and is not opened again
        self._ended = False
        self.error: VideoError | None = None
        self.opened = self.number = self.spoiled = self.lost = 0

    def __enter__(self) -> Capture:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """A thread that hangs in a driver is left behind; it ends with the program."""
        with self._changed:
            self._stop.set()
            self._changed.notify_all()
        self._thread.join(_END)

    def take(self, seconds: float) -> list[LiveFrame]:
        """All frames that have come since the last call; waits for one for at most so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._ended, seconds)
            taken = list(self._frames)
            self._frames.clear()
            self._changed.notify_all()
            if not taken and self._raised is not None:
                raise self._raised
            return taken

    @property
    def is_done(self) -> bool:
        """Nothing comes any more, and all has been taken, a mistake of ours with it."""
        with self._changed:
            return self._ended and not self._frames and self._raised is None

    # ---------------------------------------------------------------- in the thread

    def _read(self) -> None:
        try:
            self.error = self._runs()
        except BaseException as error:  # ours: to the thread that asks for frames
            self._raised = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _runs(self) -> VideoError | None:
        """Run after run; the error that ended it."""
        tries, pause = 0, self._config.backoff
        while not self._stop.is_set():
            before = self.number
            try:
                if self._run():
                    return None
                error = VideoError(self._source.name, "the stream was cut")
            except VideoError as found:
                error = found
            if self._stop.is_set():  # what then does not open or ends early is nobody's mistake
                return None
            if not self._source.passes or not self.number or self._whole:
                return error
            if self.number > before:
                tries, pause = 0, self._config.backoff
            if tries == self._config.reconnect:
                return VideoError(error.path, f"{error.reason}; {tries} times it could not be opened again")
            tries += 1
            pause = min(pause, self._config.backoff_max)
            log.warning("%s: opening it again in %.3g s, try %d", error, pause, tries)
            self._stop.wait(pause)
            pause *= 2
        return None

    def _run(self) -> bool:
        """Open it and read it to its end. Whether that is the end of what it has to give."""
        container = open_source(self._source, self._config, self._stop.is_set)
        try:
            stream = self._chosen(container)
            rate = stream.average_rate or stream.guessed_rate
            self._clock.restart()
            self._clock.rate = float(rate) if rate else None
            flags = int(container.format.flags)
            self._clock.new_clocks = bool(flags & _NEW_CLOCKS)
            self._clock.by_arrival = self._source.passes and bool(flags & _NO_TIMESTAMPS)
            self._whole = self._source.kind is SourceKind.network and _has_a_length(container)
            self.opened += 1
            codec, said = stream.codec_context, f"{float(rate):.4g} frames/s" if rate else "no rate"
            log.info("%s: %s, %d x %d pixels, %s", self._source.name, codec.name, codec.width, codec.height, said)
            self._decode(container, stream)
            return self._whole or not self._source.passes or self._stop.is_set()
        finally:
            container.close()

    def _chosen(self, container: InputContainer) -> VideoStream:
        stream = default_video(self._source.name, container)
        context = stream.codec_context
        width, height = context.width, context.height
        if height * width > _MOST_PIXELS:
            raise VideoError(self._source.name, f"frames of {width} x {height} pixels; at most {_MOST_PIXELS} of them")
        context.thread_count = 1
        context.options = {"max_pixels": str(_MOST_PIXELS)}
        if (strict := STRICT.get(context.name)) is not None:
            context.options |= {"err_detect": strict}
        return stream

    def _decode(self, container: InputContainer, stream: VideoStream) -> None:
        painter, barren, since = _Painter(self._source.name, self._cut_of), 0, time.monotonic()
        packets = container.demux(stream)
        while not self._stop.is_set():
            try:
                packet = next(packets, None)
            except av.error.ExitError:
                raise VideoError(self._source.name, f"nothing came for {self._config.timeout:g} s") from None
            except (av.error.FFmpegError, OSError) as error:
                if self._source.passes:
                    why = getattr(error, "strerror", None) or type(error).__name__
                    raise VideoError(self._source.name, f"the stream broke off ({why})") from None
                return  # to where it can be read, as of any file
            except IndexError:  # at the end PyAV trips over streams that turned up on the way
                return
            if packet is None:
                return
            arrived, wall = time.monotonic(), time.time()
            try:
                frames: list[Any] = stream.codec_context.decode(packet if packet.size else None)
            except (av.error.FFmpegError, OSError):
                frames = []
                self.spoiled += 1
            for frame in frames:
                image = None if frame.is_corrupt else painter.paint(frame)
                if image is None:
                    self.spoiled += 1
                    continue
                barren, since = 0, arrived
                self._give(image, frame, arrived, wall)
            barren += 1
            if barren > _BARREN and arrived - since > self._config.timeout:
                raise VideoError(self._source.name, f"no frame of the last {barren} packets decodes")

    def _give(self, image: Frames, frame: VideoFrame, arrived: float, wall: float) -> None:
        pts = None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)
        seconds = self._clock.seconds(pts, arrived)
        made = LiveFrame(image, self.number, seconds, self.opened, self._clock.rate, arrived, wall)
        with self._changed:
            self._frames.append(made)
            self.number += 1
            self._changed.notify_all()
            if self._drop:
                while self._hold.is_over(self._frames):
                    self._frames.popleft()
                    self.lost += 1
            else:
                self._changed.wait_for(lambda: self._stop.is_set() or not self._hold.is_over(self._frames))


def _has_a_length(container: InputContainer) -> bool:
    if "hls" in container.format.name:  # whose size is that of the playlist
        return bool(container.duration)
    return bool(container.duration) or container.size > 0


class _Painter:
    """Frames as the network reads them; a stream may change its size at any of them."""

    def __init__(self, name: str, cut_of: Callable[[VideoInfo], Cut]) -> None:
        self._name, self._cut_of = name, cut_of
        self._shape: tuple[int, int] | None = None
        self._cut: Cut | None = None
        self._converter = Converter(Orientation())

    def paint(self, frame: VideoFrame) -> Frames | None:
        """uint8 (size, size, 3); None for one that does not convert.

        Raises:
            VideoError: scaled, it would be too large.
        """
        if (frame.height, frame.width) != self._shape:
            orientation = Orientation.of(frame)
            height, width = orientation.shape(frame.height, frame.width)
            cut = self._cut_of(VideoInfo(1, 1.0, height, width))
            rows, columns = cut.read_size
            if rows * columns > _MOST_PIXELS:
                raise VideoError(
                    self._name, f"frames of {width} x {height} pixels would be scaled to {columns} x {rows}"
                )
            if self._shape is not None:
                log.info("%s: frames are %d x %d pixels from here on", self._name, width, height)
            self._shape, self._cut, self._converter = (frame.height, frame.width), cut, Converter(orientation)
        assert self._cut is not None
        image = np.empty((*self._cut.read_size, 3), np.uint8)
        try:
            self._converter.write(frame, image)
        except (av.error.FFmpegError, ValueError):
            return None
        return self._cut.apply(image[None])[0]
