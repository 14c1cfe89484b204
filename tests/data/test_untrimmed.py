"""Whole videos with what happens in them when, and the windows that training draws from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vidtrain.data.clips.dataset import ClipParts, EvalViews, NoTimeLeftError, as_video_error
from vidtrain.data.clips.loader import collate, row_weights
from vidtrain.data.clips.windows import TrainWindows
from vidtrain.data.manifest.index import read_index, write_index
from vidtrain.data.manifest.manifest import IntLists, Manifest, SegmentLists, VideoData
from vidtrain.data.manifest.untrimmed import stretches, untrimmed
from vidtrain.data.settings import EvalConfig, SamplerConfig, TransformConfig
from vidtrain.errors import ConfigError, DataError
from vidtrain.segments import Annotated
from vidtrain.sequences import Sequences
from vidtrain.types import Sample, VideoInfo

ROWS = [("a", 1.0, 3.0, 0), ("b", 0.0, 2.0, 1), ("a", 2.0, 5.0, 1), ("a", 2.0, 5.0, 0)]


def segments(*rows: tuple[str, float, float, int]) -> Manifest:
    plain = Manifest.of([row[0] for row in rows], [row[3] for row in rows], missing=("q", "q"))
    return replace(plain, starts=np.array([r[1] for r in rows]), ends=np.array([r[2] for r in rows]))


def test_rows_become_videos_with_their_segments() -> None:
    val = segments(*ROWS[:2])
    data = untrimmed(VideoData(("walk", "run"), {"train": segments(*ROWS), "val": val, "test": val}))
    train = data.splits["train"]
    assert train.segments is not None
    assert list(train.paths) == ["a", "b"]
    assert train.segments[0].tolist() == [[1, 3, 0], [2, 5, 0], [2, 5, 1]]
    assert train.segments[1].tolist() == [[0, 2, 1]]
    assert (train.starts, train.missing) == (None, ("q",))
    assert train.labels.tolist() == [-1, -1]
    assert train.take(np.array([1])).segments[0].tolist() == [[0, 2, 1]]  # type: ignore[index]
    assert data.splits["val"] is data.splits["test"]
    assert data.untrimmed
    assert data.multi_label
    assert untrimmed(data) is data
    several = replace(segments(*ROWS[:1]), tags=IntLists.of([[0, 1]]))
    table = untrimmed(VideoData(("walk", "run"), {"train": several})).splits["train"].segments
    assert table is not None
    assert table[0].tolist() == [[1, 3, 0], [1, 3, 1]]
    with pytest.raises(DataError, match="train: its rows have no start and end"):
        untrimmed(VideoData(("walk",), {"train": Manifest.of(["a"], [0])}))


def test_stretches_of_equal_things() -> None:
    table = SegmentLists.of([np.array([[1, 3, 0], [2, 5, 1.0]]), np.empty((0, 3)), np.array([[0.0, 2, 1], [2, 4, 1]])])
    found, seconds = stretches(replace(Manifest.of("abc", [-1] * 3), segments=table))
    assert found.tags is not None
    assert found.starts is not None
    assert found.ends is not None
    rows = list(
        zip(found.paths, found.starts.tolist(), found.ends.tolist(), (t.tolist() for t in found.tags), strict=True)
    )
    assert rows == [
        ("a", 0, 1, []),
        ("a", 1, 2, [0]),
        ("a", 2, 3, [0, 1]),
        ("a", 3, 5, [1]),
        ("a", 5, np.inf, []),
        ("b", 0, np.inf, []),
        ("c", 0, 2, [1]),
        ("c", 2, 4, [1]),
        ("c", 4, np.inf, []),
    ]
    assert seconds.tolist() == [1, 1, 1, 2, 1, 1, 2, 2, 1]  # what has no end counts as the gaps that have one


def parts(**sampler: Any) -> ClipParts:
    return ClipParts(None, SamplerConfig(num_frames=5, stride=2, **sampler), TransformConfig(size=32))  # type: ignore[arg-type]


@pytest.fixture
def manifest() -> Manifest:
    return replace(Manifest.of(["a"], [-1]), segments=SegmentLists.of([np.array([[2.0, 4, 1], [7.0, 8, 0]])]))


def test_the_centre_of_a_window_says_what_it_shows(manifest: Manifest) -> None:
    clips = TrainWindows(manifest, parts(clips_per_video=3), seed=0, num_classes=2)
    info = VideoInfo(100, 10.0, 32, 32)
    assert [clips.targets[row].tolist() for row in range(5)] == [[0, 0], [0, 1], [0, 0], [1, 0], [0, 0]]  # type: ignore[union-attr]
    assert clips.manifest.starts is not None
    for row, (start, end) in enumerate([(0, 2), (2, 4), (4, 7), (7, 8), (8, 10)]):
        found = np.concatenate([clips.places(info, row, np.random.default_rng(seed)) for seed in range(30)])
        assert found.shape == (90, 5)
        assert (np.diff(found) == 2).all()
        # frames k to k + 8 of 0.1 s each; at the ends as near as a window can be
        centres = (found[:, 0] + found[:, 4] + 1) / 20
        low, high = max(start, 0.45), min(end, 9.55)
        assert (centres > low - 0.11).all()
        assert (centres < high + 0.11).all()
        assert np.ptp(centres) > 0.7 * (high - low)
    short = VideoInfo(6, 10.0, 32, 32)
    assert clips.places(short, 0, np.random.default_rng(0)).max() == 5
    with pytest.raises(NoTimeLeftError, match=r"ends at 2 s, the video at 0\.6 s"):
        clips.places(short, 1, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="cannot slide"):
        TrainWindows(manifest, ClipParts(None, SamplerConfig(mode="segments"), TransformConfig()), seed=0)  # type: ignore[arg-type]


def test_a_row_beyond_the_end_is_no_broken_video(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    clips, made = TrainWindows(manifest, parts(), seed=0, num_classes=2), [Sample({}, 0, 0)]

    def load(row: int, rng: np.random.Generator, bad: tuple[Any, ...]) -> list[Sample]:
        if row == 4:
            raise NoTimeLeftError("a", "at 8 s")
        assert bad == ()
        return made

    with pytest.raises(NoTimeLeftError), as_video_error("a"):
        clips.places(VideoInfo(80, 10.0, 32, 32), 4, np.random.default_rng(0))
    monkeypatch.setattr(clips, "_load", load)
    assert clips.clips((0, 4)) is made
    monkeypatch.setattr(clips, "_load", lambda *_: load(4, *_[1:]))
    with pytest.raises(DataError, match="no window of 199 lies in its video"):
        clips.clips((0, 4))


def test_what_is_read_where_labels_reach_the_end_of_a_video() -> None:
    """No stretch follows them: another one of the same video is read, and no video is bad for it."""
    tables = [np.array([[1.0, 3, 0], [4.0, 8, 1]]), np.array([[0.0, 3, 0], [3.0, 9, 1]])]
    manifest = replace(Manifest.of(["a", "b"], [-1, -1]), segments=SegmentLists.of(tables))
    clips = TrainWindows(manifest, parts(), seed=0, num_classes=2)
    assert list(clips.manifest.paths) == ["a"] * 5 + ["b"] * 3
    found = [[clips.instead(row, np.random.default_rng(n)) for n in range(300)] for row in (4, 7, 3)]
    assert [set(rows) for rows in found] == [{0, 2}, {5, 6}, {1}]
    assert found[1].count(6) / 300 == pytest.approx(2 / 3, abs=0.08)  # 6 of 9 seconds
    read: list[int] = []

    def load(row: int, rng: np.random.Generator, bad: tuple[Any, ...]) -> list[Sample]:
        clips.places(VideoInfo(80, 10.0, 32, 32), row, rng)
        read.append(row)
        return [Sample({}, 0, row, bad)]

    clips._load = load  # type: ignore[method-assign]
    assert all(not clips.clips((epoch, 4))[0].bad for epoch in range(20))
    assert set(read) == {0, 2}


def test_the_share_of_the_background(manifest: Manifest) -> None:
    clips = TrainWindows(manifest, parts(), seed=0, num_classes=2)
    assert clips.weights is not None
    assert clips.weights.tolist() == [2, 2, 3, 1, 2.5]
    clips = TrainWindows(manifest, parts(background=0.4), seed=0, num_classes=2)
    assert clips.weights is not None
    assert clips.weights[[0, 2, 4]].sum() == pytest.approx(0.4)
    assert clips.weights[[1, 3]].tolist() == pytest.approx([0.4, 0.2])
    both = row_weights(clips.manifest, 1.0, clips.weights)
    assert both is not None
    assert both[1] / both[3] == pytest.approx(2)


def test_an_index_keeps_segments(tmp_path: Path) -> None:
    data = untrimmed(VideoData(("walk", "run"), {"train": segments(*ROWS)}))
    write_index(tmp_path, data)
    back = read_index(tmp_path).splits["train"]
    assert back.segments is not None
    assert [back.segments[row].tolist() for row in range(2)] == [[[1, 3, 0], [2, 5, 0], [2, 5, 1]], [[0, 2, 1]]]
    for name, wrong in (
        ("segments", np.array([0, 9, 0, 1])),
        ("segment_ends", np.array([3.0, 1.0, 5.0, 2.0])),
        ("segment_starts", np.array([1.0, np.nan, 2.0, 0.0])),
        ("segment_offsets", np.array([0, 9, 4])),
        ("segments", np.array([0, 0])),
    ):
        write_index(tmp_path, data)
        np.save(tmp_path / f"train.{name}.npy", wrong)
        with pytest.raises(DataError, match="not an index that can be read"):
            read_index(tmp_path)


def test_the_target_of_a_test_is_what_happens_and_its_windows(manifest: Manifest) -> None:
    views = EvalViews(manifest, parts(), EvalConfig(clips=1, hop=10), num_classes=2)
    times = np.cumsum([0.0, *([0.1] * 50), *([0.2] * 50)])
    target = views.target(VideoInfo(100, 7.0, 32, 32, times), 0, np.array([[0, 2, 4], [60, 62, 64]]))
    assert isinstance(target, torch.Tensor)
    found = Annotated.of(target.numpy())
    assert found.seconds == pytest.approx(15)
    assert found.windows == pytest.approx(np.array([[0, 0.5], [7, 8]]))
    assert found.truth.tolist() == [[2, 4, 1], [7, 8, 0]]


def test_tables_of_unequal_length_in_a_batch() -> None:
    tables = [torch.arange(6.0).reshape(2, 3), torch.ones(1, 3), torch.empty(0, 3)]
    batch = collate([Sample({"rgb": torch.zeros(1, 1)}, table, n) for n, table in enumerate(tables)])
    assert isinstance(batch.targets, Sequences)
    assert [part.targets.lengths.tolist() for part in batch.split(2)] == [[2, 1], [0]]
    kept = batch.targets[torch.tensor([True, False, True])]
    assert kept.lengths.tolist() == [2, 0]
    assert torch.equal(kept.values, tables[0])
    joined = Sequences.joined([kept, batch.targets[torch.tensor([1])]])
    assert [part.tolist() for part in joined.each()] == [tables[0].tolist(), [], [[1, 1, 1]]]
    assert Sequences.of([torch.tensor([[1.0], [torch.nan]]), torch.ones(1, 1)]).finite().tolist() == [False, True]
