"""A figure of a sweep: the objective over each option that was varied, and all of them as parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from vidtrain.reports.figures import figure_label, new_figure, write_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

_MOST_COLUMNS: Final = 4
_MOST_OPTIONS: Final = 12
_MOST_WORDS: Final = 30  # of an option whose values are no numbers
_FEW: Final = 5  # numbers that have a tick each
_DECADES: Final = 1.5  # from which on an axis is logarithmic
_COLOURS: Final = "viridis"


@dataclass(frozen=True)
class SweptPoint:
    """A run: its values of the options, and of the objectives. best: none of the others is better."""

    number: int
    varied: Sequence[str]
    values: Sequence[float]
    best: bool
    pruned: bool = False


def write_sweep_figure(
    file: Path, options: Sequence[str], objectives: Sequence[tuple[str, str]], points: Sequence[SweptPoint]
) -> None:
    """A PNG. options: their names. objectives: (name, maximize or minimize); the first one gives the colour."""
    write_png(sweep_figure(options, objectives, points), file)


def sweep_figure(options: Sequence[str], objectives: Sequence[tuple[str, str]], points: Sequence[SweptPoint]) -> Figure:
    shown = [n for n, _ in enumerate(options) if len({point.varied[n] for point in points}) > 1][:_MOST_OPTIONS]
    shown = shown or list(range(min(1, len(options))))
    scales = [_Scale([point.varied[n] for point in points]) for n in shown]
    panels = len(shown) + (len(objectives) > 1)
    rows = -(-panels // _MOST_COLUMNS)
    columns = -(-panels // rows)
    parallel = len(shown) > 1
    figure = new_figure(figsize=(max(5.0, 3.4 * columns), 2.9 * rows + (3.2 if parallel else 0)))
    upper: FigureBase = figure
    if parallel:
        upper, lower = np.asarray(figure.subfigures(2, 1, height_ratios=[2.9 * rows, 3.2])).flat
        _draw_parallel(lower.subplots(), [options[n] for n in shown], scales, objectives[0], points)
    axes = list(np.atleast_1d(upper.subplots(rows, columns)).flat)
    for ax, n, scale in zip(axes, shown, scales, strict=False):
        _draw_option(ax, scale, points, n)
        ax.set_xlabel(figure_label(options[n]), parse_math=False)
        ax.set_ylabel(figure_label(objectives[0][0]), parse_math=False)
    if len(objectives) > 1:
        _draw_front(axes[len(shown)], objectives, points)
    for ax in axes[panels:]:
        ax.set_axis_off()
    return figure


class _Scale:
    """Values of an option as positions: numbers as they are or by their logarithm, anything else in its order."""

    def __init__(self, texts: Sequence[str]) -> None:
        numbers = [_number(text) for text in texts]
        self.words: list[str] = []
        self.log = False
        if all(number is not None for number in numbers):
            self.positions = [number for number in numbers if number is not None]
            low, high = min(self.positions, default=0), max(self.positions, default=0)
            self.log = low > 0 and math.log10(high / low) >= _DECADES
        else:
            self.words = list(dict.fromkeys(texts))[:_MOST_WORDS]
            self.positions = [float(self.words.index(text)) if text in self.words else -1.0 for text in texts]

    def shares(self) -> list[float]:
        """The positions from 0 to 1."""
        values = [math.log10(value) for value in self.positions] if self.log else self.positions
        low, high = min(values), max(values)
        return [(value - low) / (high - low) if high > low else 0.5 for value in values]

    def marks(self) -> list[tuple[float, str]]:
        """(share, what stands there) of the ends, and of a few words also of those between."""
        if len(self.words) > 1:
            shown = self.words if len(self.words) <= _FEW else [self.words[0], self.words[-1]]
            return [(self.words.index(word) / (len(self.words) - 1), figure_label(word, 20)) for word in shown]
        return [(0.0, f"{min(self.positions):.4g}"), (1.0, f"{max(self.positions):.4g}")]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) < 1e15 else None


def _draw_option(ax: Axes, scale: _Scale, points: Sequence[SweptPoint], n: int) -> None:
    for kind, marker, colour, size in (("pruned", "x", "#bb5566", 26), ("run", "o", "#4477aa", 26)):
        chosen = [i for i, p in enumerate(points) if p.values and (p.pruned == (kind == "pruned"))]
        if chosen:
            places = [scale.positions[i] for i in chosen]
            values = [points[i].values[0] for i in chosen]
            ax.scatter(places, values, s=size, marker=marker, color=colour, alpha=0.8, label=kind, linewidths=1)
    best = [i for i, point in enumerate(points) if point.best]
    ax.scatter(
        [scale.positions[i] for i in best],
        [points[i].values[0] for i in best],
        s=90,
        facecolors="none",
        edgecolors="#222222",
        label="best",
    )
    if n == 0 and any(point.pruned for point in points):
        ax.legend(fontsize=7)
    if scale.log:
        ax.set_xscale("log")
    elif not scale.words and len(set(scale.positions)) <= _FEW:
        ax.set_xticks(sorted(set(scale.positions)))
    if scale.words:
        ax.set_xticks(range(len(scale.words)), [figure_label(word, 20) for word in scale.words], parse_math=False)
        ax.set_xlim(-0.5, len(scale.words) - 0.5)
        if max(map(len, scale.words)) * len(scale.words) > 24:
            ax.tick_params(axis="x", labelrotation=30)
    ax.grid(alpha=0.3)


def _draw_front(ax: Axes, objectives: Sequence[tuple[str, str]], points: Sequence[SweptPoint]) -> None:
    scored = [point for point in points if len(point.values) > 1]
    ax.scatter([p.values[1] for p in scored], [p.values[0] for p in scored], s=26, color="#4477aa", alpha=0.8)
    front = sorted((p.values[1], p.values[0], p.number) for p in scored if p.best)
    ax.plot(
        [x for x, _, _ in front], [y for _, y, _ in front], "o-", color="#222222", markerfacecolor="none", ms=9, lw=1
    )
    for x, y, number in front:
        ax.annotate(str(number), (x, y), textcoords="offset points", xytext=(5, 5), fontsize=8)
    ax.set_xlabel(figure_label(objectives[1][0]), parse_math=False)
    ax.set_ylabel(figure_label(objectives[0][0]), parse_math=False)
    ax.grid(alpha=0.3)


def _draw_parallel(
    ax: Axes,
    names: Sequence[str],
    scales: Sequence[_Scale],
    objective: tuple[str, str],
    points: Sequence[SweptPoint],
) -> None:
    """A line per run over the options, and at the right the objective, which also gives the colour."""
    import matplotlib

    scored = [i for i, point in enumerate(points) if point.values]
    if not scored:
        ax.set_axis_off()
        return
    values = [points[i].values[0] for i in scored]
    low, high = min(values), max(values)
    heights = [(value - low) / (high - low) if high > low else 0.5 for value in values]
    shares = [scale.shares() for scale in scales]
    marks = [*(scale.marks() for scale in scales), [(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")]]
    order = sorted(range(len(scored)), key=lambda i: heights[i] if objective[1] == "maximize" else -heights[i])
    for i in order:
        good = heights[i] if objective[1] == "maximize" else 1 - heights[i]
        line = [*(share[scored[i]] for share in shares), heights[i]]
        best = points[scored[i]].best
        colour = matplotlib.colormaps[_COLOURS](0.95 * good)
        ax.plot(range(len(line)), line, color=colour, linewidth=2.5 if best else 1.1, alpha=1 if best else 0.75)
    titles = [*names, objective[0]]
    ax.set_xticks(range(len(titles)), [figure_label(name, 24) for name in titles], parse_math=False)
    ax.tick_params(axis="x", length=0)
    ax.set_yticks([])
    ax.set_ylim(-0.12, 1.12)
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
    for place, texts in enumerate(marks):
        ax.axvline(place, color="#888888", linewidth=0.8, zorder=0)
        for share, text in texts:
            side = "top" if share == 0 else "bottom" if share == 1 else "center"
            height = share + {"top": -0.03, "bottom": 0.03, "center": 0.0}[side]
            ax.text(place, height, text, ha="center", va=side, fontsize=8, parse_math=False, bbox=box)
    for side in ("top", "right", "bottom", "left"):
        ax.spines[side].set_visible(False)
