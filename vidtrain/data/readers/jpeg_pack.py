"""A video as a pack of JPEGs in one file: any frame is one short read and one decode away, whatever came before it.

    header    magic, version, number of frames N, height, width, frames per second, checksum of header and tables
    offsets   uint64 (N + 1,), where each JPEG starts in the file; the last is the size of the file
    checks    uint32 (N,), the CRC-32 of each JPEG
    times     float64 (N + 1,), see `VideoInfo`; only in version 2, which is written where frames are not evenly spaced
    images    N baseline JPEGs, one after the other, complete with their tables

Little-endian throughout. Opening reads header and tables: 48 + 12 N bytes, or 20 N. JPEG decoders patch up damaged
images in silence; the checksums are what keeps such an image from being returned.

Decoded by FFmpeg's mjpeg, converted to RGB and scaled as the frames of videos are. Measured per clip of 16 frames of
171x128 (quality 85, 4:2:0), CPU time: 2.2 ms; torchvision's decode_jpeg 2.1 (deprecated since torchvision 0.29), Pillow
4.4; of packages that would have to be installed, simplejpeg 1.7 and OpenCV 1.8: not enough to ask for one. 4:2:2 takes
1.2 times as long as 4:2:0 and 4:4:4 twice; restart markers would help nobody.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import av
import numpy as np
import numpy.typing as npt
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from vidtrain.data.readers.base import OpenVideo
from vidtrain.data.readers.pyav.opening import packet_of
from vidtrain.data.readers.pyav.reader import slots_of
from vidtrain.data.readers.pyav.to_rgb import Converter, Orientation
from vidtrain.errors import VideoError
from vidtrain.tar_members import open_bytes, stretch_of
from vidtrain.types import Frames, Indices, VideoInfo

_MAGIC: Final = b"VIDJPACK"
_EVEN, _TIMED = 1, 2  # versions
_HEADER: Final = struct.Struct("<8sIIIIdI4x")  # a multiple of 8, so that the tables lie aligned
_GLANCE: Final = 1 << 14  # bytes read at first: all that is needed for up to 1,300 frames


@dataclass(frozen=True)
class JpegPackReader:
    """Opens JPEG packs. Has no settings."""

    def open(self, path: str) -> JpegPackVideo:
        """Open a pack and read where its images are.

        Raises:
            VideoError: no such file, not a pack, cut off, damaged.
        """
        return JpegPackVideo(path)


class JpegPackVideo(OpenVideo):
    """A pack being read, see `vidtrain.data.readers.base.OpenVideo`."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            if not stat.S_ISREG(Path(stretch_of(path).file).stat().st_mode):
                raise VideoError(path, "is not a regular file")
            self._file = open_bytes(path, buffering=0)
        except FileNotFoundError:
            raise VideoError(path, "no such file") from None
        except (OSError, ValueError) as error:
            raise VideoError(path, f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
        try:
            self.info, self._offsets, self._checks = _read_head(path, self._file)
        except OSError as error:
            self._file.close()
            raise VideoError(path, f"cannot be read ({error.strerror or error})") from None
        except BaseException:
            self._file.close()
            raise

    def read(self, indices: Indices, size: tuple[int, int] | None = None) -> Frames:
        """The frames `indices` as RGB uint8 (N, H, W, 3), see `OpenVideo.read`."""
        out = np.empty((len(indices), *(size or (self.info.height, self.info.width)), 3), np.uint8)
        converter, decoder = Converter(Orientation()), _new_decoder()
        for number, (first, *others) in sorted(slots_of(self._path, indices, self.info.num_frames).items()):
            converter.write(self._decode(decoder, number), out[first])
            out[others] = out[first]
        return out

    def read_grey(self, indices: Indices) -> npt.NDArray[np.uint8]:
        """The brightness of the images `indices` as stored, uint8 (N, H, W); raises as `read` does."""
        height, width = self.info.height, self.info.width
        out, decoder = np.empty((len(indices), height, width), np.uint8), _new_decoder()
        for number, (first, *others) in sorted(slots_of(self._path, indices, self.info.num_frames).items()):
            plane = self._decode(decoder, number).planes[0]
            out[first] = np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size)[:height, :width]
            out[others] = out[first]
        return out

    def close(self) -> None:
        self._file.close()

    def _decode(self, decoder: VideoCodecContext, number: int) -> VideoFrame:
        """Frame `number`, or VideoError."""
        which = f"frame {number} of {self.info.num_frames}"
        start, end = int(self._offsets[number]), int(self._offsets[number + 1])
        data = bytearray(end - start)
        try:
            self._file.seek(start)
            filled = _fill(self._file, data)
        except (OSError, ValueError) as error:  # ValueError: closed
            raise VideoError(self._path, f"{which} cannot be read ({error})") from None
        if not filled or zlib.crc32(data) != self._checks[number]:
            raise VideoError(self._path, f"{which} is damaged (its checksum is wrong)")
        try:
            # an empty packet would tell the decoder that the stream ends
            frames = decoder.decode(packet_of(data)) if data else []
        except (av.error.FFmpegError, OSError):
            frames = []
        if len(frames) != 1 or frames[0].is_corrupt:
            raise VideoError(self._path, f"{which} does not decode")
        if (frames[0].height, frames[0].width) != (self.info.height, self.info.width):
            got = f"{frames[0].width}x{frames[0].height}"
            raise VideoError(self._path, f"{which} is {got}, not {self.info.width}x{self.info.height}")
        return frames[0]


def _new_decoder() -> VideoCodecContext:
    decoder = av.CodecContext.create("mjpeg", "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1  # so that each image comes out when it has gone in
    return decoder


def write_pack(file: BinaryIO, jpegs: Iterable[bytes], info: VideoInfo) -> None:
    """Write a pack to an empty file that can be sought in.

    Args:
        file: opened for writing bytes, at its start.
        jpegs: info.num_frames baseline JPEGs, all of info.height x info.width; taken one by one.
        info: what the reader will tell.
    """
    count = info.num_frames
    times = b"" if info.times is None else info.times.astype("<f8").tobytes()
    file.seek(_HEADER.size + 8 * (count + 1) + 4 * count + len(times))
    offsets, checks = [file.tell()], []
    for jpeg in jpegs:
        file.write(jpeg)
        offsets.append(offsets[-1] + len(jpeg))
        checks.append(zlib.crc32(jpeg))
    assert len(checks) == count, f"{len(checks)} images, {count} announced"
    tables = np.array(offsets, "<u8").tobytes() + np.array(checks, "<u4").tobytes() + times
    head = _HEADER.pack(_MAGIC, _TIMED if times else _EVEN, count, info.height, info.width, info.fps, 0)
    file.seek(0)
    file.write(_HEADER.pack(*_HEADER.unpack(head)[:-1], zlib.crc32(tables, zlib.crc32(head))))
    file.write(tables)


def _read_head(path: str, file: BinaryIO) -> tuple[VideoInfo, npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
    """What stands before the images, checked."""
    data = bytearray(_GLANCE)
    del data[file.readinto(data) :]  # type: ignore[attr-defined]
    if not data:
        raise VideoError(path, "the file is empty")
    if data[: len(_MAGIC)] != _MAGIC:
        raise VideoError(path, "is not a JPEG pack")
    if len(data) < _HEADER.size:
        raise VideoError(path, "is cut off: the JPEG pack ends within its header")
    *fields, check = _HEADER.unpack_from(data)
    _, version, count, height, width, fps = fields
    if version not in (_EVEN, _TIMED):
        raise VideoError(path, f"is a JPEG pack of version {version}, this vidtrain reads {_TIMED}: prepare it again")
    size, untimed = file.seek(0, 2), _HEADER.size + 8 * (count + 1) + 4 * count
    end = untimed + (8 * (count + 1) if version == _TIMED else 0)
    if size < end:
        raise VideoError(path, "is cut off: the JPEG pack ends within its table of images")
    if end > len(data):
        data = bytearray(end)
        file.seek(0)
        _fill(file, data)
    tables = memoryview(data)[_HEADER.size : end]
    if zlib.crc32(tables, zlib.crc32(_HEADER.pack(*fields, 0))) != check:
        raise VideoError(path, "is damaged: the checksum of the JPEG pack's table is wrong")
    offsets = np.frombuffer(tables, "<u8", count + 1)
    checks = np.frombuffer(tables, "<u4", count, offset=8 * (count + 1))
    if size != int(offsets[-1]):
        raise VideoError(path, f"is cut off: the JPEG pack has {size} bytes, it should have {int(offsets[-1])}")
    times = None
    if version == _TIMED:
        times = np.frombuffer(tables[untimed - _HEADER.size :], "<f8").astype(np.float64)  # a copy, aligned
        if not (np.diff(times) >= 0).all() or times[0] != 0:
            raise VideoError(path, "is damaged: the times of its frames do not ascend from 0")
    return VideoInfo(count, fps, height, width, times), offsets, checks


def _fill(file: BinaryIO, data: bytearray) -> bool:
    """Read until `data` is full; False at the end of the file. A raw read may give less than asked for."""
    view, filled = memoryview(data), 0
    while filled < len(data):
        got = file.readinto(view[filled:])  # type: ignore[attr-defined]
        if not got:
            return False
        filled += got
    return True
