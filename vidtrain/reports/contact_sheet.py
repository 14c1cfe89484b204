"""A picture of clips as a model gets them, a row each, with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidtrain.reports.figures import figure_label, new_figure, write_png
from vidtrain.types import Frames


def write_contact_sheet(
    file: Path, clips: Sequence[Frames], titles: Sequence[str], *, heading: str, frames: int = 8
) -> None:
    """Write a PNG.

    Args:
        clips: uint8 (T, H, W, 3) each.
        titles: one line above each clip.
        heading: above all.
        frames: at most so many of a clip, spread evenly from its first to its last.
    """
    columns = min(frames, max(len(clip) for clip in clips))
    strips = [_strip(clip, columns) for clip in clips]
    width = 0.25 + 1.25 * columns
    height = sum(width * strip.shape[0] / strip.shape[1] + 0.28 for strip in strips) + 0.4
    figure = new_figure(figsize=(width, height))
    figure.suptitle(heading, fontsize=10, x=0.01, ha="left")
    ratios = [strip.shape[0] / strip.shape[1] + 0.28 / width for strip in strips]
    for axes, strip, title in zip(
        figure.subplots(len(strips), 1, squeeze=False, height_ratios=ratios)[:, 0], strips, titles, strict=True
    ):
        axes.imshow(strip, interpolation="nearest")
        axes.set_title(figure_label(title, 150), fontsize=8, loc="left", pad=2, parse_math=False)
        axes.set_axis_off()
    file.parent.mkdir(parents=True, exist_ok=True)
    write_png(figure, file)


def _strip(clip: Frames, columns: int) -> Frames:
    """`columns` frames side by side, a white line between two."""
    chosen = clip[np.linspace(0, len(clip) - 1, columns).round().astype(int)]
    framed = np.pad(chosen, ((0, 0), (0, 0), (0, 2), (0, 0)), constant_values=255)
    return np.concatenate(list(framed), axis=1)[:, :-2]
