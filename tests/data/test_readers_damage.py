"""Zeros in a packet are looked at: those in place of data are found, those behind it are not taken for damage."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.data.encodes import Kind, _all_keys, _filled_slices, _h264, _hevc, make, rewrite, sound
from tests.data.test_readers_sound import read_each
from tests.videos import Pictures, full_decode, needs_encoder
from vidtrain.data.readers.pyav.damaged_packets import look_for
from vidtrain.data.readers.pyav.opening import OpenFile
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.errors import VideoError

Zero = Callable[[bytes], bytes]


def tail(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


def middle(data: bytes) -> bytes:
    """In the last third, which is data and no header in all of these files."""
    at = len(data) * 7 // 10
    return data[:at] + bytes(min(20, len(data) - at - 4)) + data[at + 20 :] if len(data) > at + 24 else data


DAMAGED = {
    "hevc": (_hevc("bframes=0:no-wpp=1"), tail),
    "hevc-middle": (_hevc("bframes=2"), middle),
    "cabac": (_h264("bframes=0"), tail),
    "cavlc": (_h264("bframes=0:cabac=0"), tail),
    "raw": (_h264("bframes=2", "h264"), tail),
    "mpeg4": (Kind("mpeg4", "mp4", {"g": "12"}), tail),
    "mjpeg": (Kind("mjpeg", "avi", {"huffman": "optimal"}, "yuvj420p"), tail),
    "mjpeg-middle": (Kind("mjpeg", "avi", {"huffman": "default"}, "yuvj420p"), middle),
    "wmv1": (Kind("wmv1", "asf", {"g": "12"}), tail),
    "wmv2": (Kind("wmv2", "avi", {"g": "12"}), tail),
    "msmpeg4": (Kind("msmpeg4", "avi", {"g": "12"}), tail),
    "png": (Kind("png", "mov", {}, "rgb24"), lambda data: data[: -len(data) // 4] + bytes(len(data) // 4)),
    "ffv1": (Kind("ffv1", "mkv", {"level": "3", "g": "4"}), tail),
    "ffv1-middle": (Kind("ffv1", "avi", {"level": "3", "g": "4", "slices": "4"}), middle),
    "vp9": (Kind("libvpx-vp9", "webm", {"g": "12", "deadline": "realtime", "cpu-used": "8"}), tail),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_zeros_in_place_of_data_are_found(name: str, tmp_path: Path) -> None:
    """In every fifth packet: no frame is given that the sound file does not show, and not all are refused."""
    kind, zero = DAMAGED[name]
    needs_encoder(kind.codec)
    source = make(kind, "scene", tmp_path)
    whole: Pictures = full_decode(source)
    path = rewrite(
        source, tmp_path / f"zeros{source.suffix}", lambda n, data, key: (zero(data) if n % 5 == 4 else data, key)
    )
    given, wrong = read_each(path, whole)
    # Huffman codes may fall into step again, with as many blocks as there should be: that cannot be seen.
    assert len(wrong) <= (3 if name == "mjpeg-middle" else 0), wrong
    assert given >= (28 if kind.codec == "mjpeg" else 4)


@pytest.mark.parametrize("params", ["slices=3:bframes=1:cabac=0", "slices=3:bframes=1", "bframes=2:cabac=0"])
@pytest.mark.parametrize("content", ["scene", "black", "noise"])
def test_zeros_behind_the_data_of_slices_are_no_damage(params: str, content: str, tmp_path: Path) -> None:
    assert sound(make(_h264(params, after=_filled_slices), content, tmp_path), PyAVReader()) == ""


@pytest.mark.parametrize("huffman", ["default", "optimal"])
@pytest.mark.parametrize("content", ["scene", "black"])
def test_zeros_between_a_jpegs_scan_and_its_end_are_no_damage(huffman: str, content: str, tmp_path: Path) -> None:
    source = make(Kind("mjpeg", "avi", {"huffman": huffman}, "yuvj420p"), content, tmp_path)
    path = rewrite(source, tmp_path / "filled.avi", lambda n, data, key: (data[:-2] + bytes(40) + data[-2:], key))
    assert sound(path, PyAVReader()) == ""


@pytest.mark.parametrize("content", ["scene", "half", "noise"])
def test_zeros_within_a_lossless_jpeg_are_no_damage(content: str, tmp_path: Path) -> None:
    kind = Kind("ljpeg", "avi", {"strict": "-1"}, "yuv420p")
    assert sound(make(kind, content, tmp_path), PyAVReader()) == ""


CHECKED = {
    "ffv1": (Kind("ffv1", "mkv", {"level": "3", "g": "1", "slicecrc": "1"}), [29]),
    "ffv1-golomb": (Kind("ffv1", "mkv", {"level": "3", "g": "1", "coder": "0", "slices": "4"}), [29]),
    "ffv1-without": (Kind("ffv1", "mkv", {"level": "3", "g": "1", "slicecrc": "0"}), range(29, 37)),
}


@pytest.mark.parametrize("name", CHECKED)
def test_checksums_are_compared(name: str, tmp_path: Path) -> None:
    """One byte in every fifth packet is another; where there is no checksum a sound file is accepted, too."""
    kind, accepted = CHECKED[name]
    source = make(kind, "scene", tmp_path)
    assert sound(source, PyAVReader()) == ""

    def change(number: int, data: bytes, key: bool) -> tuple[bytes, bool]:
        at = len(data) // 2
        return (data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :] if number % 5 == 4 else data), key

    given, wrong = read_each(rewrite(source, tmp_path / f"changed.{kind.suffix}", change), full_decode(source))
    assert given in accepted
    assert wrong == [] or name == "ffv1-without"


def test_zeros_before_the_start_codes_of_mpeg2_are_no_damage(tmp_path: Path) -> None:
    """Any number of them may stand there (ISO/IEC 13818-2, 5.2.3), and behind the last slice."""
    source = make(Kind("mpeg2video", "mkv", {"g": "12", "bf": "2"}), "scene", tmp_path)
    path = rewrite(
        source,
        tmp_path / "stuffed.mkv",
        lambda n, data, key: (data.replace(b"\0\0\1", bytes(n % 4) + b"\0\0\1") + bytes(20), key),
    )
    assert sound(path, PyAVReader()) == ""


def test_a_jpegs_scan_that_ends_early_is_damaged(tmp_path: Path) -> None:
    """Zeros and other bytes behind the data of the scan: the decoder, out of step, was content too early."""
    source = make(Kind("mjpeg", "avi", {"huffman": "default"}, "yuvj420p"), "scene", tmp_path)
    more = bytes(40) + bytes(range(1, 41))
    path = rewrite(source, tmp_path / "early.avi", lambda n, data, key: (data[:-2] + more + data[-2:], key))
    assert read_each(path, full_decode(source))[0] == 0


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("rawvideo", "avi"), ("ffv1", "avi"), ("utvideo", "avi"), ("rawvideo", "mkv"), ("ffv1", "mkv")],
)
def test_a_packet_that_zeros_follow_is_damaged(codec: str, suffix: str, tmp_path: Path) -> None:
    """The second half of a file is zeroed, and with it the end of a packet that no decoder misses."""
    path = make(Kind(codec, suffix), "scene", tmp_path)
    data, whole = path.read_bytes(), full_decode(path)
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    given, wrong = read_each(path, whole)
    assert wrong == []
    assert given >= 10


@pytest.mark.parametrize("lost", [5, 17, 35])
def test_what_the_index_of_an_avi_has_and_the_file_has_not(lost: int, tmp_path: Path) -> None:
    """The chunk of a packet has lost its name, and is skipped: what refers to that frame is refused."""
    path = make(Kind("mpeg4", "avi", {"g": "12"}), "scene", tmp_path)
    data, whole = bytearray(path.read_bytes()), full_decode(path)
    at = 0
    for _ in range(lost + 1):
        at = data.index(b"00dc", at + 4)
    data[at : at + 4] = b"JUNK"
    path.write_bytes(data)
    given, wrong = read_each(path, whole)
    assert wrong == []
    assert 24 <= given < 36


def test_zeros_behind_an_avi_are_no_damage(tmp_path: Path) -> None:
    """As on a memory card that writes whole blocks."""
    path = make(Kind("ffv1", "avi"), "scene", tmp_path)
    data = path.read_bytes()
    data = data[: data.rindex(b"idx1")]  # the index would be what follows the last packet
    path.write_bytes(data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:] + bytes(5000))
    assert sound(path, PyAVReader()) == ""


def test_the_decoder_has_the_last_word_only_where_zeros_are(tmp_path: Path) -> None:
    """Reading a usual file decodes it once: no packet of it is in doubt."""
    path = make(_h264("bframes=2"), "scene", tmp_path)
    file = OpenFile(str(path))
    look = look_for(file.stream.codec_context)
    assert [look(packet) for packet in file.packets()] == [None] * 36
    file.close()
    np.testing.assert_array_equal(read_each(path, full_decode(path))[0], 36)


def test_errors_of_one_read_do_not_reach_the_next(tmp_path: Path) -> None:
    """FFmpeg's H.264 decoder, flushed and at a keyframe, patches up sound frames after broken ones."""
    kind, zero = DAMAGED["cavlc"]
    source = make(kind, "scene", tmp_path)
    whole = full_decode(source)
    path = rewrite(source, tmp_path / "zeros.mp4", lambda n, data, key: (zero(data) if n % 5 == 4 else data, key))
    with PyAVReader().open(str(path)) as video:
        for number in range(36):
            with contextlib.suppress(VideoError):
                np.testing.assert_array_equal(video.read(np.array([number]))[0], whole[number])


@pytest.mark.parametrize(
    "kind",
    [
        Kind("mpeg4", "avi", {"g": "12"}),
        Kind("h263p", "avi", {"g": "12"}, None, _all_keys),
        Kind("flv", "flv", {"g": "12"}),
        Kind("wmv2", "avi", {"g": "12"}),
        Kind("svq1", "mov", {"g": "12"}, "yuv410p"),
    ],
    ids=lambda kind: kind.codec,
)
def test_a_file_that_has_lost_its_first_frame(kind: Kind, tmp_path: Path) -> None:
    """Decoders begin with grey in its place: what is shown before the second keyframe is refused, the rest is right."""
    source = make(kind, "scene", tmp_path)
    path = rewrite(source, tmp_path / f"headless.{kind.suffix}", lambda n, data, key: (data, key) if n else None)
    assert read_each(path, full_decode(source)) == (24, [])
