"""Writing small videos whose every pixel is known, and reading them back the plain way. For tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from vidtrain.data.readers.base import VideoReader
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.data.readers.pyav.to_rgb import ONE_THREAD
from vidtrain.errors import VideoError
from vidtrain.types import Frames, VideoInfo

Pictures = npt.NDArray[np.uint8]
Option = Mapping[str, str]


def scene(count: int, height: int = 48, width: int = 64, seed: int = 0) -> Pictures:
    """(count, height, width, 3) uint8: a texture in motion with a little grain and a cut in the middle.

    No two frames are equal and neighbours resemble each other, so that encoders use all kinds of references.
    """
    rng = np.random.default_rng(seed)
    textures = [np.kron(rng.integers(0, 250, (40, 40, 3)), np.ones((5, 5, 1), int)) for _ in range(2)]
    frames = []
    for number in range(count):
        top, left = (int(40 + 30 * f(number / 9)) for f in (np.sin, np.cos))
        cut = textures[number >= count // 2][top : top + height, left : left + width]
        frames.append(np.tile(cut, (2, 2, 1))[:height, :width] + rng.integers(0, 6, (height, width, 3)))
    return np.stack(frames).clip(0, 255).astype(np.uint8)


def numbered(count: int, height: int = 48, width: int = 64) -> Pictures:
    """(count, height, width, 3) uint8: plain frames, each with its number as its red and green levels."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[..., 0] = (np.arange(count) % 256)[:, None, None]
    frames[..., 1] = (np.arange(count) // 256 * 40)[:, None, None]
    return frames


def coded(count: int, height: int = 64, width: int = 96) -> Pictures:
    """(count, height, width, 3) uint8: `scene` with each frame's number as eight black or white blocks on top.

    The number survives lossy encoding; a picture that a decoder patched up has the wrong one or a wrong scene below.
    """
    frames = scene(count, height, width)
    for number, frame in enumerate(frames):
        for bit in range(8):
            frame[:16, bit * width // 8 : (bit + 1) * width // 8] = 235 if number >> bit & 1 else 20
    return frames


def number_of(frame: Pictures) -> int:
    """What `coded` wrote into a frame."""
    blocks = frame[:12].mean((0, 2)).reshape(8, -1).mean(1)
    return int(((blocks > 128) << np.arange(8)).sum())


def needs_encoder(name: str) -> None:
    """Skip the test when this PyAV cannot encode with `name`."""
    try:
        av.codec.Codec(name, "w")
    except ValueError:
        pytest.skip(f"this PyAV has no encoder {name}")


def write_video(
    path: str | Path,
    frames: Iterable[Pictures],
    fps: float | Fraction = 25,
    codec: str = "libx264rgb",
    options: Option | None = None,
    *,
    pix_fmt: str | None = None,
    container: str | None = None,
    times: Iterable[int] | None = None,
) -> Path:
    """Encode RGB uint8 (H, W, 3) frames; losslessly unless told otherwise.

    Args:
        path: the file; its ending chooses the container.
        frames: the pictures.
        fps: their rate.
        codec: FFmpeg's name of the encoder. The default keeps RGB, so that readers give back the very pixels.
        options: the encoder's; none means {"qp": "0"} for the default encoder.
        pix_fmt: what the encoder gets; the default is the encoder's first choice of rgb24 and yuv420p.
        container: FFmpeg's name, where the ending does not tell.
        times: the pts of each frame in units of 1 / fps, ascending; 0, 1, 2 ... by default.
    """
    needs_encoder(codec)
    if options is None:
        options = {"qp": "0"} if codec.startswith("libx264") else {}
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, options=dict(options))
        stream.pix_fmt = pix_fmt or ("rgb24" if codec in ("libx264rgb", "png") else "yuv420p")
        stream.codec_context.time_base = 1 / rate
        for number, (picture, time) in enumerate(zip(frames, times or itertools.count(), strict=False)):
            if not number:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = time, 1 / rate
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return Path(path)


def full_decode(path: str | Path) -> Pictures:
    """(N, H, W, 3): every frame that a plain decode of the whole file gives, rotated as it asks to be."""
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        assert isinstance(stream, av.VideoStream)
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except av.error.InvalidDataError:
                continue
            for frame in decoded:
                frames.append(frame.reformat(format="rgb24", interpolation="BILINEAR", **ONE_THREAD).to_ndarray())
                turns = round(getattr(frame, "rotation", 0) / 90)
                frames[-1] = np.rot90(frames[-1], turns)
    return np.stack(frames)


def remux(
    source: str | Path,
    target: str | Path,
    keep: Callable[[int], bool] = lambda number: True,
    shift: int = 0,
    options: Option | None = None,
    change: Mapping[int, tuple[int, int]] | None = None,
) -> Path:
    """Copy packets without decoding, as `ffmpeg -c copy` does.

    Args:
        source: a video.
        target: the copy; its ending chooses the container.
        keep: tells by a packet's place in the file whether to keep it.
        shift: this many frames are taken from each pts; MP4 hides what falls below 0 with an edit list.
        options: the container's.
        change: bits to clear, {place of the packet: (byte, bits)}.
    """
    with av.open(str(source)) as container, av.open(str(target), "w", options=dict(options or {})) as out:
        stream = container.streams.video[0]
        try:
            copy = out.add_stream_from_template(stream, opaque=True)
        except AttributeError:
            pytest.skip("PyAV 14.0 cannot copy this stream")
        assert stream.time_base
        assert stream.average_rate
        ticks = round(shift / stream.average_rate / stream.time_base)
        packets = [packet for packet in container.demux(stream) if packet.size]
        for number, packet in enumerate(packets):
            if keep(number):
                assert packet.pts is not None
                assert packet.dts is not None
                data = bytearray(bytes(packet))
                byte, bits = (change or {}).get(number, (0, 0))
                data[byte] &= ~bits
                fresh = av.Packet(bytes(data))
                fresh.pts, fresh.dts, fresh.time_base = packet.pts - ticks, packet.dts - ticks, packet.time_base
                fresh.duration = packet.duration
                fresh.is_keyframe, fresh.stream = packet.is_keyframe, copy
                out.mux(fresh)
    return Path(target)


def pack(source: str | Path, target: str | Path) -> Path:
    """An MPEG-4 AVI with B-frames as DivX stored it: the first B-frame of a group shares the packet of the picture
    that it is shown before, and an empty packet makes up for it at the end of the group."""
    empty, note = b"\0\0\1\xb6\x51\x80", b"\0\0\1\xb2DivX503b1393p"
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        stream = container.streams.video[0]
        try:
            copy = out.add_stream_from_template(stream, opaque=True)
        except AttributeError:
            pytest.skip("PyAV 14.0 cannot copy this stream")
        packed: list[tuple[bytes, bool]] = []
        waiting = False
        for packet in container.demux(stream):
            data = bytes(packet)
            at = data.find(b"\0\0\1\xb6")
            if not packed:
                data = data[:at] + note + data[at:]
            if at < 0 or data[data.find(b"\0\0\1\xb6") + 4] >> 6 != 2:  # not a B-frame
                packed += [(empty, False)] if waiting else []
                packed += [(data, packet.is_keyframe)] if at >= 0 else []
                waiting = False
            elif waiting:
                packed.append((data, False))
            else:
                packed[-1] = packed[-1][0] + data, packed[-1][1]
                waiting = True
        for number, (data, key) in enumerate(packed):
            fresh = av.Packet(data)
            fresh.pts = fresh.dts = number
            fresh.time_base, fresh.is_keyframe, fresh.stream = 1 / Fraction(stream.average_rate or 25), key, copy
            out.mux(fresh)
    return Path(target)


def set_matrix(path: str | Path, a: int, b: int, c: int, d: int) -> Path:
    """Write a display matrix into an MP4's track header: x' = a x + c y, y' = b x + d y, each of them -1, 0 or 1."""
    data = bytearray(Path(path).read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    for place, value in zip((0, 4, 12, 16), (a, b, c, d), strict=True):
        data[at + place : at + place + 4] = (value << 16).to_bytes(4, "big", signed=True)
    Path(path).write_bytes(data)
    return Path(path)


def read(
    path: Path, indices: list[int], size: tuple[int, int] | None = None, *, reader: VideoReader | None = None
) -> Frames:
    """The frames `indices`, with PyAV's reader unless another is given."""
    with (reader or PyAVReader()).open(str(path)) as video:
        return video.read(np.array(indices, dtype=np.int64), size)


def info(path: Path, reader: VideoReader | None = None) -> VideoInfo:
    """What the reader knows of the file."""
    with (reader or PyAVReader()).open(str(path)) as video:
        return video.info


def refused(path: Path | str, reader: VideoReader | None = None) -> str:
    """Why the reader does not open the file."""
    with pytest.raises(VideoError) as caught:
        (reader or PyAVReader()).open(str(path))
    assert caught.value.path == str(path)
    return caught.value.reason
