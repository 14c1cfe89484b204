"""The options of clip sampling and cropping. `vidtrain train --help` prints the text under each field."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class ShortPolicy(Enum):
    repeat_last = "repeat_last"
    loop = "loop"
    error = "error"


@dataclass
class SamplerConfig:
    num_frames: int = 16
    """Frames in a clip (T)."""
    stride: int = 2
    """Source frames between two frames of a clip; not used when fps is set."""
    fps: float | None = None
    """Sample at this many frames a second instead, whatever the video's own rate."""
    short: ShortPolicy = ShortPolicy.repeat_last
    """A clip longer than its video: repeat_last frame, loop from the start, or error."""


@dataclass
class TransformConfig:
    size: int = 112
    """Height and width of the square crop the model sees."""
    resize: int = 128
    """Short side of the frame before cropping (pixels)."""
    resize_max: int | None = None
    """Training draws the short side from resize to this, once per clip; null: always resize."""
    squash: bool = False
    """Scale to a square, so that nothing is cropped away at the sides; false keeps the aspect."""
    colour: float = 0.0
    """Training multiplies brightness, contrast and saturation by 1 - colour to 1 + colour, drawn once per clip."""
    grayscale: float = 0.0
    """Chance of a training clip without colour."""
    flip: float = 0.5
    """Chance of a horizontal flip in training; classes that a flip exchanges are relabelled."""
    mean: list[float] = field(default_factory=lambda: [0.45, 0.45, 0.45])
    """Subtracted from RGB in [0, 1]."""
    std: list[float] = field(default_factory=lambda: [0.225, 0.225, 0.225])
    """Divides RGB after the mean."""
