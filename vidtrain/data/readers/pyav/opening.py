"""Opening a file with FFmpeg, walking its packets, and saying in plain words why one does not open."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vidtrain.data.readers.pyav.container_bytes import Glance, glance
from vidtrain.errors import VideoError
from vidtrain.tar_members import stretch_of

# Only local files, and parts of them: a text file called .mp4 may be a playlist, and FFmpeg would follow the addresses
# in it.
_LOCAL: Final = {"protocol_whitelist": "file"}
_LOCAL_PART: Final = {"protocol_whitelist": "file,subfile"}
# Reaches the decoders that FFmpeg opens while it probes, and no others: they then read headers and decode no picture,
# which takes 1 ms instead of 20 for 1280x720 H.264.
_PROBE_HEADERS: Final = {"skip_frame": "all"}
# AV_CODEC_FLAG_UNALIGNED: without it frames that are cropped on the left keep up to 63 columns not meant to be shown.
_UNALIGNED: Final = 1
STRICT: Final = {
    "mjpeg": "explode",
    "png": "crccheck+explode",
    **dict.fromkeys(("msmpeg4v1", "msmpeg4v2", "msmpeg4"), "bitstream+explode"),
    **dict.fromkeys(("wmv1", "wmv2"), "bitstream+buffer+explode"),
}
"""FFmpeg's option err_detect for decoders that patch up broken frames without a mark unless they are told to give up.

It makes those of H.264 and MPEG-1 and -2 refuse more sound frames and not see more damage.
"""
# Titles that are not UTF-8 are no reason to refuse a file. From PyAV 19 on they never are.
LENIENT: Final[dict[str, Any]] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}

_MARKED_DEFAULT: Final = 5_000_000  # pixels that the mark "default" counts as


class OpenFile:
    """A container, its default video stream and one decode thread. To be closed, or PyAV leaks the file."""

    container: InputContainer
    stream: VideoStream

    def __init__(self, path: str, timeout: float | None = None) -> None:
        """Open a local file under any name, or a member of a tar file.

        Args:
            path: the file, see `vidtrain.tar_members`.
            timeout: seconds that FFmpeg may search for a packet; None means as long as it takes.

        Raises:
            VideoError: no such file, empty, encrypted, not a video, no video stream.
        """
        self.path = path
        stretch = stretch_of(path)
        # "file:" keeps names with a colon or a leading dash from being taken for something else
        self._url = f"file:{stretch.file}"
        if stretch.size is not None:  # FFmpeg's own window on a file costs no more than the file
            self._url = f"subfile,,start,{stretch.start},end,{stretch.start + stretch.size},,:{self._url}"
        self._timeout = timeout
        self._index: int | None = None  # of the stream, once chosen
        self.seen, self._movie = _look(path)
        self._open(thorough=False)

    def _open(self, *, thorough: bool) -> None:
        # PyAV 14 to 16 crash on options for formats without a list of streams (FLV, MPEG-TS).
        options = {} if thorough or not self.seen.declares_streams else dict(_PROBE_HEADERS)
        try:
            self.container = av.open(
                self._url,
                options=options,
                container_options=dict(_LOCAL if self._url.startswith("file:") else _LOCAL_PART),
                timeout=self._timeout,
                **LENIENT,
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoError(self.path, _why_not_opened(error, self.seen)) from None
        try:
            self.stream = self._choose()
            self.stream.codec_context.thread_count = 1
            self.stream.codec_context.flags |= _UNALIGNED
            if (strict := STRICT.get(self.stream.codec_context.name)) is not None:
                self.stream.codec_context.options = {"err_detect": strict}
        except BaseException:
            self.container.close()
            raise

    def _choose(self) -> VideoStream:
        """The stream of the first opening, at every opening: how much FFmpeg probes must not change what is shown."""
        if self._index is not None and self._index < len(self.container.streams):
            stream = self.container.streams[self._index]
            if isinstance(stream, VideoStream):
                return stream
        stream = default_video(self.path, self.container)
        self._index = stream.index
        return stream

    def reopen(self) -> None:
        """Back to the start of the file with a fresh decoder, now letting FFmpeg decode pictures while it probes.

        The decoder then starts with the best guess of how far pictures are reordered, and drops none.
        """
        self.container.close()
        self._open(thorough=True)

    def take_movie(self) -> bytes | None:
        """The box that describes an MP4's tracks, see `boxes.movie_box`, to the first that asks: it may be large."""
        movie, self._movie = self._movie, None
        return movie

    def entries(self, *names: str) -> list[npt.NDArray[np.int64]]:
        """Of each entry in FFmpeg's index of the stream what PyAV calls so, int64 (E,); E is 0 before PyAV 16."""
        found = list(getattr(self.stream, "index_entries", None) or ())
        return [np.fromiter(map(attrgetter(name), found), np.int64, len(found)) for name in names]

    @property
    def streams(self) -> int:
        """Streams of video, the cover image of a song aside."""
        return sum(not stream.disposition & Disposition.attached_pic for stream in self.container.streams.video)

    def close(self) -> None:
        self.container.close()

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """The video's packets from here to the end, or to where the file can be read no further; no empty ones.

        Raises:
            VideoError: none is found in time, as when a download has left gigabytes of zeros.
        """
        try:
            for packet in self.container.demux(self.stream):
                if packet.size:  # an empty one would tell the decoder that the stream ends
                    yield packet
        except av.error.ExitError:
            reason = f"FFmpeg searched for the next packet for more than {self._timeout:g} s"
            raise VideoError(self.path, f"{reason}: a damaged file or a slow disk (see decoder.timeout)") from None
        except (av.error.FFmpegError, OSError):
            return
        except IndexError:  # at the end PyAV trips over streams that turned up on the way
            return

    def decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame] | None:
        """The pictures that come out when a packet goes in, or those still inside for None.

        None for a packet that the decoder complains of.
        """
        try:
            return self.stream.codec_context.decode(packet)
        except (av.error.FFmpegError, OSError):
            return None


def packet_of(data: bytes | bytearray) -> Packet[Any]:
    """A packet with a copy of `data` and, behind it, the zeros that FFmpeg's decoders may read.

    `Packet(data)` has none: decoders that read beyond the end then see whatever lies there in memory, and complain of a
    sound frame or give another one, at random.
    """
    packet: Packet[Any] = Packet(len(data))
    if data:
        packet.update(bytes(data))
    return packet


def _look(path: str) -> tuple[Glance, bytes | None]:
    """The mistakes that need no video library to find."""
    try:
        stretch = stretch_of(path)
        found = Path(stretch.file).stat()
        if stat.S_ISDIR(found.st_mode):
            raise VideoError(path, "is a folder, not a video file")
        if not stat.S_ISREG(found.st_mode):
            raise VideoError(path, "is not a regular file")
        if (found.st_size if stretch.size is None else stretch.size) == 0:
            raise VideoError(path, "the file is empty")
        seen, movie = glance(path)
    except FileNotFoundError:
        raise VideoError(path, "no such file") from None
    except PermissionError:
        raise VideoError(path, "may not be read (permission denied)") from None
    except (OSError, ValueError) as error:
        raise VideoError(path, f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if seen.encrypted:
        raise VideoError(path, "the video is encrypted")
    return seen, movie


def default_video(path: str, container: InputContainer) -> VideoStream:
    """The stream that the ffmpeg command takes by default; the cover image of a song is not one."""
    streams = container.streams.video
    if not streams:
        kind = "audio only" if container.streams.audio else "no stream that FFmpeg knows"
        raise VideoError(path, f"has no video stream ({kind})")
    known = [s for s in streams if isinstance(s, VideoStream) and getattr(s, "codec_context", None) is not None]
    if not known:
        raise VideoError(path, "holds a kind of video that this FFmpeg has no decoder for")
    # The first of several that are equal.
    stream = known[0] if len(known) == 1 else max(known, key=_preference)
    if stream.disposition & Disposition.attached_pic:
        raise VideoError(path, "has no video stream (audio with a cover picture)")
    return stream


def _preference(stream: VideoStream) -> int:
    """As in FFmpeg's fftools: the largest frames, and a stream marked as the default before one of similar size."""
    if stream.disposition & Disposition.attached_pic:
        return -1
    context = stream.codec_context
    return context.width * context.height + (_MARKED_DEFAULT if stream.disposition & Disposition.default else 0)


def _why_not_opened(error: Exception, seen: Glance) -> str:
    if not isinstance(error, av.error.InvalidDataError):
        return f"does not open ({getattr(error, 'strerror', None) or error})"
    if seen.mp4:
        return "is cut off: the index of the video (moov atom) is missing"
    return "is not a video file that FFmpeg knows"
