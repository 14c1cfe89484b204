"""What both readers promise, on videos whose pixels are known; and what each of them does on top."""

from __future__ import annotations

import os
import pickle
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.videos import full_decode, numbered, remux, scene, set_matrix, write_video
from vidtrain.data.readers.base import VideoReader
from vidtrain.data.readers.decord import DecordReader
from vidtrain.data.readers.opening import OpenFile
from vidtrain.data.readers.pyav import PyAVReader
from vidtrain.errors import ConfigError, VideoError
from vidtrain.types import Frames, VideoInfo


def has_decord() -> bool:
    try:
        import decord  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


needs_decord = pytest.mark.skipif(not has_decord(), reason="decord is not installed")
READERS = [
    pytest.param(PyAVReader(), id="pyav"),
    pytest.param(DecordReader(), id="decord", marks=needs_decord),
]


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> VideoReader:
    found: VideoReader = request.param
    return found


def read(
    path: Path, indices: list[int], size: tuple[int, int] | None = None, *, reader: VideoReader | None = None
) -> Frames:
    with (reader or PyAVReader()).open(str(path)) as video:
        return video.read(np.array(indices, dtype=np.int64), size)


def info(path: Path, reader: VideoReader | None = None) -> VideoInfo:
    with (reader or PyAVReader()).open(str(path)) as video:
        return video.info


def refused(path: Path | str, reader: VideoReader | None = None) -> str:
    with pytest.raises(VideoError) as caught:
        (reader or PyAVReader()).open(str(path))
    assert caught.value.path == str(path)
    return caught.value.reason


class TestContract:
    """Holds for every reader."""

    def test_info(self, reader: VideoReader, tmp_path: Path) -> None:
        path = write_video(tmp_path / "a.mp4", numbered(23, 50, 70), fps=Fraction(30000, 1001))
        found = info(path, reader)
        assert (found.num_frames, found.height, found.width) == (23, 50, 70)
        assert found.fps == pytest.approx(30000 / 1001)

    @pytest.mark.parametrize(
        "indices",
        [[0], [22], [0, 1, 2], [3, 7, 11, 15], [22, 0, 11], [5, 5, 5], [9, 2, 9, 2, 0], list(range(23))],
    )
    def test_frames_in_any_order(self, reader: VideoReader, tmp_path: Path, indices: list[int]) -> None:
        frames = scene(23)
        path = write_video(tmp_path / "a.mp4", frames, options={"qp": "0", "g": "8"})
        found = read(path, indices, reader=reader)
        assert found.dtype == np.uint8
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, frames[indices])

    def test_no_indices(self, reader: VideoReader, tmp_path: Path) -> None:
        path = write_video(tmp_path / "a.mp4", numbered(3))
        assert read(path, [], reader=reader).shape == (0, 48, 64, 3)
        assert read(path, [], (10, 20), reader=reader).shape == (0, 10, 20, 3)

    def test_reading_again_and_backwards(self, reader: VideoReader, tmp_path: Path) -> None:
        frames = scene(40)
        path = write_video(tmp_path / "a.mp4", frames, options={"qp": "0", "g": "7"})
        with reader.open(str(path)) as video:
            for start in (30, 2, 33, 0, 33):
                indices = np.arange(start, start + 6, 2)
                np.testing.assert_array_equal(video.read(indices), frames[indices])

    @pytest.mark.parametrize("size", [(24, 32), (30, 52), (96, 128), (17, 33)])
    def test_size_is_one_bilinear_step(self, reader: VideoReader, tmp_path: Path, size: tuple[int, int]) -> None:
        frames = scene(6)
        path = write_video(tmp_path / "a.mp4", frames)
        found = read(path, [1, 4], size, reader=reader)
        assert found.shape == (2, *size, 3)
        for got, picture in zip(found, frames[[1, 4]], strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="gbrp")
            scaled = frame.reformat(width=size[1], height=size[0], format="rgb24", interpolation="BILINEAR")
            np.testing.assert_allclose(got.astype(int), scaled.to_ndarray().astype(int), atol=1)

    @pytest.mark.parametrize("number", [-1, 5])
    def test_no_such_frame_is_the_callers_mistake(self, reader: VideoReader, tmp_path: Path, number: int) -> None:
        path = write_video(tmp_path / "a.mp4", numbered(5))
        with pytest.raises(IndexError, match=f"frame {number} was asked for"):
            read(path, [0, number], reader=reader)

    @pytest.mark.parametrize(
        ("matrix", "turned"),
        [
            ((0, 1, -1, 0), lambda f: np.rot90(f, -1)),  # a phone held upright
            ((0, -1, 1, 0), lambda f: np.rot90(f, 1)),
            ((-1, 0, 0, -1), lambda f: np.rot90(f, 2)),
        ],
    )
    def test_rotation(self, reader: VideoReader, tmp_path: Path, matrix, turned) -> None:  # type: ignore[no-untyped-def]
        frames = scene(5, 40, 64)
        path = set_matrix(write_video(tmp_path / "a.mp4", frames), *matrix)
        expected = turned(frames[3])
        assert (info(path, reader).height, info(path, reader).width) == expected.shape[:2]
        np.testing.assert_array_equal(read(path, [3], reader=reader)[0], expected)
        assert read(path, [3], (60, 36), reader=reader).shape == (1, 60, 36, 3)

    def test_pickles_to_a_worker(self, reader: VideoReader) -> None:
        assert pickle.loads(pickle.dumps(reader)) == reader

    def test_names(self, reader: VideoReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        frames = numbered(4)
        for name in ("имя 视频 é (1).mp4", "-leading-dash.mp4", "colon:100%d.mp4"):
            write_video(tmp_path / name, frames)
            np.testing.assert_array_equal(read(Path(name), [2], reader=reader)[0], frames[2])

    def test_errors_in_plain_words(self, reader: VideoReader, tmp_path: Path) -> None:
        whole = write_video(tmp_path / "whole.mp4", scene(5)).read_bytes()
        (tmp_path / "empty.mp4").touch()
        (tmp_path / "text.mp4").write_text("no video, just words\n" * 20)
        (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
        assert refused(tmp_path / "none.mp4", reader) == "no such file"
        assert refused(tmp_path, reader) == "is a folder, not a video file"
        assert refused(tmp_path / "empty.mp4", reader) == "the file is empty"
        assert refused(tmp_path / "text.mp4", reader) == "is not a video file that FFmpeg knows"
        assert "cut off" in refused(tmp_path / "cut.mp4", reader)
        assert "null" in refused("a\0b.mp4", reader)

    def test_a_pipe_is_not_waited_for(self, reader: VideoReader, tmp_path: Path) -> None:
        if not hasattr(os, "mkfifo"):
            pytest.skip("needs named pipes")
        os.mkfifo(tmp_path / "pipe.mp4")
        assert refused(tmp_path / "pipe.mp4", reader) == "is not a regular file"

    def test_audio_only(self, reader: VideoReader, tmp_path: Path) -> None:
        path = tmp_path / "song.wav"
        with av.open(str(path), "w") as out:
            stream = out.add_stream("pcm_s16le", rate=8000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            frame.sample_rate = 8000
            out.mux(stream.encode(frame))
        assert refused(path, reader) == "has no video stream (audio only)"

    def test_a_playlist_is_not_followed(self, reader: VideoReader, tmp_path: Path) -> None:
        """A file must not make the reader talk to the network."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(0.2)
            address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
            playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n"
            (tmp_path / "list.m3u8").write_text(playlist)
            # The listener answers nobody, so a reader that calls waits for it: look before it would give up.
            with ThreadPoolExecutor(1) as pool:
                calls = pool.submit(server.accept)
                assert refused(tmp_path / "list.m3u8", reader)
                with pytest.raises(TimeoutError):
                    calls.result()


CODECS = {
    "x264": ("mp4", "libx264", {}),
    "x264-b-frames": ("mp4", "libx264", {"g": "12", "bf": "3", "x264-params": "b-pyramid=normal"}),
    "x264-many-b-frames": ("mkv", "libx264", {"bf": "16", "x264-params": "b-pyramid=normal:ref=16:b-bias=90"}),
    "x264-open-gop": ("mp4", "libx264", {"g": "12", "bf": "3", "x264-params": "open-gop=1"}),
    "x264-intra-refresh": ("mp4", "libx264", {"g": "12", "x264-params": "intra-refresh=1"}),
    "x264-interlaced": ("ts", "libx264", {"g": "12", "flags": "+ilme+ildct"}),
    "x264-fragments": ("mp4", "libx264", {"g": "12"}),
    "x264-ts": ("ts", "libx264", {"g": "12"}),
    "x264-avi": ("avi", "libx264", {"g": "12"}),
    "x264-flv": ("flv", "libx264", {"g": "12"}),
    "x264-raw": ("h264", "libx264", {"g": "12"}),
    "hevc-open-gop": ("mp4", "libx265", {"x265-params": "log-level=none:keyint=12:open-gop=1:bframes=4"}),
    "hevc-layers": ("mkv", "libx265", {"x265-params": "log-level=none:keyint=12:temporal-layers=3:bframes=4"}),
    "mpeg4-avi": ("avi", "mpeg4", {"g": "12"}),
    "mpeg4-b-frames-avi": ("avi", "mpeg4", {"g": "12", "bf": "2"}),
    "mpeg4-b-frames": ("mp4", "mpeg4", {"g": "12", "bf": "2"}),
    "mpeg2-ts": ("ts", "mpeg2video", {"g": "12", "bf": "2"}),
    "mpeg2-ps": ("mpg", "mpeg2video", {"g": "12", "bf": "2"}),
    "vp8-hidden-frames": ("webm", "libvpx", {"g": "30", "auto-alt-ref": "1", "lag-in-frames": "16"}),
    "vp9-hidden-frames": (
        "webm",
        "libvpx-vp9",
        {"g": "30", "auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "5"},
    ),
    "av1": ("mkv", "libsvtav1", {"preset": "12", "g": "24"}),
    "flv1": ("flv", "flv", {}),
    "wmv": ("asf", "wmv2", {}),
    "mjpeg": ("avi", "mjpeg", {}),
    "ffv1": ("mkv", "ffv1", {}),
    "gif": ("gif", "gif", {}),
}


@pytest.mark.parametrize("name", CODECS)
def test_bit_exact_with_a_full_decode(name: str, tmp_path: Path) -> None:
    """Seeking, skipping and stopping early change no pixel and no frame number."""
    suffix, codec, options = CODECS[name]
    formats = {"mjpeg": "yuvj420p", "gif": "rgb8"}
    path = write_video(tmp_path / f"a.{suffix}", scene(60), codec=codec, options=options, pix_fmt=formats.get(name))
    if name == "x264-fragments":
        path = remux(path, tmp_path / "b.mp4", options={"movflags": "frag_keyframe+empty_moov"})
    whole = full_decode(path)
    with PyAVReader().open(str(path)) as video:
        assert video.info.num_frames == len(whole) == 60
        assert video.info.fps == pytest.approx(25, rel=0.01)
        for indices in ([59], [0], [13], [31, 14], [5, 9, 13, 17], [40, 41, 44, 55], [1, 30, 58], [24, 25]):
            np.testing.assert_array_equal(video.read(np.array(indices)), whole[indices])
        np.testing.assert_array_equal(video.read(np.arange(60)), whole)


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_pictures_that_only_serve_as_reference(codec: str, tmp_path: Path) -> None:
    """VP8 and VP9 have packets whose picture is not shown; here the flag that shows it is cleared."""
    options = {"g": "10", "lag-in-frames": "0", "deadline": "realtime", "cpu-used": "8"}
    source = write_video(tmp_path / "a.webm", scene(30), codec=codec, options=options)
    hidden = {7: (0, 0x10), 13: (0, 0x10)} if codec == "libvpx" else {10: (0, 0x02)}
    path = remux(source, tmp_path / "b.webm", change=hidden)
    whole = full_decode(path)
    assert info(path).num_frames == len(whole) == 30 - len(hidden)
    np.testing.assert_array_equal(read(path, [5, 9, 10, 27]), whole[[5, 9, 10, 27]])


class TestPyAV:
    """Beyond the contract."""

    @pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
    def test_sound_files_are_read_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
        """The second, full pass is for broken files: a sound one that needs it would be a slow one."""
        codec = "mpeg4" if suffix == "avi" else "libx264"
        path = write_video(tmp_path / f"a.{suffix}", scene(60), codec=codec, options={"g": "12"})
        monkeypatch.delattr(OpenFile, "reopen")
        with PyAVReader().open(str(path)) as video:
            for indices in ([50, 54, 58], [0, 30, 59], [5], range(60)):
                video.read(np.array(indices))

    @pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 5), (97, 73)])
    def test_odd_sizes(self, tmp_path: Path, size: tuple[int, int]) -> None:
        frames = scene(5, *size)
        path = write_video(tmp_path / "a.mp4", frames)
        np.testing.assert_array_equal(read(path, [4, 0]), frames[[4, 0]])
        assert (info(path).height, info(path).width) == size

    @pytest.mark.parametrize(
        ("matrix", "turned"),
        [
            ((-1, 0, 0, 1), lambda f: f[:, ::-1]),
            ((1, 0, 0, -1), lambda f: f[::-1]),
            ((0, 1, 1, 0), lambda f: f.swapaxes(0, 1)),
        ],
    )
    def test_mirrored(self, tmp_path: Path, matrix, turned) -> None:  # type: ignore[no-untyped-def]
        frames = scene(3, 40, 64)
        path = set_matrix(write_video(tmp_path / "a.mp4", frames), *matrix)
        np.testing.assert_array_equal(read(path, [2])[0], turned(frames[2]))

    def test_mean_rate_of_uneven_times(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "a.mp4", numbered(5), fps=10, times=[0, 1, 2, 10, 20])
        assert info(path).fps == pytest.approx(4 / 2.0)
        np.testing.assert_array_equal(read(path, [3])[0], numbered(5)[3])

    def test_rate_of_one_frame_is_the_containers(self, tmp_path: Path) -> None:
        assert info(write_video(tmp_path / "a.mp4", numbered(1), fps=12)).fps == pytest.approx(12)

    def test_frames_hidden_by_an_edit_list(self, tmp_path: Path) -> None:
        frames = scene(40)
        source = write_video(tmp_path / "a.mp4", frames, options={"qp": "0", "g": "8", "bf": "2"})
        cut = remux(source, tmp_path / "b.mp4", lambda n: n >= 8, 13, {"avoid_negative_ts": "disabled"})
        assert info(cut).num_frames == len(full_decode(cut)) == 27
        np.testing.assert_array_equal(read(cut, [0, 10, 26]), frames[[13, 23, 39]])

    @pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
    def test_begins_between_keyframes(self, tmp_path: Path, suffix: str) -> None:
        """What no keyframe precedes is not shown, and not counted."""
        source = write_video(tmp_path / "a.mp4", scene(40), codec="libx264", options={"g": "8"})
        cut = remux(source, tmp_path / f"b.{suffix}", lambda number: number >= 11)
        whole = full_decode(cut)
        assert 0 < info(cut).num_frames == len(whole) < 29
        np.testing.assert_array_equal(read(cut, [0, 9, len(whole) - 1]), whole[[0, 9, -1]])

    def test_the_default_of_two_video_streams(self, tmp_path: Path) -> None:
        path, large, small = tmp_path / "a.mkv", scene(6, 64, 96), scene(9, 16, 32)
        with av.open(str(path), "w") as out:
            streams = [out.add_stream("ffv1", rate=25) for _ in range(2)]
            for stream, frames in zip(streams, (small, large), strict=True):
                stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "bgr0"
            for stream, frames in zip(streams, (small, large), strict=True):
                for picture in frames:
                    out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                out.mux(stream.encode(None))
        whole = full_decode(path)
        assert info(path).num_frames == len(whole)
        np.testing.assert_array_equal(read(path, [5]), whole[[5]])

    def test_ends_within_a_frame(self, tmp_path: Path) -> None:
        """With its index in front a cut file still opens; the frame that it ends in is not counted."""
        frames = scene(20)
        source = write_video(tmp_path / "a.mp4", frames, options={"qp": "0", "bf": "0"})
        front = remux(source, tmp_path / "b.mp4", options={"movflags": "faststart"})
        cut = tmp_path / "cut.mp4"
        cut.write_bytes(front.read_bytes()[: front.stat().st_size * 3 // 5])
        count = info(cut).num_frames
        assert 5 < count < 15
        np.testing.assert_array_equal(read(cut, [0, count - 1]), frames[[0, count - 1]])

    def test_a_broken_frame_is_named_and_the_others_read(self, tmp_path: Path) -> None:
        frames = scene(30)
        path = write_video(tmp_path / "a.mp4", frames, options={"qp": "0", "g": "10", "bf": "0"})
        with av.open(str(path)) as container:
            packet = [p for p in container.demux(video=0) if p.size][14]
            at, size = packet.pos, packet.size
        assert at is not None
        data = bytearray(path.read_bytes())
        data[at + 4 : at + size] = bytes(size - 4)
        path.write_bytes(data)
        np.testing.assert_array_equal(read(path, [13, 2, 20, 29]), frames[[13, 2, 20, 29]])
        with pytest.raises(VideoError, match=r"a\.mp4: frame 14 of 30 does not decode"):
            read(path, [12, 13, 14, 25])

    def test_nothing_stays_open(self, tmp_path: Path) -> None:
        folder = Path("/proc/self/fd")
        if not folder.is_dir():
            pytest.skip("needs /proc")
        good = write_video(tmp_path / "good.mp4", scene(12), options={"qp": "0", "g": "4"})
        song = tmp_path / "none.mp4"
        song.write_bytes(good.read_bytes()[:300])
        before = len(list(folder.iterdir()))
        for _ in range(3):
            read(good, [11, 3])
            refused(song)
            with pytest.raises(IndexError):
                read(good, [99])
        assert len(list(folder.iterdir())) == before

    def test_encrypted(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "a.mp4", scene(3))
        path.write_bytes(path.read_bytes().replace(b"avc1\0\0\0\0", b"encv\0\0\0\0"))
        assert refused(path) == "the video is encrypted"


@needs_decord
class TestDecord:
    """Beyond the contract."""

    @pytest.fixture
    def video(self, tmp_path: Path) -> Path:
        return write_video(tmp_path / "a.mp4", scene(50, 96, 128), codec="libx264", options={"g": "12"})

    def test_same_pixels_as_pyav(self, video: Path) -> None:
        indices = [0, 3, 11, 12, 30, 49]
        np.testing.assert_array_equal(read(video, indices, reader=DecordReader()), read(video, indices))
        assert info(video) == info(video, DecordReader())

    def test_scaled_pixels_are_near(self, video: Path) -> None:
        """The chroma is placed differently (see the module), nothing more."""
        ours, theirs = (read(video, [5, 40], (56, 80), reader=r) for r in (PyAVReader(), DecordReader()))
        assert np.abs(ours.astype(int) - theirs).mean() < 6

    def test_refuses_what_it_reads_wrong_or_hangs_on(self, video: Path, tmp_path: Path) -> None:
        edit = remux(video, tmp_path / "edit.mp4", lambda n: n >= 12, 15, {"avoid_negative_ts": "disabled"})
        late = remux(video, tmp_path / "late.mp4", lambda n: n >= 14)
        stream = remux(video, tmp_path / "stream.ts")
        gop = {"g": "12", "bf": "3", "x264-params": "open-gop=1"}
        opened = write_video(tmp_path / "open.mp4", scene(40), codec="libx264", options=gop)
        avi = write_video(tmp_path / "a.avi", scene(40), codec="libx264", options={"g": "12", "bf": "0"})
        mirror = set_matrix(write_video(tmp_path / "m.mp4", scene(3)), -1, 0, 0, 1)
        for path, words in {
            edit: "decord counts 38 frames, 35 are shown",
            late: "count the frames",
            stream: "may hang",
            opened: "open GOP",
            avi: "AVI",
            mirror: "mirror",
        }.items():
            reason = refused(path, DecordReader())
            assert words in reason
            assert reason.endswith("use decoder=pyav")
            assert info(path).num_frames > 0

    def test_widths_it_cannot_deliver(self, video: Path) -> None:
        with pytest.raises(VideoError, match=r"cannot deliver pictures 8 pixels wide: use decoder=pyav"):
            read(video, [0], (8, 8), reader=DecordReader())


def test_decord_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    path = write_video(tmp_path / "a.mp4", numbered(2))
    with pytest.raises(ConfigError, match=r"wheels for Linux .*: use decoder=pyav"):
        DecordReader().open(str(path))
