"""What there is to know of one video file: how it is stored, which of its frames decode, what it shows.

`probe` runs in a process of its own (see `pool`): what it returns is small, and it needs no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from vidtrain.data.manifest.files import PACK_EXTENSION, natural_key
from vidtrain.data.readers.base import OpenVideo, VideoReader
from vidtrain.data.readers.pyav.opening import OpenFile
from vidtrain.data.readers.pyav.reader import PyAVVideo
from vidtrain.data.readers.pyav.to_rgb import ONE_THREAD
from vidtrain.data.readers.pyav.truncation import missing_bytes
from vidtrain.data.readers.timeline import Timeline, packed, unpacked
from vidtrain.errors import VideoError
from vidtrain.tar_members import mapped, size_of

Luma = npt.NDArray[np.uint8]

_CHUNK_BYTES: Final = 32 << 20  # of frames asked for at once from a reader other than PyAV's
_GRID: Final = 4  # every 4th pixel of every 4th row is compared: nothing that can be seen falls through
_STILL: Final = 8  # levels of 255; what encoders alter in a frame that stands still
_BLACK: Final = 32  # levels; black is 16 in most videos, and noise comes on top
_CODECS: Final = {"libdav1d": "av1", "libaom-av1": "av1", "libvpx": "vp8", "libvpx-vp9": "vp9"}
# Formats whose first plane is the luma of the frame as it is stored, a byte per pixel.
_LUMA_FIRST: Final = frozenset({"gray", "nv12", "nv21", *(f"yuv{j}{s}p" for j in ("", "j") for s in (420, 422, 444))})


class Depth(IntEnum):
    """How much of a file is looked at; each one includes those before it."""

    OPENED = 0
    """Its packets are listed, no frame is decoded."""
    SAMPLED = 1
    """The first, the middle and the last frame are decoded, and the content is hashed."""
    FULL = 2
    """All frames are decoded."""


@dataclass(frozen=True)
class Probe:
    """What was found out about a file. Of one that cannot be read, only `error`, `fault` and `size` count.

    error: why it cannot be read, None when it can.
    fault: as in `pool.Outcome`: "", "video", "timeout", "crash".
    size: bytes; of a folder of images, of all of them.
    frames, fps, height, width: as in `VideoInfo`.
    codec, container: FFmpeg's names; "images" and "folder", "jpeg" and "jpack" for what is no video file.
    absent: bytes that the container announces beyond the end of the file.
    claimed: frames that the container announces, 0 where it does not.
    content: hash of the encoded frames, the same for a copy in another container; "" at depth OPENED.
    corrupt: frames that do not decode, of those tried; with readers other than PyAV's at most 1, since they are not
        asked for more when one fails. broken: what is wrong with the first, "" when corrupt is 0.
    times: of the frames where they are not evenly spaced, see `timeline.packed`; times_note: as in `VideoInfo`.
    still: no frame differs from the first; black: no frame shows anything. Known of sound videos at depth FULL.
    """

    error: str | None = None
    fault: str = ""
    size: int = 0
    frames: int = 0
    fps: float = 0.0
    height: int = 0
    width: int = 0
    codec: str = ""
    container: str = ""
    absent: int = 0
    claimed: int = 0
    content: str = ""
    corrupt: int = 0
    broken: str = ""
    still: bool = False
    black: bool = False
    times: str = ""
    times_note: str = ""

    @property
    def seconds(self) -> float:
        return self.line.end if self.fps else 0.0

    @property
    def line(self) -> Timeline:
        """When the frames are shown; of a file that can be read."""
        return Timeline(self.frames, self.fps, unpacked(self.times, self.frames))


def probe(path: str, reader: VideoReader, depth: Depth) -> Probe:
    """Look at one video.

    Raises:
        VideoError: it does not open, or none of the frames that were tried decodes.
    """
    with reader.open(path) as video:
        info = video.info
        frames = _decode(path, video, depth)
    if 0 < frames.tried == frames.corrupt:
        raise VideoError(path, "no frame of it decodes" if depth is Depth.FULL else "no frame that was tried decodes")
    return replace(
        _stored(path, hashed=depth > Depth.OPENED),
        frames=info.num_frames,
        fps=info.fps,
        height=info.height,
        width=info.width,
        corrupt=frames.corrupt,
        broken=frames.broken,
        still=depth is Depth.FULL and not frames.corrupt and frames.still,
        black=depth is Depth.FULL and not frames.corrupt and frames.black,
        times=packed(info.times),
        times_note=info.times_note,
    )


# ---------------------------------------------------------------- the frames


class _Seen:
    """What the frames of a video amount to, taken in one by one."""

    def __init__(self, count: int, tried: int) -> None:
        self.tried = tried
        self.corrupt = 0
        self.broken = ""
        self.still = count > 1
        self.black = True
        self._first: npt.NDArray[np.int16] | None = None

    def add(self, luma: Luma) -> None:
        sparse = luma[::_GRID, ::_GRID].astype(np.int16)
        if self._first is None or self._first.shape != sparse.shape:
            self._first = sparse
        self.still = self.still and bool(np.abs(sparse - self._first).max() <= _STILL)
        self.black = self.black and bool(sparse.max() <= _BLACK)


def _decode(path: str, video: OpenVideo, depth: Depth) -> _Seen:
    count = video.info.num_frames
    wanted: list[int] | range = range(count)
    if depth < Depth.FULL:
        wanted = sorted({0, count // 2, count - 1}) if depth is Depth.SAMPLED else []
    seen = _Seen(count, len(wanted))
    if isinstance(video, PyAVVideo):
        _decode_av(video, wanted, seen)
    else:
        _decode_any(video, wanted, seen)
    return seen


def _decode_av(video: PyAVVideo, wanted: list[int] | range, seen: _Seen) -> None:
    """Take in the luma of the frames, without the cost of converting them to RGB."""
    missing, count = set(wanted), video.info.num_frames
    try:
        for number, frame in video.frames.get(wanted):
            if frame.format.name not in _LUMA_FIRST:
                frame = frame.reformat(format="gray", **ONE_THREAD)
            plane = frame.planes[0]
            rows = np.frombuffer(memoryview(plane), np.uint8)[: frame.height * plane.line_size]
            seen.add(rows.reshape(frame.height, plane.line_size)[:, : frame.width])
            missing.discard(number)
    except VideoError as error:  # all were given, but one of them refers to a broken one
        seen.corrupt, seen.broken = 1, error.reason
    if missing:
        seen.corrupt, seen.broken = len(missing), f"frame {min(missing)} of {count} does not decode"


def _decode_any(video: OpenVideo, wanted: list[int] | range, seen: _Seen) -> None:
    """The same by the reader's own `read`, up to the first frames that fail.

    Raises:
        VideoError: it reads neither those nor the first, the middle and the last frame by themselves.
    """
    step = max(1, _CHUNK_BYTES // max(1, video.info.height * video.info.width * 3))
    for first in range(0, len(wanted), step):
        try:
            _take(video, wanted[first : first + step], seen)
        except VideoError as error:
            seen.corrupt, seen.broken = 1, error.reason
            if first == 0 and not any(_reads(video, wanted[at], seen) for at in (0, len(wanted) // 2, -1)):
                raise
            return


def _take(video: OpenVideo, numbers: Sequence[int], seen: _Seen) -> None:
    for frame in video.read(np.array(numbers, dtype=np.int64)):
        seen.add(frame[..., 1])


def _reads(video: OpenVideo, number: int, seen: _Seen) -> bool:
    try:
        _take(video, [number], seen)
    except VideoError:
        return False
    return True


# ---------------------------------------------------------------- the file


def _stored(path: str, *, hashed: bool) -> Probe:
    """How a video lies on the disk, and nothing of its frames."""
    try:
        if Path(path).is_dir():
            return _folder(Path(path), hashed=hashed)
        if path.endswith(PACK_EXTENSION):
            content = hashlib.sha256(mapped(path).data).hexdigest() if hashed else ""
            return Probe(size=size_of(path), codec="jpeg", container="jpack", content=content)
        return _file(path, hashed=hashed)
    except OSError as error:
        raise VideoError(path, f"cannot be read ({error.strerror or error})") from None


def _file(path: str, *, hashed: bool) -> Probe:
    file = OpenFile(path)
    try:
        codec = file.stream.codec_context.codec.name
        digest = hashlib.sha256(codec.encode())
        for packet in file.packets() if hashed else ():
            digest.update(packet)
        return Probe(
            size=size_of(path),
            codec=_CODECS.get(codec, codec),
            container=file.container.format.name.split(",", 1)[0],
            absent=missing_bytes(path),
            claimed=file.stream.frames,
            content=digest.hexdigest() if hashed else "",
        )
    finally:
        file.close()


def _folder(path: Path, *, hashed: bool) -> Probe:
    """Images: the same ones in the same order are the same video, whatever their names."""
    digest, size = hashlib.sha256(), 0
    for name in sorted((file.name for file in path.iterdir() if not file.name.startswith(".")), key=natural_key):
        file = path / name
        if file.is_file():
            size += file.stat().st_size
            if hashed:
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return Probe(size=size, codec="images", container="folder", content=digest.hexdigest() if hashed else "")
