"""A stream is read from wherever it comes, goes on when it is cut, and what is too late is lost and counted."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.live.served import rtsp, served
from tests.videos import coded, number_of, scene, write_video
from vidtrain.data.clips.crop import Crop
from vidtrain.errors import ConfigError, VideoError
from vidtrain.live import decoding_thread as capture_module
from vidtrain.live.byte_streams import FollowedFile
from vidtrain.live.decoding_thread import Capture, Hold, LiveFrame
from vidtrain.live.settings import LiveConfig
from vidtrain.live.sources import live_source
from vidtrain.types import VideoInfo

SIZE = (32, 96)  # wide enough to read the number of a frame
FAST = LiveConfig(backoff=0.01, backoff_max=0.02, timeout=5.0, reconnect=3, idle=0.2)


def cut_of(info: VideoInfo) -> Crop:
    return Crop((96, 144), 0, 0, 96)


def whole(info: VideoInfo) -> Any:
    class Whole:
        read_size = (info.height, info.width)

        def apply(self, frames: Any) -> Any:
            return frames

    return Whole()


def captured(
    text: str, config: LiveConfig = FAST, *, most: int = 10_000, cut: Callable[[VideoInfo], Any] = whole
) -> tuple[list[LiveFrame], Capture]:
    source = live_source(text, config)
    assert source is not None
    frames: list[LiveFrame] = []
    with Capture(source, config, cut, Hold(16), drop=False) as capture:
        while not capture.is_done and len(frames) < most:
            frames += capture.take(0.5)
    return frames, capture


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames that are numbered, as MPEG-TS with a keyframe every 10."""
    folder = tmp_path_factory.mktemp("recording")
    return write_video(folder / "a.ts", coded(40), codec="libx264", options={"g": "10", "bf": "0", "qp": "10"})


def test_an_address_that_is_cut_20_times_goes_on(recording: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = recording.read_bytes()

    def answer(number: int, write: Callable[[bytes], Any]) -> None:
        write(data if number < 20 else b"")

    with served(answer) as (address, requests):
        frames, capture = captured(address)
    assert len(requests) == 20 + 1 + FAST.reconnect - 1
    assert capture.opened == 20
    assert len(frames) == capture.number == 20 * 40
    assert [number_of(f.image) for f in frames] == [*range(40)] * 20
    assert [f.number for f in frames] == list(range(800))
    seconds = np.array([f.seconds for f in frames])
    assert (np.diff(seconds) >= 0).all()
    within = seconds.reshape(20, 40)
    assert np.allclose(np.diff(within, axis=1), 1 / 25, atol=1e-6)
    assert [f.run for f in frames[::40]] == list(range(1, 21))
    # from one to the next the clock on the wall counts: it was opened again at once
    assert 0 < (within[1:, 0] - within[:-1, -1]).max() < 5
    assert capture.error is not None
    assert str(capture.error).endswith("3 times it could not be opened again")
    assert "opening it again in 0.01 s, try 1" in caplog.text
    assert "opening it again in 0.02 s, try 3" in caplog.text


def test_rtsp_that_is_cut_goes_on(recording: Path, caplog: pytest.LogCaptureFixture) -> None:
    with rtsp(recording.read_bytes(), sessions=20) as (address, played):
        frames, capture = captured(address)
    assert len(played) == capture.opened == 20
    # the last one of each is still in the making: nothing but the next tells that it is whole
    assert [number_of(f.image) for f in frames] == [*range(39)] * 20
    assert "s3cret" not in caplog.text + str(capture.error)


def test_cut_in_the_middle_of_a_frame(recording: Path) -> None:
    data = recording.read_bytes()
    with served(lambda number, write: write(data[: len(data) // 2 + 77])) as (address, _):
        frames, capture = captured(address, most=70)
    assert capture.opened >= 3
    first = [number_of(f.image) for f in frames if f.run == 1]
    assert first == list(range(len(first)))
    assert 10 < len(first) < 40


def test_a_file_that_is_played_from_far_away_ends(recording: Path) -> None:
    data = recording.read_bytes()
    headers = {"Content-Length": str(len(data))}
    with served(lambda _, write: write(data), headers=headers) as (address, _):
        frames, capture = captured(address)
    assert len(frames) == 40
    assert capture.error is None
    assert capture.opened == 1


def test_one_that_breaks_off_is_not_played_again(recording: Path) -> None:
    data = recording.read_bytes()
    headers = {"Content-Length": str(len(data))}
    with served(lambda _, write: write(data[: len(data) // 2]), headers=headers) as (address, requests):
        frames, capture = captured(address)
    assert 10 < len(frames) < 40
    assert len(requests) == 1
    assert "the stream broke off" in str(capture.error)


def test_motion_jpeg_goes_by_the_wall_clock() -> None:
    """A camera's multipart JPEGs have no times of their own."""
    jpegs = []
    for number in range(6):
        file = io.BytesIO()
        with av.open(file, "w", format="mjpeg") as out:
            stream = out.add_stream("mjpeg", rate=25)
            stream.height, stream.width, stream.pix_fmt = 64, 96, "yuvj420p"
            out.mux(stream.encode(av.VideoFrame.from_ndarray(coded(number + 1)[number], format="rgb24")))
            out.mux(stream.encode(None))
        jpegs.append(file.getvalue())

    def answer(number: int, write: Callable[[bytes], Any]) -> None:
        for jpeg in jpegs if not number else []:
            write(b"--x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg) + jpeg + b"\r\n")
            time.sleep(0.15)

    with served(answer, kind="multipart/x-mixed-replace; boundary=x") as (address, _):
        frames, _ = captured(address)
    assert [number_of(f.image) for f in frames] == list(range(6))
    # five waits of 0.15 s, where a rate of 25 would make 0.2 s of them all; single ones may come late
    assert 0.5 < frames[-1].seconds - frames[0].seconds < 30


def test_a_pipe(recording: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(recording.read_bytes()))
    writer.start()
    frames, capture = captured(str(tmp_path / "pipe"))
    writer.join()
    assert [number_of(f.image) for f in frames] == list(range(40))
    assert capture.error is None


def test_raw_frames_in_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = scene(5)
    (tmp_path / "raw").write_bytes(images.tobytes())
    config = LiveConfig(format="rawvideo", options={"video_size": "64x48", "pixel_format": "rgb24", "framerate": "5"})
    with (tmp_path / "raw").open("rb") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        frames, _ = captured("-", config)
    assert np.array_equal(np.stack([f.image for f in frames]), images)
    assert [f.seconds for f in frames] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])


def test_raw_frames_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = LiveConfig(format="rawvideo", options={"video_size": "64x48", "pixel_format": "rgb24", "framerate": "0"})
    with Path(os.devnull).open("rb") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        _, capture = captured("-", config)
    assert str(capture.error) == "stdin: does not open (Invalid argument): do live.format and live.options fit it?"


@pytest.mark.parametrize("ending", ["ts", "mkv"])
def test_a_file_that_grows(ending: str, tmp_path: Path) -> None:
    data = write_video(
        tmp_path / f"b.{ending}", coded(40), codec="libx264", options={"g": "10", "qp": "10"}
    ).read_bytes()
    growing = tmp_path / f"growing.{ending}"
    growing.write_bytes(data[: len(data) // 3])
    source = live_source(str(growing), LiveConfig(follow=True, idle=1.0))
    assert source is not None
    frames: list[LiveFrame] = []
    with Capture(source, LiveConfig(idle=1.0), whole, Hold(16), drop=False) as capture, growing.open("ab") as file:
        parts = [data[len(data) // 3 : len(data) // 2], data[len(data) // 2 :]]
        while not capture.is_done:
            taken = capture.take(0.2)
            frames += taken
            if not taken and parts:  # it waits
                file.write(parts.pop(0))
                file.flush()
    assert [number_of(f.image) for f in frames] == list(range(40))
    assert not parts
    assert capture.error is None


def test_a_file_that_is_cut_has_ended(tmp_path: Path) -> None:
    (tmp_path / "log.ts").write_bytes(bytes(10))
    file = FollowedFile(str(tmp_path / "log.ts"), 3.0, lambda: False)
    assert file.read(100) == bytes(10)
    os.truncate(tmp_path / "log.ts", 5)
    began = time.monotonic()
    assert file.read(100) == b""
    assert time.monotonic() - began < 2
    file.close()


def test_a_late_reader_of_a_camera_finds_the_newest() -> None:
    source = live_source("lavfi:testsrc=size=64x48:rate=25,trim=end_frame=200", FAST)
    assert source is not None
    with Capture(source, LiveConfig(reconnect=0), whole, Hold(10), drop=True) as capture:
        while capture.number < 200:
            time.sleep(0.01)
        frames = capture.take(1)
    assert [f.number for f in frames] == list(range(190, 200))
    assert capture.lost == 190
    with Capture(source, LiveConfig(reconnect=0), whole, Hold(10), drop=False) as capture:
        time.sleep(0.3)
        assert capture.number == 11  # reading waits
        assert capture.lost == 0


def test_the_end_does_not_wait_for_what_does_not_come() -> None:
    """An address that is silent, a pipe nobody writes to."""
    silent = threading.Event()
    with served(lambda *_: silent.wait(20)) as (address, _):
        source = live_source(address, FAST)
        assert source is not None
        began = time.monotonic()
        with Capture(source, LiveConfig(timeout=1000), whole, Hold(4), drop=True) as capture:
            assert capture.take(0.3) == []
        assert time.monotonic() - began < 5
        with Capture(source, LiveConfig(timeout=0.3), whole, Hold(4), drop=True) as capture:
            assert capture.take(5) == []
        assert capture.error is not None
        assert "does not answer within 0.3 s (live.timeout)" in str(capture.error)
        silent.set()


def test_a_pipe_that_is_left_before_its_writer_comes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    source = live_source(str(tmp_path / "pipe"), FAST)
    assert source is not None
    with Capture(source, FAST, whole, Hold(4), drop=False) as capture:
        assert capture.take(0.1) == []
    assert capture.is_done
    assert capture.error is None


def test_frames_may_change_their_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A camera switches to another resolution."""
    data = b"".join(
        write_video(tmp_path / f"{n}.h264", coded(8, *size), codec="libx264", container="h264").read_bytes()
        for n, size in enumerate([(64, 96), (96, 160), (64, 96)])
    )
    (tmp_path / "all.h264").write_bytes(data)
    with (tmp_path / "all.h264").open("rb") as stdin, caplog.at_level("INFO", "vidtrain"):
        monkeypatch.setattr("sys.stdin", stdin)
        frames, _ = captured("-", cut=cut_of)
    assert len(frames) == 24
    changes = [one.getMessage() for one in caplog.records if "from here on" in one.getMessage()]
    assert changes == [f"stdin: frames are {size} pixels from here on" for size in ("160 x 96", "96 x 64")]
    assert {f.image.shape for f in frames} == {(96, 96, 3)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: b"x" * 10_000, r"stdin: is no video stream that FFmpeg knows\. An MP4 has its index at its end"),
        (lambda: b"", r"stdin: is no video stream"),
        (lambda: sound(), r"stdin: has no video stream \(audio only\)"),
    ],
)
def test_what_is_no_video(
    make: Callable[[], bytes], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").write_bytes(make())
    with (tmp_path / "in").open("rb") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        frames, capture = captured("-")
    assert not frames
    assert isinstance(capture.error, VideoError)
    with pytest.raises(VideoError, match=message):
        raise capture.error


@pytest.mark.parametrize("scheme", ["file://", "file:", ""])
def test_a_playlist_opens_no_file_of_this_machine(
    scheme: str, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.6,\n{scheme}{recording}\n#EXT-X-ENDLIST\n".encode()
    (tmp_path / "in.m3u8").write_bytes(playlist)
    with av.open(str(tmp_path / "in.m3u8")) as container:  # which FFmpeg itself would do
        assert len(list(container.decode(video=0))) == 40
    with (tmp_path / "in.m3u8").open("rb") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert captured("-", replace(FAST, format="hls"))[0] == []
    with served(lambda _, write: write(playlist), kind="application/vnd.apple.mpegurl") as (address, _):
        assert captured(f"{address}.m3u8")[0] == []


def test_frames_that_grow_beyond_all_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_module, "_MOST_PIXELS", 10_000)
    data = b"".join(
        write_video(tmp_path / f"{n}.h264", coded(8, *size), codec="libx264", container="h264").read_bytes()
        for n, size in enumerate([(64, 96), (96, 160)])
    )
    (tmp_path / "all.h264").write_bytes(data)
    with (tmp_path / "all.h264").open("rb") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        frames, capture = captured("-")
    assert len(frames) == 8, (capture.error, capture.spoiled)
    assert capture.spoiled > 0


def sound() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as out:
        stream = out.add_stream("mp2", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16", layout="mono")
        frame.sample_rate = 44100
        for _ in range(50):
            frame.pts = None
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


def test_frames_beyond_all_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    config = LiveConfig(format="rawvideo", options={"video_size": "8193x8192", "pixel_format": "gray"})
    with Path(os.devnull).open("rb") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        _, capture = captured("-", config)
    assert str(capture.error) == "stdin: frames of 8193 x 8192 pixels; at most 67108864 of them"


def test_an_absurd_shape_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pixel high, and scaled to the short side of the network."""
    (tmp_path / "raw").write_bytes(bytes(30_000 * 3))
    config = LiveConfig(format="rawvideo", options={"video_size": "30000x1", "pixel_format": "rgb24"})
    with (tmp_path / "raw").open("rb") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        _, capture = captured("-", config, cut=lambda info: Crop(info.scaled(112), 0, 0, 112))
    assert "frames of 30000 x 1 pixels would be scaled to 3360000 x 112" in str(capture.error)


def test_a_mistake_of_ours_is_raised_to_who_asks(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(info: VideoInfo) -> Any:
        raise RuntimeError("ours")

    with recording.open("rb") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        source = live_source("-", FAST)
        assert source is not None
        with Capture(source, FAST, broken, Hold(16), drop=False) as capture:
            capture._thread.join()  # before anybody has asked
            assert not capture.is_done
            with pytest.raises(RuntimeError, match="ours"):
                capture.take(0.5)


def test_a_terminal_is_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = os.openpty()
    with open(other, "rb", buffering=0) as stdin:  # noqa: PTH123 - a handle
        monkeypatch.setattr("sys.stdin", stdin)
        with pytest.raises(ConfigError, match=r"^input=-: reads a pipe, and this is a terminal: "):
            live_source("-", FAST)
    os.close(own)


@pytest.mark.parametrize(
    ("text", "config", "message"),
    [
        ("gopher://a:b@c/d", LiveConfig(), r"input=gopher://\*\*\*@c/d: gopher:// is none of rtsp, rtsps, http"),
        ("file:///videos", LiveConfig(), r"file:// is none of .*; of a store name one video .*folders .* not listed"),
        (
            "0",
            LiveConfig(options={"protocol_whitelist": "file"}),
            r"live.options=protocol_whitelist: is set by vidtrain",
        ),
        ("rtsp://a/b", LiveConfig(follow=True), r"live.follow=true goes with one file that is there"),
        ("no/such/file.ts", LiveConfig(follow=True), r"live.follow=true goes with one file that is there"),
    ],
)
def test_mistakes(text: str, config: LiveConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        live_source(text, config)


def test_a_misspelt_option_of_ffmpeg_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    live_source("rtsp://x/y", LiveConfig(options={"video_size": "64x48", "rtsp_transprt": "udp", "b": "1"}))
    assert [record.getMessage() for record in caplog.records] == [
        "live.options=rtsp_transprt: FFmpeg passes over what it does not know (did you mean rtsp_transport?)"
    ]
