"""Packets that were lost whole are noticed by the numbers that coded pictures carry; sound files are accepted."""

from __future__ import annotations

import itertools
from pathlib import Path

import av
import numpy as np
import pytest

from tests.data.encodes import Kind, _h264, make, rewrite, sound
from tests.data.test_readers_sound import read_each
from tests.videos import full_decode, needs_encoder
from vidtrain.data.readers.pyav import decoding
from vidtrain.data.readers.pyav.frame_numbers import TemporalReferences, _sequence_parameters, skip_test
from vidtrain.data.readers.pyav.opening import packet_of
from vidtrain.data.readers.pyav.reader import PyAVReader, PyAVVideo

_B = {"g": "12", "bf": "2"}
KINDS = {
    "h264.mp4": _h264("bframes=3:b-pyramid=normal"),
    "h264-open-gop.mkv": _h264("bframes=3:open-gop=1", "mkv"),
    "h264-slices.ts": _h264("slices=3:bframes=1", "ts"),
    "h264-fields.ts": _h264("bframes=1:tff=1", "ts", flags="+ilme+ildct"),
    "h264.h264": _h264("bframes=2", "h264"),
    "mpeg1.mpg": Kind("mpeg1video", "mpg", _B),
    "mpeg1.mkv": Kind("mpeg1video", "mkv", _B),
    "mpeg2.ts": Kind("mpeg2video", "ts", _B),
    "mpeg2.mp4": Kind("mpeg2video", "mp4", _B),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("numbers")
    return {name: make(kind, "scene", folder) for name, kind in KINDS.items()}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("lost", [range(14, 17), range(15, 16)])
def test_what_refers_to_lost_packets_is_refused(
    name: str, lost: range, sources: dict[str, Path], tmp_path: Path
) -> None:
    path = rewrite(sources[name], tmp_path / f"lost.{name}", lambda n, data, key: None if n in lost else (data, key))
    given, wrong = read_each(path, full_decode(sources[name]))
    assert wrong == []
    assert given >= 22  # two of three groups are whole


@pytest.mark.parametrize("name", ["h264.mp4", "mpeg2.ts"])
def test_without_a_packet_table(
    name: str, sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames that are counted by decoding the file: as where packets have no timestamps."""
    monkeypatch.setattr(decoding, "scan", lambda file, inspect: None)
    path = rewrite(sources[name], tmp_path / f"lost.{name}", lambda n, data, key: None if 14 <= n < 17 else (data, key))
    assert read_each(sources[name], full_decode(sources[name])) == (36, [])
    given, wrong = read_each(path, full_decode(sources[name]))
    assert wrong == []
    assert 22 <= given < 33


def test_lost_pictures_that_no_other_refers_to_spoil_none(tmp_path: Path) -> None:
    """Without B-pyramid every B-picture of H.264 is one."""
    source = make(_h264("bframes=2:b-pyramid=none:b-adapt=0"), "scene", tmp_path)
    path = rewrite(
        source, tmp_path / "lost.mp4", lambda n, data, key: None if data[4] & 0x7F == 1 and n % 5 == 0 else (data, key)
    )
    assert 28 <= len(full_decode(path)) < 36
    assert sound(path, PyAVReader()) == ""


def test_pictures_that_an_editor_dropped_at_the_beginning_of_a_group_are_not_missed(tmp_path: Path) -> None:
    """Those behind an I-picture of MPEG-2 and shown before it, which refer to the group before."""
    source = make(Kind("mpeg2video", "mkv", _B), "scene", tmp_path)
    kinds: list[int] = []

    def drop(number: int, data: bytes, key: bool) -> tuple[bytes, bool] | None:
        kinds.append(data[data.index(b"\0\0\1\0") + 5] >> 3 & 7)
        leading = number > 2 and kinds[-1] == 3 and 1 in kinds[-3:-1]
        return None if leading else (data, key)

    path = rewrite(source, tmp_path / "edited.mkv", drop)
    assert 30 <= len(full_decode(path)) < 36
    assert sound(path, PyAVReader()) == ""


def test_data_check_counts_the_losses(sources: dict[str, Path], tmp_path: Path) -> None:
    for name in ("h264.mp4", "mpeg2.ts"):
        path = rewrite(
            sources[name], tmp_path / f"lost.{name}", lambda n, data, key: None if 14 <= n < 17 else (data, key)
        )
        assert damaged_packets(sources[name]) == 0
        assert damaged_packets(path) >= 1


def damaged_packets(path: Path) -> int:
    with PyAVVideo(str(path), inspect=True) as video:
        assert video.frames.table is not None
        return video.frames.table.damaged


def mpeg_head(number: int, kind: int, *, group: bool = False) -> bytes:
    return (b"\0\0\1\xb8....." if group else b"") + b"\0\0\1\0" + (number << 6 | kind << 3).to_bytes(2, "big") + b"...."


@pytest.mark.parametrize(
    ("numbers", "missing"),
    [
        ("I0 P3 B1 B2 P6 B4 B5", []),
        ("I2 B0 B1 P5 B3 B4", []),
        ("I0 P3 B1 B2 P9 B7 B8", [3]),
        ("I0 P1 P2 P4 P5", [2]),
        ("I1022 P1023 P0 P1", []),  # the count is modulo 1024
        ("I1022 P1023 P1 P2", [1]),
        ("I0 P0 P1 P1 P2 P2 P3 P3", []),  # two fields each
        ("I0 P1 P2 P3 I0 P1 P2", []),  # no header, but an I-picture that counts from 0 again
        ("I0 P1 P2 P3 P2 P3 P4", [2, 3]),  # the I-picture of the second group is lost, and its header
        ("I0 P0 P0 P0 P0", []),  # an encoder that does not count
        ("I7 P3 P90 P41 P5", []),
        ("", []),
    ],
)
def test_temporal_references(numbers: str, missing: list[int]) -> None:
    references = TemporalReferences()
    for place, picture in enumerate(numbers.split()):
        references.add(mpeg_head(int(picture[1:]), "?IPB".index(picture[0]), group=not place))
    assert sorted(references.skips()) == missing


def bits_of(*codes: int | str) -> bytes:
    """Strings of bits, and numbers as unsigned Exp-Golomb codes (ITU-T H.264, 9.1)."""
    text = "".join(
        code if isinstance(code, str) else f"{code + 1:b}".zfill(2 * (code + 1).bit_length() - 1) for code in codes
    )
    return bytes(int(text[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(text), 8))


@pytest.mark.parametrize(
    ("numbers", "missing"),
    [
        ("I0 P1 P2 b3 b3 P3 P4", []),
        ("I0 P1 P2 b4 P4 P5", [3]),
        ("I0 P1 P2 P5 b6 P6", [3]),
        ("I0 P14 P15 P0 P1", [1]),  # the count is modulo 16
        ("I0 P1 P2 P1 P2 P3", []),  # all references were forgotten
        ("I0 P1 P2 I0 P1", []),
        ("I0 P1 P2 P2 P3 P3", []),  # two fields each
    ],
)
@pytest.mark.parametrize("allowed", [False, True])
def test_frame_numbers(numbers: str, missing: list[int], allowed: bool) -> None:
    """Capital letters: pictures that others refer to."""
    sequence = b"\0\0\1\x67" + bits_of(f"{66:08b}", "0" * 16, 0, 0, 0, 0, 1, f"{allowed:b}", "1" * 9)
    context = av.CodecContext.create("h264", "r")
    context.extradata = sequence + b"\0\0\1\x68" + bits_of(2, 0, "1" * 9)
    begin = skip_test(context)
    assert begin is not None
    for _ in range(2):  # it forgets what came before
        skips, found = begin(), []
        for place, picture in enumerate(numbers.split()):
            kind = 0x65 if picture[0] == "I" else 0x41 if picture[0] == "P" else 0x01
            data = b"\0\0\1\x09\xf0\0\0\1" + bytes([kind]) + bits_of(0, 5, 2, f"{int(picture[1:]):04b}", "1" * 9)
            if skips(packet_of(data)):
                found.append(place)
        assert found == ([] if allowed else missing)


@pytest.mark.parametrize("gaps", ["0", "1"])
@pytest.mark.parametrize(
    ("profile", "chroma", "before"),
    [
        (66, [], 0),
        (100, [1, 0, 0, "0", "0"], 0),
        (100, [1, 0, 0, "0", "1", *["1", *[0] * 16] * 6, "1", 16, "0"], 0),  # matrices, the seventh ends at once
        (244, [3, "1", 0, 0, "0", "1", *["0"] * 12], 2),  # each colour a picture of its own
    ],
)
@pytest.mark.parametrize("order", [[0, 4], [1, "0", 2, 3, 2, 5, 6], [2]])
def test_sequence_parameters(
    profile: int, chroma: list[int | str], before: int, order: list[int | str], gaps: str
) -> None:
    """seq_parameter_set_data up to the cropping (ITU-T H.264, 7.3.2.1.1)."""
    size = [9, 8, "1", "0", "1", 1, 0, 2, 1]  # 10 x 9 macroblocks of frames, cropped
    data = bits_of(f"{profile:08b}", "0" * 8, "00011111", 3, *chroma, 5, *order, 4, gaps, *size)
    unit = 1 if chroma[:1] == [3] else 2
    found = _sequence_parameters(data)
    assert found == (3, *((0, 0) if gaps == "1" else (before, 9)), (144 - 3 * unit, 160 - unit))


def test_a_parameter_set_of_any_bytes_is_read_to_some_end() -> None:
    rng = np.random.default_rng(0)
    for length in itertools.chain(range(4, 40), [4000]):
        _sequence_parameters(rng.bytes(length))
        _sequence_parameters(bytes(length))


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_recordings_joined_within_a_group_are_read_from_the_second_keyframe_on(codec: str, tmp_path: Path) -> None:
    """The first loses its last packets, then the second begins: nothing of either is lost."""
    needs_encoder(codec)
    kind = _h264("bframes=2", "mkv") if codec == "libx264" else Kind("mpeg2video", "mkv", {"g": "12"})
    source = make(kind, "scene", tmp_path)
    with av.open(str(source)) as container:
        last = max(n for n, packet in enumerate(container.demux(video=0)) if packet.size and packet.is_keyframe)
    lost = range(last - 3, last)
    path = rewrite(source, tmp_path / "joined.mkv", lambda n, data, key: None if n in lost else (data, key))
    assert sound(path, PyAVReader()) == ""
