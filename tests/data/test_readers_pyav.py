"""PyAV's reader beyond the contract: exact on every codec, sparing, and clear about broken files."""

from __future__ import annotations

import contextlib
import gc
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from tests.videos import (
    coded,
    full_decode,
    info,
    number_of,
    numbered,
    pack,
    read,
    refused,
    remux,
    scene,
    set_matrix,
    write_video,
)
from vidtrain.data.readers.pyav import packet_table
from vidtrain.data.readers.pyav.opening import OpenFile
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.data.readers.pyav.references import unreferred_test
from vidtrain.errors import VideoError

CODECS = {
    "x264": ("mp4", "libx264", {}),
    "x264-b-frames": ("mp4", "libx264", {"g": "12", "bf": "3", "x264-params": "b-pyramid=normal"}),
    "x264-many-b-frames": ("mkv", "libx264", {"bf": "16", "x264-params": "b-pyramid=normal:ref=16:b-bias=90"}),
    "x264-open-gop": ("mp4", "libx264", {"g": "12", "bf": "3", "x264-params": "open-gop=1"}),
    "x264-intra-refresh": ("mp4", "libx264", {"g": "12", "x264-params": "intra-refresh=1"}),
    "x264-interlaced": ("ts", "libx264", {"g": "12", "flags": "+ilme+ildct"}),
    "x264-fragments": ("mp4", "libx264", {"g": "12"}),
    "x264-ts": ("ts", "libx264", {"g": "12"}),
    "x264-avi": ("avi", "libx264", {"g": "12"}),
    "x264-flv": ("flv", "libx264", {"g": "12"}),
    "x264-raw": ("h264", "libx264", {"g": "12"}),
    "hevc-open-gop": ("mp4", "libx265", {"x265-params": "log-level=none:keyint=12:open-gop=1:bframes=4"}),
    "hevc-layers": ("mkv", "libx265", {"x265-params": "log-level=none:keyint=12:temporal-layers=3:bframes=4"}),
    "mpeg4-avi": ("avi", "mpeg4", {"g": "12"}),
    "mpeg4-b-frames-avi": ("avi", "mpeg4", {"g": "12", "bf": "2"}),
    "mpeg4-fields-avi": ("avi", "mpeg4", {"g": "12", "bf": "2", "flags": "+ilme+ildct"}),
    "mpeg4-b-frames": ("mp4", "mpeg4", {"g": "12", "bf": "2"}),
    "mpeg2-ts": ("ts", "mpeg2video", {"g": "12", "bf": "2"}),
    "mpeg2-ps": ("mpg", "mpeg2video", {"g": "12", "bf": "2"}),
    "vp8-hidden-frames": ("webm", "libvpx", {"g": "30", "auto-alt-ref": "1", "lag-in-frames": "16"}),
    "vp9-hidden-frames": (
        "webm",
        "libvpx-vp9",
        {"g": "30", "auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "5"},
    ),
    "av1": ("mkv", "libsvtav1", {"preset": "12", "g": "24"}),
    "flv1": ("flv", "flv", {}),
    "wmv": ("asf", "wmv2", {}),
    "mjpeg": ("avi", "mjpeg", {}),
    "ffv1": ("mkv", "ffv1", {}),
    "gif": ("gif", "gif", {}),
}


@pytest.mark.parametrize("name", CODECS)
def test_bit_exact_with_a_full_decode(name: str, tmp_path: Path) -> None:
    """Seeking, skipping and stopping early change no pixel and no frame number."""
    suffix, codec, options = CODECS[name]
    formats = {"mjpeg": "yuvj420p", "gif": "rgb8"}
    path = write_video(
        tmp_path / f"a.{suffix}", scene(60, 64, 80), codec=codec, options=options, pix_fmt=formats.get(name)
    )
    if name == "x264-fragments":
        path = remux(path, tmp_path / "b.mp4", options={"movflags": "frag_keyframe+empty_moov"})
    whole = full_decode(path)
    with PyAVReader().open(str(path)) as video:
        assert video.info.num_frames == len(whole) == 60
        assert video.info.fps == pytest.approx(25, rel=0.01)
        for indices in ([59], [0], [13], [31, 14], [5, 9, 13, 17], [40, 41, 44, 55], [1, 30, 58], [24, 25]):
            np.testing.assert_array_equal(video.read(np.array(indices)), whole[indices])
        np.testing.assert_array_equal(video.read(np.arange(60)), whole)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_what_the_header_crops_is_not_shown(codec: str, suffix: str, tmp_path: Path) -> None:
    """By numbers that are no multiple of what is aligned in memory, and where the container says another size."""
    encoder, options = {
        "h264": ("libx264", {"qp": "0"}),
        "hevc": ("libx265", {"x265-params": "log-level=none:lossless=1"}),
    }[codec]
    made = write_video(tmp_path / "a.mkv", scene(5, 96, 160), codec=encoder, options=options)
    path = tmp_path / f"b.{suffix}"
    if (codec, suffix) == ("hevc", "avi"):
        pytest.skip("FFmpeg has no such thing")
    with av.open(str(made)) as container, av.open(str(path), "w") as out:
        stream = container.streams.video[0]
        copy = out.add_stream_from_template(stream, opaque=True)
        crop = BitStreamFilterContext(
            f"{codec}_metadata=crop_left=18:crop_right=8:crop_top=4:crop_bottom=10", stream, copy
        )
        for packet in [*container.demux(stream)][:-1]:
            for changed in crop.filter(packet):
                changed.stream = copy
                out.mux(changed)
    found = read(path, list(range(5)))
    assert found.shape == (5, 82, 134, 3)
    whole = full_decode(made)[:, 4:-10, 18:-8]
    assert np.abs(found.astype(int) - whole).mean() < 3  # pairs of rows and columns share their colours


def test_frames_have_the_size_of_the_first(tmp_path: Path) -> None:
    """Where the resolution changes on the way, as in a joined recording and in a call."""
    small, large = (
        write_video(tmp_path / f"{h}.ts", coded(12, h, w), codec="libx264", options={"bf": "2"})
        for h, w in ((64, 96), (96, 160))
    )
    for one, two, size in ((small, large, (64, 96)), (large, small, (96, 160))):
        path = tmp_path / f"{one.stem}{two.stem}.ts"
        path.write_bytes(one.read_bytes() + two.read_bytes())
        assert (info(path).height, info(path).width) == size
        frames = read(path, [3, 20])
        np.testing.assert_array_equal(frames[0], full_decode(one)[3])
        assert [number_of(frame) for frame in read(path, list(range(24)))] == [*range(12)] * 2


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_pictures_that_only_serve_as_reference(codec: str, tmp_path: Path) -> None:
    """VP8 and VP9 have packets whose picture is not shown; here the flag that shows it is cleared."""
    options = {"g": "10", "lag-in-frames": "0", "deadline": "realtime", "cpu-used": "8"}
    source = write_video(tmp_path / "a.webm", scene(30), codec=codec, options=options)
    hidden = {7: (0, 0x10), 13: (0, 0x10)} if codec == "libvpx" else {10: (0, 0x02)}
    path = remux(source, tmp_path / "b.nut", change=hidden)  # other containers join such VP9 packets to the next
    whole = full_decode(path)
    assert info(path).num_frames == len(whole) == 30 - len(hidden)
    np.testing.assert_array_equal(read(path, [5, 9, 10, 27]), whole[[5, 9, 10, 27]])


@pytest.mark.parametrize("options", [{"g": "12", "bf": "2"}, {"g": "60", "bf": "3"}, {"g": "9", "bf": "1"}])
def test_pictures_that_share_packets(options: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As DivX and Xvid did: sought, skipped and decoded like any others, to the pixels that FFmpeg gives."""
    source = write_video(tmp_path / "a.avi", scene(60, 64, 80), codec="mpeg4", options=options)
    path = pack(source, tmp_path / "b.avi")
    whole = full_decode(path)
    np.testing.assert_array_equal(whole, full_decode(source)[: len(whole)])
    decoded: list[int] = []
    decode = OpenFile.decode
    with PyAVReader().open(str(path)) as video:
        assert video.info.num_frames == len(whole) in (59, 60)  # a last one may wait forever
        for indices in ([58], [0], [13], [31, 14], [5, 9, 13, 17], [40, 41, 44, 55], [1, 30, 58], [24, 25]):
            np.testing.assert_array_equal(video.read(np.array(indices)), whole[indices])
        np.testing.assert_array_equal(video.read(np.arange(len(whole))), whole)
        monkeypatch.setattr(OpenFile, "decode", lambda file, packet: decoded.append(1) or decode(file, packet))
        video.read(np.array([50]))
    assert len(decoded) < {"12": 10, "60": 25, "9": 10}[options["g"]]


class TestIndex:
    """An MP4's own index tells what reading its packets tells."""

    @staticmethod
    def check(path: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
        """Compare both tables; False where the index does not serve."""
        with closing(OpenFile(str(path))) as file:
            if packet_table.read_index(file) is None:
                return False
        with closing(OpenFile(str(path))) as file:
            by_index = packet_table.scan(file)
        with monkeypatch.context() as patch, closing(OpenFile(str(path))) as file:
            patch.setattr(packet_table, "read_index", lambda file: None)
            by_packets = packet_table.scan(file)
        assert (by_index is None) == (by_packets is None)
        if by_index is not None and by_packets is not None:
            for name in ("pts", "shown", "start"):
                np.testing.assert_array_equal(getattr(by_index, name), getattr(by_packets, name))
            assert by_index.false_keys == by_packets.false_keys
        return True

    @pytest.mark.parametrize("name", [name for name, (suffix, _, _) in CODECS.items() if suffix == "mp4"])
    def test_agrees_with_the_packets(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        _, codec, options = CODECS[name]
        path = write_video(tmp_path / "a.mp4", scene(60), codec=codec, options=options)
        served = self.check(path, monkeypatch)
        assert served == (int(av.__version__.split(".")[0]) >= 16)
        for suffix in ("mp4", "mov"):
            for first, shift in ((0, 0), (0, 5), (12, 17), (14, 0), (14, 20)):
                keep = lambda number, first=first: number >= first  # noqa: E731
                self.check(remux(path, tmp_path / f"b.{suffix}", keep, shift), monkeypatch)
                edit = {"avoid_negative_ts": "disabled"}
                self.check(remux(path, tmp_path / f"c.{suffix}", keep, shift, edit), monkeypatch)
        fragments = remux(path, tmp_path / "d.mp4", options={"movflags": "frag_keyframe+empty_moov"})
        assert not self.check(fragments, monkeypatch)

    def test_agrees_on_the_odd_files(self, test_videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        served = []
        for path in sorted((test_videos / "odd").iterdir()):
            with contextlib.suppress(VideoError):
                served += [path.name] if self.check(path, monkeypatch) else []
        assert int(av.__version__.split(".")[0]) < 16 or len(served) > 8

    def test_opening_reads_one_packet(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write_video(tmp_path / "a.mp4", scene(60), codec="libx264")
        if int(av.__version__.split(".")[0]) < 16:
            pytest.skip("PyAV tells no index before version 16")
        given: list[int] = []
        original = OpenFile.packets

        def counting(file: OpenFile) -> Iterator[av.Packet]:
            for packet in original(file):
                given.append(1)
                yield packet

        monkeypatch.setattr(OpenFile, "packets", counting)
        assert info(path).num_frames == 60
        assert len(given) == 1


def test_a_search_without_end_is_ended(tmp_path: Path) -> None:
    """Gigabytes of zeros, as a download that was broken off leaves them: FFmpeg would search them all for a packet."""
    path = write_video(tmp_path / "a.mkv", scene(30), codec="libx264")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
        file.truncate(1 << 30)  # takes no room on the disk
    begin = time.monotonic()
    words = (
        "FFmpeg searched for the next packet for more than 0.3 s: a damaged file or a slow disk (see decoder.timeout)"
    )
    assert refused(path, PyAVReader(timeout=0.3)) == words
    assert time.monotonic() - begin < 30


def change_packet(path: Path, number: int, change: Callable[[bytes], bytes]) -> None:
    """Change the bytes of a packet in place."""
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][number]
        at, size = packet.pos, packet.size
    assert at is not None
    data = path.read_bytes()
    changed = change(data[at : at + size])
    assert len(changed) == size
    path.write_bytes(data[:at] + changed + data[at + size :])


class TestPyAV:
    """Beyond the contract."""

    @pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
    def test_sound_files_are_read_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
        """The second, full pass is for broken files: a sound one that needs it would be a slow one."""
        codec = "mpeg4" if suffix == "avi" else "libx264"
        path = write_video(tmp_path / f"a.{suffix}", scene(60), codec=codec, options={"g": "12"})
        monkeypatch.delattr(OpenFile, "reopen")
        with PyAVReader().open(str(path)) as video:
            for indices in ([50, 54, 58], [0, 30, 59], [5], range(60)):
                video.read(np.array(indices))

    @pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 5), (97, 73)])
    def test_odd_sizes(self, tmp_path: Path, size: tuple[int, int]) -> None:
        frames = scene(5, *size)
        path = write_video(tmp_path / "a.mp4", frames)
        np.testing.assert_array_equal(read(path, [4, 0]), frames[[4, 0]])
        assert (info(path).height, info(path).width) == size

    @pytest.mark.parametrize(
        ("matrix", "turned"),
        [
            ((-1, 0, 0, 1), lambda f: f[:, ::-1]),
            ((1, 0, 0, -1), lambda f: f[::-1]),
            ((0, 1, 1, 0), lambda f: f.swapaxes(0, 1)),
        ],
    )
    def test_mirrored(self, tmp_path: Path, matrix, turned) -> None:  # type: ignore[no-untyped-def]
        frames = scene(3, 40, 64)
        path = set_matrix(write_video(tmp_path / "a.mp4", frames), *matrix)
        np.testing.assert_array_equal(read(path, [2])[0], turned(frames[2]))

    def test_mean_rate_of_uneven_times(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "a.mp4", numbered(5), fps=10, times=[0, 1, 2, 10, 20])
        assert info(path).fps == pytest.approx(4 / 2.0)
        np.testing.assert_array_equal(read(path, [3])[0], numbered(5)[3])

    def test_rate_of_one_frame_is_the_containers(self, tmp_path: Path) -> None:
        assert info(write_video(tmp_path / "a.mp4", numbered(1), fps=12)).fps == pytest.approx(12)

    def test_frames_hidden_by_an_edit_list(self, tmp_path: Path) -> None:
        frames = scene(40)
        source = write_video(tmp_path / "a.mp4", frames, options={"qp": "0", "g": "8", "bf": "2"})
        cut = remux(source, tmp_path / "b.mp4", lambda n: n >= 8, 13, {"avoid_negative_ts": "disabled"})
        count = info(cut).num_frames
        assert count == len(full_decode(cut))
        assert count in (26, 27)  # FFmpegs round the end of the list differently
        np.testing.assert_array_equal(read(cut, [0, 10, 25]), frames[[13, 23, 38]])

    @pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
    def test_begins_between_keyframes(self, tmp_path: Path, suffix: str) -> None:
        """What no keyframe precedes is not shown, and not counted."""
        source = write_video(tmp_path / "a.mp4", scene(40), codec="libx264", options={"g": "8"})
        cut = remux(source, tmp_path / f"b.{suffix}", lambda number: number >= 11)
        whole = full_decode(cut)
        assert 0 < info(cut).num_frames == len(whole) < 29
        np.testing.assert_array_equal(read(cut, [0, 9, len(whole) - 1]), whole[[0, 9, -1]])

    def test_the_default_of_two_video_streams(self, tmp_path: Path) -> None:
        path, large, small = tmp_path / "a.mkv", scene(6, 64, 96), scene(9, 16, 32)
        with av.open(str(path), "w") as out:
            streams = [out.add_stream("ffv1", rate=25) for _ in range(2)]
            for stream, frames in zip(streams, (small, large), strict=True):
                stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "bgr0"
            for stream, frames in zip(streams, (small, large), strict=True):
                for picture in frames:
                    out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                out.mux(stream.encode(None))
        assert info(path).num_frames == len(large)  # as the ffmpeg command, whatever av_find_best_stream prefers
        np.testing.assert_array_equal(read(path, [5]), large[[5]])

    def test_ends_within_a_frame(self, tmp_path: Path) -> None:
        """With its index in front a cut file still opens; the frame that it ends in is not counted."""
        frames = scene(20)
        source = write_video(tmp_path / "a.mp4", frames, options={"qp": "0", "bf": "0"})
        front = remux(source, tmp_path / "b.mp4", options={"movflags": "faststart"})
        cut = tmp_path / "cut.mp4"
        cut.write_bytes(front.read_bytes()[: front.stat().st_size * 3 // 5])
        count = info(cut).num_frames
        assert 5 < count < 15
        np.testing.assert_array_equal(read(cut, [0, count - 1]), frames[[0, count - 1]])

    def test_a_broken_frame_is_named_and_the_others_read(self, tmp_path: Path) -> None:
        frames = scene(30)
        path = write_video(tmp_path / "a.mp4", frames, options={"qp": "0", "g": "10", "bf": "0"})
        change_packet(path, 14, lambda data: data[:4] + bytes(len(data) - 4))
        np.testing.assert_array_equal(read(path, [13, 2, 20, 29]), frames[[13, 2, 20, 29]])
        with pytest.raises(VideoError, match=r"a\.mp4: frame 14 of 30 does not decode"):
            read(path, [12, 13, 14, 25])

    def test_frames_that_follow_a_broken_one_are_refused(self, tmp_path: Path) -> None:
        """FFmpeg gives them without a mark; those of the next group of pictures are sound."""
        frames = scene(30)
        path = write_video(tmp_path / "a.mp4", frames, options={"qp": "0", "g": "10", "bf": "0"})
        change_packet(path, 21, lambda data: data[:4] + bytes(len(data) - 4))
        for number in range(22, 25):
            with pytest.raises(VideoError, match=f"frame {number} of 30 follows a broken one, which it may refer to"):
                read(path, [2, number])
        np.testing.assert_array_equal(read(path, [19, 20, 25]), frames[[19, 20, 25]])  # the scene changes at 15

    def test_a_broken_frame_that_nobody_refers_to_spoils_no_other(self, tmp_path: Path) -> None:
        options = {"g": "20", "bf": "1", "x264-params": "b-adapt=0:b-pyramid=none:scenecut=0"}
        path = write_video(tmp_path / "a.mp4", scene(20), codec="libx264", options=options)
        whole = full_decode(path)
        with closing(OpenFile(str(path))) as file:
            test = unreferred_test(file.stream.codec_context)
            found = [(n, packet) for n, packet in enumerate(file.packets()) if test(packet)]
            place, packet = max(found[1:-1], key=lambda one: one[1].size)  # some are too short to be broken
            number = round(packet.pts * packet.time_base * 25)
        change_packet(path, place, lambda data: data[:20] + bytes(len(data) - 20))
        others = [number - 1, number + 1, number + 2, 19]
        np.testing.assert_array_equal(read(path, others), whole[others])
        with pytest.raises(VideoError, match=f"frame {number} of 20 does not decode"):
            read(path, [number])

    def test_closing_leaves_no_circles(self, tmp_path: Path) -> None:
        """Containers and decoders go at once, not when Python next looks for circular garbage."""
        path = write_video(tmp_path / "a.mp4", scene(12), options={"qp": "0", "g": "4"})
        gc.collect()
        gc.disable()
        try:
            with PyAVReader().open(str(path)) as video:
                video.read(np.array([11, 3]))
                container = weakref.ref(video.file)
            del video
            assert container() is None
        finally:
            gc.enable()

    def test_encrypted(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "a.mp4", scene(3))
        path.write_bytes(path.read_bytes().replace(b"avc1\0\0\0\0", b"encv\0\0\0\0"))
        assert refused(path) == "the video is encrypted"


def test_a_title_that_is_not_utf8_is_no_reason_to_refuse(tmp_path: Path) -> None:
    path = write_video(tmp_path / "latin1.mkv", scene(5))
    whole, content = full_decode(path), path.read_bytes()
    assert b"Lavf" in content  # the name of the program that wrote it
    path.write_bytes(content.replace(b"Lavf", b"\xe9avf"))
    with PyAVReader().open(str(path)) as video:
        assert (video.read(np.arange(5)) == whole).all()
