"""Many small videos of every kind, sound and damaged, and what a reader makes of them.

`python -m tests.data.encodes sound|damaged FOLDER [STEP]` makes every STEP-th of them in a folder and prints a line of
JSON for each: run so by the tests, because MALLOC_PERTURB_ has to be set before a process starts.
"""

from __future__ import annotations

import json
import random
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.videos import Pictures, coded, full_decode, pack, write_video
from vidtrain.data.readers.base import VideoReader
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.errors import VideoError

HEIGHT, WIDTH = 48, 64
H263_SIZE = 96, 128  # the smallest of the five that H.263 has
COUNT = 36
NOISE = 6.0
"""Levels of 255: by how much the mean of an 8x8 block may be off before a frame counts as another one."""

Change = Callable[[int, bytes, bool], tuple[bytes, bool] | None]


# ---------------------------------------------------------------- what is to be seen


def _plain(level: int) -> Callable[[int, int], Pictures]:
    return lambda height, width: np.full((COUNT, height, width, 3), level, np.uint8)


def _noise(height: int, width: int) -> Pictures:
    return np.random.default_rng(0).integers(0, 256, (COUNT, height, width, 3), dtype=np.uint8)


def _fade(height: int, width: int) -> Pictures:
    """A scene that fades in from black and out to it."""
    light = np.sin(np.linspace(0, np.pi, COUNT))[:, None, None, None]
    return (coded(COUNT, height, width) * light).astype(np.uint8)


def _half(height: int, width: int) -> Pictures:
    """A scene in the upper half, black below: as a clip with bars."""
    frames = coded(COUNT, height, width)
    frames[:, height // 2 :] = 0
    return frames


CONTENTS: dict[str, Callable[[int, int], Pictures]] = {
    "scene": lambda height, width: coded(COUNT, height, width),
    "black": _plain(0),
    "white": _plain(255),
    "grey": _plain(128),
    "noise": _noise,
    "fade": _fade,
    "half": _half,
}


# ---------------------------------------------------------------- how it is stored


def rewrite(source: Path, target: Path, change: Change) -> Path:
    """Copy a video's packets as `change(number, data, key)` gives them; None drops one."""
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        stream = container.streams.video[0]
        copy = out.add_stream_from_template(stream, opaque=True)
        for number, packet in enumerate(packet for packet in container.demux(stream) if packet.size):
            changed = change(number, bytes(packet), packet.is_keyframe)
            if changed is not None:
                data, key = changed
                fresh: Any = av.Packet(len(data))
                fresh.update(data)
                fresh.pts, fresh.dts, fresh.time_base = packet.pts, packet.dts, packet.time_base
                fresh.duration, fresh.is_keyframe, fresh.stream = packet.duration, key, copy
                out.mux(fresh)
    return target


def _all_keys(source: Path, target: Path) -> Path:
    """Every packet is flagged as a keyframe by the container."""
    return rewrite(source, target, lambda number, data, key: (data, True))


def _zero_padded(source: Path, target: Path) -> Path:
    """Zeros behind every packet's data, within the packet."""
    return rewrite(source, target, lambda number, data, key: (data + bytes(40 + number), key))


def _filled_slices(source: Path, target: Path) -> Path:
    """Zeros at the end of an MP4's last NAL unit, within its length: so do some encoders keep a constant rate."""

    def fill(number: int, data: bytes, key: bool) -> tuple[bytes, bool]:
        at = 0
        while at + 4 + (size := int.from_bytes(data[at : at + 4], "big")) < len(data):
            at += 4 + size
        zeros = 30 + number % 5
        return data[:at] + (size + zeros).to_bytes(4, "big") + data[at + 4 :] + bytes(zeros), key

    return rewrite(source, target, fill)


def _cabac_zero_words(source: Path, target: Path) -> Path:
    """The padding of ITU-T H.264, 7.3.2.10, behind the last slice."""
    return rewrite(source, target, lambda number, data, key: (data + b"\0\0\3" * 30, key))


def _without_index(source: Path, target: Path) -> Path:
    """An AVI, Matroska or MP4 whose index of keyframes cannot be found."""
    data = source.read_bytes()
    for name, other in ((b"idx1", b"JUNK"), (b"\x1c\x53\xbb\x6b", b"\x1c\x53\xbb\x6c"), (b"stss", b"free")):
        data = data.replace(name, other)
    target.write_bytes(data)
    return target


def _joined(source: Path, target: Path) -> Path:
    """`cat a.ts a.ts`."""
    target.write_bytes(source.read_bytes() * 2)
    return target


def _jpeg_comments(source: Path, target: Path) -> Path:
    """A comment and an application's segment with zeros, and zeros behind the end, as cameras write them."""
    note = b"\xff\xfe" + (66).to_bytes(2, "big") + bytes(64) + b"\xff\xea" + (40).to_bytes(2, "big") + bytes(38)
    return rewrite(source, target, lambda number, data, key: (data[:2] + note + data[2:] + bytes(50), key))


@dataclass(frozen=True)
class Kind:
    """A codec with its options in a container; after: what is done to the file then."""

    codec: str
    suffix: str
    options: dict[str, str] = field(default_factory=dict)
    pix_fmt: str | None = None
    after: Callable[[Path, Path], Path] | None = None

    @property
    def name(self) -> str:
        options = ",".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.codec}.{self.suffix}({options})" + (self.after.__name__ if self.after else "")


def _h264(params: str, suffix: str = "mp4", after: Any = None, **options: str) -> Kind:
    params = f"mbtree=0:threads=1:{params}"  # with it and with several the bytes may differ from run to run
    return Kind("libx264", suffix, {"g": "12", "preset": "veryfast", "x264-params": params, **options}, None, after)


def _hevc(params: str, suffix: str = "mp4", after: Any = None) -> Kind:
    params = f"log-level=none:pools=none:frame-threads=1:keyint=12:{params}"
    return Kind("libx265", suffix, {"preset": "veryfast", "x265-params": params}, None, after)


_CBR = "nal-hrd=cbr:filler=1:bitrate=600:vbv-maxrate=600:vbv-bufsize=60"
_MPEG_CBR = {"b": "600k", "minrate": "600k", "maxrate": "600k", "bufsize": "100k"}
_B = {"g": "12", "bf": "2"}

KINDS: tuple[Kind, ...] = (
    _h264("bframes=3:b-pyramid=normal"),
    _h264("bframes=3:b-pyramid=normal:cabac=0"),
    _h264("bframes=3:open-gop=1"),
    _h264("intra-refresh=1:bframes=0"),
    _h264("bframes=0:cabac=0", after=_all_keys),
    _h264("bframes=2", after=_all_keys),
    _h264("bframes=2", after=_without_index),
    _h264(_CBR),
    _h264(_CBR, "ts"),
    _h264("bframes=2", after=_filled_slices),
    _h264("bframes=2:cabac=0", after=_filled_slices),
    _h264("slices=3:bframes=1", after=_filled_slices),
    _h264("slices=3:bframes=1:cabac=0", after=_filled_slices),
    _h264("bframes=2", "ts", _cabac_zero_words),
    _h264("bframes=2", "ts"),
    _h264("bframes=2", "ts", _joined),
    _h264("bframes=2", "mkv"),
    _h264("bframes=2", "mkv", _without_index),
    _h264("bframes=0", "flv"),
    _h264("bframes=0", "flv", _all_keys),
    _h264("bframes=2", "avi"),
    _h264("bframes=2", "h264"),
    _h264("bframes=2:qp=0"),
    _h264("bframes=1:tff=1", "ts", flags="+ilme+ildct"),
    _hevc("bframes=4:open-gop=1"),
    _hevc("bframes=4:open-gop=0"),
    _hevc("bframes=4:open-gop=1", after=_all_keys),
    _hevc("bframes=0:intra-refresh=1"),
    _hevc("bframes=3", "mkv", _all_keys),
    _hevc("bframes=3", after=_filled_slices),
    _hevc("bframes=3", "ts", _joined),
    _hevc("bframes=3:temporal-layers=3", "mkv"),
    Kind("mpeg4", "avi", {"g": "12"}),
    Kind("mpeg4", "avi", {"g": "12"}, None, _all_keys),
    Kind("mpeg4", "avi", {"g": "12"}, None, _zero_padded),
    Kind("mpeg4", "avi", {"g": "12", **_MPEG_CBR}),
    Kind("mpeg4", "avi", _B, None, lambda source, target: pack(source, target)),
    Kind("mpeg4", "mp4", _B),
    Kind("mpeg4", "mp4", _B, None, _without_index),
    Kind("mpeg4", "mkv", {**_B, "flags": "+qpel"}),
    Kind("mpeg4", "ts", {"g": "12"}),
    Kind("mpeg4", "ts", {"g": "12"}, None, _joined),
    Kind("mpeg4", "mp4", {"g": "12", "data_partitioning": "1", "ps": "200"}),
    Kind("mpeg1video", "mpg", _B),
    Kind("mpeg1video", "mkv", _B, None, _all_keys),
    Kind("mpeg2video", "ts", {**_B, **_MPEG_CBR}),
    Kind("mpeg2video", "ts", _B, None, _joined),
    Kind("mpeg2video", "mpg", _B),
    Kind("mpeg2video", "mkv", {"g": "12", "flags": "+cgop"}, None, _all_keys),
    Kind("mpeg2video", "mp4", {**_B, "intra_vlc": "1"}, None, _without_index),
    Kind("mpeg2video", "avi", {"g": "12"}, None, _all_keys),
    Kind("h263", "avi", {"g": "12"}),
    Kind("h263", "avi", {"g": "12"}, None, _all_keys),
    Kind("h263", "3gp", {"g": "12"}, None, _without_index),
    Kind("h263p", "avi", {"g": "12"}, None, _all_keys),
    Kind("flv", "flv", {"g": "12"}),
    Kind("flv", "flv", {"g": "12"}, None, _all_keys),
    Kind("wmv1", "asf", {"g": "12"}, None, _all_keys),
    Kind("wmv2", "avi", {"g": "12"}, None, _all_keys),
    Kind("msmpeg4", "avi", {"g": "12"}, None, _all_keys),
    Kind("msmpeg4v2", "avi", {"g": "12"}, None, _all_keys),
    Kind("mjpeg", "avi", {"huffman": "optimal"}, "yuvj420p"),
    Kind("mjpeg", "avi", {"huffman": "default"}, "yuvj420p", _jpeg_comments),
    Kind("mjpeg", "mov", {"huffman": "optimal", "q": "20"}, "yuvj422p", _jpeg_comments),
    Kind("mjpeg", "mkv", {"huffman": "optimal"}, "yuvj444p", _zero_padded),
    Kind("libvpx", "webm", {"g": "12", "deadline": "realtime", "cpu-used": "8"}),
    Kind("libvpx", "webm", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "8", "cpu-used": "8"}, None, _all_keys),
    Kind("libvpx-vp9", "webm", {"g": "12", "deadline": "realtime", "cpu-used": "8"}),
    Kind("libvpx-vp9", "mp4", {"g": "12", "deadline": "realtime", "cpu-used": "8"}, None, _without_index),
    Kind("libvpx-vp9", "webm", {"g": "12", "lag-in-frames": "8", "cpu-used": "8"}, None, _all_keys),
    Kind("libsvtav1", "mp4", {"g": "12", "preset": "12"}, None, _without_index),
    Kind("libsvtav1", "mkv", {"g": "12", "preset": "12"}, None, _all_keys),
    Kind("prores_ks", "mov", {}, "yuv422p10le"),
    Kind("ffv1", "mkv", {"level": "3", "g": "12"}),
    Kind("ffv1", "avi", {"level": "1", "g": "12"}, None, _all_keys),
    Kind("huffyuv", "avi", {}, "yuv422p"),
    Kind("ffvhuff", "avi"),
    Kind("utvideo", "avi"),
    Kind("magicyuv", "avi", {}, "gbrp"),
    Kind("png", "mov", {}, "rgb24"),
    Kind("rawvideo", "avi"),
    Kind("gif", "gif", {}, "rgb8"),
    Kind("qtrle", "mov", {"g": "12"}, "rgb24"),
    Kind("qtrle", "mov", {"g": "12"}, "rgb24", _without_index),
    Kind("svq1", "mov", {"g": "12"}, "yuv410p", _without_index),
    Kind("rv20", "rm", {"g": "12"}),
    Kind("zmbv", "avi", {"g": "12"}, "bgr0", _all_keys),
    Kind("flashsv", "flv", {"g": "12"}, "bgr24", _all_keys),
    Kind("snow", "avi", {"g": "12"}, None, _all_keys),
    Kind("jpeg2000", "mov", {}, "yuv420p"),
)


def encodes() -> list[tuple[Kind, str]]:
    """Each kind with the scene and with three other contents, which take turns."""
    others = [name for name in CONTENTS if name != "scene"]
    return [
        (kind, content)
        for number, kind in enumerate(KINDS)
        for content in ("scene", *(others[(number + step) % len(others)] for step in (0, 2, 4)))
    ]


def make(kind: Kind, content: str, folder: Path) -> Path:
    """Write one of `encodes()`."""
    name = f"{zlib.crc32(f'{kind.name}{content}'.encode()):08x}"
    path = folder / f"{name}.{kind.suffix}"
    height, width = H263_SIZE if kind.codec == "h263" else (HEIGHT, WIDTH)
    write_video(path, CONTENTS[content](height, width), codec=kind.codec, options=kind.options, pix_fmt=kind.pix_fmt)
    if kind.after is None:
        return path
    after = kind.after(path, folder / f"{name}-after.{kind.suffix}")
    path.unlink()
    return after


# ---------------------------------------------------------------- what a reader makes of it


def sound(path: Path, reader: VideoReader) -> str:
    """What is wrong with how a reader reads a sound file; '' when every frame is that of a full decode."""
    whole = full_decode(path)
    wanted = np.random.default_rng(len(whole)).permutation(len(whole))[:10].tolist()
    try:
        with reader.open(str(path)) as video:
            if video.info.num_frames != len(whole):
                return f"{video.info.num_frames} frames instead of {len(whole)}"
            orders = [list(range(len(whole))), *([n] for n in wanted), wanted]
            for order in orders:
                wrong = np.flatnonzero((video.read(np.array(order)) != whole[order]).any((1, 2, 3)))
                if len(wrong):
                    return f"frame {order[wrong[0]]} is wrong, read in the order {order[:8]}"
    except VideoError as error:
        return error.reason
    return ""


def _flip(count: int) -> Callable[[bytes, random.Random], bytes]:
    def flip(data: bytes, rng: random.Random) -> bytes:
        out = bytearray(data)
        for _ in range(count):
            out[rng.randrange(len(out) // 10, len(out) * 95 // 100)] ^= rng.randrange(1, 256)
        return bytes(out)

    return flip


def _zeroed(begin: float, length: float) -> Callable[[bytes, random.Random], bytes]:
    def zero(data: bytes, rng: random.Random) -> bytes:
        at = int(len(data) * (begin + rng.uniform(-0.05, 0.05)))
        size = min(len(data) - at, int(len(data) * length) + 1)
        return data[:at] + bytes(size) + data[at + size :]

    return zero


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut in half": lambda data, rng: data[: len(data) // 2],
    "cut anywhere": lambda data, rng: data[: rng.randrange(len(data) // 5, len(data))],
    "second half zeroed": _zeroed(0.5, 1),
    "a twentieth zeroed": _zeroed(0.5, 0.05),
    "a two-hundredth zeroed": _zeroed(0.4, 0.005),
    "a sector zeroed": lambda data, rng: (
        data[: (at := rng.randrange(2, max(3, len(data) // 512 - 1)) * 512)] + bytes(512) + data[at + 512 :]
    ),
    "a byte flipped": _flip(1),
    "eight bytes flipped": _flip(8),
    "bytes missing": lambda data, rng: data[: len(data) * 2 // 5] + data[len(data) * 2 // 5 + rng.randrange(1, 200) :],
}
UNSEEN = ("flipped", "lost")
"""Of these a file may show no trace: bytes that decode as well, packets that were dropped when it was copied."""

PACKET_DAMAGES: dict[str, Callable[[random.Random], Change]] = {
    "packets lost": lambda rng: lambda number, data, key: None if 14 <= number < 17 else (data, key),
    "tails zeroed": lambda rng: (
        lambda number, data, key: (
            (data[: len(data) // 2] + bytes(len(data) - len(data) // 2), key) if number % 9 == 4 else (data, key)
        )
    ),
}


def broken_copy(path: Path, damage: str, folder: Path) -> Path | None:
    """A copy of a file that is damaged in one way, the same each time; None where it cannot be written."""
    rng = random.Random(f"{path.name}{damage}")
    broken = folder / f"broken{path.suffix}"
    if damage in DAMAGES:
        broken.write_bytes(DAMAGES[damage](path.read_bytes(), rng))
        return broken
    try:
        return rewrite(path, broken, PACKET_DAMAGES[damage](rng))
    except (av.error.FFmpegError, ValueError):
        return None


def damaged(path: Path, damage: str, folder: Path, reader: VideoReader) -> dict[str, Any]:
    """Damage a file in one way and read it: how many frames come, and how many of them are none of the sound file's."""
    whole = full_decode(path).astype(np.int16)
    broken = broken_copy(path, damage, folder)
    if broken is None:
        return {"skipped": True}
    given, wrong, worst = 0, [], 0.0
    try:
        with reader.open(str(broken)) as video:
            count = video.info.num_frames
            for number in range(min(count, 2 * COUNT)):
                try:
                    frame = video.read(np.array([number]))[0].astype(np.int16)
                except VideoError:
                    continue
                given += 1
                off = min(_distance(frame, other) for other in whole) if frame.shape == whole.shape[1:] else 255.0
                worst = max(worst, off)
                if off > NOISE:
                    wrong.append(number)
    except VideoError as error:
        return {"refused": error.reason}
    return {"count": count, "given": given, "wrong": wrong, "worst": worst}


def _distance(one: Any, other: Any) -> float:
    """The largest difference of the means of two frames' 8x8 blocks."""
    if (one == other).all():
        return 0.0
    height, width = one.shape[0] // 8 * 8, one.shape[1] // 8 * 8
    off = np.abs(one[:height, :width] - other[:height, :width])
    return float(off.reshape(height // 8, 8, width // 8, 8, 3).mean((1, 3, 4)).max())


def damages() -> list[tuple[Kind, str, str]]:
    """Each kind of file with three damages, which take turns; of a scene, so that another frame is seen to be one."""
    names = [*DAMAGES, *PACKET_DAMAGES]
    return [
        (kind, "scene" if step < 3 else "half", names[(number * 4 + step) % len(names)])
        for number, kind in enumerate(KINDS)
        for step in range(4)
    ]


def run(what: str, folder: Path, step: int) -> Iterator[dict[str, Any]]:
    reader = PyAVReader()
    folder.mkdir(parents=True, exist_ok=True)
    jobs: list[Any] = (encodes() if what == "sound" else damages())[::step]
    for kind, content, *rest in jobs:
        report: dict[str, Any] = {"kind": kind.name, "content": content}
        try:
            path = make(kind, content, folder)
        except (av.error.FFmpegError, ValueError) as error:
            yield {**report, "skipped": str(error)}
            continue
        if what == "sound":
            yield {**report, "problem": sound(path, reader)}
        else:
            yield {**report, "damage": rest[0], **damaged(path, rest[0], folder, reader)}
        path.unlink()


if __name__ == "__main__":
    for line in run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1):
        print(json.dumps(line), flush=True)
