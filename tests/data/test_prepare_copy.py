"""Copies show what their sources show, frame for frame."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.prepared import READER, X264, as_data, numbers, only_copy, painted, run
from tests.data.test_readers import needs_decord
from tests.data.test_readers_times import HOUR, transport
from tests.videos import Pictures, info, read, remux, scene, set_matrix, write_video
from vidtrain.data.clips.sampling import ClipSpec, uniform_clips
from vidtrain.data.prepare.copy import check_copy, likeness
from vidtrain.data.prepare.frames import Times, copy_size, timestamps
from vidtrain.data.prepare.video import encode_video
from vidtrain.data.readers.any_path import AnyReader
from vidtrain.data.readers.decord import DecordReader
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.data.readers.streaming import walk
from vidtrain.data.readers.timeline import Timeline
from vidtrain.data.settings import CopyFormat
from vidtrain.errors import DataError, VideoError
from vidtrain.types import VideoInfo

FORMATS = pytest.mark.parametrize("kind", list(CopyFormat))


@FORMATS
def test_frame_n_of_the_copy_is_frame_n_of_the_source(tmp_path: Path, kind: CopyFormat) -> None:
    source = write_video(tmp_path / "a.mp4", painted(150, 128, 192), 30, "libx264", X264)
    done = run(as_data([source]), tmp_path / "out", format=kind, short_side=64)
    assert (done.made, done.kept, done.bad) == (1, 0, ())
    copy = only_copy(tmp_path / "out")
    assert info(copy, READER) == VideoInfo(150, 30, 64, 96)
    for indices in (list(range(150)), [149, 3, 77], [16, 15, 17, 31], list(range(3, 67, 4))):
        assert numbers(read(copy, indices, reader=READER)) == indices


@needs_decord
def test_decord_reads_the_copies(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", painted(150, 128, 192), 30, "libx264", X264)
    run(as_data([source]), tmp_path / "out", short_side=64)
    copy = only_copy(tmp_path / "out")
    assert info(copy, DecordReader()) == info(copy)
    for indices in (list(range(150)), [149, 3, 77], [16, 15, 17, 31]):
        assert numbers(read(copy, indices, reader=DecordReader())) == indices


def test_a_keyframe_every_gop(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", scene(50), 25, "libx264", X264)
    run(as_data([source]), tmp_path / "out", gop=12)
    with av.open(str(only_copy(tmp_path / "out"))) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        assert sum(p.is_keyframe for p in packets) == 5
        assert not container.streams.audio
    data = only_copy(tmp_path / "out").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_uneven_times_are_kept(tmp_path: Path) -> None:
    times = [0, 1, 2, 9, 10, 30, 31, 32, 90, 91]
    source = write_video(tmp_path / "a.mp4", painted(10), 30, "libx264", {**X264, "bf": "2"}, times=times)
    run(as_data([source]), tmp_path / "out")
    copy = only_copy(tmp_path / "out")
    assert info(copy).fps == pytest.approx(info(source).fps) == pytest.approx(9 / (91 / 30))
    with PyAVReader().open(str(copy)) as video:
        found = timestamps(video)
    assert found.ticks * float(found.unit) * 30 == pytest.approx(times)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "jpack"])
@pytest.mark.parametrize("decord", [False, pytest.param(True, marks=needs_decord)])
@FORMATS
def test_a_copy_gives_the_frames_that_its_source_gives(
    tmp_path: Path, kind: CopyFormat, ending: str, decord: bool
) -> None:
    """For every row and rate; frames of 1/60 s, of 1/3 s, one of 4 s, and some in between."""
    gaps = [10] * 60 + [200] * 20 + [2400] + [7, 13, 25, 20, 20, 40] * 5
    times = np.cumsum([0, *gaps]).tolist()
    source = write_video(tmp_path / "a.mp4", painted(len(times), 32, 32), 600, "libx264", {"bf": "0"}, times=times)
    if ending == "jpack":
        run(as_data([source]), tmp_path / "packs", format=CopyFormat.jpeg, short_side=32)
        source = only_copy(tmp_path / "packs")
    elif ending == "mkv":
        source = remux(source, tmp_path / "a.mkv")
    reader = AnyReader(DecordReader(timeout=None)) if decord else READER
    run(as_data([source]), tmp_path / "out", reader=reader, format=kind)
    before, after = info(source, READER), info(only_copy(tmp_path / "out"), READER)
    assert before.times is not None
    assert after.times is not None
    np.testing.assert_allclose(after.times, before.times, atol=2e-5)
    for first, last in ((0.0, None), (0.0, 1.0), (1.0, 3.1), (2.004, 9.0), (9.1, 13.0), (12.0, 12.01)):
        for spec in (ClipSpec(8, 2), ClipSpec(8, fps=30), ClipSpec(8, fps=12, short="loop"), ClipSpec(4, fps=7.5)):
            one, two = (
                uniform_clips(Timeline(i.num_frames, i.fps, i.times), spec, 7, first=first, last=last)
                for i in (before, after)
            )
            np.testing.assert_array_equal(one, two)


@FORMATS
def test_a_copy_has_one_clock(tmp_path: Path, kind: CopyFormat) -> None:
    """A source whose timestamps jump by an hour."""
    source = transport(tmp_path / "a.ts", lambda n: HOUR * (n >= 20))
    run(as_data([source]), tmp_path / "out", format=kind)
    found = info(only_copy(tmp_path / "out"), READER)
    assert (found.num_frames, found.fps, found.times, found.times_note) == (60, 25, None, "")


def test_a_copy_with_other_times_is_refused(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", painted(10), 30, "libx264", X264, times=[0, 1, 2, 3, 4, 5, 6, 7, 9, 10])
    found, late = info(source), np.array([*range(8), 8.5, 10, 11]) / 30
    planned = VideoInfo(10, found.fps, found.height, found.width, late)
    with pytest.raises(VideoError, match=r"frame 8 is shown 0.0167 s from when the source shows it"):
        check_copy(str(source), PyAVReader(), planned, {}, 20.0)


@pytest.mark.parametrize("fps", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(25, 3), 120])
@FORMATS
def test_rates_are_kept(tmp_path: Path, fps: Fraction, kind: CopyFormat) -> None:
    source = write_video(tmp_path / "a.mkv", painted(20), fps, "libx264", X264)
    run(as_data([source]), tmp_path / "out", format=kind)
    assert info(only_copy(tmp_path / "out"), READER).fps == pytest.approx(info(source).fps, rel=1e-6)


@pytest.mark.parametrize(
    ("size", "short_side", "even", "odd"),
    [
        ((240, 320), 128, (128, 170), (128, 171)),
        ((320, 240), 128, (170, 128), (171, 128)),
        ((97, 73), 128, (96, 72), (97, 73)),
        ((1, 1), 128, (2, 2), (1, 1)),
        ((128, 129), 128, (128, 128), (128, 129)),
        ((720, 1280), 128, (128, 228), (128, 228)),
        ((2000, 10), 4, (800, 4), (800, 4)),
    ],
)
def test_sizes(size: tuple[int, int], short_side: int, even: tuple[int, int], odd: tuple[int, int]) -> None:
    shown = VideoInfo(1, 25, *size)
    assert copy_size(shown, short_side, even=True) == even
    assert copy_size(shown, short_side, even=False) == odd


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 300))
def test_no_copy_is_larger_than_its_source(height: int, width: int, half: int) -> None:
    shown = VideoInfo(1, 25, height, width)
    for even in (False, True):
        found = copy_size(shown, 2 * half, even=even)
        assert all(side <= max(own, 2 if even else 1) for side, own in zip(found, (height, width), strict=True))
        if min(height, width) >= 2 * half:
            assert min(found) == 2 * half
    assert not any(side % 2 for side in copy_size(shown, 2 * half, even=True))


@FORMATS
def test_turned_and_mirrored_videos_are_copied_as_shown(tmp_path: Path, kind: CopyFormat) -> None:
    source = write_video(tmp_path / "a.mp4", scene(5, 48, 64))
    set_matrix(source, 0, 1, -1, 0)
    run(as_data([source]), tmp_path / "out", format=kind, crf=1, quality=95)
    copy = only_copy(tmp_path / "out")
    assert info(copy, READER) == info(source)
    wanted, got = read(source, [0, 4]), read(copy, [0, 4], reader=READER)
    assert likeness(got[0], wanted[0]) > 30
    assert likeness(got[0], np.ascontiguousarray(wanted[0][::-1])) < 20


ODD = {
    "h264_10bit.mp4": (30, 128, 128),
    "rot90_phone.mov": (3, 228, 128),
    "rot180_phone.mov": (3, 128, 228),
    "derived_vfr_irregular.mp4": (28, 96, 128),
    "derived_one_frame_odd_97x73.mp4": (1, 72, 96),
    "tiny_1x1.mp4": (5, 2, 2),
    "unordered_pts_50x50.mov": (4, 50, 50),
    "flv1_vfr.flv": (25, 128, 220),
    "single_frame_with_audio.m4v": (1, 128, 230),
    "hevc_10frames.mp4": (10, 128, 128),
    "ucf101_orig_v_ApplyEyeMakeup_mpeg4_packed.avi": (164, 128, 170),
}


def test_difficult_real_files(test_videos: Path, tmp_path: Path) -> None:
    """Those that can be read have copies that show the same; the others are named, each with its reason."""
    bad = {"corrupted_midstream.mp4", "audio_only_amr.3gp", "empty_0_bytes.webm", "derived_text_file.mp4"}
    paths = [test_videos / "odd" / name for name in (*ODD, *sorted(bad))]
    done = run(as_data(paths, "test"), tmp_path / "out")
    assert {Path(b.path).name for b in done.bad} == bad
    for path in paths[: len(ODD)]:
        copy = tmp_path / "out" / f"{path.stem}.mp4"
        source, found = info(path), info(copy)
        assert (found.num_frames, found.height, found.width) == ODD[path.name], path.name
        assert found.fps == pytest.approx(source.fps, rel=1e-4), path.name
        indices = sorted({0, source.num_frames // 2, source.num_frames - 1})
        size = found.height, found.width
        for wanted, got in zip(read(path, indices, size), read(copy, indices), strict=True):
            assert likeness(got, wanted) > 25, path.name


def test_a_file_whose_packets_do_not_tell_its_frames(tmp_path: Path) -> None:
    """Interlaced MPEG-TS has to be decoded to count; and one with open GOPs has frames before their keyframe."""
    counted = write_video(tmp_path / "a.ts", painted(40), 25, "mpeg2video", {"qscale": "2", "g": "12", "bf": "2"})
    opened = write_video(
        tmp_path / "b.mkv", painted(90), 25, "libx264", {**X264, "x264-params": "open-gop=1:keyint=20"}
    )
    run(as_data([counted, opened]), tmp_path / "out")
    for source in (counted, opened):
        count = info(source).num_frames
        copy = tmp_path / "out" / f"{source.stem}.mp4"
        assert numbers(read(copy, list(range(count)))) == numbers(read(source, list(range(count))))


def test_walk_goes_by_keyframes_and_equals_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_video(tmp_path / "a.mp4", scene(100), 25, "libx264", {**X264, "g": "12"})
    monkeypatch.setattr("vidtrain.data.readers.streaming._AT_ONCE", 3 * 24 * 32 * 30)  # 30 frames at once
    with PyAVReader().open(str(source)) as video:
        found = np.stack(list(walk(str(source), video, (24, 32))))
    assert (found == read(source, list(range(100)), (24, 32))).all()


def test_copies_are_the_same_each_time(tmp_path: Path) -> None:
    """In one process, which has used its memory before: x264 with mbtree reads what it finds there."""
    frames = scene(60, 128, 170)
    written = set()
    for _ in range(4):
        encode_video(tmp_path / "a.part", frames, (128, 170), Times(np.arange(60), Fraction(1, 25)), crf=23, gop=16)
        written.add((tmp_path / "a.part").read_bytes())
    assert len(written) == 1


# ---------------------------------------------------------------- looking at what was written


def test_a_copy_that_shows_something_else_is_refused(tmp_path: Path) -> None:
    frames = painted(32)
    kept = {n: np.ascontiguousarray(frames[n]) for n in (0, 9, 31)}
    planned = VideoInfo(32, 25, 64, 96)

    def copy_of(pictures: Pictures, count: int = 32, fps: int = 25) -> str:
        times = Times(np.arange(count), Fraction(1, fps))
        encode_video(tmp_path / "c.part", map(np.ascontiguousarray, pictures), (64, 96), times, crf=23, gop=16)
        return str(tmp_path / "c.part")

    assert check_copy(copy_of(frames), PyAVReader(), planned, kept, 20.0) > 30
    for wrong, reason in (
        (lambda: copy_of(frames[::-1]), "PSNR"),
        (lambda: copy_of(np.roll(frames, 1, 0)), "PSNR"),
        (lambda: copy_of(frames[:31], 31), "num_frames is 31, not 32"),
        (lambda: copy_of(frames, fps=24), "it shows 24 frames per second, the source 25"),
    ):
        with pytest.raises(VideoError, match=reason):
            check_copy(wrong(), PyAVReader(), planned, kept, 20.0)
    path = Path(copy_of(frames))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(VideoError):
        check_copy(str(path), PyAVReader(), planned, kept, 20.0)


def test_too_poor_a_copy_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    sources = [write_video(tmp_path / "a.mp4", scene(20, 64, 96))]
    with pytest.raises(DataError, match=r"its copy is not good: frame \d+ has a PSNR of .* prepare.min_psnr=60"):
        run(as_data(sources), tmp_path / "out", min_psnr=60.0)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".lock"}
