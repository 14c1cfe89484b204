"""All clips of whole videos, streamed: the same pixels as reading each clip by itself, decoded once, held briefly."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.videos import coded, needs_encoder, number_of, read, scene, write_video
from vidtrain.data.clips.dataset import ClipParts
from vidtrain.data.clips.sampling import sliding_clips, uniform_clips
from vidtrain.data.clips.stream import ClipBatch, ClipStream
from vidtrain.data.clips.transforms import EvalCrops
from vidtrain.data.clips.workers import Workers
from vidtrain.data.manifest.manifest import Manifest
from vidtrain.data.readers import streaming
from vidtrain.data.readers.base import OpenVideo, VideoReader
from vidtrain.data.readers.pyav.reader import PyAVReader, PyAVVideo
from vidtrain.data.readers.timeline import Timeline
from vidtrain.data.settings import SamplerConfig, TransformConfig
from vidtrain.errors import ConfigError, VideoError
from vidtrain.types import Frames, Indices, VideoInfo

SPEC = SamplerConfig(num_frames=4, stride=2)
TRANSFORM = TransformConfig(size=32, resize=40)
CUTS = EvalCrops(TRANSFORM)


def stream(manifest: Manifest, *, reader: VideoReader | None = None, **options: Any) -> ClipStream:
    parts = ClipParts(reader or PyAVReader(), options.pop("spec", SPEC), TRANSFORM)
    return ClipStream(manifest, parts, **{"hop": None, "batch_size": 5, **options})


def gathered(batches: Iterator[ClipBatch]) -> tuple[dict[int, torch.Tensor], dict[int, str]]:
    """The clips of each row that ended, in order; and why others did not. Checks the bookkeeping on the way."""
    clips: dict[int, list[torch.Tensor]] = {}
    ended: dict[int, torch.Tensor] = {}
    bad: dict[int, str] = {}
    for batch in batches:
        places = zip(batch.views, batch.videos.tolist(), batch.numbers.tolist(), batch.totals.tolist(), strict=True)
        for view, row, number, _ in places if len(batch) else ():
            if number == 0:
                clips[row] = []
            assert number == len(clips[row])
            clips[row].append(view)
        for end in batch.ends:
            assert len(clips[end.video]) == end.clips
            ended[end.video] = torch.stack(clips[end.video])
        bad |= {row: video.reason for row, video in batch.bad}
    return ended, bad


def expected(path: Path, hop: int | None, spec: SamplerConfig = SPEC, **seconds: float) -> torch.Tensor:
    """Each clip read by itself."""
    with PyAVReader().open(str(path)) as video:
        info = video.info
        cut = CUTS.all(info)[0]
        indices = sliding_clips(Timeline.of(info), spec, hop, **seconds)
        return torch.from_numpy(np.stack([cut.apply(video.read(clip, cut.read_size)) for clip in indices]))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """With keyframes far apart and B-frames; of three lengths, one below a clip's span."""
    needs_encoder("libx264")
    folder = tmp_path_factory.mktemp("videos")
    options = {"g": "30", "bf": "2"}
    return [
        write_video(folder / f"{number}.mp4", scene(count, seed=number), codec="libx264", options=options)
        for number, count in enumerate((61, 20, 5))
    ]


@pytest.mark.parametrize("hop", [None, 1, 3, 7, 20])
def test_clips_are_those_read_one_by_one(videos: list[Path], hop: int | None) -> None:
    manifest = Manifest.of(map(str, videos), [0, 1, 0])
    ended, bad = gathered(iter(stream(manifest, hop=hop)))
    assert not bad
    for row, path in enumerate(videos):
        assert torch.equal(ended[row], expected(path, hop))
    sizes = [len(batch) for batch in stream(manifest, hop=hop)]
    assert all(size == 5 for size in sizes[:-1])
    assert sizes[-1] <= 5
    if hop is None:
        assert [len(ended[row]) for row in range(3)] == [9, 3, 1]  # 61, 20 and 5 frames in clips of 7


@pytest.mark.parametrize("short", ["repeat_last", "loop"])
def test_a_video_shorter_than_a_clip(videos: list[Path], short: Any) -> None:
    spec = SamplerConfig(num_frames=8, stride=2, short=short)
    ended, _ = gathered(iter(stream(Manifest.of([str(videos[2])], [0]), spec=spec)))
    assert torch.equal(ended[0], expected(videos[2], None, spec))


def test_workers_share_the_videos(videos: list[Path]) -> None:
    manifest = Manifest.of([str(path) for path in videos * 3], [0] * 9)
    ended, bad = gathered(iter(stream(manifest, batch_size=4).loader(Workers(2))))
    assert not bad
    assert sorted(ended) == list(range(9))
    for row in range(9):
        assert torch.equal(ended[row], expected(videos[row % 3], None))


def test_parts_of_a_file(videos: list[Path]) -> None:
    path = str(videos[0])
    whole = Manifest.of([path] * 3, [0] * 3)
    starts, ends = np.array([0.0, 0.8, 2.0]), np.array([0.8, 2.0, np.inf])
    manifest = Manifest(whole.paths, whole.labels, starts, ends)
    ended, _ = gathered(iter(stream(manifest, hop=5)))
    assert torch.equal(ended[0], expected(videos[0], 5, first=0.0, last=0.8))
    assert torch.equal(ended[1], expected(videos[0], 5, first=0.8, last=2.0))
    assert torch.equal(ended[2], expected(videos[0], 5, first=2.0))


def test_broken_videos_are_named(videos: list[Path], tmp_path: Path) -> None:
    """One that does not open, one that breaks in the middle, one whose part lies behind its end."""
    (tmp_path / "empty.mp4").touch()
    data = bytearray(videos[0].read_bytes())
    for at in range(len(data) // 2, len(data) // 2 + 2000):
        data[at] ^= 0xFF
    (tmp_path / "broken.mp4").write_bytes(data)
    paths = [tmp_path / "empty.mp4", tmp_path / "broken.mp4", videos[1], videos[1]]
    whole = Manifest.of(map(str, paths), [0] * 4)
    manifest = Manifest(whole.paths, whole.labels, np.array([0, 0, 0, 9.0]), np.full(4, np.inf))
    ended, bad = gathered(iter(stream(manifest)))
    assert list(ended) == [2]
    assert sorted(bad) == [0, 1, 3]
    assert "the segment begins at 9 s" in bad[3]


@pytest.mark.parametrize(("mode", "clips"), [("segments", 1), ("segments", 3), ("clip", 4)])
def test_clips_spread_over_each_video(videos: list[Path], mode: Any, clips: int) -> None:
    spec = SamplerConfig(num_frames=4, stride=2, mode=mode)
    ended, bad = gathered(iter(stream(Manifest.of(map(str, videos), [0, 1, 0]), spec=spec, clips=clips)))
    assert not bad
    for row, path in enumerate(videos):
        with PyAVReader().open(str(path)) as video:
            info, cut = video.info, CUTS.all(video.info)[0]
            own = uniform_clips(Timeline.of(info), spec, clips)
            one_by_one = [cut.apply(video.read(clip, cut.read_size)) for clip in own]
        assert torch.equal(ended[row], torch.from_numpy(np.stack(one_by_one)))


def test_segments_cannot_slide() -> None:
    with pytest.raises(ConfigError, match="cannot slide"):
        stream(Manifest.of(["x"], [0]), spec=SamplerConfig(num_frames=4, mode="segments"))


def test_each_frame_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No matter how far apart the keyframes are and how clips overlap."""
    path = write_video(tmp_path / "a.mp4", coded(90), codec="libx264", options={"g": "90", "bf": "0", "qp": "20"})
    reads: list[int] = []
    original = PyAVVideo.read
    monkeypatch.setattr(PyAVVideo, "read", lambda *args, **rest: reads.append(1) or original(*args, **rest))
    ended, _ = gathered(iter(stream(Manifest.of([str(path)], [0]), hop=1, batch_size=3)))
    assert len(ended[0]) == 84
    assert not reads  # not piece by piece

    with PyAVReader().open(str(path)) as video:
        packets: list[bool] = []
        decode = video._file.decode  # type: ignore[attr-defined]
        seen = lambda packet: packets.append(packet is not None) or decode(packet)  # noqa: E731
        monkeypatch.setattr(video._file, "decode", seen)  # type: ignore[attr-defined]
        found = list(streaming.stream(video, np.arange(90), (64, 96)))
    assert sum(packets) == 90
    assert [number_of(picture) for _, picture in found] == list(range(90))


@pytest.mark.parametrize("container", ["avi", "ts"])
def test_other_containers(tmp_path: Path, container: str) -> None:
    """MPEG-4 in AVI, and a stream whose frames have to be counted."""
    codec = "mpeg4" if container == "avi" else "mpeg2video"
    needs_encoder(codec)
    path = write_video(
        tmp_path / f"a.{container}", scene(40), codec=codec, container="mpegts" if container == "ts" else None
    )
    ended, bad = gathered(iter(stream(Manifest.of([str(path)], [0]), hop=2)))
    assert not bad
    assert torch.equal(ended[0], expected(path, 2))


class OutOfOrder:
    """A reader whose first pass gives a frame twice, as PyAV's does after a keyframe that is none."""

    def open(self, path: str) -> OpenVideo:
        video = PyAVReader().open(path)
        get = video.frames.get

        def again(wanted: Any) -> Any:
            found = list(get(wanted))
            yield from found
            if len(found) > 20:
                yield found[3]

        video.frames.get = again  # type: ignore[method-assign]
        return video


def test_a_frame_that_comes_twice(videos: list[Path]) -> None:
    ended, bad = gathered(iter(stream(Manifest.of([str(videos[0])], [0]), reader=OutOfOrder())))
    assert not bad
    assert torch.equal(ended[0], expected(videos[0], None))


class Spoiled(OutOfOrder):
    """As OutOfOrder, and a frame that the pass gives is refused when it is read."""

    def open(self, path: str) -> OpenVideo:
        video = super().open(path)
        read = video.read

        def refusing(indices: Indices, size: tuple[int, int] | None = None) -> Frames:
            if 20 in indices:
                raise VideoError(path, "frame 20 is spoiled")
            return read(indices, size)

        video.read = refusing  # type: ignore[method-assign]
        return video


@pytest.mark.parametrize("batch_size", [3, 5, 100])
def test_clips_of_frames_that_turn_out_to_be_spoiled_are_void(videos: list[Path], batch_size: int) -> None:
    manifest = Manifest.of([str(videos[0]), str(videos[1])], [0, 0])
    batches = stream(manifest, reader=Spoiled(), hop=3, batch_size=batch_size, skip_broken=True)
    kept: dict[tuple[int, int], torch.Tensor] = {}
    broken: list[tuple[int, int]] = []
    for batch in batches:
        for row in batch.restarted:
            kept = {key: view for key, view in kept.items() if key[0] != row}
        kept |= dict(zip(zip(batch.videos.tolist(), batch.numbers.tolist(), strict=True), batch.views, strict=True))
        broken += [(clip.video, clip.number) for clip in batch.broken]
    indices = sliding_clips(Timeline(61, 25), SPEC, 3)
    assert broken == [(0, n) for n, clip in enumerate(indices.tolist()) if 20 in clip]
    assert broken == [(0, 6)]  # frames 18, 20, 22, 24
    whole = expected(videos[0], 3)
    assert [n for row, n in sorted(kept) if row == 0] == [n for n in range(len(indices)) if (0, n) not in broken]
    assert all(torch.equal(view, whole[n]) for (row, n), view in kept.items() if row == 0)
    assert len([1 for row, _ in kept if row == 1]) == len(expected(videos[1], 3))  # a sound one beside it


class Endless:
    """A video of any length, whose frames are made when they are asked for."""

    def __init__(self, count: int) -> None:
        self.info = VideoInfo(count, 25.0, 48, 64)
        self.most = 0

    def open(self, path: str) -> OpenVideo:
        return self  # type: ignore[return-value]

    def read(self, indices: Indices, size: tuple[int, int] | None = None) -> Frames:
        self.most = max(self.most, len(indices))
        return np.broadcast_to((indices % 256).astype(np.uint8)[:, None, None, None], (len(indices), *(size or ()), 3))

    def close(self) -> None: ...

    def __enter__(self) -> Endless:
        return self

    def __exit__(self, *_: object) -> None: ...


def test_memory_does_not_grow_with_the_length() -> None:
    def peak(count: int) -> tuple[int, int]:
        reader = Endless(count)
        clips = 0
        tracemalloc.start()
        for batch in stream(Manifest.of(["x"], [0]), reader=reader, hop=4, batch_size=8):
            clips += len(batch)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert reader.most <= 128
        return most, clips

    (short, few), (long, many) = peak(1000), peak(20000)
    assert many > 19 * few
    # the numbers of all frames of all clips are known from the start: 8 bytes each, where a frame here is 3072
    assert long - short < 19000 / 4 * 4 * 8 * 8
    assert long < 20000 * 32 * 32 * 3 / 8


def test_real_files(test_videos: Path) -> None:
    for path in sorted((test_videos / "ucf101_3c").rglob("*.avi"))[:2]:
        ended, bad = gathered(iter(stream(Manifest.of([str(path)], [0]), hop=9)))
        assert not bad
        assert torch.equal(ended[0], expected(path, 9))
        assert read(path, [0]).shape[0] == 1


def test_frames_that_are_not_evenly_spaced(tmp_path: Path) -> None:
    """Clips by the second, and the times of the whole file at its end."""
    times = [*range(12), *range(14, 44, 5)]
    path = write_video(tmp_path / "a.mp4", coded(18), 10, codec="libx264", times=times)
    given = stream(Manifest.of([str(path)], [0]), spec=SamplerConfig(4, fps=5), hop="0.5s", batch_size=100)
    (batch,) = given
    (end,) = batch.ends
    assert end.times is not None
    assert end.times[:-1].tolist() == pytest.approx([time / 10 for time in times])
    clips = sliding_clips(Timeline(18, end.fps, end.times), SamplerConfig(4, fps=5), "0.5s")
    assert end.clips == len(clips)
    assert clips[:3].tolist() == [[0, 2, 4, 6], [5, 7, 9, 11], [10, 11, 12, 12]]
    with PyAVReader().open(str(path)) as video:
        cut = CUTS.all(video.info)[0]
        expected = np.stack([cut.apply(video.read(clip, cut.read_size)) for clip in clips])
    np.testing.assert_array_equal(batch.views.numpy(), expected)
