"""Clips with flow: which fields they get, cached or computed, and what a cut and an augmentation do to them."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.moving import moving
from tests.data.prepared import READER, as_data
from tests.videos import write_video
from vidtrain.data.clips.dataset import ClipParts, EvalViews, TrainClips
from vidtrain.data.clips.loader import TrainLoader
from vidtrain.data.clips.workers import Workers
from vidtrain.data.flow.cache import make_flow
from vidtrain.data.flow.codes import STILL, decode, encode, mirror
from vidtrain.data.flow.methods import OpenCVFlow
from vidtrain.data.flow.source import CachedFlow, ComputedFlow, FlowSource
from vidtrain.data.settings import EvalConfig, FlowCacheConfig, SamplerConfig, TransformConfig
from vidtrain.errors import VideoError
from vidtrain.types import Frames

pytest.importorskip("cv2", reason="computing flow needs OpenCV")

SIZE = (48, 64)
_STARTS = multiprocessing.get_all_start_methods()
FRAMES = {"right.mp4": moving(9, (1.5, 0.0)), "down.mp4": moving(9, (0.0, 2.0), seed=1)}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("videos")
    return [write_video(folder / name, frames) for name, frames in FRAMES.items()]


@pytest.fixture(scope="module")
def computed() -> ComputedFlow:
    return ComputedFlow(OpenCVFlow("dis"))


def cache(videos: list[Path], folder: Path, **settings: object) -> CachedFlow:
    options = replace(FlowCacheConfig(), short_side=48, **settings)  # type: ignore[arg-type]
    make_flow(as_data(videos).files(), folder, options, OpenCVFlow("dis"), READER, workers=1)
    return CachedFlow(folder)


def read(source: FlowSource, path: Path, indices: list[int], size: tuple[int, int] = SIZE) -> tuple[Frames, np.ndarray]:
    with READER.open(str(path)) as video:
        return source.read(str(path), video, np.array(indices, dtype=np.int64), size)


def test_each_frame_has_the_motion_to_the_next_frame_of_the_file(videos: list[Path], computed: ComputedFlow) -> None:
    """Whatever the frames between two samples; the last one repeats the field before it."""
    frames, codes = read(computed, videos[0], [6, 0, 3, 3, 8])
    own = FRAMES["right.mp4"]
    assert np.array_equal(frames, own[[6, 0, 3, 3, 8]])
    assert np.array_equal(codes, encode(OpenCVFlow("dis")(own[[6, 0, 3, 3, 7]], own[[7, 1, 4, 4, 8]])))
    inner = decode(codes)[:, 12:-12, 12:-12]
    assert np.abs(inner.mean((0, 1, 2)) - (1.5, 0.0)).max() < 0.1


def test_a_single_frame_stands_still(tmp_path: Path, computed: ComputedFlow) -> None:
    path = write_video(tmp_path / "one.mp4", FRAMES["right.mp4"][:1])
    for source in (computed, cache([path], tmp_path / "flow")):
        frames, codes = read(source, path, [0, 0])
        assert np.array_equal(frames[0], FRAMES["right.mp4"][0])
        assert codes.shape == (2, *SIZE, 2)
        assert (codes == STILL).all()


@pytest.mark.parametrize(("quality", "mean", "most"), [(95, 0.3, 12), (100, 0.1, 2)])
def test_a_cache_holds_what_is_computed_but_for_its_jpegs(
    videos: list[Path], computed: ComputedFlow, tmp_path: Path, quality: int, mean: float, most: int
) -> None:
    source = pickle.loads(pickle.dumps(cache(videos, tmp_path, quality=quality)))
    for path in videos:
        indices = [5, 0, 8, 7, 5]
        (frames, codes), (own, expected) = (read(s, path, indices) for s in (source, computed))
        assert np.array_equal(frames, own)
        difference = np.abs(codes.astype(int) - expected)
        assert difference.mean() <= mean
        assert difference.max() <= most
        assert np.array_equal(codes[2], codes[3])  # frame 8 is the last
        assert codes.min() >= 1


def test_a_cache_of_another_size_is_scaled_with_its_values(videos: list[Path], tmp_path: Path) -> None:
    views = EvalViews(
        as_data(videos).splits["train"],
        parts(SamplerConfig(num_frames=4, stride=1), cache(videos, tmp_path), size=96, resize=96),
        EvalConfig(clips=1),
    )
    flow = decode(views[0].inputs["flow"][0].numpy())[:, 24:-24, 24:-24]
    assert np.abs(flow.mean((0, 1, 2)) - (3.0, 0.0)).max() < 0.15  # 1.5 pixels of 48, twice that of 96


def test_a_video_without_flow_is_an_error_unless_it_is_computed(
    videos: list[Path], computed: ComputedFlow, tmp_path: Path
) -> None:
    source = cache(videos[:1], tmp_path)
    with pytest.raises(VideoError, match=r"there is no flow of it in .*`vidtrain data flow` makes what is missing"):
        read(source, videos[1], [0])
    _, codes = read(CachedFlow(tmp_path, computed), videos[1], [0, 3])
    assert np.array_equal(codes, read(computed, videos[1], [0, 3])[1])
    small = write_video(tmp_path / "small.mp4", moving(3, (1.0, 0.0), 12, 40))
    with pytest.raises(VideoError, match=r"small\.mp4: optical flow requires frames of 16 x 16"):
        read(computed, small, [0], (12, 40))


def test_renamed_videos_and_moved_caches_are_found(videos: list[Path], tmp_path: Path) -> None:
    before = read(cache(videos, tmp_path / "flow"), videos[0], [2])[1]
    moved = shutil.copy(videos[0], tmp_path / "other name.mp4")
    shutil.move(tmp_path / "flow", tmp_path / "elsewhere")
    assert np.array_equal(read(CachedFlow(tmp_path / "elsewhere"), Path(moved), [2])[1], before)


# ---------------------------------------------------------------- in a dataset


def parts(sampler: SamplerConfig, flow: FlowSource | None, **transform: Any) -> ClipParts:
    return ClipParts(READER, sampler, TransformConfig(**transform), flow)


def clips(videos: list[Path], flow: FlowSource | None, **transform: Any) -> TrainClips:
    manifest, sampler = as_data(videos).splits["train"], SamplerConfig(num_frames=4, stride=2)
    return TrainClips(manifest, parts(sampler, flow, **{"size": 32, "resize": 40, **transform}), seed=3)


def test_rgb_is_the_same_with_and_without_flow(videos: list[Path], computed: ComputedFlow) -> None:
    for epoch in range(4):
        both, alone = (clips(videos, flow)[epoch, 0].inputs for flow in (computed, None))
        assert both["flow"].shape == (1, 3, 32, 32, 2)
        assert list(alone) == ["rgb"]
        assert torch.equal(both["rgb"], alone["rgb"])


def test_colours_and_erasing_touch_rgb_only(videos: list[Path], computed: ComputedFlow) -> None:
    augment = {"colour": 0.8, "hue": 0.4, "erasing": 1.0}
    for epoch in range(4):
        changed, plain = (clips(videos, computed, **options)[epoch, 0].inputs for options in (augment, {}))
        assert torch.equal(changed["flow"], plain["flow"])
        assert (changed["rgb"] != plain["rgb"]).any()


def test_a_flip_mirrors_and_negates(videos: list[Path], computed: ComputedFlow) -> None:
    """The clip of a flipped video is that of the video, mirrored; and the flow of a mirrored video agrees with it."""
    never, always = (clips(videos, computed, resize=32, flip=p, squash=True) for p in (0.0, 1.0))
    plain, flipped = ({n: x[0].numpy() for n, x in c[0, 0].inputs.items()} for c in (never, always))
    assert np.array_equal(flipped["rgb"], plain["rgb"][:, :, ::-1])
    assert np.array_equal(flipped["flow"], mirror(plain["flow"]))
    assert decode(plain["flow"])[..., 0].mean() > 0.5
    assert decode(flipped["flow"])[..., 0].mean() < -0.5

    own = FRAMES["right.mp4"]
    there = encode(OpenCVFlow("dis")(own[:-1, :, ::-1], own[1:, :, ::-1]))
    here = mirror(encode(OpenCVFlow("dis")(own[:-1], own[1:])))
    assert np.abs(there.astype(int) - here)[:, 8:-8, 8:-8].mean() < 1.0  # a code is 0.16 pixels


def test_ten_crops_share_one_decode_and_cut_the_flow(videos: list[Path], computed: ComputedFlow) -> None:
    manifest, spec, ten = as_data(videos).splits["train"], SamplerConfig(3, 1), EvalConfig(clips=2, crops=10)
    views = EvalViews(manifest, parts(spec, computed, size=32, resize=48), ten)[1].inputs
    assert (views["rgb"].shape, views["flow"].shape) == ((20, 3, 32, 32, 3), (20, 2, 32, 32, 2))
    plain = EvalViews(manifest, parts(spec, None, size=32, resize=48), ten)[1].inputs
    assert torch.equal(views["rgb"], plain["rgb"])
    for crop in range(5):  # of each clip five crops, then their mirror images
        assert np.array_equal(views["flow"][crop + 5].numpy(), mirror(views["flow"][crop].numpy()))


@pytest.mark.parametrize(
    "start",
    [
        pytest.param("fork", marks=pytest.mark.skipif("fork" not in _STARTS, reason="this system has no fork")),
        pytest.param("spawn", marks=pytest.mark.slow),
    ],
)
def test_workers_give_what_this_process_gives(
    videos: list[Path], computed: ComputedFlow, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCV has run in this process before the workers are forked: with its threads on they would hang."""
    flow = clips(videos, computed)
    here = [batch.inputs for batch in TrainLoader(flow, Workers(0), batch_size=1).epoch(0)]
    loader = TrainLoader(flow, Workers(1), batch_size=1)
    loader._loader.multiprocessing_context = start
    there = [batch.inputs for batch in loader.epoch(0)]
    assert len(here) == len(there) == 2
    assert all(torch.equal(one[n], other[n]) for one, other in zip(here, there, strict=True) for n in ("rgb", "flow"))
