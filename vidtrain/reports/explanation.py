"""What a network looked at: a strip of frames as PNG, and a video beside its overlay."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vidtrain.data.prepare.frames import Times
from vidtrain.data.prepare.video import encode_video
from vidtrain.reports.figures import figure_label, new_figure, write_png
from vidtrain.runs.atomic import part_file
from vidtrain.types import Frames

Values = npt.NDArray[np.float32]
_COLOURS = "inferno"
_OPACITY = 0.75
"""Of the colour where the map is 1; it falls to none at 0."""
_SHORT_SIDE = 224
"""Pixels that a frame of the overlay has at least."""
_MOST_FRAMES = 8
_BAR = 24
"""Pixels of the height of the bars below the overlay."""
_RATES = (1.0, 30.0)
_CRF, _GOP = 18, 16


def overlay(frames: Frames, values: Values) -> Frames:
    """uint8 (T, H, W, 3): the frames, coloured where `values` (T, H, W) in [0, 1] are large."""
    opacity = _OPACITY * values[..., None]
    return (frames * (1 - opacity) + _colours(values) * opacity + 0.5).astype(np.uint8)


def write_strip(file: Path, frames: Frames, values: Values, seconds: npt.NDArray[np.float64], heading: str) -> None:
    """Write a PNG: some of the frames, the same with the map over them, and a bar for each frame of the clip.

    Args:
        values: of the map, (T, H, W) in [0, 1]. seconds: of each frame.
    """
    count = min(_MOST_FRAMES, len(frames))
    shown = np.linspace(0, len(frames) - 1, count).round().astype(int)
    rows = (frames[shown], overlay(frames[shown], values[shown]))
    side = 1.4
    aspect = frames.shape[1] / frames.shape[2]
    figure = new_figure(figsize=(side * count, 2 * side * aspect + 1.9))
    figure.suptitle(figure_label(heading, 150), fontsize=10, x=0.01, ha="left", parse_math=False)
    axes = figure.subplots(3, 1, height_ratios=(side * aspect, side * aspect, 0.9))
    for axis, row in zip(axes, rows, strict=False):
        axis.imshow(np.concatenate([np.pad(f, ((0, 0), (0, 2), (0, 0)), constant_values=255) for f in row], 1))
        axis.set_axis_off()
    scores = frame_scores(values)
    numbers = np.arange(len(frames))
    axes[2].bar(numbers, scores, color=_colours(0.2 + 0.6 * scores) / 255, width=0.85)
    axes[2].set_xticks(shown, [f"{s:.2f} s" for s in seconds[shown]], fontsize=8)
    axes[2].set_yticks([0, 1], ["0", "1"], fontsize=8)
    axes[2].set_xlim(-0.5, len(frames) - 0.5)
    axes[2].set_ylim(0, 1.05)
    axes[2].set_ylabel("map", fontsize=8)
    axes[2].spines[["top", "right"]].set_visible(False)
    write_png(figure, file)


def write_overlay(file: Path, frames: Frames, values: Values, seconds: npt.NDArray[np.float64]) -> None:
    """Write an H.264 MP4 at the clip's own rate: each frame, the same with the map over it, and below them how much of
    the map falls on each frame, the one that is shown marked."""
    span = float(seconds[-1] - seconds[0])
    rate = float(np.clip((len(seconds) - 1) / span if span > 0 else _RATES[0], *_RATES))
    times = Times(np.arange(len(frames)), 1 / Fraction(rate).limit_denominator(1001))
    images = list(_images(frames, values))
    with part_file(file) as part:
        encode_video(part, images, images[0].shape[:2], times, crf=_CRF, gop=_GOP)


def frame_scores(values: Values) -> Values:
    """(T, H, W) -> (T,): the mean of each frame, over the largest of these."""
    means = values.mean((1, 2))
    return means / means.max() if means.max() > 0 else means


def _images(frames: Frames, values: Values) -> Iterator[npt.NDArray[np.uint8]]:
    factor = -(-_SHORT_SIDE // min(frames.shape[1:3]))
    scores = frame_scores(values)
    for number, pair in enumerate(zip(frames, overlay(frames, values), strict=True)):
        both = np.concatenate(pair, 1).repeat(factor, 0).repeat(factor, 1)
        image = np.concatenate([both, _bars(scores, number, both.shape[1])])
        yield np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)))


def _bars(scores: Values, current: int, width: int) -> npt.NDArray[np.uint8]:
    """A bar for each frame, uint8 (_BAR, width, 3)."""
    columns = np.arange(width) * len(scores) // width
    heights = np.round(scores[columns] * (_BAR - 4)).astype(int)
    filled = np.arange(_BAR)[::-1, None] < heights
    colour = np.where((columns == current)[:, None], (255, 255, 255), (120, 120, 120))
    bars: npt.NDArray[np.uint8] = np.where(filled[..., None], colour, (20, 20, 20)).astype(np.uint8)
    bars[:2, columns == current] = 255
    return bars


def _colours(values: Any) -> npt.NDArray[np.float64]:
    """(...) in [0, 1] -> (..., 3), 0 to 255."""
    import matplotlib

    rgb: npt.NDArray[np.float64] = matplotlib.colormaps[_COLOURS](values)[..., :3] * 255
    return rgb
