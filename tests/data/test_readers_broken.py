"""Damaged, cut and truncated files that the tests make: every frame is the right one or is refused, within seconds.

Each frame shows its number. Sound are those equal to the frame of that number of the whole file, in ascending order.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.data.test_readers import READERS
from tests.sampled import sampled
from tests.videos import Pictures, coded, full_decode, number_of, remux, write_video
from vidtrain.data.readers.base import OpenVideo, VideoReader
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.errors import VideoError

SECONDS = 5.0
COUNT = 48
KINDS: dict[str, tuple[str, dict[str, str]]] = {
    "h264.mp4": ("libx264", {"g": "12", "bf": "3"}),
    "h264.mkv": ("libx264", {"g": "12", "bf": "3"}),
    "h264.ts": ("libx264", {"g": "12", "bf": "3"}),
    "hevc.mp4": ("libx265", {"x265-params": "log-level=none:keyint=12:bframes=3"}),
    "mpeg4.avi": ("mpeg4", {"g": "12"}),
    "mpeg4-b.mp4": ("mpeg4", {"g": "12", "bf": "2"}),
    "mpeg2.ts": ("mpeg2video", {"g": "12", "bf": "2"}),
    "vp9.webm": ("libvpx-vp9", {"g": "12", "cpu-used": "8", "deadline": "realtime"}),
    "mjpeg.avi": ("mjpeg", {}),
}
Damage = Callable[[bytes], bytes]
DAMAGES: dict[str, Damage] = {
    "second half zeroed": lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
    "middle zeroed": lambda data: data[: len(data) // 2] + bytes(len(data) // 20) + data[len(data) * 11 // 20 :],
    "cut after a quarter": lambda data: data[: len(data) // 4],
    "cut in half": lambda data: data[: len(data) // 2],
    "cut near the end": lambda data: data[: len(data) * 9 // 10],
    "last byte missing": lambda data: data[:-1],
}


def matches(frame: Pictures, whole: Pictures, exact: bool) -> bool:
    """Whether two frames are the same; another FFmpeg's conversion to RGB may round differently."""
    return bool(np.abs(frame.astype(int) - whole).mean() <= (0 if exact else 3))


def check(path: Path, reader: VideoReader, whole: Pictures, least: int) -> str:
    """Read the frames of a file one by one and all at once: none is wrong, and with PyAV at least so many are sound.

    Returns:
        Why the file is not opened, '' when it is.
    """
    begin = time.monotonic()
    try:
        video = reader.open(str(path))
    except VideoError as error:
        refusal = error
    else:
        with video:
            sound, count = compare(video, whole, exact=isinstance(reader, PyAVReader))
        assert sound >= least or not isinstance(reader, PyAVReader)
        assert sound <= count <= COUNT
        refusal = VideoError(str(path), "")
    assert time.monotonic() - begin < SECONDS
    assert refusal.path == str(path)
    assert "\n" not in refusal.reason
    return refusal.reason


def compare(video: OpenVideo, whole: Pictures, *, exact: bool) -> tuple[int, int]:
    """How many frames are sound, and of how many."""
    sound, last, count = 0, -1, video.info.num_frames
    for index in range(count):
        try:
            frame = video.read(np.array([index]))[0]
        except VideoError:
            continue
        number = number_of(frame)
        assert last < number < len(whole), f"frame {index} shows {number} after {last}"
        assert matches(frame, whole[number], exact), f"frame {index}, {number} of the whole file, is spoiled"
        sound, last = sound + 1, number
    try:
        frames = video.read(np.arange(count))
    except VideoError:
        assert sound < count
    else:
        assert sound == count
        assert (np.diff([number_of(frame) for frame in frames]) > 0).all()
    return sound, count


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Pictures]]:
    """A video of a kind and its frames, written once."""
    folder = tmp_path_factory.mktemp("sources")
    made: dict[str, tuple[Path, Pictures]] = {}

    def source(kind: str) -> tuple[Path, Pictures]:
        if kind not in made:
            codec, options = KINDS[kind]
            pix_fmt = "yuvj420p" if codec == "mjpeg" else None
            path = write_video(folder / kind, coded(COUNT), codec=codec, options=options, pix_fmt=pix_fmt)
            if path.suffix == ".mp4":  # with its index in front, so that it opens when it is cut
                path = remux(path, folder / f"front-{kind}", options={"movflags": "faststart"})
            whole = full_decode(path)
            assert [number_of(frame) for frame in whole] == list(range(COUNT))
            made[kind] = path, whole
        return made[kind]

    return source


@pytest.fixture(scope="module", autouse=True)
def warm(sources: Callable[[str], tuple[Path, Pictures]]) -> None:
    """Start the readers' processes: importing torch takes seconds, which do not count."""
    for parameter in READERS:
        if not parameter.marks or not parameter.marks[0].args[0]:  # type: ignore[attr-defined]
            parameter.values[0].open(str(sources("h264.mp4")[0])).close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", sampled(KINDS, ["h264.mp4", "h264.ts", "hevc.mp4", "mpeg4-b.mp4", "vp9.webm"]))
@pytest.mark.parametrize("reader", READERS)
def test_damaged(
    reader: VideoReader,
    kind: str,
    damage: str,
    sources: Callable[[str], tuple[Path, Pictures]],
    tmp_path: Path,
) -> None:
    source, whole = sources(kind)
    path = tmp_path / source.name
    path.write_bytes(DAMAGES[damage](source.read_bytes()))
    reason = check(path, reader, whole, least=5 if kind.startswith("h264") else 0)
    assert not reason or not isinstance(reader, PyAVReader) or damage == "cut after a quarter"


def cut_by_hand(source: Path, target: Path, start: int) -> None:
    """As `ffmpeg -ss -c copy`: from the keyframe before, with what comes before the start below time 0."""
    remux(source, target, lambda number: number >= start // 12 * 12, start, {"avoid_negative_ts": "disabled"})


def cut_by_ffmpeg(source: Path, target: Path, start: int) -> None:
    command = ["ffmpeg", "-v", "error", "-ss", str(start / 25), "-i", str(source), "-c", "copy", str(target)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=30)


@pytest.mark.parametrize("start", [12, 17, 31])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("cut", [cut_by_hand, cut_by_ffmpeg])
@pytest.mark.parametrize("reader", READERS)
def test_cut_without_encoding(
    reader: VideoReader,
    cut: Callable[[Path, Path, int], None],
    suffix: str,
    start: int,
    sources: Callable[[str], tuple[Path, Pictures]],
    tmp_path: Path,
) -> None:
    if cut is cut_by_ffmpeg and not shutil.which("ffmpeg"):
        pytest.skip("needs the program ffmpeg")
    source, whole = sources("h264.mp4")
    path = tmp_path / f"cut.{suffix}"
    cut(source, path, start)
    reason = check(path, reader, whole, least=COUNT - start - 2)
    assert not reason or (not isinstance(reader, PyAVReader) and "decoder=pyav" in reason)
