"""Views in parts: bit for bit those of a whole video, scored to the very same numbers, and never held all at once."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.data.moving import moving
from tests.sampled import sampled
from tests.videos import write_video
from vidtrain.data.clips import view_stream
from vidtrain.data.clips.dataset import ClipParts, EvalViews
from vidtrain.data.clips.loader import collate
from vidtrain.data.clips.loader import eval_loader as loader_of_tests
from vidtrain.data.clips.protocols import protocol_clips
from vidtrain.data.clips.view_stream import ViewStream
from vidtrain.data.clips.workers import Workers
from vidtrain.data.flow.methods import OPENCV, OpenCVFlow
from vidtrain.data.flow.source import ComputedFlow
from vidtrain.data.manifest.manifest import Manifest
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.data.readers.streaming import OutOfOrderError
from vidtrain.data.readers.timeline import Timeline
from vidtrain.data.settings import EvalConfig, EvalProtocol, SamplerConfig, TransformConfig
from vidtrain.engine.evaluator import evaluate, predict_videos
from vidtrain.engine.precision import Precision
from vidtrain.engine.preprocess import ModelRunner, Preprocess
from vidtrain.engine.settings import PrecisionName
from vidtrain.tasks.classification.task import Classification
from vidtrain.tasks.task import Predictions
from vidtrain.types import Batch, Frames, ViewPart
from vidtrain.view_subsets import spread_views

CPU = torch.device("cpu")
PRECISION = Precision(PrecisionName.fp32, CPU)
TASK = Classification("abc")
PREPROCESS = Preprocess([0.5] * 3, [0.25] * 3, CPU)
SPEC = SamplerConfig(4, 2)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Videos of 40, 3 and 25 frames, one that does not open, and one of 12 frames."""
    folder = tmp_path_factory.mktemp("videos")
    lengths = {"a": 40, "b": 3, "c": 25, "e": 12}
    for seed, (name, frames) in enumerate(lengths.items()):
        write_video(folder / f"{name}.mkv", moving(frames, (1.0, 0.5), 40, 56, seed=seed))
    (folder / "d.mkv").write_bytes(b"no video")
    return [str(folder / f"{name}.mkv") for name in "abcde"]


def views_of(paths: list[str], *, spec: SamplerConfig = SPEC, **options: Any) -> EvalViews:
    manifest = Manifest.of(paths, [n % 3 for n in range(len(paths))])
    parts = ClipParts(PyAVReader(), spec, TransformConfig(size=32, resize=36), options.pop("flow", None))
    return EvalViews(manifest, parts, EvalConfig(**{"clips": 1, **options}))


class Net(nn.Module):
    """Convolutions whose last bits may depend on how many clips go through at once."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.layers = nn.Sequential(nn.Conv3d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 3, 3))
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator) * 0.3

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return found.mean((2, 3, 4))


def network() -> ModelRunner:
    return ModelRunner(Net().eval(), PREPROCESS, PRECISION)


def gathered(parts: Iterator[ViewPart], size: int, name: str = "rgb") -> dict[int, Tensor]:
    found: dict[int, list[Tensor]] = {}
    for part in parts:
        assert part.bad is None
        assert len(part) <= size
        assert part.first == 0 or part.first == sum(map(len, found[part.video]))
        found[part.video] = [part.inputs[name]] if part.first == 0 else [*found[part.video], part.inputs[name]]
    return {row: torch.cat(views) for row, views in found.items()}


@pytest.mark.parametrize("size", sampled([1, 7, 1000], [7]))
@pytest.mark.parametrize(
    "options",
    [
        {"hop": 1},
        {"hop": 5, "crops": 3},
        {"hop": 3, "spec": SamplerConfig(8, 1, short="loop")},
        {"clips": 50},
        {"clips": 9, "crops": 10},
        {"clips": 6, "spec": SamplerConfig(5, mode="segments")},
        {"hop": 4, "spec": SamplerConfig(4, fps=60.0)},
        {
            "clips": 2,
            "spec": SamplerConfig(5, mode="segments"),
            "crops": 3,
            "protocol": EvalProtocol.tsm,
        },  # later first
        {"clips": 9, "spec": SamplerConfig(8, window=24), "protocol": EvalProtocol.mmaction2},  # wraps around
    ],
    ids=str,
)
def test_parts_are_the_whole(paths: list[str], options: dict[str, Any], size: int) -> None:
    sound = [path for path in paths if "d.mkv" not in path]
    views = views_of(sound, **options)
    found = gathered(iter(ViewStream(views, range(4), size=size)), size)
    assert sorted(found) == [0, 1, 2, 3]
    for row in range(4):
        whole = views[row].inputs
        assert whole is not None
        assert torch.equal(found[row], whole["rgb"])


def test_views_are_those_of_the_protocol(paths: list[str]) -> None:
    views = views_of(paths[:1], clips=3, spec=SamplerConfig(4, 4), protocol=EvalProtocol.pyslowfast)
    with views.reader.open(paths[0]) as video:
        found = views.indices(video, 0)
        expected = protocol_clips(EvalProtocol.pyslowfast, Timeline(40, video.info.fps), SamplerConfig(4, 4), 3)
    assert np.array_equal(found, expected)


@pytest.mark.skipif("farneback" not in OPENCV, reason="needs OpenCV")
def test_parts_with_flow_are_the_whole(paths: list[str]) -> None:
    pytest.importorskip("cv2")
    views = views_of(paths[:1], hop=3, crops=3, flow=ComputedFlow(OpenCVFlow("farneback")))
    whole = views[0].inputs
    assert whole is not None
    assert sorted(whole) == ["flow", "rgb"]
    for name, value in whole.items():
        assert torch.equal(gathered(iter(ViewStream(views, [0], size=7)), 7, name)[0], value)


def test_a_frame_that_turns_out_wrong_starts_the_video_again(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    real = view_stream.cut_clips

    def odd(*args: Any, pieces: bool) -> Iterator[list[Frames]]:
        for number, clip in enumerate(real(*args, pieces=pieces)):
            if not pieces:
                if number == 11:
                    raise OutOfOrderError
                clip = [np.zeros_like(view) for view in clip]
            yield clip

    monkeypatch.setattr(view_stream, "cut_clips", odd)
    views = views_of(paths[:1], hop=1)
    whole = views[0].inputs
    assert whole is not None
    assert torch.equal(gathered(iter(ViewStream(views, [0], size=4)), 4)[0], whole["rgb"])
    stream: Any = ViewStream(views, [0], size=4)
    (found,) = scores_of(stream, 4)
    (expected,) = scores_of([collate([views[0]])], 4)
    assert torch.equal(found.columns["probs"], expected.columns["probs"])


def scores_of(batches: Any, size: int) -> list[Predictions]:
    return list(predict_videos(TASK, network(), batches, views_per_forward=size))


@pytest.mark.parametrize(("workers", "average"), [(0, "logits"), (2, "probabilities")])
@pytest.mark.parametrize("options", [{"hop": 1}, {"clips": 30, "crops": 3}], ids=str)
def test_scores_are_equal_to_the_bit(paths: list[str], options: dict[str, Any], workers: int, average: str) -> None:
    size = 8
    views = views_of(paths, batch_size=size, **options)
    rows = [4, 0, 3, 1]  # as one of several processes has them; in this order
    whole: list[Batch] = [collate([views[row]]) for row in rows]
    batches = loader_of_tests(views, Workers(workers), rows=rows)
    expected = evaluate(TASK, network(), whole, views_per_forward=size, average=average)
    found = evaluate(TASK, network(), batches, views_per_forward=size, average=average)
    assert found.videos.tolist() == expected.videos.tolist() == [4, 0, 1]
    for name in ("probs", "labels", "clip_hits"):
        assert torch.equal(found.columns[name], expected.columns[name]), name
    assert [bad.path for bad in found.bad] == [bad.path for bad in expected.bad] == [paths[3]]


def test_a_video_that_breaks_on_the_way_has_no_scores(paths: list[str], tmp_path: Path) -> None:
    data = bytearray(Path(paths[0]).read_bytes())
    data[int(len(data) * 0.7) : int(len(data) * 0.7) + 400] = bytes(400)
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(data)
    views = views_of([str(broken), paths[4]], hop=1)
    whole = views[0]
    parts = list(ViewStream(views, range(2), size=4))
    assert any(part.video == 0 and len(part) for part in parts)
    first, second = scores_of(parts, 4)
    assert ([bad.reason for bad in first.bad], len(first.videos)) == ([bad.reason for bad in whole.bad], 0)
    assert whole.bad
    assert second.videos.tolist() == [1]


def test_several_classes_and_the_order_of_finishing(paths: list[str]) -> None:
    views = torch.randint(0, 256, (2, 4, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([1.0, 0.0, 1.0])
    late = ViewPart({"rgb": views}, 0, 4, label, 7, 0)
    early = ViewPart({"rgb": views[:1]}, 0, 1, label, 9, 1)
    rest = ViewPart({"rgb": views.flip(0)}, 2, 4, label, 7, 0)
    found = evaluate(Classification("abc", multi_label=True), network(), [late, early, rest], views_per_forward=2)
    assert found.videos.tolist() == [7, 9]
    assert found.columns["labels"].shape == (2, 3)
    assert (found.columns["probs"].sum(1) - 1).abs().min() > 1e-3  # sigmoids


def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    peaks = []
    for frames in (20, 100, 400):  # the first to have everything imported
        path = write_video(tmp_path / f"{frames}.mkv", (np.full((40, 40, 3), n % 256, np.uint8) for n in range(frames)))
        views = views_of([str(path)], hop=1, spec=SamplerConfig(16, 1))
        tracemalloc.start()
        count = sum(len(part) for part in ViewStream(views, [0], size=4))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert count == frames - 15
    assert peaks[2] < peaks[1] + 500_000  # all views of the longer one are 19 MB, its frames 1.2 MB


# ---------------------------------------------------------------- fewer views than there are


@pytest.mark.parametrize("most", sampled([1, 2, 7, 100], [1, 7]))
@pytest.mark.parametrize(
    "options",
    [
        {"clips": 5},
        {"clips": 4, "crops": 3},
        {"hop": 4, "crops": 3},
        {"clips": 2, "spec": SamplerConfig(4, mode="segments"), "crops": 3, "protocol": EvalProtocol.tsm},
        {"clips": 4, "flow": ComputedFlow(OpenCVFlow(next(iter(OPENCV))))},
    ],
    ids=str,
)
def test_fewer_views_are_those_that_lie_farthest_apart(paths: list[str], options: dict[str, Any], most: int) -> None:
    """In whole videos and in parts."""
    rows = [0, 1, 2, 4]
    every, fewer = views_of(paths, **options), views_of(paths, **options, max_views=most)
    parts = {name: gathered(iter(ViewStream(fewer, rows, size=2)), 2, name) for name in every[0].inputs or ()}
    assert parts
    for row in rows:
        whole, some = every[row].inputs, fewer[row].inputs
        assert whole is not None
        assert some is not None
        kept = sorted(spread_views(len(whole["rgb"]), most))
        assert len(kept) == min(most, len(whole["rgb"]))
        for name, found in parts.items():
            assert torch.equal(some[name], whole[name][kept])
            assert torch.equal(found[row], whole[name][kept])
    if "hop" not in options:
        assert fewer.per_video == min(most, every.per_video or 0)


def test_the_order_of_views() -> None:
    assert spread_views(10, 64) == (4, 9, 0, 2, 6, 1, 3, 5, 7, 8)
    assert spread_views(10, 3) == (4, 9, 0)
    assert spread_views(1, 5) == (0,)
    assert spread_views(0, 5) == ()
    for total in (2, 3, 7, 30, 200):
        order = spread_views(total, total)
        assert sorted(order) == list(range(total))
        for count in range(2, total):  # none of the others lies farther from those before
            gap = [min(abs(view - other) for other in order[:count]) for view in range(total)]
            assert gap[order[count]] == max(gap)
