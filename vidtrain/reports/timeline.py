"""What happens in a video when: as a figure, and drawn over its frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vidtrain.reports.figures import figure_label, new_figure, pixels_of, write_png
from vidtrain.segments import Segment, Windows
from vidtrain.terminal import printable

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

_COLOURS = (
    "#4477aa",
    "#ee6677",
    "#228833",
    "#ccbb44",
    "#66ccee",
    "#aa3377",
    "#ee8866",
    "#44bb99",
    "#bbcc33",
    "#99ddff",
)
"""Distinguishable by colour-blind readers too (Paul Tol's bright and light schemes)."""
_MOST_ROWS = 30
_GREY = "#bbbbbb"


def colour_of(label: str, class_names: Sequence[str]) -> str:
    """Of a class, the same in every figure."""
    return _COLOURS[class_names.index(label) % len(_COLOURS)]


def timeline_figure(
    file: Path,
    seconds: float,
    segments: Sequence[Segment],
    windows: Windows,
    class_names: Sequence[str],
    unreadable: Sequence[tuple[float, float]] = (),
) -> None:
    """Write a PNG: a row for each class that occurs, its segments as bars and its probability as a line."""
    names = _occurring(segments, class_names)
    shown = names or [class_names[int(windows.probs.mean(0).argmax())]]  # nothing happened: what came closest
    figure = new_figure(figsize=(12, 1.2 + 0.55 * len(shown)))
    axes = figure.add_subplot()
    centres, scale, unit = windows.centres, *(((60.0, "minutes")) if seconds > 600 else (1.0, "seconds"))
    for row, name in enumerate(shown):
        colour = colour_of(name, class_names)
        bars = [(s.start / scale, s.seconds / scale) for s in segments if s.label == name]
        axes.broken_barh(bars, (row - 0.4, 0.8), color=colour, alpha=0.45, linewidth=0)
        probs = windows.probs[:, class_names.index(name)]
        for run in windows.runs():
            axes.plot(centres[run] / scale, row + 0.4 - 0.8 * probs[run], color=colour, linewidth=1)
    for start, end in unreadable:
        axes.axvspan(start / scale, end / scale, color=_GREY, hatch="//", alpha=0.5, linewidth=0)
    axes.set_yticks(range(len(shown)), [figure_label(name) for name in shown], parse_math=False)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(0, seconds / scale)
    axes.set_xlabel(unit)
    axes.grid(axis="x", alpha=0.3)
    write_png(figure, file)


def labels_figure(
    file: Path, videos: Sequence[tuple[str, float, Sequence[Segment]]], class_names: Sequence[str]
) -> None:
    """Write a PNG: of each video, given as title, length in seconds and segments, a row for each class that occurs
    with its segments as bars. The axis is as long as the video."""
    rows = [_occurring(segments, class_names) for _, _, segments in videos]
    heights = [0.55 + 0.24 * len(names) for names in rows]
    figure = new_figure(figsize=(12, sum(heights)))
    every = figure.subplots(len(videos), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (title, seconds, segments), names in zip(every, videos, rows, strict=True):
        for row, name in enumerate(names):
            bars = [(s.start, s.seconds) for s in segments if s.label == name]
            axes.broken_barh(bars, (row - 0.4, 0.8), color=colour_of(name, class_names), linewidth=0)
        axes.set_yticks(range(len(names)), [figure_label(name) for name in names], fontsize=8, parse_math=False)
        axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
        axes.set_xlim(0, seconds)
        axes.set_title(figure_label(title, 100), fontsize=8, loc="left", parse_math=False)
        axes.tick_params(labelsize=8)
        axes.grid(axis="x", alpha=0.3)
    every[-1].set_xlabel("seconds", fontsize=8)
    write_png(figure, file)


def _occurring(segments: Sequence[Segment], class_names: Sequence[str]) -> list[str]:
    """The classes of segments in the order of their numbers, _MOST_ROWS at most."""
    return list(dict.fromkeys(s.label for s in sorted(segments, key=lambda s: class_names.index(s.label))))[:_MOST_ROWS]


@dataclass(frozen=True)
class CompareRow:
    """A video of `comparison_image`. seconds: its length."""

    title: str
    seconds: float
    truth: Sequence[Segment]
    found: Sequence[Segment]


def comparison_image(rows: Sequence[CompareRow], class_names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """uint8 (H, W, 3): of each video what truly happens above what was found, whose bars are the fainter the lower
    their score; classes by colour."""
    from matplotlib.patches import Patch

    figure = new_figure(figsize=(12, 0.9 + 0.9 * len(rows)))
    for axes, row in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        for level, segments in ((0, row.truth), (1, row.found)):
            for s in segments:
                strength = 1.0 if not level else 0.15 + 0.85 * s.score
                colour = colour_of(s.label, class_names)
                axes.broken_barh([(s.start, s.seconds)], (level - 0.45, 0.9), color=colour, alpha=strength, linewidth=0)
        axes.set_yticks([0, 1], ["truth", "found"], fontsize=8)
        axes.set_ylim(1.5, -0.5)
        axes.set_xlim(0, row.seconds)
        axes.set_title(figure_label(row.title, 80), fontsize=8, loc="left", parse_math=False)
        axes.tick_params(labelsize=8)
    shown = [name for name in class_names if any(s.label == name for row in rows for s in (*row.truth, *row.found))]
    names = shown[:_MOST_ROWS]
    figure.legend(
        [Patch(color=colour_of(name, class_names)) for name in names],
        [figure_label(name).replace("$", "\\$") for name in names],
        loc="outside lower center",
        ncols=8,
        fontsize=8,
        frameon=False,
    )
    return pixels_of(figure)


class Overlay:
    """Draws label, probability and a strip of the whole timeline over the frames of a video.

    Args:
        size: (height, width) of the frames.
    """

    def __init__(
        self, size: tuple[int, int], seconds: float, segments: Sequence[Segment], class_names: Sequence[str]
    ) -> None:
        from PIL import Image, ImageDraw, ImageFont

        self._height, self._width = size
        self._seconds = max(seconds, 1e-9)
        self._segments = sorted(segments, key=lambda s: s.start)
        self._colours = {s.label: colour_of(s.label, class_names) for s in self._segments}
        self._line = max(12, self._height // 18)
        self._font: FreeTypeFont = ImageFont.load_default(self._line)  # type: ignore[assignment]
        strip = Image.new("RGB", (self._width, self._line), "#333333")
        draw = ImageDraw.Draw(strip)
        for s in self._segments:
            draw.rectangle(
                (self._x(s.start), 0, max(self._x(s.end) - 1, self._x(s.start)), self._line), self._colours[s.label]
            )
        self._strip = strip

    def _x(self, seconds: float) -> int:
        return round(seconds / self._seconds * (self._width - 1))

    def draw(self, frame: npt.NDArray[np.uint8], seconds: float) -> npt.NDArray[np.uint8]:
        """uint8 (H, W, 3) at this time -> the same with the drawing."""
        from PIL import Image, ImageDraw

        image = Image.fromarray(frame)
        image.paste(self._strip, (0, self._height - self._line))
        draw = ImageDraw.Draw(image)
        x = self._x(seconds)
        draw.rectangle((x, self._height - self._line - 2, x + 1, self._height), "white")
        for row, s in enumerate(s for s in self._segments if s.start <= seconds < s.end):
            self._label(draw, row, s)
        return np.asarray(image)

    def _label(self, draw: Any, row: int, segment: Segment) -> None:
        text, top = f"{printable(segment.label)} {segment.score:.0%}", row * (self._line + 8)
        left, _, right, _ = draw.textbbox((0, 0), text, font=self._font)
        draw.rectangle((0, top, right - left + 12, top + self._line + 7), "black")
        draw.rectangle((0, top, 4, top + self._line + 7), self._colours[segment.label])
        draw.text((8, top + 2), text, "white", font=self._font)
