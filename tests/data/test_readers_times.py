"""When the frames of a file are shown: variable rates; timestamps that jump, step back, stand still or are missing."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.data.test_readers import needs_decord, reader
from tests.videos import coded, full_decode, info, number_of, numbered, read, write_video
from vidtrain.data.clips.dataset import ClipParts, EvalViews, TrainClips
from vidtrain.data.clips.sampling import ClipSpec, uniform_clips
from vidtrain.data.manifest.manifest import Manifest, StringArray
from vidtrain.data.readers.base import VideoReader
from vidtrain.data.readers.decord import DecordReader
from vidtrain.data.readers.pyav.frame_times import Timing, stuck
from vidtrain.data.readers.pyav.reader import PyAVReader, PyAVVideo
from vidtrain.data.readers.timeline import Timeline
from vidtrain.data.settings import EvalConfig, SamplerConfig, TransformConfig

__all__ = ["reader"]  # the fixture

TIMES = [*range(0, 120, 10), *range(120, 2400, 200)]
"""In units of 1/600 s: 12 frames at 60 per second, then 12 at 3."""
HOUR = 3600 * 90_000
Clock = Callable[[int], int]
"""From the number of a packet to the ticks added to its times."""


def varied(path: Path, times: list[int], rate: int = 600, **options: object) -> Path:
    """Frames with their numbers in them, shown at `times` in units of 1 / rate."""
    return write_video(path, coded(len(times)), rate, codec="libx264", times=times, **options)  # type: ignore[arg-type]


def transport(path: Path, clock: Clock, count: int = 60, bframes: int = 2) -> Path:
    """MPEG-TS of 25 frames per second, a keyframe each 20, whose packets' times are put forward by `clock`."""
    options = {"g": "20", "bf": str(bframes), "x264-params": "scenecut=0", "crf": "20"}
    base = write_video(path.with_suffix(".base.ts"), coded(count), codec="libx264", options=options)
    with av.open(str(base)) as container, av.open(str(path), "w", options={"mpegts_copyts": "1"}) as out:
        stream = container.streams.video[0]
        try:
            copy = out.add_stream_from_template(stream, opaque=True)
        except AttributeError:
            pytest.skip("PyAV 14.0 cannot copy this stream")
        for number, packet in enumerate(packet for packet in container.demux(stream) if packet.size):
            assert packet.pts is not None
            assert packet.dts is not None
            fresh = av.Packet(bytes(packet))
            fresh.pts, fresh.dts = packet.pts + clock(number), packet.dts + clock(number)
            fresh.time_base, fresh.is_keyframe, fresh.stream = packet.time_base, packet.is_keyframe, copy
            out.mux(fresh)
    return path


def numbers(path: Path, wanted: list[int]) -> list[int]:
    return [number_of(frame) for frame in read(path, wanted)]


class TestVariableRate:
    @pytest.mark.parametrize("ending", ["mp4", "mkv", "mov", "ts", "flv"])
    def test_every_container(self, tmp_path: Path, ending: str) -> None:
        found = info(varied(tmp_path / f"a.{ending}", TIMES))
        assert found.times is not None
        np.testing.assert_allclose(found.times, np.array([*TIMES, 2520]) / 600, atol=1e-3)
        assert found.seconds == pytest.approx(4.2, abs=1e-3)
        assert found.fps == pytest.approx(23 / (2320 / 600), rel=1e-3)

    def test_every_reader(self, tmp_path: Path, reader: VideoReader) -> None:
        path = varied(tmp_path / "a.mp4", TIMES, options={"bf": "0"})
        found = info(path, reader)
        assert found.times is not None
        np.testing.assert_allclose(found.times[:-1], np.array(TIMES) / 600)
        for first, last, frames in ((0, 0.2, range(12)), (0.2, 1.5, range(12, 16)), (1.6, 1.7, [16])):
            start, stop = Timeline(found.num_frames, found.fps, found.times).within(first, last)
            assert list(range(start, stop)) == list(frames)

    @pytest.mark.parametrize("codec", ["libx264", "mpeg4", "libvpx-vp9", "ffv1"])
    def test_counted_or_not(self, tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write_video(tmp_path / "a.mkv", coded(24), 600, codec=codec, options={}, times=TIMES)
        by_packets = info(path)
        monkeypatch.setattr("vidtrain.data.readers.pyav.decoding.scan", lambda *_, **__: None)
        counted = info(path)
        assert by_packets == counted
        assert by_packets.times is not None
        assert counted.times is not None
        np.testing.assert_array_equal(by_packets.times, counted.times)

    @pytest.mark.parametrize("rate", [Fraction(24000, 1001), 24, 25, Fraction(30000, 1001), 30, Fraction(25, 2), 60])
    @pytest.mark.parametrize("ending", ["mp4", "mkv", "avi", "flv", "ts"])
    def test_constant_rates_have_no_times(self, tmp_path: Path, rate: Fraction, ending: str) -> None:
        """However the container rounds them."""
        found = info(write_video(tmp_path / f"a.{ending}", numbered(30, 16, 16), rate, codec="libx264"))
        assert found.times is None
        assert found.fps == pytest.approx(float(rate), rel=2e-3)

    def test_one_that_is_dropped_is_seen(self, tmp_path: Path) -> None:
        times = [n for n in range(40) if n != 20]
        found = info(write_video(tmp_path / "a.mp4", numbered(39, 16, 16), 30, codec="mpeg4", times=times))
        assert found.times is not None
        np.testing.assert_allclose(found.times, np.array([*times, 40]) / 30, atol=1e-6)

    def test_rows_of_a_data_set(self, tmp_path: Path) -> None:
        """Training and testing read the frames of a row, by the clip and by the second."""
        path = str(write_video(tmp_path / "a.mp4", coded(24, 64, 64), 600, codec="libx264", times=TIMES))
        manifest = Manifest(StringArray.of([path] * 2), np.zeros(2, np.int64), np.array([0, 0.2]), np.array([0.2, 4.2]))
        transform, four = TransformConfig(size=64, resize=64, flip=0), {"clips_per_video": 4}
        for spec in (
            SamplerConfig(4, 1, **four),
            SamplerConfig(4, fps=6, **four),
            SamplerConfig(4, mode="segments", **four),
        ):
            parts = ClipParts(PyAVReader(), spec, transform)
            views, clips = EvalViews(manifest, parts, EvalConfig(clips=2)), TrainClips(manifest, parts, seed=0)
            for row, low, high in ((0, 0, 12), (1, 12, 24)):
                drawn = [sample.inputs["rgb"] for sample in clips.clips((0, row))]
                found = np.concatenate([np.asarray(views[row].inputs["rgb"]), *map(np.asarray, drawn)])
                numbers = [number_of(frame) for frame in found.reshape(-1, 64, 64, 3)]
                assert all(low <= number < high for number in numbers), (spec, row, numbers)

    @pytest.mark.parametrize("bframes", [0, 1, 3])
    def test_of_avi_with_dropped_frames(self, tmp_path: Path, bframes: int) -> None:
        """AVI only knows when frames are decoded."""
        times = [n for n in range(60) if n % 10 not in (3, 4, 5)]
        path = varied(tmp_path / "a.avi", times, 25, options={"g": "12", "bf": str(bframes)})
        found = info(path)
        assert found.times is not None
        assert found.times[:-1].tolist() == pytest.approx([n / 25 for n in times])


class TestOddTimestamps:
    @pytest.mark.parametrize(
        ("clock", "note"),
        [
            (lambda n: HOUR * (n >= 20), "the timestamps jump by 3600.04 s at frame 20"),
            (
                lambda n: HOUR * (n >= 20) + HOUR * (n >= 40),
                "jump by 3600.04 s at frame 20, jump by 3600.04 s at frame 40",
            ),
            (lambda n: HOUR * (n >= 27), "the timestamps jump by 36"),
        ],
    )
    def test_jumps(self, tmp_path: Path, clock: Clock, note: str) -> None:
        path = transport(tmp_path / "a.ts", clock)
        found = info(path)
        assert (found.fps, found.times) == (25, None)
        assert note in found.times_note
        assert numbers(path, [0, 19, 20, 26, 27, 41, 59, 20]) == [0, 19, 20, 26, 27, 41, 59, 20]
        clip = uniform_clips(Timeline(60, found.fps, found.times), ClipSpec(8, fps=12.5), 1)[0]
        assert clip.tolist() == list(range(22, 38, 2))

    @pytest.mark.parametrize("shift", [10_001, 36_000, 72_000, 135_001])
    def test_two_recordings_in_one_file(self, tmp_path: Path, shift: int) -> None:
        """The second begins before the first ends, and no two timestamps are the same."""
        one, two = transport(tmp_path / "a.ts", lambda _: 0), transport(tmp_path / "b.ts", lambda _: shift)
        whole = tmp_path / "c.ts"
        whole.write_bytes(one.read_bytes() + two.read_bytes())
        with PyAVReader().open(str(whole)) as video:
            found = video.info
            # Before PyAV 18 an H.264 packet of a broadcast may be a field for all one knows, so that all are counted.
            told = hasattr(video.file.stream.codec_context, "field_order")
            assert (video.frames.table is not None) == told or shift in (36_000, 72_000)
        assert (found.num_frames, found.fps, found.times) == (120, 25, None)
        assert "step back" in found.times_note
        assert numbers(whole, [0, 30, 45, 85, 100, 119]) == [0, 30, 45, 25, 40, 59]

    def test_a_pause_is_one(self, tmp_path: Path) -> None:
        """Where a container has one clock, a frame may be shown for an hour."""
        times = [n + 90_000 * (n >= 20) for n in range(40)]
        found = info(write_video(tmp_path / "a.mp4", coded(40), 25, codec="libx264", times=times))
        assert found.fps == 25
        assert found.times is not None
        assert found.times[[19, 20, -1]].tolist() == pytest.approx([0.76, 3600.8, 3601.6])
        assert "jump by 3600.04 s at frame 20" in found.times_note

    @pytest.mark.parametrize("first", [20, 24, 25, 26, 27])
    def test_a_long_pause_in_a_broadcast(self, tmp_path: Path, first: int) -> None:
        """Times of a frame that is decoded before others of before the pause are those of after it."""
        times = [n + 1500 * (n >= first) for n in range(60)]
        options = {"g": "20", "bf": "3", "x264-params": "scenecut=0", "crf": "20"}
        path = write_video(tmp_path / "a.ts", coded(60), codec="libx264", options=options, times=times)
        assert numbers(path, list(range(60))) == list(range(60))
        assert [numbers(path, [n]) for n in (59, 26, 23, 28)] == [[59], [26], [23], [28]]
        found = info(path)
        assert (found.fps, found.times) == (25, None)
        assert found.times_note == f"the timestamps jump by 60.04 s at frame {first}"

    def test_a_short_pause_in_a_broadcast(self, tmp_path: Path) -> None:
        found = info(transport(tmp_path / "a.ts", lambda n: 450_000 * (n >= 20)))
        assert found.times is not None
        assert found.times[[19, 20]].tolist() == pytest.approx([0.76, 5.8])
        assert found.times_note == ""

    def test_wrapped_counter(self, tmp_path: Path) -> None:
        """33 bits of 1/90,000 s are over after 26.5 hours."""
        path = transport(tmp_path / "a.ts", lambda n: (1 << 33) - 126_000 - 72_000)
        found = info(path)
        assert (found.num_frames, found.fps, found.times) == (60, 25, None)
        assert numbers(path, [0, 19, 20, 21, 59]) == [0, 19, 20, 21, 59]

    @pytest.mark.parametrize("back", [90_000, 900_000])
    @pytest.mark.parametrize("ending", ["mp4", "mkv", "flv", "ts"])
    def test_made_up_by_a_muxer(self, tmp_path: Path, ending: str, back: int) -> None:
        """What `ffmpeg -c copy` writes when it is given times out of order: a tick from frame to frame."""
        base = transport(tmp_path / "b.ts", lambda _: 0)
        path, latest = tmp_path / f"a.{ending}", -1
        with av.open(str(base)) as container, av.open(str(path), "w") as out:
            stream = container.streams.video[0]
            copy = out.add_stream_from_template(stream, opaque=True)
            for number, packet in enumerate(packet for packet in container.demux(stream) if packet.size):
                assert packet.pts is not None
                assert packet.dts is not None
                fresh = av.Packet(bytes(packet))
                tick = 90 if ending in ("mkv", "flv") else 8
                latest = max(latest + tick, packet.dts - back * (number >= 20))
                fresh.dts, fresh.pts = latest, max(latest, packet.pts - back * (number >= 20))
                fresh.time_base, fresh.is_keyframe, fresh.stream = packet.time_base, packet.is_keyframe, copy
                fresh.duration = packet.duration  # the last one's: without it PyAV 17's MP4 ends before its last frame
                out.mux(fresh)
        found = info(path)
        assert (found.fps, found.times) == (25, None)
        assert found.times_note
        with PyAVVideo(str(path), inspect=True) as video:
            assert video.frames.table is None
        wanted = [0, 19, 20, 21, 22, 23, 30, 41, 59]
        assert numbers(path, wanted) == wanted

    @needs_decord
    def test_with_decord(self, tmp_path: Path) -> None:
        """It has the same times, from the packets, or refuses the file."""
        path = varied(tmp_path / "a.mp4", TIMES, options={"bf": "0"})
        ours, theirs = info(path), info(path, DecordReader(timeout=None))
        assert ours.times is not None
        assert theirs.times is not None
        np.testing.assert_array_equal(ours.times, theirs.times)

    def test_missing(self, tmp_path: Path) -> None:
        """Of a raw stream without any; and some of them."""
        found = info(write_video(tmp_path / "a.h264", numbered(20), 25, codec="libx264", container="h264"))
        assert (found.num_frames, found.times) == (20, None)
        with PyAVReader().open(str(write_video(tmp_path / "b.mp4", numbered(20), 25, codec="libx264"))) as video:
            assert isinstance(video, PyAVVideo)
            half = [512 * n if n % 2 else None for n in range(20)]
            assert self.timing(video, half) == Timing(25.0)
            half[7] = 512 * 8  # a frame from where it belongs
            assert self.timing(video, half) == Timing(25.0)
            uneven: list[int | None] = [512 * n if n < 10 else 1536 * n for n in range(40)]
            uneven[2:6] = [None] * 4
            assert self.timing(video, uneven).note == "4 frames have no timestamp"
            one: list[int | None] = [512 * n for n in range(40)]
            one[30] = None
            assert self.timing(video, one) == Timing(25.0, None, "1 frames have no timestamp")
            assert self.timing(video, [None] * 20).fps == 25
            twice = self.timing(video, [0, 512, 512, 1536])
            assert twice.times is not None
            assert twice.times.tolist() == pytest.approx([0, 0.04, 0.04, 0.12, 0.2])
            assert twice.note == "1 frames have the timestamp of the one before, the first is frame 2"

    @staticmethod
    def timing(video: PyAVVideo, pts: list[int | None]) -> Timing:
        from vidtrain.data.readers.pyav.frame_times import timing

        return timing(video.file, pts)

    @pytest.mark.parametrize("rate", [240, 1000, 5150])
    def test_a_high_speed_camera_keeps_its_rate(self, tmp_path: Path, rate: int) -> None:
        found = info(write_video(tmp_path / "a.mp4", coded(20), rate, codec="libx264"))
        assert (found.fps, found.times) == (rate, None)
        assert found.times_note == ("" if rate <= 1000 else "the timestamps give 5150 frames per second")

    @pytest.mark.parametrize("step", [17, 85])
    def test_times_in_a_wrong_unit_give_way_to_the_rate_of_the_codec(self, tmp_path: Path, step: int) -> None:
        base = write_video(tmp_path / "base.mp4", coded(20), 25, codec="libx264", options={"bf": "0"})
        path = tmp_path / "a.mp4"
        with av.open(str(base)) as container, av.open(str(path), "w") as out:
            stream = container.streams.video[0]
            try:
                copy = out.add_stream_from_template(stream)
            except AttributeError:
                pytest.skip("PyAV 14.0 cannot copy this stream")
            for number, packet in enumerate(packet for packet in container.demux(stream) if packet.size):
                packet.stream, packet.time_base = copy, Fraction(1, 90_000)
                packet.pts = packet.dts = number * step
                out.mux(packet)
        found = info(path)
        assert (found.fps, found.times) == (25, None)
        said = re.fullmatch(
            r"the timestamps give (\d+) frames per second, the codec's header 25, which is used", found.times_note
        )
        assert said is not None
        assert float(said[1]) == pytest.approx(90_000 / step, rel=0.01)  # its muxer has a coarser unit

    def test_stuck(self) -> None:
        unit = Fraction(1, 90_000)
        assert not stuck(np.full(20, 3600), unit).any()
        assert (
            stuck(np.array([3600] * 9 + [1] * 5 + [3600] * 9), unit).tolist() == [False] * 9 + [True] * 5 + [False] * 9
        )
        assert not stuck(np.array([3600] * 9 + [1, 1] + [3600] * 9), unit).any()
        assert not stuck(np.full(100, 45), unit).any()  # 2,000 frames per second, all along


class TestCases:
    def test_ts_jump(self, test_cases: Path) -> None:
        path = test_cases / "ts_jump_fps" / "tsjump_libx264_cc.ts"
        found = info(path)
        assert (found.num_frames, found.fps, found.times) == (120, 25, None)
        clip = uniform_clips(Timeline(120, found.fps, found.times), ClipSpec(16, fps=15), 1)[0]
        assert len(set(clip.tolist())) == 16

    @pytest.mark.parametrize("spec", [SamplerConfig(8, 2), SamplerConfig(8, fps=4), SamplerConfig(8, mode="segments")])
    def test_vfr_segments(self, test_cases: Path, spec: SamplerConfig, reader: VideoReader) -> None:
        path = test_cases / "vfr_segments" / "a.mp4"
        rows = [(0.0, 2.0), (2.0, 7.0), (7.0, 12.0)]
        starts, ends = (np.array(column) for column in zip(*rows, strict=True))
        manifest = Manifest(StringArray.of([str(path)] * 3), np.zeros(3, np.int64), starts, ends)
        for row, channel in ((0, 0), (1, 2), (2, 2)):
            parts = ClipParts(reader, spec, TransformConfig(size=32, resize=32))
            views = EvalViews(manifest, parts, EvalConfig(clips=3))[row].inputs["rgb"]
            assert views is not None
            assert (views.float().mean((2, 3)).argmax(-1) == channel).all()
        found = info(path, reader)
        assert Timeline(found.num_frames, found.fps, found.times).within(2, 7) == (120, 135)


def untimed(source: Path, target: Path, delay: int = 0) -> Path:
    """A copy whose packets are timed in file order, as of a raw stream: so do `ffmpeg -i a.h264 -c copy a.mp4`.

    delay: frames from dts to pts; 1 where the packets come from an AVI (`ffmpeg -fflags +genpts`).
    """
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        stream = container.streams.video[0]
        try:
            copy = out.add_stream_from_template(stream, opaque=True)
        except AttributeError:
            pytest.skip("PyAV 14.0 cannot copy this stream")
        for number, packet in enumerate(packet for packet in container.demux(stream) if packet.size):
            fresh = av.Packet(bytes(packet))
            fresh.pts, fresh.dts, fresh.duration = number, number, 1  # the last frame is shown for as long as others
            fresh.time_base, fresh.is_keyframe, fresh.stream = Fraction(1, 25), packet.is_keyframe, copy
            out.mux(fresh)
    return target


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_times_given_in_file_order_do_not_tell_the_order_of_frames(codec: str, suffix: str, tmp_path: Path) -> None:
    options = {"x265-params": "log-level=none:keyint=12:bframes=3"} if codec == "libx265" else {"g": "12", "bf": "3"}
    made = write_video(tmp_path / f"made.{suffix}", coded(30), codec=codec, options=options)
    path = untimed(made, tmp_path / f"untimed.{suffix}")
    assert numbers(path, list(range(30))) == list(range(30))
    assert [numbers(path, [n]) for n in (29, 3, 14)] == [[29], [3], [14]]
    assert (info(path).fps, info(path).times) == (pytest.approx(25), None)


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video", "mpeg1video", "mpeg4"])
def test_asf_stores_times_in_file_order(codec: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.wmv", coded(30), codec=codec, options={"g": "12", "bf": "2"})
    assert numbers(path, list(range(30))) == list(range(30))
    assert [numbers(path, [n]) for n in (29, 3, 14)] == [[29], [3], [14]]


def test_files_without_b_frames_are_not_decoded_to_count_them(tmp_path: Path) -> None:
    made = write_video(tmp_path / "made.mp4", coded(30), codec="libx264", options={"g": "12", "bf": "0"})
    with PyAVVideo(str(untimed(made, tmp_path / "untimed.mp4"))) as video:
        assert video.frames.table is not None


def test_b_frames_without_the_frame_before_them_are_not_counted(tmp_path: Path) -> None:
    """MPEG-2 cut within an open GOP: `ffmpeg -c copy` puts them a tick each behind the keyframe they belong before."""
    made = write_video(tmp_path / "made.mkv", coded(40), codec="mpeg2video", options={"g": "12", "bf": "2"})
    path = tmp_path / "cut.ts"
    decoded = itertools.chain([3601, 7201, 7202, 7203], itertools.count(10_800, 3600))
    with av.open(str(made)) as container, av.open(str(path), "w", options={"mpegts_copyts": "1"}) as out:
        stream = container.streams.video[0]
        try:
            copy = out.add_stream_from_template(stream, opaque=True)
        except AttributeError:
            pytest.skip("PyAV 14.0 cannot copy this stream")
        packets = [packet for packet in container.demux(stream) if packet.size]
        first = next(number for number, packet in enumerate(packets) if number and packet.is_keyframe)
        start = packets[first].pts
        for packet, dts in zip(packets[first:], decoded, strict=False):
            assert packet.pts is not None
            assert packet.time_base is not None
            assert start is not None
            fresh = av.Packet(bytes(packet))
            fresh.pts, fresh.dts = max(dts, 7200 + round((packet.pts - start) * packet.time_base * 90_000)), dts
            fresh.time_base, fresh.is_keyframe, fresh.stream = Fraction(1, 90_000), packet.is_keyframe, copy
            out.mux(fresh)
    whole = full_decode(path)
    assert info(path).num_frames == len(whole) == 40 - first - 2
    for number in (0, 1, 2, 9, len(whole) - 1):
        assert (read(path, [number])[0] == whole[number]).all(), number
