"""Difficult real files: each ends in frames or in a VideoError, within seconds, and never takes the process along."""

from __future__ import annotations

import multiprocessing
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.test_readers import needs_decord, needs_torchcodec
from tests.videos import full_decode
from vidtrain.data.readers.base import VideoReader
from vidtrain.data.readers.decord import DecordReader
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.data.readers.torchcodec import TorchCodecReader
from vidtrain.errors import VideoError

SECONDS = 5.0
SHAPE = tuple[int, int, int]  # frames, height, width

READABLE: dict[str, SHAPE] = {
    "av1_no_frame_count.mkv": (125, 360, 640),
    "derived_one_frame_odd_97x73.mp4": (1, 73, 97),
    "derived_truncated_faststart.mp4": (17, 120, 160),
    "derived_unicode_name.mp4": (50, 96, 128),
    "derived_vfr_irregular.mp4": (28, 96, 128),
    "flv1_vfr.flv": (25, 156, 268),
    "h264_10bit.mp4": (30, 200, 200),
    "hevc_10frames.mp4": (10, 128, 128),
    "kinetics_like_6fps.mp4": (57, 256, 340),
    "mjpeg_15frames.mov": (15, 480, 640),
    "rot180_phone.mov": (3, 320, 568),
    "rot90_phone.mov": (3, 568, 320),
    "single_frame_with_audio.m4v": (1, 356, 640),
    "tiny_1x1.mp4": (5, 1, 1),
    "two_video_two_audio_streams.mp4": (390, 270, 480),
    "ucf101_orig_v_ApplyEyeMakeup_mpeg4_packed.avi": (164, 240, 320),
    "unordered_pts_50x50.mov": (4, 50, 50),
    "vp9_alpha_with_audio.webm": (150, 200, 200),
    "vp9_no_duration_header.webm": (74, 720, 1280),
}
REFUSED = {
    "audio_only_amr.3gp": "has no video stream (audio only)",
    "corrupted_midstream.mp4": "frame 29 of 50 follows a broken one, which it may refer to",
    "derived_text_file.mp4": "is not a video file that FFmpeg knows",
    "derived_truncated_no_moov.mp4": "is cut off: the index of the video (moov atom) is missing",
    "empty_0_bytes.webm": "the file is empty",
    "encrypted_cenc.mp4": "the video is encrypted",
    "truncated_32_bytes.mp4": "is cut off: the index of the video (moov atom) is missing",
}


def within(seconds: float, work: Callable[[Path], Any], path: Path) -> Any:
    """work(path) in a process of its own, which is killed when it takes longer: no native loop outlives that."""
    start = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(start)
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(send, work, path))
    process.start()
    send.close()
    try:
        if not receive.poll(seconds):
            pytest.fail(f"{path.name} took more than {seconds:g} s")
        try:
            return receive.recv()
        except EOFError:
            process.join()
            pytest.fail(f"{path.name} ended the process with {process.exitcode}")
    finally:
        process.kill()
        process.join()


def _report(send: Any, work: Callable[[Path], Any], path: Path) -> None:
    send.send(work(path))


def outcome(path: Path) -> SHAPE | str:
    """What reading eight frames from first to last, small, comes to."""
    try:
        with PyAVReader().open(str(path)) as video:
            info = video.info
            assert 0.5 < info.fps < 121
            indices = np.linspace(0, info.num_frames - 1, 8).round().astype(np.int64)
            frames = video.read(indices, (24, 32))
            assert frames.shape == (8, 24, 32, 3)
            # Seeking to the middle has to give the frame that the pass over the file gave.
            assert (video.read(indices[4:5], (24, 32)) == frames[4]).all()
            return info.num_frames, info.height, info.width
    except VideoError as error:
        return error.reason


def outcome_of_all(path: Path) -> SHAPE | str:
    """What reading every frame comes to."""
    try:
        with PyAVReader().open(str(path)) as video:
            return video.read(np.arange(video.info.num_frames), (24, 32)).shape[:3]
    except VideoError as error:
        return error.reason


@pytest.mark.parametrize("name", READABLE)
def test_gives_frames(test_videos: Path, name: str) -> None:
    assert within(SECONDS, outcome, test_videos / "odd" / name) == READABLE[name]


@pytest.mark.parametrize("name", REFUSED)
def test_says_what_is_wrong(test_videos: Path, name: str) -> None:
    assert within(SECONDS, outcome_of_all, test_videos / "odd" / name) == REFUSED[name]


def test_the_tables_name_every_file(test_videos: Path) -> None:
    assert {path.name for path in (test_videos / "odd").iterdir()} == READABLE.keys() | REFUSED.keys()


ASKED_FOR = (0, 14, 27, 28, 29, 30, 31, 32, 33, 41, 49)


def refused_frames(path: Path) -> list[int]:
    """Those of ASKED_FOR that cannot be read, each by itself."""
    refused = []
    with PyAVReader().open(str(path)) as video:
        assert video.info.num_frames == 50
        for number in ASKED_FOR:
            try:
                video.read(np.array([number]), (24, 32))
            except VideoError:
                refused.append(number)
    return refused


def test_concealed_frames_and_what_follows_them_are_refused(test_videos: Path) -> None:
    """Frame 30 does not come out of the decoder; 32 does, patched up from its neighbours and marked as corrupt; 29 is
    shown before them and decoded after, the others refer to them. There is no other keyframe."""
    path = test_videos / "odd" / "corrupted_midstream.mp4"
    assert within(30, refused_frames, path) == [number for number in ASKED_FOR if number >= 29]


OTHERS = [
    pytest.param(DecordReader(), id="decord", marks=needs_decord),
    pytest.param(TorchCodecReader(), id="torchcodec", marks=needs_torchcodec),
]


@pytest.mark.parametrize("reader", OTHERS)
def test_other_readers_give_the_same_or_a_reason(test_videos: Path, reader: VideoReader) -> None:
    """Every file, all its frames, each within seconds; what they give is what PyAV's reader gives."""
    reader.open(str(test_videos / "odd" / "tiny_1x1.mp4")).close()  # starts the child
    given, refusals = set(), []
    for path in sorted((test_videos / "odd").iterdir()):
        begin = time.monotonic()
        try:
            with reader.open(str(path)) as video:
                frames = video.read(np.arange(video.info.num_frames), (48, 64))
                again = video.read(np.array([len(frames) // 2]), (48, 64))
        except VideoError as error:
            refusals.append(error)
        else:
            given.add(path.name)
            with PyAVReader().open(str(path)) as video:
                ours = video.read(np.arange(video.info.num_frames), (48, 64))
            assert frames.shape == ours.shape
            assert (again[0] == frames[len(frames) // 2]).all(), path
            # Scaled otherwise and, for 10 bits, rounded otherwise, but the same pictures.
            assert (np.abs(frames.astype(int) - ours).mean((1, 2, 3)) < 8).all(), path
        assert time.monotonic() - begin < SECONDS, path
    assert all("\n" not in error.reason for error in refusals)
    assert {"kinetics_like_6fps.mp4", "rot90_phone.mov", "derived_vfr_irregular.mp4", "flv1_vfr.flv"} <= given
    assert not given & REFUSED.keys()


@pytest.mark.parametrize(
    ("source", "name"),
    [("derived_unicode_name.mp4", "имя 视频 é (1).mp4"), ("tiny_1x1.mp4", "-leading-dash.mp4")],
)
def test_odd_names(test_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, name: str) -> None:
    shutil.copy(test_videos / "odd" / source, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert within(SECONDS, outcome, Path(name)) == READABLE[source]


def differences(path: Path) -> list[int]:
    """The frames that differ from those of a full decode; [-1] when their numbers do."""
    whole = full_decode(path)
    with PyAVReader().open(str(path)) as video:
        if video.info.num_frames != len(whole):
            return [-1]
        last, middle = len(whole) - 1, len(whole) // 2
        wrong = []
        for clip in (range(0, last, 7), range(middle, last, 4), [last], [middle + 1, 3]):
            frames = video.read(np.array(clip))
            wrong += [n for n, frame in zip(clip, frames, strict=True) if (frame != whole[n]).any()]
        return wrong


@pytest.mark.parametrize(
    "name",
    [
        "BabyCrawling/v_BabyCrawling_g04_c01.avi",
        "Punch/v_Punch_g04_c01.avi",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                "BabyCrawling/v_BabyCrawling_g05_c01.avi",
                "BabyCrawling/v_BabyCrawling_g06_c01.avi",
                "Punch/v_Punch_g05_c01.avi",
                "Punch/v_Punch_g06_c01.avi",
                "PushUps/v_PushUps_g04_c01.avi",
                "PushUps/v_PushUps_g05_c01.avi",
                "PushUps/v_PushUps_g06_c01.avi",
            )
        ),
    ],
)
def test_ucf101_is_bit_exact(test_videos: Path, name: str) -> None:
    """Xvid in AVI, half of them with two pictures in some packets and no usable pts."""
    assert within(20, differences, test_videos / "ucf101_3c" / "originals_avi" / name) == []


@pytest.mark.parametrize("name", [name for name, shape in READABLE.items() if 18 < shape[0] < 60])
def test_odd_files_are_bit_exact(test_videos: Path, name: str) -> None:
    assert within(20, differences, test_videos / "odd" / name) == []
