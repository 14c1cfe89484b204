"""The numbers of a dataset as text and as a figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vidtrain.data.checks.stats import Stats, quantiles
from vidtrain.reports.figures import figure_label, new_figure
from vidtrain.reports.table import table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_ROWS = 20  # of the table of classes; more are cut to the largest and the smallest
_MOST_NAMES = 40  # classes whose names can be read beside their bars
_MOST_VALUES = 5  # frame rates, sizes and codecs distinguished in the text
_BINS = 12
_BAR = 40  # characters
_COLOURS = {"train": "#4477aa", "val": "#ccbb44", "test": "#ee6677"}


# ---------------------------------------------------------------- text


def stats_text(name: str, stats: Stats) -> str:
    """Tables of classes and numbers, a histogram of the durations, and the commonest rates, sizes and codecs."""
    counts = ", ".join(f"{int(count.sum())} {split}" for split, count in stats.counts.items())
    hours = stats.seconds.sum() / 3600
    total = f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.1f} minutes"
    lines = [f"{name}: {len(stats.class_names)} classes, videos: {counts}; {total} that can be read"]
    if stats.missing:
        lines[0] += f", {stats.missing} listed videos are not on the disk"
    lines += ["", _class_table(stats), "", _number_table(stats), "", "seconds", *histogram(stats.seconds), ""]
    lines.append(f"fps     {_common([f'{fps:.4g}' for fps in stats.fps])}")
    lines.append(f"size    {_common([f'{w}x{h}' for w, h in zip(stats.widths, stats.heights, strict=True)])}")
    lines.append(f"codec   {_common(stats.codecs.tolist())}")
    return "\n".join(lines)


def _class_table(stats: Stats) -> str:
    totals = sum(stats.counts.values())
    order = np.argsort(-np.asarray(totals), kind="stable").tolist()
    rows = [[stats.class_names[k], *(int(count[k]) for count in stats.counts.values())] for k in order]
    if len(rows) > _MOST_ROWS:
        half = _MOST_ROWS // 2
        between: list[Any] = [f"... {len(rows) - 2 * half} more", *("" for _ in stats.counts)]
        rows = [*rows[:half], between, *rows[-half:]]
    return table(["class", *stats.counts], rows)


def _number_table(stats: Stats) -> str:
    megabytes = stats.sizes / 1e6
    columns: list[tuple[str, npt.NDArray[Any], str]] = [
        ("seconds", stats.seconds, ".2f"),
        ("frames", stats.frames, ".0f"),
        ("fps", stats.fps, ".2f"),
        ("width", stats.widths, ".0f"),
        ("height", stats.heights, ".0f"),
        ("file MB", megabytes, ".3f"),
    ]
    rows = [[name, *(format(q, form) for q in quantiles(values))] for name, values, form in columns]
    return table(["", "min", "5 %", "median", "95 %", "max"], rows)


def histogram(values: npt.NDArray[np.float64]) -> list[str]:
    """Lines of bars. The upper end is the 99 % quantile, or a single long video would leave one bar."""
    counts, edges, beyond = _bins(values)
    most = max(1, int(counts.max()))
    lines = [
        f"{low:9.2f} to {high:<9.2f} {count:7d} {'#' * ceil(_BAR * count / most)}".rstrip()
        for low, high, count in zip(edges[:-1], edges[1:], counts.tolist(), strict=True)
    ]
    return [*lines, f"{'longer':>22} {beyond:7d}"] if beyond else lines


def _bins(values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], int]:
    """(counts, edges, values beyond the last edge)"""
    low, high, top = float(values.min()), float(np.quantile(values, 0.99)), float(values.max())
    if top <= 1.2 * high:
        high = top
    if high - low < 1e-6 * max(1.0, high):
        return np.array([len(values)]), np.array([low, top]), 0
    counts, edges = np.histogram(values[values <= high], _BINS, (low, high))
    return counts, edges, int((values > high).sum())


def _common(values: Sequence[str]) -> str:
    """'25 (80 %), 29.97 (20 %)': the commonest first."""
    found = Counter(values).most_common()
    shown = [f"{value} ({100 * count / len(values):.3g} %)" for value, count in found[:_MOST_VALUES]]
    more = [f"{len(found) - _MOST_VALUES} others"] if len(found) > _MOST_VALUES else []
    return ", ".join([*shown, *more])


# ---------------------------------------------------------------- figure


def stats_figure(name: str, stats: Stats, *, clip_seconds: float | None = None) -> Figure:
    """Four plots: classes, durations (with the length of a clip), frame rates, sizes."""
    shown = min(len(stats.class_names), _MOST_NAMES)
    height = max(8.0, 2.0 + 0.22 * shown)
    figure = new_figure(figsize=(14, height))
    grid = figure.add_gridspec(3, 2)
    figure.suptitle(f"{name}: {len(stats)} videos, {len(stats.class_names)} classes")
    _plot_classes(figure.add_subplot(grid[:, 0]), stats)
    _plot_durations(figure.add_subplot(grid[0, 1]), stats, clip_seconds)
    _plot_rates(figure.add_subplot(grid[1, 1]), stats)
    _plot_sizes(figure.add_subplot(grid[2, 1]), stats)
    return figure


def _plot_classes(axes: Axes, stats: Stats) -> None:
    """Bars, the largest class on top; of many classes the outline only, with a few names."""
    totals = np.asarray(sum(stats.counts.values()))
    order = np.argsort(-totals, kind="stable")
    places = np.arange(len(order))
    left = np.zeros(len(order))
    for split, count in stats.counts.items():
        thickness = 0.8 if len(order) <= _MOST_NAMES else 1.0
        axes.barh(places, count[order], thickness, left=left, label=split, color=_COLOURS.get(split))
        left += count[order]
    named = places if len(order) <= _MOST_NAMES else np.unique(np.linspace(0, len(order) - 1, _MOST_NAMES).astype(int))
    axes.set_yticks(
        named, [figure_label(stats.class_names[order[place]]) for place in named], fontsize=8, parse_math=False
    )
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.set_xlabel("videos")
    title = "videos of each class"
    axes.set_title(title if len(named) == len(order) else f"{title} (every {len(order) / len(named):.0f}th is named)")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)  # within the axes it covers a bar


def _plot_durations(axes: Axes, stats: Stats, clip_seconds: float | None) -> None:
    _, edges, beyond = _bins(stats.seconds)
    if len(edges) > 2:
        edges = np.linspace(edges[0], edges[-1], 41)
    bins = edges.tolist() if edges[-1] > edges[0] else 1
    axes.hist(stats.seconds[stats.seconds <= edges[-1]], bins, color="#228833")
    if clip_seconds is not None:
        axes.axvline(clip_seconds, color="black", linestyle="--", label=f"a clip: {clip_seconds:.3g} s")
        axes.legend()
    axes.set_title("durations" + (f" ({beyond} longer ones not shown)" if beyond else ""))
    axes.set_xlabel("seconds")
    axes.set_ylabel("videos")


def _plot_rates(axes: Axes, stats: Stats) -> None:
    found = Counter(f"{fps:.4g}" for fps in stats.fps)
    axes.set_title("frame rates")
    axes.set_ylabel("videos")
    if len(found) <= 12:
        names = sorted(found, key=float)
        axes.bar(names, [found[name] for name in names], 0.6, color="#66ccee")
        axes.set_xlim(-1, len(names))
        axes.set_xlabel("frames per second")
        return
    _, edges, beyond = _bins(stats.fps)
    axes.hist(stats.fps[stats.fps <= edges[-1]], 40, color="#66ccee")
    axes.set_xlabel("frames per second" + (f" ({beyond} higher ones not shown)" if beyond else ""))


def _plot_sizes(axes: Axes, stats: Stats) -> None:
    """A disc for each size, its area the number of videos."""
    found = Counter(zip(stats.widths.tolist(), stats.heights.tolist(), strict=True))
    most = max(found.values())
    area = [20 + 480 * count / most for count in found.values()]
    axes.scatter([w for w, _ in found], [h for _, h in found], s=area, color="#aa3377", alpha=0.5, linewidths=0)
    for (width, height), count in found.most_common(3):
        axes.annotate(
            f"{width}x{height}: {count}", (width, height), textcoords="offset points", xytext=(12, 6), fontsize=8
        )
    axes.margins(0.25)
    axes.set_title("sizes (area: number of videos)")
    axes.set_xlabel("width")
    axes.set_ylabel("height")
