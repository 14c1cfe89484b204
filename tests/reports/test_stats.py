"""A data set in numbers, as text and as a figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vidtrain.data.checks.probe_video import Probe
from vidtrain.data.checks.stats import Stats, advice, collect
from vidtrain.data.clips.sampling import ClipSpec
from vidtrain.data.manifest.manifest import Manifest, StringArray, VideoData
from vidtrain.errors import DataError
from vidtrain.reports.check import problems_text, summary_line
from vidtrain.reports.stats import histogram, stats_figure, stats_text


def made(classes: int, videos: int, **columns: object) -> Stats:
    """Random numbers, with one video of each class at least."""
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, videos - classes)])
    splits = np.array(["train", "test"])[(np.arange(videos) % 4 == 3).astype(int)]
    frames, fps = rng.integers(100, 300, videos), np.full(videos, 25.0)
    given = {"frames": frames, "fps": fps, **columns}
    return Stats(
        **{  # type: ignore[arg-type]
            "splits": splits,
            "labels": labels,
            "seconds": np.asarray(given["frames"]) / given["fps"],
            "heights": np.full(videos, 128),
            "widths": np.full(videos, 170),
            "sizes": np.full(videos, 50_000),
            "codecs": np.full(videos, "h264"),
            "class_names": tuple(f"class {n} with a name that is a little long" for n in range(classes)),
            "counts": {split: np.bincount(labels[splits == split], minlength=classes) for split in ("train", "test")},
            "unreadable": 0,
            "missing": 0,
            **given,
        }
    )


def test_collect_takes_segments_and_leaves_out_what_cannot_be_read() -> None:
    starts, ends = np.array([0.0, 2.0, 0.0, 99.0]), np.array([4.0, np.inf, np.inf, np.inf])
    train = Manifest(StringArray.of(["a", "a", "b", "a"]), np.array([0, 1, 1, 0]), starts, ends, missing=["c"])
    files = [str(Path(name).absolute()) for name in ("a", "b")]
    probes = {files[0]: Probe(frames=250, fps=25.0, height=4, width=6, codec="vp9", size=9), files[1]: Probe(error="x")}
    stats = collect(VideoData(("p", "q"), {"train": train}), probes)
    assert stats.frames.tolist() == [100, 200]
    assert stats.seconds.tolist() == [4.0, 8.0]
    assert (stats.unreadable, stats.missing) == (2, 1)
    assert stats.counts["train"].tolist() == [2, 2]
    assert stats.short_sides.tolist() == [4, 4]
    with pytest.raises(DataError, match="no video of the dataset can be read"):
        collect(VideoData(("p",), {"train": Manifest.of(["b"], [0])}), probes)


def test_histogram_counts_everything_once() -> None:
    values = np.concatenate([np.linspace(1, 10, 500), [4000.0]])
    lines = histogram(values)
    assert sum(int(line.split("#")[0].split()[-1]) for line in lines) == 501
    assert lines[-1].split() == ["longer", "5"]  # those beyond the 99 % quantile
    assert len(histogram(np.full(7, 3.0))) == 1
    assert histogram(np.array([1.0, 2.0]))[0].endswith("#" * 40)


def test_text_of_many_classes_is_short() -> None:
    lines = stats_text("big", made(400, 3000)).splitlines()
    assert len(lines) < 60
    assert any(line.startswith("... 380 more") for line in lines)
    sizes = [int(line.split()[-2]) for line in lines if line.startswith("class ") and "with" in line]
    assert len(sizes) == 20


@pytest.mark.parametrize("classes", [1, 3, 60])
def test_figure(tmp_path: Path, classes: int) -> None:
    stats = made(classes, 900)
    figure = stats_figure("set", stats, clip_seconds=1.2)
    bars, durations, _, _ = figure.axes
    assert sum(bar.get_width() for bar in bars.patches) == 900
    assert sum(bar.get_height() for bar in durations.patches) == 900
    names = [text.get_text() for text in bars.get_yticklabels()]
    assert len(names) == min(classes, 40)
    assert all(len(name) <= 28 for name in names)
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_figure_of_videos_that_are_all_alike(tmp_path: Path) -> None:
    stats = made(2, 10, frames=np.full(10, 50))
    figure = stats_figure("set", stats)
    assert sum(bar.get_height() for bar in figure.axes[1].patches) == 10
    figure.savefig(tmp_path / "figure.png")


SPEC = ClipSpec(16, 2)  # spans 31 frames


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({}, "a clip of 16 frames, 2 apart spans 1.2 s in the median video; every video is long enough"),
        ({"frames": np.array([20] * 10 + [100] * 90)}, "10 % of the videos are shorter (sampler.short=repeat_last)"),
        ({"frames": np.array([20] * 10 + [100] * 90)}, "with sampler.stride=1 it fits into 95 % of them"),
        ({"frames": np.array([20] * 1 + [100] * 99)}, "1 % of the videos are shorter"),
        ({"frames": np.full(100, 31 * 50)}, "the median video is 50 clips long"),
        ({"fps": np.array([10.0] * 20 + [30.0] * 80)}, "frame rates run from 10 to 30 fps, so a clip covers 3 times"),
        ({"fps": np.array([10.0] * 20 + [30.0] * 80)}, "sampler.fps=15 makes them alike"),
        ({"heights": np.full(100, 720), "widths": np.full(100, 1280)}, "the median short side is 720 pixels"),
        ({"heights": np.array([64] * 50 + [128] * 50)}, "50 % of the videos are smaller than transform.resize=128"),
        (
            {"counts": {"train": np.array([30, 3, 0])}},
            "has 30 videos, class 1 with a name that is a little long has 3 ",
        ),
        ({"unreadable": 2}, "unreadable videos: 2"),
    ],
)
def test_advice(columns: dict[str, object], said: str) -> None:
    assert any(said in line for line in advice(made(3, 100, **columns), SPEC, short_side=128))


def test_no_advice_without_a_reason() -> None:
    assert len(advice(made(3, 100), SPEC, short_side=128)) == 1
    mixed = made(3, 100, fps=np.array([10.0] * 20 + [30.0] * 80))
    assert not any("frame rates" in line for line in advice(mixed, ClipSpec(16, fps=10), short_side=128))
    assert "a frame from each of 16 parts" in advice(mixed, ClipSpec(16, mode="segments"), short_side=128)[0]


def test_check_in_order() -> None:
    data = VideoData(("a",), {"train": Manifest.of(["x", "y"], [0, 0], ["z"])})
    assert problems_text(data, []) == ""
    assert summary_line(data, []) == "the files of all 3 rows can be read"
    assert summary_line(data, [], 1) == "the files of all 3 rows can be read; 1 note above"


def test_the_legend_covers_no_bar() -> None:
    figure = stats_figure("small", made(4, 40))
    figure.canvas.draw()
    axes = figure.axes[0]
    legend = axes.get_legend()
    assert legend is not None
    assert legend.get_window_extent().x0 >= axes.get_window_extent().x1
