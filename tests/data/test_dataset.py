"""Clips and views from real files, the order of an epoch, and what happens to files that cannot be read."""

from __future__ import annotations

import contextlib
import dataclasses
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidtrain.data.clips.crop import scaled_size
from vidtrain.data.clips.dataset import MAX_REPLACEMENTS, ClipParts, EvalViews, TrainClips, read_clip
from vidtrain.data.clips.loader import (
    EpochBatchSampler,
    TrainLoader,
    balanced_weights,
    choose_workers,
    class_shares,
    collate,
)
from vidtrain.data.clips.loader import eval_loader as loader_of_tests
from vidtrain.data.clips.sampling import uniform_clips
from vidtrain.data.clips.transforms import EvalCrops, TrainCrop
from vidtrain.data.clips.workers import Workers
from vidtrain.data.manifest.manifest import IntLists, Manifest
from vidtrain.data.motion.motion import motion
from vidtrain.data.readers.base import OpenVideo
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.data.readers.timeline import Timeline
from vidtrain.data.settings import EvalConfig, SamplerConfig, TransformConfig
from vidtrain.errors import ConfigError, DataError
from vidtrain.types import Indices, Sample, VideoInfo

SPEC = SamplerConfig(num_frames=4, stride=2)
CUT = TransformConfig(size=24, resize=28, resize_max=36)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Eight videos of 12 frames, 32 x 32, one per class."""
    root = tmp_path_factory.mktemp("motion")
    data = motion(root, train_scenes=1, val_scenes=1, test_scenes=1, size=32, num_frames=12)
    return data.splits["train"]


def clips(manifest: Manifest, **options: Any) -> TrainClips:
    sampler = dataclasses.replace(SPEC, **{key: options.pop(key) for key in list(options) if hasattr(SPEC, key)})
    return TrainClips(manifest, ClipParts(PyAVReader(), sampler, options.pop("cut", CUT)), **{"seed": 3, **options})


def views_of(
    manifest: Manifest,
    size: int = 24,
    resize: int = 28,
    *,
    spec: SamplerConfig = SPEC,
    num_classes: int | None = None,
    **views: Any,
) -> EvalViews:
    parts = ClipParts(PyAVReader(), spec, TransformConfig(size=size, resize=resize))
    return EvalViews(manifest, parts, EvalConfig(**views), num_classes=num_classes)


def with_broken(manifest: Manifest, rows: set[int], folder: Path) -> Manifest:
    """The same manifest where these rows name files that are no videos."""
    paths = list(manifest.paths)
    for row in rows:
        paths[row] = str(folder / f"broken{row}.mp4")
        Path(paths[row]).write_bytes(b"not a video at all, but long enough to be opened")
    return Manifest.of(paths, manifest.labels)


def test_a_clip_is_a_function_of_seed_epoch_and_row(manifest: Manifest) -> None:
    one, again = clips(manifest), clips(manifest)
    sample = one[(2, 5)]
    assert sample.inputs is not None
    assert sample.inputs["rgb"].shape == (1, 4, 24, 24, 3)
    assert sample.inputs["rgb"].dtype == torch.uint8
    again[(0, 1)]  # what was read before does not matter
    assert torch.equal(sample.inputs["rgb"], again[(2, 5)].inputs["rgb"])
    others = [one[(3, 5)].inputs["rgb"], clips(manifest, seed=4)[(2, 5)].inputs["rgb"]]
    assert not any(torch.equal(sample.inputs["rgb"], other) for other in others)


def test_the_number_of_workers_does_not_change_the_data(manifest: Manifest) -> None:
    epochs = []
    for workers in (0, 2):
        loader = TrainLoader(clips(manifest), Workers(workers), batch_size=3)
        first = list(loader.epoch(0))
        epochs.append([*first, *loader.epoch(1)])
        assert len(first) == len(loader) == 2
    for one, other in zip(*epochs, strict=True):
        assert torch.equal(one.inputs["rgb"], other.inputs["rgb"])
        assert torch.equal(one.videos, other.videos)
    rest = list(loader.epoch(1, start=1))
    assert len(rest) == 1
    assert torch.equal(rest[0].inputs["rgb"], epochs[0][3].inputs["rgb"])


@pytest.mark.parametrize("workers", [0, 1])
def test_starting_a_loader_draws_nothing_from_torch(manifest: Manifest, workers: int) -> None:
    """A run that goes on within an epoch starts its loader once more than one that was never stopped."""
    loader = TrainLoader(clips(manifest), Workers(workers), batch_size=2)
    before = torch.get_rng_state()
    next(loader.epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_flip_mirrors_the_frames_and_exchanges_the_classes(manifest: Manifest) -> None:
    exchanged = np.array([1, 0, 2, 3, 5, 4, 6, 7])
    plain = clips(manifest, cut=TransformConfig(24, resize=28, flip=0.0), flip_labels=exchanged)
    flipped = clips(manifest, cut=TransformConfig(24, resize=28, flip=1.0), flip_labels=exchanged)
    for row in range(8):
        one, other = plain[(0, row)], flipped[(0, row)]
        assert one.inputs is not None
        assert other.inputs is not None
        assert torch.equal(one.inputs["rgb"].flip(3), other.inputs["rgb"])
        assert (one.target, other.target) == (row, exchanged[row])


def test_of_several_clips_of_a_video_each_has_the_label_of_its_own_flip(manifest: Manifest) -> None:
    exchanged = np.array([1, 0, 2, 3, 4, 5, 6, 7])
    whole = TransformConfig(size=32, resize=32, flip=0.5)
    plain = clips(manifest, cut=dataclasses.replace(whole, flip=0.0), clips_per_video=6)
    mixed = clips(manifest, cut=whole, clips_per_video=6, flip_labels=exchanged)
    seen = set()
    for epoch in range(4):
        for one, other in zip(plain.clips((epoch, 0)), mixed.clips((epoch, 0)), strict=True):
            assert one.inputs is not None
            assert other.inputs is not None
            flipped = torch.equal(one.inputs["rgb"].flip(3), other.inputs["rgb"])
            assert flipped or torch.equal(one.inputs["rgb"], other.inputs["rgb"])
            assert other.target == (1 if flipped else 0)
            seen.add(flipped)
    assert seen == {False, True}


def test_a_broken_video_is_replaced_always_by_the_same_and_listed(manifest: Manifest, tmp_path: Path) -> None:
    broken = with_broken(manifest, {2, 6}, tmp_path)
    samples = [clips(broken)[(epoch, row)] for epoch in range(5) for row in range(8)]
    again = [clips(broken)[(epoch, row)] for epoch in range(5) for row in range(8)]
    for number, (sample, other) in enumerate(zip(samples, again, strict=True)):
        assert sample.inputs is not None
        assert other.inputs is not None
        assert torch.equal(sample.inputs["rgb"], other.inputs["rgb"])
        assert (sample.video != number % 8) == (number % 8 in (2, 6))
        assert sample.video not in (2, 6)
        assert sample.target == broken.labels[sample.video]
        assert bool(sample.bad) == (number % 8 in (2, 6))
    instead = {sample.video for number, sample in enumerate(samples) if number % 8 == 2}
    assert len(instead) > 1  # another one in another epoch, so that no video is seen twice as often as the rest
    whole = clips(manifest)[(1, 3)]
    assert whole.inputs is not None
    assert torch.equal(whole.inputs["rgb"], samples[8 + 3].inputs["rgb"])  # the others are as without broken ones


def test_nothing_readable_ends_with_a_reason_instead_of_a_loop(manifest: Manifest, tmp_path: Path) -> None:
    broken = with_broken(manifest, set(range(8)), tmp_path)
    with pytest.raises(DataError, match=rf"{MAX_REPLACEMENTS} videos in a row cannot be read; the last: .*broken"):
        clips(broken)[(0, 0)]
    for workers in (0, 1):
        loader = TrainLoader(clips(broken), Workers(workers), batch_size=2)
        with pytest.raises(DataError) as error:
            next(loader.epoch(0))
        assert str(error.value).startswith(f"{MAX_REPLACEMENTS} videos in a row cannot be read; the last: ")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("crops", [1, 3])
def test_views_of_one_pass_equal_those_read_one_by_one(manifest: Manifest, crops: int) -> None:
    cuts = EvalCrops(TransformConfig(size=24, resize=30), crops)
    sample = views_of(manifest, 24, 30, clips=3, crops=crops)[4]
    assert sample.inputs is not None
    assert sample.inputs["rgb"].shape == (3 * crops, 4, 24, 24, 3)
    with PyAVReader().open(manifest.paths[4]) as video:
        info = video.info
    number = 0
    for indices in uniform_clips(Timeline.of(info), SPEC, 3):
        for cut in cuts.all(info):
            with PyAVReader().open(manifest.paths[4]) as video:
                view = cut.apply(video.read(indices, cut.read_size))
            assert np.array_equal(sample.inputs["rgb"][number].numpy(), view)
            number += 1


def test_a_broken_video_is_never_replaced_in_testing(manifest: Manifest, tmp_path: Path) -> None:
    broken = with_broken(manifest, {1, 7}, tmp_path)
    views = views_of(broken, clips=2, batch_size=6)
    batches = list(loader_of_tests(views, Workers(0)))
    assert [video for batch in batches for video in batch.videos.tolist()] == [0, 2, 3, 4, 5, 6]
    assert [Path(bad.path).name for batch in batches for bad in batch.bad] == ["broken1.mp4", "broken7.mp4"]
    alone = views_of(broken, clips=2)[1]
    assert len(collate([alone])) == 0


def test_a_segment_bounds_the_clips(manifest: Manifest) -> None:
    rows = np.zeros(1, dtype=np.int64)
    with PyAVReader().open(manifest.paths[0]) as video:
        fps, frames = video.info.fps, video.read(np.arange(12), (28, 28))
    part = Manifest(manifest.paths.take(rows), rows, np.array([4 / fps]), np.array([11 / fps]))
    views = views_of(part, 28, 28, clips=1)[0].inputs["rgb"]
    assert np.array_equal(views[0].numpy(), frames[[4, 6, 8, 10]])
    late = Manifest(part.paths, part.labels, np.array([99.0]), np.array([100.0]))
    sample = views_of(late, 28, 28, clips=1)[0]
    assert sample.inputs is None
    assert "the segment begins at 99 s" in sample.bad[0].reason


def test_a_video_shorter_than_the_clip_follows_the_policy(manifest: Manifest) -> None:
    long = SamplerConfig(num_frames=8, stride=3, short="error")
    sample = views_of(manifest, spec=long, clips=1)[0]
    assert sample.inputs is None
    assert "the clip spans 22 frames" in sample.bad[0].reason
    looped = views_of(manifest, spec=SamplerConfig(8, 3, short="loop"), clips=1)[0].inputs["rgb"]
    assert looped is not None
    assert torch.equal(looped[0, 0], looped[0, 4])  # frame 12 of 12 is frame 0 again


def test_an_epoch_visits_every_row_once_in_an_order_of_its_own() -> None:
    batches = EpochBatchSampler(10, 3, seed=0)
    batches.epoch = 4
    keys = [key for batch in batches for key in batch]
    assert len(batches) == 3
    assert len(set(keys)) == 9
    assert {epoch for epoch, _, _ in keys} == {4}
    assert {copy for _, _, copy in keys} == {0}
    batches.start = 2
    assert [key for batch in batches for key in batch] == keys[6:]
    batches.epoch, batches.start = 5, 0
    assert [row for batch in batches for _, row, _ in batch] != [row for _, row, _ in keys]
    assert [len(batch) for batch in EpochBatchSampler(2, 8, seed=0)] == [2]  # less than a batch is still a batch


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 300), st.integers(0, 60), st.integers(0, 2**32))
def test_cuts_lie_inside_the_scaled_frame(height: int, width: int, size: int, more: int, seed: int) -> None:
    info = VideoInfo(1, 30.0, height, width)
    drawn = TrainCrop(TransformConfig(size, resize=size + more, resize_max=size + 2 * more)).draw(
        info, np.random.default_rng(seed)
    )
    for cut in (drawn, *EvalCrops(TransformConfig(size, resize=size + more), 3).all(info)):
        assert 0 <= cut.top <= cut.read_size[0] - size
        assert 0 <= cut.left <= cut.read_size[1] - size
    tall, wide = scaled_size(info, size)
    assert min(tall, wide) == size
    assert (tall >= wide) == (height >= width) or tall == wide
    square = TransformConfig(size, resize=size)
    centre, ends = EvalCrops(square, 1).all(info)[0], EvalCrops(square, 3).all(info)
    assert ends[1] == centre
    assert (ends[0].top, ends[0].left) == (0, 0)
    assert (ends[2].top, ends[2].left) == (tall - size, wide - size)


def test_squashing_keeps_the_sides() -> None:
    info = VideoInfo(1, 30.0, 90, 200)
    assert EvalCrops(TransformConfig(32, resize=32, squash=True)).all(info)[0].read_size == (32, 32)
    assert TrainCrop(TransformConfig(32, resize=40, squash=True)).draw(info, np.random.default_rng(0)).read_size == (
        40,
        40,
    )


def test_impossible_cuts_are_refused() -> None:
    small = TransformConfig(32, resize=24)
    for wrong in (
        lambda: TrainCrop(small),
        lambda: TrainCrop(TransformConfig(24, resize=32, resize_max=30)),
        lambda: EvalCrops(small),
    ):
        with pytest.raises(ConfigError, match=r"transform\.resize"):
            wrong()
    for key in ("area", "aspect"):
        with pytest.raises(ConfigError, match=rf"transform\.{key}=\[0\.5\]: two numbers, from and to"):
            TrainCrop(TransformConfig(**{key: [0.5]}))
    with pytest.raises(ConfigError, match=r"transform\.flip=2"):
        TransformConfig(24, resize=24, flip=2)


def test_workers_are_chosen_from_the_machine_unless_asked() -> None:
    assert choose_workers(7, torch.device("cpu")) == 7
    assert 1 <= choose_workers(None, torch.device("cpu")) <= choose_workers(None, torch.device("cuda")) <= 16


def test_samples_of_nothing_collate_to_an_empty_batch() -> None:
    assert len(collate([Sample(None, 0, 0), Sample(None, 1, 1)])) == 0


def counts_of(batches: EpochBatchSampler, epochs: int) -> np.ndarray:
    found = np.zeros((epochs, batches.length), dtype=int)
    for batches.epoch in range(epochs):
        keys = [key for batch in batches for key in batch]
        assert len(set(keys)) == len(keys)  # copies of a row are numbered
        for _, row, _ in keys:
            found[batches.epoch, row] += 1
    return found


@pytest.mark.parametrize(("balance", "shares"), [(0.0, (0.8, 0.2)), (0.5, (2 / 3, 1 / 3)), (1.0, (0.5, 0.5))])
def test_class_balance_makes_rare_classes_as_frequent_as_asked(balance: float, shares: tuple[float, float]) -> None:
    rows = Manifest.of(["a"] * 80 + ["b"] * 20, [0] * 80 + [1] * 20)
    found = counts_of(EpochBatchSampler(100, 10, seed=0, weights=balanced_weights(rows, balance)), 40)
    assert (found.sum(1) == 100).all()
    np.testing.assert_allclose([found[:, :80].sum() / 4000, found[:, 80:].sum() / 4000], shares, atol=0.005)
    # a row never comes more than once more often than another of its class in one epoch
    assert np.ptp(found[:, :80], axis=1).max() <= 1
    assert np.ptp(found[:, 80:], axis=1).max() <= 1
    assert (found.sum(0) > 0).all()


def test_a_row_of_several_classes_weighs_as_its_rarest_and_one_of_none_as_the_commonest() -> None:
    tags = IntLists.of([[0, 1], [0], [0], [0, 2], [2], []])
    rows = dataclasses.replace(Manifest.of(["a"] * 6, [0, 0, 0, 0, 2, -1]), tags=tags)
    assert np.array_equal(balanced_weights(rows, 1.0), [1, 1 / 4, 1 / 4, 1 / 2, 1 / 2, 1 / 4])


def test_the_shares_of_the_classes_are_those_of_the_clips_that_are_drawn() -> None:
    rows = Manifest.of(["a"] * 80 + ["b"] * 20, [0] * 80 + [1] * 20)
    assert class_shares(rows, 3).tolist() == [0.8, 0.2, 0]
    assert class_shares(rows, 2, balance=0.5) == pytest.approx([2 / 3, 1 / 3])
    assert class_shares(rows, 2, balance=1.0) == pytest.approx([0.5, 0.5])
    # a quarter of the clips is mirrored into the other class
    assert class_shares(rows, 2, flip=0.25, flip_labels=np.array([1, 0])) == pytest.approx([0.65, 0.35])
    tags = IntLists.of([[0, 1], [0], [0], [0, 2], []])
    several = dataclasses.replace(Manifest.of(["a"] * 5, [0, 0, 0, 0, -1]), tags=tags)
    assert class_shares(several, 3).tolist() == [0.8, 0.2, 0.2]
    # rows weigh 1, 1/4, 1/4, 1, 1/4: 2.75 in all
    assert class_shares(several, 3, balance=1.0) == pytest.approx([2.5 / 2.75, 1 / 2.75, 1 / 2.75])


def test_a_weighted_epoch_is_shuffled_in_its_own_way() -> None:
    batches, ways = EpochBatchSampler(30, 30, seed=0, weights=np.ones(30)), set()
    for batches.epoch in range(3):
        order = np.random.default_rng((0, batches.epoch)).permutation(30).tolist()
        ways.add(tuple(order.index(row) for _, row, _ in next(iter(batches))))
    assert len(ways) == 3


def test_copies_of_a_row_are_different_clips(manifest: Manifest) -> None:
    one = clips(manifest)
    assert torch.equal(one[(1, 2)].inputs["rgb"], one[(1, 2, 0)].inputs["rgb"])
    assert not torch.equal(one[(1, 2, 0)].inputs["rgb"], one[(1, 2, 1)].inputs["rgb"])


def test_class_balance_out_of_range(manifest: Manifest) -> None:
    with pytest.raises(ConfigError, match=r"sampler\.class_balance=2: must be at least 0 and at most 1"):
        clips(manifest, class_balance=2)


def test_several_clips_of_a_video_stand_side_by_side(manifest: Manifest) -> None:
    exchanged = np.array([1, 0, 2, 3, 5, 4, 6, 7])
    several = clips(manifest, clips_per_video=3, flip_labels=exchanged)
    loader = TrainLoader(several, Workers(0), batch_size=6)
    assert len(loader) == 4
    for batch in loader.epoch(0):
        assert batch.inputs["rgb"].shape == (6, 1, 4, 24, 24, 3)
        assert (batch.videos[:3] == batch.videos[0]).all()
        assert batch.videos[0] != batch.videos[3]
        assert not torch.equal(batch.inputs["rgb"][0], batch.inputs["rgb"][1])
        # each clip has a flip, and so a label, of its own
        for label, video in zip(batch.targets.tolist(), batch.videos.tolist(), strict=True):
            assert label in (video, exchanged[video])
    with pytest.raises(ConfigError, match=r"trainer\.batch_size=8 counts clips.*clips_per_video=3"):
        TrainLoader(several, Workers(0), batch_size=8)


@pytest.mark.parametrize("sizes", [(28, 28, 28), (28, 32, 28)])
def test_clips_of_one_size_are_read_together(
    manifest: Manifest, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    several, path = clips(manifest), manifest.paths[0]
    places = np.array([[0, 2, 4, 6], [1, 3, 5, 7], [2, 2, 2, 2]])
    with several.reader.open(path) as video:
        cuts = [
            TrainCrop(TransformConfig(24, resize=size, flip=0.0)).draw(video.info, np.random.default_rng(0))
            for size in sizes
        ]
        alone = [read_clip(path, video, p, c.read_size, None)[0] for p, c in zip(places, cuts, strict=True)]
        reads: list[int] = []

        def counted(path: str, video: OpenVideo, indices: Indices, *rest: Any) -> Any:
            reads.append(len(indices))
            return read_clip(path, video, indices, *rest)

        monkeypatch.setattr("vidtrain.data.clips.dataset.read_clip", counted)
        together = [frames for frames, _ in several._read(path, video, places, cuts)]
    assert all(map(np.array_equal, together, alone))
    assert reads == ([8] if len(set(sizes)) == 1 else [4, 4, 4])


def test_labels_of_a_multi_label_set_are_vectors(manifest: Manifest) -> None:
    tags = IntLists.of([[row, 7] if row else [] for row in range(8)])
    several = dataclasses.replace(manifest, tags=tags)
    exchanged = np.array([1, 0, 2, 3, 5, 4, 6, 7])
    for flip in (0.0, 1.0):
        cut = TransformConfig(24, resize=28, flip=flip)
        found = clips(several, cut=cut, flip_labels=exchanged, num_classes=8, class_balance=1.0)
        for row in range(8):
            wanted = {exchanged[n] if flip else n for n in tags[row]}
            label = found[(0, row)].target
            assert isinstance(label, torch.Tensor)
            assert label.dtype == torch.float32
            assert set(label.nonzero()[:, 0].tolist()) == wanted
    loader = TrainLoader(found, Workers(0), batch_size=4)
    assert next(loader.epoch(0)).targets.shape == (4, 8)
    views = views_of(several, clips=2, batch_size=4, num_classes=8)
    batches = list(loader_of_tests(views, Workers(0)))
    assert torch.cat([batch.targets for batch in batches]).sum().item() == sum(len(t) for t in tags)


def test_sliding_gives_each_video_the_clips_it_needs(manifest: Manifest) -> None:
    views = views_of(manifest, crops=3, hop=2, batch_size=64)
    loader = loader_of_tests(views, Workers(0))
    # 12 frames, a span of 7: starts at 0, 2, 4 and 5
    assert [part.inputs["rgb"].shape for part in loader] == [(12, 4, 24, 24, 3)] * 8


class Pattern:
    """A video, and its flow, whose values are a function of where they stand; it reads itself, whatever the path."""

    info = VideoInfo(num_frames=20, fps=10.0, height=36, width=48)

    def open(self, path: str) -> Any:
        return contextlib.nullcontext(self)

    def read(self, indices: Indices, size: tuple[int, int]) -> np.ndarray:
        n, y, x, c = np.ix_(indices, np.arange(size[0]), np.arange(size[1]), np.arange(3))
        return ((n * 31 + y * 7 + x * 3 + c * 90 + (n * x * y) % 13) % 256).astype(np.uint8)


class PatternFlow:
    def read(self, path: str, video: Any, indices: Indices, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        n, y, x, c = np.ix_(indices, np.arange(size[0]), np.arange(size[1]), np.arange(2))
        return video.read(indices, size), (1 + (n * 11 + y * 5 + x * 17 + c * 60) % 255).astype(np.uint8)


def test_clips_with_flow_are_those_they_were_as_five_channels() -> None:
    """Checksums of RGB and flow as they were when both stood in one array, whose last field of flow was not used."""
    manifest, transform = Manifest.of(["v0", "v1"], [0, 1]), TransformConfig(24, resize=30, resize_max=34)
    parts = ClipParts(Pattern(), SPEC, transform, PatternFlow())
    samples = []
    for each in (1, 3):
        several = dataclasses.replace(parts, sampler=dataclasses.replace(SPEC, clips_per_video=each))
        clips = TrainClips(manifest, several, seed=5)
        samples += clips.clips((0, 1)) + clips.clips((1, 1))
    samples.append(EvalViews(manifest, parts, EvalConfig(clips=2, crops=3))[0])
    found = [[zlib.crc32(sample.inputs[name].numpy().tobytes()) for name in ("rgb", "flow")] for sample in samples]
    assert found == [
        [1275145805, 3794367153],
        [1891258321, 11882012],
        [270185294, 3583398946],
        [3552291894, 2288497996],
        [3859511239, 1442817942],
        [4220695761, 3029858241],
        [2562323369, 1763003405],
        [228319792, 3172430347],
        [3261233542, 2634157027],
    ]
