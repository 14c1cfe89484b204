"""PyAV's reader beyond the contract: exact on every codec, sparing, and clear about broken files."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from tests.videos import full_decode, info, numbered, read, refused, remux, scene, set_matrix, write_video
from vidtrain.data.readers.opening import OpenFile
from vidtrain.data.readers.pyav import PyAVReader
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
        whole = full_decode(path)
        assert info(path).num_frames == len(whole)
        np.testing.assert_array_equal(read(path, [5]), whole[[5]])

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
        with av.open(str(path)) as container:
            packet = [p for p in container.demux(video=0) if p.size][14]
            at, size = packet.pos, packet.size
        assert at is not None
        data = bytearray(path.read_bytes())
        data[at + 4 : at + size] = bytes(size - 4)
        path.write_bytes(data)
        np.testing.assert_array_equal(read(path, [13, 2, 20, 29]), frames[[13, 2, 20, 29]])
        with pytest.raises(VideoError, match=r"a\.mp4: frame 14 of 30 does not decode"):
            read(path, [12, 13, 14, 25])

    def test_nothing_stays_open(self, tmp_path: Path) -> None:
        folder = Path("/proc/self/fd")
        if not folder.is_dir():
            pytest.skip("needs /proc")
        good = write_video(tmp_path / "good.mp4", scene(12), options={"qp": "0", "g": "4"})
        song = tmp_path / "none.mp4"
        song.write_bytes(good.read_bytes()[:300])
        before = len(list(folder.iterdir()))
        for _ in range(3):
            read(good, [11, 3])
            refused(song)
            with pytest.raises(IndexError):
                read(good, [99])
        assert len(list(folder.iterdir())) == before

    def test_encrypted(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "a.mp4", scene(3))
        path.write_bytes(path.read_bytes().replace(b"avc1\0\0\0\0", b"encv\0\0\0\0"))
        assert refused(path) == "the video is encrypted"
