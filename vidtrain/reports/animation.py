"""Clips as small animated images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from vidtrain.reports.figures import figure_label
from vidtrain.types import Frames

_COLUMNS = 4
_STRIP = 16  # pixels above a clip, for its label


def animated_webp(frames: Frames, fps: float, quality: int = 50) -> bytes:
    """A WebP file that repeats without end; of a single frame a still one. frames: uint8 (T, H, W, 3)."""
    return _encoded(frames, "WEBP", fps, quality=quality, method=4)


def animated_gif(frames: Frames, fps: float) -> bytes:
    """A GIF that repeats without end. frames: uint8 (T, H, W, 3)."""
    return _encoded(frames, "GIF", fps)


def labelled_grid(clips: Sequence[Frames], labels: Sequence[str]) -> Frames:
    """Clips, four to a row, each under its label: uint8 (T, rows * (H + 16), columns * W, 3).

    clips: uint8 (T, H, W, 3) each, of one shape.
    """
    from PIL import Image, ImageDraw, ImageFont

    frames, height, width, _ = clips[0].shape
    columns = min(_COLUMNS, len(clips))
    rows = -(-len(clips) // columns)
    grid = np.full((frames, rows * (height + _STRIP), columns * width, 3), 255, dtype=np.uint8)
    font = ImageFont.load_default(10)
    for number, (clip, label) in enumerate(zip(clips, labels, strict=True)):
        top, left = number // columns * (height + _STRIP), number % columns * width
        strip = Image.new("RGB", (width, _STRIP), "white")
        ImageDraw.Draw(strip).text((2, 1), figure_label(label, max(5, width // 6)), fill="black", font=font)
        grid[:, top : top + _STRIP, left : left + width] = np.asarray(strip)
        grid[:, top + _STRIP : top + _STRIP + height, left : left + width] = clip
    return grid


def _encoded(frames: Frames, kind: str, fps: float, **options: Any) -> bytes:
    from PIL import Image

    first, *others = (Image.fromarray(frame) for frame in frames)
    if others:
        options |= {"save_all": True, "append_images": others, "duration": round(1000 / fps), "loop": 0}
    out = io.BytesIO()
    first.save(out, kind, **options)
    return out.getvalue()
