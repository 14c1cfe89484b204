"""What all readers promise, on videos whose pixels are known; and what decord's and torchcodec's refuse on top."""

from __future__ import annotations

import dataclasses
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
import torch

from tests.videos import info, numbered, read, refused, remux, scene, set_matrix, write_video
from vidtrain.data.readers import guarded
from vidtrain.data.readers.base import VideoReader
from vidtrain.data.readers.decord import DecordReader
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.data.readers.torchcodec import TorchCodecReader
from vidtrain.errors import ConfigError, VideoError
from vidtrain.types import Frames


def usable(reader: VideoReader) -> bool:
    try:
        reader.prepare()  # type: ignore[attr-defined]
    except ConfigError:
        return False
    return True


needs_decord = pytest.mark.skipif(not usable(DecordReader()), reason="decord is not installed")
needs_torchcodec = pytest.mark.skipif(not usable(TorchCodecReader()), reason="torchcodec or FFmpeg is not installed")
READERS = [
    pytest.param(PyAVReader(), id="pyav"),
    pytest.param(DecordReader(), id="decord", marks=needs_decord),
    pytest.param(TorchCodecReader(), id="torchcodec", marks=needs_torchcodec),
]


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> VideoReader:
    found: VideoReader = request.param
    return found


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
            # torchcodec scales with the FFmpeg of the system, whose filter may round differently.
            limit = 8 if isinstance(reader, TorchCodecReader) else 1
            np.testing.assert_allclose(got.astype(int), scaled.to_ndarray().astype(int), atol=limit)

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

    def test_several_at_once(self, reader: VideoReader, tmp_path: Path) -> None:
        frames = scene(12)
        first, second = (str(write_video(tmp_path / f"{n}.mp4", frames[n:])) for n in (0, 1))
        with reader.open(first) as one, reader.open(second) as two:
            for number in (3, 9):
                np.testing.assert_array_equal(one.read(np.array([number]))[0], frames[number])
                np.testing.assert_array_equal(two.read(np.array([number]))[0], frames[number + 1])

    def test_nothing_stays_open(self, reader: VideoReader, tmp_path: Path) -> None:
        folder = Path("/proc/self/fd")
        if not folder.is_dir():
            pytest.skip("needs /proc")
        if not isinstance(reader, PyAVReader):
            reader = dataclasses.replace(reader, timeout=None)  # type: ignore[type-var]
        good = write_video(tmp_path / "good.mp4", scene(12), options={"qp": "0", "g": "4"})
        song = tmp_path / "none.mp4"
        song.write_bytes(good.read_bytes()[:300])
        counts = []
        for _ in range(4):
            read(good, [11, 3], reader=reader)
            refused(song, reader)
            with pytest.raises(IndexError):
                read(good, [99], reader=reader)
            counts.append(len(list(folder.iterdir())))
        assert len(set(counts[1:])) == 1  # libraries may open something of their own once

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
        with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
            server.settimeout(0.3)
            called = pool.submit(hang_up, server)
            address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
            playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n"
            (tmp_path / "list.m3u8").write_text(playlist)
            assert refused(tmp_path / "list.m3u8", reader)
            assert not called.result()


def nearly_as_bright(ours: Frames, theirs: Frames) -> bool:
    """Whether two pairs of frames differ little in brightness, compared with how the frames of a pair differ."""
    ours, theirs = (frames @ np.array([0.299, 0.587, 0.114]) for frames in (ours, theirs))
    assert np.abs(ours[0] - ours[1]).mean() > 10
    return bool(np.abs(ours - theirs).mean() < 2)


def hang_up(server: socket.socket) -> bool:
    """True when somebody calls before the server's time is over."""
    try:
        server.accept()[0].close()
    except TimeoutError:
        return False
    return True


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
        """The colours are scaled differently (see the module), the brightness is not."""
        ours, theirs = (read(video, [5, 40], (56, 80), reader=r) for r in (PyAVReader(), DecordReader()))
        assert nearly_as_bright(ours, theirs)

    def test_refuses_what_it_reads_wrong_or_hangs_on(self, video: Path, tmp_path: Path) -> None:
        edit = remux(video, tmp_path / "edit.mp4", lambda n: n >= 12, 15, {"avoid_negative_ts": "disabled"})
        late = remux(video, tmp_path / "late.mp4", lambda n: n >= 14)
        stream = remux(video, tmp_path / "stream.ts")
        gop = {"g": "12", "bf": "3", "x264-params": "open-gop=1"}
        opened = write_video(tmp_path / "open.mp4", scene(40), codec="libx264", options=gop)
        avi = write_video(tmp_path / "a.avi", scene(40), codec="libx264", options={"g": "12", "bf": "0"})
        mirror = set_matrix(write_video(tmp_path / "m.mp4", scene(3)), -1, 0, 0, 1)
        for path, words in {
            edit: f"decord counts 38 frames, {info(edit).num_frames} are shown",
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

    @pytest.mark.parametrize("width", [8, 16, 24, 48, 72])
    def test_widths_at_which_it_fails_are_scaled_here(self, video: Path, width: int) -> None:
        ours = read(video, [0, 3], (32, width), reader=DecordReader())
        native = [av.VideoFrame.from_ndarray(f, "rgb24") for f in read(video, [0, 3], None, reader=PyAVReader())]
        scaled = [f.reformat(width, 32, interpolation="BILINEAR").to_ndarray() for f in native]
        assert np.array_equal(ours, scaled)


def test_names_that_are_not_utf8(reader: VideoReader, tmp_path: Path) -> None:
    """Are read, or refused with a way out."""
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xe9.mp4")
    try:
        Path(path).write_bytes(write_video(tmp_path / "a.mp4", numbered(3)).read_bytes())
    except OSError:
        pytest.skip("names are UTF-8 here")
    try:
        assert read(path, [2], reader=reader)[0, 0, 0, 0] == 2
    except VideoError as error:
        assert error.reason.endswith("not UTF-8: rename it, or use decoder=pyav")  # noqa: PT017


def test_decord_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    path = write_video(tmp_path / "a.mp4", numbered(2))
    with pytest.raises(ConfigError, match=r"wheels for Linux .*: use decoder=pyav"):
        DecordReader(timeout=None).open(str(path))


@needs_torchcodec
class TestTorchCodec:
    """Beyond the contract."""

    @pytest.mark.parametrize("options", [{"g": "12"}, {"g": "12", "bf": "3", "x264-params": "open-gop=1"}])
    def test_same_pixels_as_pyav(self, tmp_path: Path, options: dict[str, str]) -> None:
        path = write_video(tmp_path / "a.mp4", scene(50, 96, 128), codec="libx264", options=options)
        indices = [0, 3, 11, 12, 13, 30, 49]
        np.testing.assert_array_equal(read(path, indices, reader=TorchCodecReader()), read(path, indices))
        assert info(path) == info(path, TorchCodecReader())

    def test_scaled_pixels_are_near(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "a.mp4", scene(20, 96, 128), codec="libx264")
        ours, theirs = (read(path, [5, 17], (56, 80), reader=r) for r in (PyAVReader(), TorchCodecReader()))
        assert nearly_as_bright(ours, theirs)

    def test_frames_hidden_by_an_edit_list(self, tmp_path: Path) -> None:
        frames = scene(40)
        source = write_video(tmp_path / "a.mp4", frames, options={"qp": "0", "g": "8", "bf": "2"})
        cut = remux(source, tmp_path / "b.mp4", lambda n: n >= 8, 13, {"avoid_negative_ts": "disabled"})
        try:
            found = read(cut, [0, 10, 25], reader=TorchCodecReader())
        except VideoError as error:
            assert "are shown" in error.reason  # noqa: PT017 - an older torchcodec, or another FFmpeg's count
        else:
            np.testing.assert_array_equal(found, frames[[13, 23, 38]])

    def test_refuses_what_it_reads_wrong(self, tmp_path: Path) -> None:
        b_frames = {"g": "12", "bf": "2"}
        refresh = {"g": "12", "x264-params": "intra-refresh=1"}
        fields = {**b_frames, "flags": "+ilme+ildct"}
        files = {
            write_video(tmp_path / "fields.mkv", scene(40), codec="mpeg4", options=fields): "interlaced MPEG-4",
            write_video(tmp_path / "a.ts", scene(40), codec="libx264", options=b_frames): "kind of file",
            write_video(tmp_path / "a.mpg", scene(40), codec="mpeg2video", options=b_frames): "kind of file",
            write_video(tmp_path / "a.avi", scene(40), codec="mpeg4", options=b_frames): "AVI",
            write_video(tmp_path / "a.mp4", scene(40), codec="libx264", options=refresh): "refer to other frames",
            set_matrix(write_video(tmp_path / "m.mp4", scene(3)), -1, 0, 0, 1): "mirror",
        }
        for path, words in files.items():
            reason = refused(path, TorchCodecReader())
            assert words in reason
            assert reason.endswith("use decoder=pyav")
            assert info(path).num_frames > 0

    def test_no_such_gpu(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "a.mp4", numbered(2))
        with pytest.raises(ConfigError, match=r"decoder.device=cuda:99: torch sees \d+ GPUs here; use cpu"):
            TorchCodecReader(device="cuda:99", timeout=None).open(str(path))

    def test_decodes_on_a_gpu(self, tmp_path: Path) -> None:
        if not torch.cuda.is_available():
            pytest.skip("needs an NVIDIA GPU")
        path = write_video(tmp_path / "a.mp4", scene(50, 192, 256), codec="libx264", options={"g": "12"})
        reader = TorchCodecReader(device="cuda")
        for size in (None, (96, 128)):
            ours, theirs = read(path, [0, 7, 30], size), read(path, [0, 7, 30], size, reader=reader)
            assert theirs.shape == ours.shape
            assert np.abs(ours.astype(int) - theirs).mean() < 8


def test_torchcodec_devices() -> None:
    for wrong in ("gpu", "cuda:", "cuda:x", ""):
        with pytest.raises(ConfigError, match="must be cpu, cuda, or cuda:N"):
            TorchCodecReader(device=wrong)


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_torchcodec_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, timeout: float | None) -> None:
    """In our process, and in the child's, whose search path has a package that says what the real one says."""
    for name in ("torchcodec", "torchcodec.decoders"):
        monkeypatch.setitem(sys.modules, name, None)
    package = tmp_path / "torchcodec"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "decoders.py").write_text("raise ImportError('no such thing')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(guarded, "_workers", {})
    reader = TorchCodecReader(timeout=timeout)
    with pytest.raises(ConfigError, match=r"pip install torchcodec, .* or use decoder=pyav"):
        reader.open(str(tmp_path / "a.mp4"))
    if timeout:
        (package / "decoders.py").write_text("raise RuntimeError('Could not load libtorchcodec.\\nLikely causes')")
        with pytest.raises(ConfigError, match=r"needs FFmpeg's shared libraries .* or use decoder=pyav"):
            reader.open(str(tmp_path / "a.mp4"))


@pytest.mark.slow
def test_memory_does_not_grow(tmp_path: Path) -> None:
    """At most 10 MB over 2,000 opens."""
    status = Path("/proc/self/statm")
    if not status.exists():
        pytest.skip("needs /proc")
    path = write_video(tmp_path / "a.mp4", scene(12), options={"qp": "0", "g": "4"})

    def megabytes() -> float:
        return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    for number in range(2200):
        read(path, [11, 3], (24, 32))
        if number == 200:
            before = megabytes()
    grown = megabytes() - before
    print(f"grown by {grown:.2f} MB")
    assert grown < 10
