"""JPEG packs: the contract of readers, and that damage is found wherever it is."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.videos import Pictures, info, numbered, read, refused, scene
from vidtrain.data.prepare.jpeg import encode_pack
from vidtrain.data.readers.any_path import AnyReader
from vidtrain.data.readers.jpeg_pack import JpegPackReader, write_pack
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.errors import VideoError
from vidtrain.types import VideoInfo

READER = JpegPackReader()
HEADER = 40  # bytes before the table


def pack(path: Path, frames: Pictures, fps: float = 25, quality: int = 90) -> Path:
    count, height, width = frames.shape[:3]
    encode_pack(path, frames, VideoInfo(count, fps, height, width), quality=quality)
    return path


def jpeg_of(path: Path, number: int) -> io.BytesIO:
    """Frame `number`, cut out of the file by hand."""
    data = path.read_bytes()
    start, end = struct.unpack_from("<2Q", data, HEADER + 8 * number)
    return io.BytesIO(data[start:end])


def decoded(jpeg: io.BytesIO, height: int, width: int) -> Pictures:
    """A picture file opened as FFmpeg opens one, scaled bilinearly."""
    with av.open(jpeg) as container:
        frame = next(container.decode(video=0))
        return frame.reformat(width=width, height=height, format="rgb24", interpolation="BILINEAR").to_ndarray()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return pack(tmp_path / "clip.jpack", scene(20, 48, 65), fps=30000 / 1001)


def test_shows_what_was_put_in(clip: Path) -> None:
    assert info(clip, READER) == VideoInfo(20, 30000 / 1001, 48, 65)
    frames = read(clip, list(range(20)), reader=READER)
    assert frames.dtype == np.uint8
    assert frames.shape == (20, 48, 65, 3)
    for number in (0, 7, 19):
        assert (frames[number] == decoded(jpeg_of(clip, number), 48, 65)).all()
        # another decoder: it interpolates colour, which FFmpeg repeats, and rounds where FFmpeg cuts off
        assert np.abs(frames[number].mean((0, 1)) - np.array(Image.open(jpeg_of(clip, number))).mean((0, 1))).max() < 2


def test_close_to_the_source(tmp_path: Path) -> None:
    frames = numbered(300, 24, 32)
    got = read(pack(tmp_path / "n.jpack", frames), list(range(300)), reader=READER)
    assert np.abs(got.astype(int) - frames).max() <= 4  # flat colours: only YCbCr's rounding is lost


def test_any_order_and_repeats(clip: Path) -> None:
    whole = read(clip, list(range(20)), reader=READER)
    wanted = [19, 0, 7, 7, 3, 19]
    assert (read(clip, wanted, reader=READER) == whole[wanted]).all()
    assert read(clip, [], reader=READER).shape == (0, 48, 65, 3)


def test_scales_bilinearly(clip: Path) -> None:
    for picture, number in zip(read(clip, [9, 4], (30, 41), reader=READER), (9, 4), strict=True):
        assert (picture == decoded(jpeg_of(clip, number), 30, 41)).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (97, 73), (2, 300)])
def test_odd_sizes(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = pack(tmp_path / "a.jpack", np.full((3, *shape, 3), 128, np.uint8))
    assert read(path, [2], reader=READER).shape == (1, *shape, 3)
    assert (read(path, [0], reader=READER) == 128).all()


def test_one_frame_and_more_than_the_first_read_holds(tmp_path: Path) -> None:
    assert info(pack(tmp_path / "one.jpack", scene(1)), READER).num_frames == 1
    many = pack(tmp_path / "many.jpack", numbered(3000, 2, 2), fps=240)
    assert read(many, [2999, 5], reader=READER)[..., 0].mean((1, 2)).round() == pytest.approx([2999 % 256, 5], abs=3)


def test_indices_outside_are_the_callers_mistake(clip: Path) -> None:
    for wrong in (-1, 20):
        with pytest.raises(IndexError, match="shows 0 to 19"):
            read(clip, [wrong], reader=READER)


def test_is_found_by_its_extension_and_pickles(clip: Path) -> None:
    reader = pickle.loads(pickle.dumps(AnyReader(PyAVReader())))
    assert (read(clip, [3], reader=reader) == read(clip, [3], reader=READER)).all()


def test_a_closed_pack_is_closed(clip: Path) -> None:
    with READER.open(str(clip)) as video:
        pass
    with pytest.raises(VideoError, match="frame 0 of 20 cannot be read"):
        video.read(np.array([0]))


def test_refuses_what_is_not_a_whole_pack(clip: Path, tmp_path: Path) -> None:
    whole = clip.read_bytes()
    damaged = tmp_path / "damaged.jpack"
    for length, reason in (
        (0, "the file is empty"),
        (5, "is not a JPEG pack"),
        (20, "is cut off: the JPEG pack ends within its header"),
        (70, "is cut off: the JPEG pack ends within its table of images"),
        (HEADER + 12 * 20 + 8, f"is cut off: the JPEG pack has {HEADER + 248} bytes, it should have {len(whole)}"),
        (len(whole) - 1, f"is cut off: the JPEG pack has {len(whole) - 1} bytes, it should have {len(whole)}"),
    ):
        damaged.write_bytes(whole[:length])
        assert refused(damaged, READER) == reason
    damaged.write_bytes(whole + b"x")
    assert "it should have" in refused(damaged, READER)
    damaged.write_bytes(whole[:8] + b"\x03" + whole[9:])
    assert "is a JPEG pack of version 3" in refused(damaged, READER)
    assert refused(tmp_path / "none.jpack", READER) == "no such file"
    assert refused(tmp_path, READER) == "is not a regular file"


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1), bit=st.integers(0, 7))
def test_no_flipped_bit_goes_unnoticed(clip: Path, where: float, bit: int) -> None:
    data = bytearray(clip.read_bytes())
    at = min(int(where * len(data)), len(data) - 1)
    data[at] ^= 1 << bit
    damaged = clip.with_name("damaged.jpack")
    damaged.write_bytes(data)
    with pytest.raises(VideoError):
        read(damaged, list(range(20)), reader=READER)


def test_the_other_frames_of_a_damaged_pack_are_read(clip: Path) -> None:
    whole = read(clip, list(range(20)), reader=READER)
    data = bytearray(clip.read_bytes())
    start, end = struct.unpack_from("<2Q", data, HEADER + 8 * 6)
    data[(start + end) // 2] ^= 1
    clip.write_bytes(data)
    with pytest.raises(VideoError, match="frame 6 of 20 is damaged"):
        read(clip, [5, 6], reader=READER)
    others = [n for n in range(20) if n != 6]
    assert (read(clip, others, reader=READER) == whole[others]).all()


@pytest.mark.parametrize(
    ("jpeg", "reason"), [(b"not a JPEG at all", "does not decode"), (b"", "does not decode"), (None, "is 8x4, not 8x8")]
)
def test_pictures_that_are_wrong_from_the_start(tmp_path: Path, jpeg: bytes | None, reason: str) -> None:
    if jpeg is None:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 4)).save(buffer, "JPEG")
        jpeg = buffer.getvalue()
    with (tmp_path / "a.jpack").open("wb") as file:
        write_pack(file, [jpeg], VideoInfo(1, 25, 8, 8))
    with pytest.raises(VideoError, match=reason):
        read(tmp_path / "a.jpack", [0], reader=READER)


def test_the_layout_does_not_change_unnoticed(tmp_path: Path) -> None:
    """Packs are kept for years: this is the format of version 1, written out."""
    with (tmp_path / "a.jpack").open("wb") as file:
        write_pack(file, [b"one", b"three"], VideoInfo(2, 12.5, 6, 7))
    tables = struct.pack("<3Q2I", 72, 75, 80, zlib.crc32(b"one"), zlib.crc32(b"three"))
    head = struct.pack("<8sIIIId", b"VIDJPACK", 1, 2, 6, 7, 12.5)
    check = struct.pack("<I4x", zlib.crc32(tables, zlib.crc32(head + bytes(8))))
    assert (tmp_path / "a.jpack").read_bytes() == head + check + tables + b"onethree"
