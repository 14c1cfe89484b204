"""A container's mark of a keyframe is a claim: what the coded frames say of themselves, and what readers make of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from tests.data.encodes import KINDS, Kind, _all_keys, _without_index, make, sound
from tests.data.prepared import as_data, only_copy, run
from tests.data.test_readers import needs_decord, needs_torchcodec
from tests.videos import coded, full_decode, info, pack, refused, write_video
from vidtrain.data.checks.check import find_problems
from vidtrain.data.checks.probe_video import Depth, Probe, probe
from vidtrain.data.clips.sampling import ClipSpec
from vidtrain.data.readers.decord import DecordReader
from vidtrain.data.readers.pyav import keyframes
from vidtrain.data.readers.pyav.keyframes import HEAD, Worth, keyframe_test, true_keyframes
from vidtrain.data.readers.pyav.reader import PyAVReader, PyAVVideo
from vidtrain.data.readers.torchcodec import TorchCodecReader
from vidtrain.errors import VideoError

OTHERS = [pytest.param(DecordReader(), marks=needs_decord), pytest.param(TorchCodecReader(), marks=needs_torchcodec)]
INTER = {kind.codec: kind for kind in KINDS if kind.options.get("g") == "12" or "keyint" in str(kind.options)}
UNKNOWN = {"qtrle", "gif", "rv20", "zmbv", "flashsv", "snow"}  # codecs that nothing is known of here


def packets(path: Path) -> Iterator[tuple[Worth, bool]]:
    """What each packet says of itself, and whether its frame is one that stands alone, as the decoder has it."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        test = keyframe_test(stream.codec_context)
        by_key = stream.codec_context.name in ("ffv1", "vp8", "vp9", "libdav1d", "av1")
        said, intra = [], {}
        for packet in container.demux(stream):
            if packet.size:
                packet.pts = len(said)
                said.append(test(bytes(packet)[:HEAD]))
            for frame in packet.decode():
                intra[frame.pts] = frame.key_frame if by_key else frame.pict_type == 1
    yield from ((mark, intra[number]) for number, mark in enumerate(said) if number in intra)


@pytest.mark.parametrize("codec", sorted(INTER.keys() - UNKNOWN))
def test_frames_say_whether_they_stand_alone(codec: str, tmp_path: Path) -> None:
    kind = INTER[codec]
    path = make(Kind(codec, kind.suffix, kind.options, kind.pix_fmt), "scene", tmp_path)
    found = list(packets(path))
    assert len(found) >= 30
    assert {intra for _, intra in found} == {True, False}
    for number, (mark, intra) in enumerate(found):
        assert (mark is not Worth.FALSE) == intra, f"packet {number}: {mark!r}"
    assert found[0][0] is Worth.PROVEN


def test_unknown_codecs_are_believed_unless_every_packet_claims_to_be_a_keyframe() -> None:
    said, sure, false = Worth.CLAIMED, Worth.PROVEN, Worth.FALSE
    assert true_keyframes([said, None, said]) == [True, False, True]
    assert true_keyframes([said, said, said]) == [True, False, False]
    assert true_keyframes([sure, said, sure]) == [True, False, True]
    assert true_keyframes([sure, false, said, None]) == [True, False, True, False]
    assert true_keyframes([false, sure]) == [False, True]
    assert true_keyframes([]) == []


@pytest.mark.parametrize(
    ("data", "worth"),
    [
        (bytes.fromhex("000080020c04"), Worth.PROVEN),  # sub-QCIF, an I-picture
        (bytes.fromhex("000080020a04"), Worth.FALSE),  # QCIF, a P-picture
        (bytes.fromhex("000080021c0000"), Worth.PROVEN),  # PLUSPTYPE without its optional part: I
        (bytes.fromhex("000080021c1000"), Worth.FALSE),  # P
        (bytes.fromhex("000080021c8000004000"), Worth.PROVEN),  # with it: I
        (bytes.fromhex("000080021c8000044000"), Worth.FALSE),
    ],
)
def test_h263(data: bytes, worth: Worth) -> None:
    """ITU-T H.263, 5.1.3 and 5.1.4, by hand: FFmpeg's encoder does not write all of it."""
    assert keyframes._h263(data) is worth


def test_the_second_field_of_an_i_frame_may_refer_to_the_first() -> None:
    i_slice, p_slice, later_p = (b"\x41" + bytes([first]) + bytes(8) for first in (0b10001000, 0b11100000, 0b01011000))
    assert keyframes._h264([i_slice, p_slice]) is Worth.CLAIMED
    assert keyframes._h264([i_slice, later_p]) is Worth.FALSE
    assert keyframes._h264([p_slice]) is Worth.FALSE
    now, later = (b"\x06\x06\x01" + bytes([count]) + b"\x80" for count in (0b11000000, 0b01000000))
    assert keyframes._h264([now, i_slice]) is Worth.PROVEN
    assert keyframes._h264([later, i_slice]) is Worth.CLAIMED


FALSE_KEYS = {
    "h264.mp4": Kind("libx264", "mp4", {"g": "12", "bf": "0"}, None, _without_index),
    "hevc.mkv": Kind("libx265", "mkv", {"x265-params": "log-level=none:keyint=12:open-gop=0"}, None, _all_keys),
    "mpeg4.mp4": Kind("mpeg4", "mp4", {"g": "12"}, None, _without_index),
    "refresh.mp4": Kind("libx264", "mp4", {"g": "12", "x264-params": "intra-refresh=1:bframes=0"}),
    "flv1.flv": Kind("flv", "flv", {"g": "12"}, None, _all_keys),
}


@pytest.mark.parametrize("name", FALSE_KEYS)
@pytest.mark.parametrize("reader", OTHERS)
def test_other_readers_refuse_files_with_false_keyframes(
    reader: DecordReader | TorchCodecReader, name: str, tmp_path: Path
) -> None:
    path = make(FALSE_KEYS[name], "scene", tmp_path)
    assert sound(path, PyAVReader()) == ""
    reason = refused(path, reader)
    assert "of 36 packets are marked as keyframes and refer to other frames" in reason
    assert reason.endswith("use decoder=pyav")


@pytest.mark.parametrize("name", ["mpeg4.mp4", "flv1.flv"])
def test_check_and_prepare_read_the_right_frames(name: str, tmp_path: Path) -> None:
    path = make(FALSE_KEYS[name], "scene", tmp_path)
    found = probe(str(path), PyAVReader(), Depth.FULL)
    assert (found.frames, found.corrupt, found.still) == (36, 0, False)
    run(as_data([path]), tmp_path / "out")
    with PyAVReader().open(str(only_copy(tmp_path / "out"))) as copy:
        frames = copy.read(np.arange(copy.info.num_frames))
    whole = full_decode(path)
    assert frames.shape == whole.shape
    assert np.abs(frames.astype(int) - whole).mean((1, 2, 3)).max() < 12


@pytest.mark.parametrize("name", ["h263.avi", "m4v_nostss.mp4"])
def test_cases(name: str, test_cases: Path) -> None:
    path = test_cases / "h263_keyflags" / name
    assert sound(path, PyAVReader()) == ""
    with PyAVVideo(str(path)) as video:
        assert video.frames.table is not None
        assert (video.info.num_frames, video.frames.table.false_keys) == (60, 55)


@pytest.mark.parametrize("name", ["decord_intra_refresh/pir.mp4", "keyflags_decord_torchcodec/x264_nostss.mp4",
                                  "keyflags_decord_torchcodec/x265_nostss.mp4"])  # fmt: skip
@pytest.mark.parametrize("reader", OTHERS)
def test_cases_for_other_readers(reader: DecordReader | TorchCodecReader, name: str, test_cases: Path) -> None:
    assert "packets are marked as keyframes" in refused(test_cases / name, reader)


@needs_decord
def test_data_check_names_the_files_that_decord_would_read_wrong(tmp_path: Path) -> None:
    """As `data check decoder=decord` reports them; with the default reader nothing is wrong."""
    path = str(make(FALSE_KEYS["h264.mp4"], "scene", tmp_path))
    data, spec = as_data([path]), ClipSpec(num_frames=4)
    found = {}
    for name, reader in (("pyav", PyAVReader()), ("decord", DecordReader())):
        try:
            probed = probe(path, reader, Depth.FULL)
        except VideoError as error:
            probed = Probe(error=error.reason, fault="video")
        found[name] = find_problems(data, {path: probed}, spec)
    assert found["pyav"] == []
    (problem,) = found["decord"]
    assert (problem.kind, problem.usable) == ("unreadable", False)
    assert "of 36 packets are marked as keyframes and refer to other frames" in problem.detail


@needs_decord
def test_decord_is_given_no_packed_avi_that_it_would_seek_in(tmp_path: Path) -> None:
    """It then counts from the keyframe it has sought to; UCF101's own files have a single one."""
    for length, message in (
        (12, "wrong frames behind the keyframes of an AVI whose packets hold two frames"),
        (99, ""),
    ):
        options = {"g": str(length), "bf": "1"}
        made = write_video(tmp_path / "made.avi", coded(24), codec="mpeg4", options=options)
        path = pack(made, tmp_path / f"{length}.avi")
        if message:
            assert message in refused(path, DecordReader())
        else:
            assert info(path, DecordReader()).num_frames == 24
