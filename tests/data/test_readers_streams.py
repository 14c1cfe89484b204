"""Which stream of a file is read, and streams whose colours stand outside the frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from tests.data.test_readers import needs_decord, needs_torchcodec
from tests.videos import full_decode, numbered, read, refused
from vidtrain.data.readers.decord import DecordReader
from vidtrain.data.readers.pyav.opening import OpenFile
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.data.readers.torchcodec import TorchCodecReader

PALETTE = np.array([[255, 16, 16, 16], [255, 30, 30, 220], [255, 30, 200, 200], [255, 220, 30, 30]], np.uint8)
"""A, R, G, B."""


def two_streams(path: Path, first: int, second: int, *, marks: tuple[bool, bool] = (True, False)) -> Path:
    """A file whose first stream counts up in frames of `first` x `first` pixels, and whose second one is white.

    marks: which of them the container calls the default.
    """
    with av.open(str(path), "w") as out:
        streams = []
        for side, mark in zip((first, second), marks, strict=True):
            stream = out.add_stream("libx264rgb", rate=25, options={"qp": "0"})
            stream.disposition = Disposition.default if mark else Disposition(0)
            stream.height = stream.width = side
            stream.pix_fmt = "rgb24"
            streams.append(stream)
        for number in range(12):
            for stream, level in zip(streams, (number, 255), strict=True):
                picture = np.full((stream.height, stream.width, 3), level, np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode(None))
    return path


def palettised(path: Path, count: int = 10, side: int = 16) -> Path:
    """Raw video of indices into PALETTE, which the container gives once, before the first frame."""
    palette = np.zeros((256, 4), np.uint8)
    palette[: len(PALETTE)] = PALETTE
    with av.open(str(path), "w") as out:
        stream = out.add_stream("rawvideo", rate=25)
        stream.height = stream.width = side
        stream.pix_fmt = "pal8"
        for number in range(count):
            image = np.full((side, side), number % len(PALETTE), np.uint8)
            image[: side // 2] = (number + 1) % len(PALETTE)
            frame = av.VideoFrame.from_ndarray((image, palette), format="pal8")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


class TestStream:
    @pytest.mark.parametrize("ending", ["mkv", "mp4"])
    @pytest.mark.parametrize(
        ("sides", "marks", "chosen"),
        [
            ((32, 32), (True, True), 0),
            ((48, 32), (True, True), 0),
            ((32, 48), (True, True), 1),
            ((48, 32), (False, True), 1),
        ],
    )
    def test_the_default_of_the_ffmpeg_command(
        self, tmp_path: Path, ending: str, sides: tuple[int, int], marks: tuple[bool, bool], chosen: int
    ) -> None:
        path = two_streams(tmp_path / f"a.{ending}", *sides, marks=marks)
        assert (read(path, [7]) == (255 if chosen else 7)).all()

    @pytest.mark.parametrize("ending", ["mkv", "mp4", "ts"])
    def test_it_is_chosen_once(self, tmp_path: Path, ending: str) -> None:
        file = OpenFile(str(two_streams(tmp_path / f"a.{ending}", 48, 32)))
        chosen = file.stream.index
        file.reopen()
        assert file.stream.index == chosen == 0
        file._index = 1  # as if the first opening had chosen it
        file.reopen()
        assert file.stream.index == 1
        file.close()

    @needs_decord
    def test_decord_cannot_be_given_one(self, tmp_path: Path) -> None:
        path = two_streams(tmp_path / "a.mp4", 32, 32)
        assert "cannot be told which of the 2 video streams" in refused(path, DecordReader(timeout=None))

    @needs_torchcodec
    def test_torchcodec_is_given_it(self, tmp_path: Path) -> None:
        path = two_streams(tmp_path / "a.mp4", 32, 32)
        found = read(path, [7, 2], reader=TorchCodecReader(timeout=None))
        np.testing.assert_array_equal(found, read(path, [7, 2]))

    def test_a_cover_image_is_no_video(self, tmp_path: Path) -> None:
        path = tmp_path / "song.mp4"
        with av.open(str(path), "w") as out:
            sound = out.add_stream("aac", rate=8000)
            cover = out.add_stream("png", rate=1)
            cover.height = cover.width = 32
            cover.pix_fmt = "rgb24"
            cover.disposition = Disposition.attached_pic
            out.mux(cover.encode(av.VideoFrame.from_ndarray(numbered(1, 32, 32)[0], format="rgb24")))
            out.mux(cover.encode(None))
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.rate = 8000
            silence.pts = 0
            out.mux(sound.encode(silence))
            out.mux(sound.encode(None))
        assert refused(path) == "has no video stream (audio with a cover picture)"

    def test_cases(self, test_cases: Path) -> None:
        for path in (test_cases / "stream_choice" / "twovid2.mkv", test_cases / "decord_other_stream" / "twosame.mp4"):
            with av.open(str(path)) as container:
                frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(container.streams.video[0])]
            for number in (20, 3):
                np.testing.assert_array_equal(read(path, [number])[0], frames[number])
            assert "cannot be told which of the 2 video streams" in refused(path, DecordReader(timeout=None))


class TestPalette:
    @pytest.mark.parametrize("ending", ["avi", "mov"])
    def test_colours_at_every_place(self, tmp_path: Path, ending: str) -> None:
        path = palettised(tmp_path / f"a.{ending}")
        found = read(path, [5, 0, 9, 5])
        for frame, number in zip(found, (5, 0, 9, 5), strict=True):
            np.testing.assert_array_equal(frame[0, 0], PALETTE[(number + 1) % 4, 1:])
            np.testing.assert_array_equal(frame[-1, 0], PALETTE[number % 4, 1:])

    @needs_decord
    def test_decord_says_why_it_is_refused(self, tmp_path: Path) -> None:
        reason = refused(palettised(tmp_path / "a.avi"), DecordReader(timeout=None))
        assert "decord loses the palette" in reason

    def test_case(self, test_cases: Path) -> None:
        path = test_cases / "pal8_avi" / "pal8_12.avi"
        frames = full_decode(path)
        assert frames.std() > 50
        with PyAVReader().open(str(path)) as video:
            for number in (7, 3, 11, 0):
                np.testing.assert_array_equal(video.read(np.array([number]))[0], frames[number])
