"""What is found out about one file, on files that are really broken."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.test_readers_times import HOUR, transport
from tests.videos import numbered, remux, scene, write_video
from vidtrain.data.checks.probe_video import Depth, Probe, probe
from vidtrain.data.prepare.jpeg import encode_pack
from vidtrain.data.readers.any_path import AnyReader
from vidtrain.data.readers.base import OpenVideo
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.data.readers.pyav.truncation import missing_bytes
from vidtrain.errors import VideoError
from vidtrain.types import VideoInfo

READER = AnyReader(PyAVReader())


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames of motion, H.264 with a keyframe every 10."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_video(path, scene(30), codec="libx264", options={"crf": "20", "g": "10"})


def front(source: Path, target: Path) -> Path:
    """A copy whose index lies at its front, as videos on the web do."""
    return remux(source, target, options={"movflags": "faststart"})


def half_zeroed(source: Path, target: Path) -> Path:
    data = bytearray(source.read_bytes())
    start = data.index(b"mdat") + 8
    middle = (start + len(data)) // 2
    data[middle : middle + 1500] = bytes(1500)
    target.write_bytes(data)
    return target


def reason(path: Path, depth: Depth = Depth.FULL) -> str:
    with pytest.raises(VideoError) as caught:
        probe(str(path), READER, depth)
    return caught.value.reason


def test_a_sound_video(clip: Path) -> None:
    found = probe(str(clip), READER, Depth.FULL)
    assert (found.frames, found.fps, found.height, found.width) == (30, 25.0, 48, 64)
    assert (found.codec, found.container, found.size) == ("h264", "mov", clip.stat().st_size)
    assert (found.corrupt, found.absent, found.still, found.black) == (0, 0, False, False)
    assert found.claimed == 30
    assert found.seconds == pytest.approx(1.2)
    assert len(found.content) == 64


def test_times_of_the_frames(tmp_path: Path) -> None:
    """Kept where frames are not evenly spaced, through the file that remembers the probes."""
    uneven = write_video(tmp_path / "a.mp4", scene(6), 10, codec="libx264", times=[0, 1, 2, 3, 8, 13])
    found = probe(str(uneven), READER, Depth.OPENED)
    assert found.seconds == pytest.approx(1.8)
    again = Probe(**json.loads(json.dumps(asdict(found))))
    assert again == found
    assert again.line.within(0.4, 0.9) == (4, 5)
    jumps = probe(str(transport(tmp_path / "b.ts", lambda n: HOUR * (n >= 20))), READER, Depth.OPENED)
    assert (jumps.times, jumps.fps) == ("", 25)
    assert jumps.times_note == "the timestamps jump by 3600.04 s at frame 20"


def test_no_more_than_asked(clip: Path) -> None:
    opened, sampled = (probe(str(clip), READER, depth) for depth in (Depth.OPENED, Depth.SAMPLED))
    assert (opened.frames, opened.content, opened.still) == (30, "", False)
    assert sampled.content == probe(str(clip), READER, Depth.FULL).content


def test_truncated(clip: Path, tmp_path: Path) -> None:
    whole = front(clip, tmp_path / "whole.mp4")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    found = probe(str(cut), READER, Depth.FULL)
    assert found.absent == whole.stat().st_size - cut.stat().st_size
    assert found.frames < found.claimed == 30
    assert probe(str(whole), READER, Depth.FULL).absent == 0


@pytest.mark.parametrize(
    ("ending", "codec"), [("mp4", "libx264"), ("avi", "mpeg4"), ("mkv", "mpeg4"), ("mov", "mjpeg")]
)
def test_missing_bytes(tmp_path: Path, ending: str, codec: str) -> None:
    pix_fmt = "yuvj420p" if codec == "mjpeg" else None
    whole = write_video(tmp_path / f"whole.{ending}", scene(12), codec=codec, options={}, pix_fmt=pix_fmt)
    assert missing_bytes(str(whole)) == 0
    for lost in (1, 500):
        cut = tmp_path / f"cut.{ending}"
        cut.write_bytes(whole.read_bytes()[:-lost])
        assert missing_bytes(str(cut)) == lost
    appended = tmp_path / f"more.{ending}"
    appended.write_bytes(whole.read_bytes() + b"something appended")
    assert missing_bytes(str(appended)) == 0


def test_corrupt_frames(clip: Path, tmp_path: Path) -> None:
    found = probe(str(half_zeroed(clip, tmp_path / "zero.mp4")), READER, Depth.FULL)
    assert found.frames == 30
    assert 0 < found.corrupt < 30
    number = int(found.broken.removeprefix("frame ").split()[0])
    with READER.open(str(tmp_path / "zero.mp4")) as video:
        video.read(np.arange(10))  # up to the keyframe before the zeros
        with pytest.raises(VideoError):
            video.read(np.array([number]))


def test_unreadable(clip: Path, tmp_path: Path) -> None:
    contents = {"empty": b"", "text": b"not a video\n" * 50, "zeros": bytes(9000), "head": clip.read_bytes()[:40]}
    for name, content in contents.items():
        (tmp_path / f"{name}.mp4").write_bytes(content)
    assert reason(tmp_path / "empty.mp4") == "the file is empty"
    assert reason(tmp_path / "text.mp4") == "is not a video file that FFmpeg knows"
    assert reason(tmp_path / "zeros.mp4") == "is not a video file that FFmpeg knows"
    assert "moov atom" in reason(tmp_path / "head.mp4")
    assert reason(tmp_path / "gone.mp4") == "no such file"


def test_no_frame_decodes(tmp_path: Path) -> None:
    """The index is whole, and lists ten pictures of nothing."""
    whole = write_video(tmp_path / "whole.mov", scene(10), codec="mjpeg", options={}, pix_fmt="yuvj420p")
    data = bytearray(whole.read_bytes())
    start = data.index(b"mdat") + 4
    end = start - 8 + int.from_bytes(data[start - 8 : start - 4], "big")
    data[start:end] = bytes(end - start)
    whole.write_bytes(data)
    assert reason(whole) == "no frame of it decodes"
    assert reason(whole, Depth.SAMPLED) == "no frame that was tried decodes"
    assert probe(str(whole), READER, Depth.OPENED).frames == 10


def test_still_and_black(tmp_path: Path) -> None:
    picture = scene(1)[0]
    still = write_video(tmp_path / "still.mp4", [picture] * 12, codec="libx264", options={"crf": "23"})
    black = write_video(tmp_path / "black.mp4", [picture * 0] * 12, codec="libx264", options={"crf": "23"})
    dot = numbered(12) * 0 + 90
    for number in range(12):
        dot[number, 20:24, 3 * number : 3 * number + 4] = 130  # a small pale dot that moves
    moving = write_video(tmp_path / "moving.mp4", dot, codec="libx264", options={"crf": "23"})
    one = write_video(tmp_path / "one.mp4", [picture], codec="libx264", options={})
    found = {file.stem: probe(str(file), READER, Depth.FULL) for file in (still, black, moving, one)}
    assert {name: found[name].still for name in found} == {"still": True, "black": True, "moving": False, "one": False}
    assert [name for name in found if found[name].black] == ["black"]


def test_content_does_not_depend_on_the_container(clip: Path, tmp_path: Path) -> None:
    again = remux(clip, tmp_path / "again.mkv")
    other = write_video(tmp_path / "other.mp4", scene(30, seed=1), codec="libx264", options={"crf": "20", "g": "10"})
    contents = [probe(str(path), READER, Depth.SAMPLED).content for path in (clip, again, other)]
    assert contents[0] == contents[1] != contents[2]


class _Sparse:
    """Another reader: its frames come from PyAV's, some of them do not decode."""

    def __init__(self, *broken: int) -> None:
        self.broken = broken

    def open(self, path: str) -> OpenVideo:
        video = PyAVReader().open(path)
        broken = self.broken

        class Video:
            info = video.info
            close = video.close

            def read(self, indices: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
                for number in sorted({*broken} & {*indices.tolist()}):
                    raise VideoError(path, f"frame {number} does not decode")
                return video.read(indices, size)

            def __enter__(self) -> Video:
                return self

            def __exit__(self, *error: object) -> None:
                video.close()

        return Video()  # type: ignore[return-value]


def test_any_reader(clip: Path) -> None:
    """Without PyAV's short cuts: the first frame that fails is named."""
    found = probe(str(clip), _Sparse(17), Depth.FULL)
    assert (found.frames, found.corrupt, found.broken) == (30, 1, "frame 17 does not decode")
    assert (found.codec, found.still) == ("h264", False)
    with pytest.raises(VideoError, match="frame 0 does not decode"):
        probe(str(clip), _Sparse(*range(30)), Depth.FULL)
    with pytest.raises(VideoError, match="frame 0 does not decode"):
        probe(str(clip), _Sparse(0, 15, 29), Depth.SAMPLED)
    sound = probe(str(clip), _Sparse(), Depth.FULL)
    assert sound.corrupt == 0
    assert sound.content == probe(str(clip), READER, Depth.FULL).content


def test_a_pack_of_jpegs(tmp_path: Path) -> None:
    pack = tmp_path / "clip.jpack"
    encode_pack(pack, scene(12), VideoInfo(num_frames=12, fps=12.5, height=48, width=64), quality=90)
    found = probe(str(pack), READER, Depth.FULL)
    assert (found.frames, found.fps, found.height, found.width) == (12, 12.5, 48, 64)
    assert (found.codec, found.container, found.size) == ("jpeg", "jpack", pack.stat().st_size)
    assert (found.corrupt, found.still) == (0, False)
    again = shutil.copy(pack, tmp_path / "again.jpack")
    assert probe(str(again), READER, Depth.SAMPLED).content == found.content
    data = bytearray(pack.read_bytes())
    data[-100:] = bytes(100)
    pack.write_bytes(data)
    assert probe(str(pack), READER, Depth.FULL).corrupt == 1
    assert probe(str(pack), READER, Depth.SAMPLED).content != found.content


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    """The same pictures in the same order are the same video, whatever they are called."""
    one, other, turned = (tmp_path / name for name in ("one", "other", "turned"))
    for folder, name in ((one, "img_{:05d}.jpg"), (other, "frame{:d}.jpg"), (turned, "img_{:05d}.jpg")):
        folder.mkdir()
        pictures = scene(12)[:: -1 if folder is turned else 1]
        for number, picture in enumerate(pictures, start=1):
            Image.fromarray(picture).save(folder / name.format(number), quality=90)
    found = {folder: probe(str(folder), READER, Depth.FULL) for folder in (one, other, turned)}
    assert (found[one].frames, found[one].height, found[one].width) == (12, 48, 64)
    assert (found[one].codec, found[one].container) == ("images", "folder")
    assert found[one].size == sum(file.stat().st_size for file in one.iterdir())
    assert found[one].content == found[other].content != found[turned].content


def test_real_odd_videos_are_told_apart(test_videos: Path) -> None:
    wrong = {}
    for file in sorted((test_videos / "odd").iterdir()):
        began = time.monotonic()
        try:
            found = probe(str(file), READER, Depth.FULL)
        except VideoError:
            wrong[file.name] = "unreadable"
        else:
            if found.corrupt or found.absent:
                wrong[file.name] = "corrupt" if found.corrupt else "truncated"
        assert time.monotonic() - began < 10
    assert wrong == {
        "audio_only_amr.3gp": "unreadable",
        "corrupted_midstream.mp4": "corrupt",
        "derived_text_file.mp4": "unreadable",
        "derived_truncated_faststart.mp4": "truncated",
        "derived_truncated_no_moov.mp4": "unreadable",
        "empty_0_bytes.webm": "unreadable",
        "encrypted_cenc.mp4": "unreadable",
        "truncated_32_bytes.mp4": "unreadable",
    }
