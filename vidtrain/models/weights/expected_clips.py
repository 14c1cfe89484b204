"""What the network of a published file was trained to see. A layout fills it in; the commands make options of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

Colours = tuple[float, float, float]


@dataclass(frozen=True)
class Expects:
    """The clips that a file's scores were measured on. None: not known, or nothing that the network depends on.

    Its fields are called as the options of `transform` and `sampler` that they set.
    """

    mean: Colours | None = None
    """Subtracted from RGB in [0, 1]."""
    std: Colours | None = None
    """Divides RGB after the mean."""
    size: int | None = None
    """Pixels of a side of the crop."""
    resize: int | str | None = None
    """Short side of the frame before the crop, or its "HEIGHTxWIDTH"."""
    num_frames: int | None = None
    """Samples of a clip."""
    stride: int | None = None
    """Source frames from one sample to the next."""
    fps: float | None = None
    """Samples a second, in place of stride."""
    window: int | None = None
    """Source frames that the samples are spread over, in place of stride."""
    mode: str | None = None
    """"segments": one sample from each part of the video, in place of stride; None: clips."""
    protocol: str | None = None
    """Choice of conf/eval that tests as the file's authors do; a hint for the user, never set by itself."""

    def __or__(self, other: Expects) -> Expects:
        """This with the known values of `other` in their place."""
        return replace(self, **other.known())

    def at(self, options: Mapping[str, Any]) -> Expects:
        """This for a net whose options hold the length or size of its clips: the frame keeps its ratio to the crop."""
        size, frames = options.get("size", self.size), options.get("num_frames", self.num_frames)
        resize = self.resize
        if size != self.size and self.size is not None and resize is not None:
            sides = [int(side) * size // self.size for side in str(resize).split("x")]
            resize = "x".join(map(str, sides)) if isinstance(resize, str) else sides[0]
        return replace(self, size=size, num_frames=frames, resize=resize)

    def known(self) -> dict[str, Any]:
        """The fields that are not None."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}

    def options(self) -> dict[str, dict[str, Any]]:
        """{"transform": {...}, "sampler": {...}}: the options that it sets.

        What a clip's rate is given by, one of `RATES`, takes the others back.
        """
        found = self.known()
        transform = {key: list(v) if isinstance(v, tuple) else v for key, v in found.items() if key in _TRANSFORM}
        sampler = {key: value for key, value in found.items() if key in ("num_frames", *RATES)}
        if any(key in sampler for key in RATES):
            sampler = {"mode": "clip", "fps": None, "window": None, **sampler}
        return {"transform": transform, "sampler": sampler}

    def to_text(self) -> str:
        """One line: "16 frames at 15 fps, scaled to 128x171, crops of 112, mean 0.432 0.395 0.376, ..."."""
        frames = "" if self.num_frames is None else f"{self.num_frames} frames"
        if self.mode == "segments":
            frames = f"{self.num_frames or 'num_frames'} segments"
        rates = {"every {} of the source": self.stride, "at {:g} fps": self.fps, "over {} of the source": self.window}
        parts = [
            " ".join([frames, *(text.format(value) for text, value in rates.items() if value is not None)]).strip()
        ]
        if self.resize is not None:
            side = "" if isinstance(self.resize, str) else "a short side of "
            parts.append(f"scaled to {side}{self.resize}")
        if self.size is not None:
            parts.append(f"crops of {self.size}")
        for name in ("mean", "std"):
            if (values := getattr(self, name)) is not None:
                parts.append(f"{name} {' '.join(f'{value:.4g}' for value in values)}")
        if self.protocol is not None:
            parts.append(f"tested as by eval={self.protocol}")
        return ", ".join(filter(None, parts))


_TRANSFORM: Final = ("size", "resize", "mean", "std")
RATES: Final = ("stride", "fps", "window", "mode")

NOTHING: Final = Expects()
IMAGENET: Final = Expects(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
KINETICS: Final = Expects(mean=(0.43216, 0.394666, 0.37645), std=(0.22803, 0.22145, 0.216989))
"""torchvision's video ResNets and S3D."""
SLOWFAST: Final = Expects(mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225))
"""PySlowFast and PyTorchVideo; so UniFormerV2, too."""
HALF: Final = Expects(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
"""RGB in [-1, 1]: I3D on Inception."""


def clips(num_frames: int, stride: int, size: int, resize: int | None = None) -> Expects:
    """`num_frames` x `stride`, the middle `size` x `size` pixels of a short side of `resize` (None: of `size`)."""
    return Expects(num_frames=num_frames, stride=stride, size=size, resize=resize or size)


def by_model(colours: Expects, of_model: Mapping[str, Expects]) -> Callable[[str, Mapping[str, Any]], Expects]:
    """A layout's `expects` whose colours are those of the whole zoo and whose clips are those of each model."""
    return lambda name, options: colours | of_model.get(name, Expects())
