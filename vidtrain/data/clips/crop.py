"""The crop of a clip and of its optical flow: one window for all its frames, or motion would be invented."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from vidtrain.data.flow.codes import Codes, decode, encode, mirror
from vidtrain.errors import ConfigError
from vidtrain.types import Frames, VideoInfo


def exact_size(resize: int | str) -> tuple[int, int]:
    """(height, width) of a `transform.resize` such as "128x171"; of a short side, the square with that side.

    Raises:
        ConfigError: a text that is no such size.
    """
    if isinstance(resize, int):
        return resize, resize
    found = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", resize)
    if found is None:
        raise ConfigError(f"transform.resize={resize}: expected a short side such as 128, or HEIGHTxWIDTH: 128x171")
    return int(found[1]), int(found[2])


def scaled_size(info: VideoInfo, resize: int | str, *, squash: bool = False) -> tuple[int, int]:
    """(height, width) of a frame before the crop.

    resize: the shorter of them, the aspect is kept or, with `squash`, becomes a square; or both: "128x171".
    """
    if isinstance(resize, str):
        return exact_size(resize)
    return (resize, resize) if squash else info.scaled(resize)


@dataclass(frozen=True)
class Crop:
    """How to cut one clip: scale to `read_size`, take size x size at (top, left), mirror when `flip`.

    region: (height, width) taken at (top, left) and scaled to size x size; None: it has that size already.
    """

    read_size: tuple[int, int]
    top: int
    left: int
    size: int
    flip: bool = False
    region: tuple[int, int] | None = None

    def apply(self, frames: Frames) -> Frames:
        """uint8 (T, H', W', 3) at read_size -> contiguous uint8 (T, size, size, 3)."""
        height, width = self.region or (self.size, self.size)
        cut = frames[:, self.top : self.top + height, self.left : self.left + width]
        if (height, width) != (self.size, self.size):
            images = torch.from_numpy(np.ascontiguousarray(cut)).permute(0, 3, 1, 2)
            scaled = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
            cut = scaled.permute(0, 2, 3, 1).numpy()
        if not self.flip:
            return np.ascontiguousarray(cut)
        mirrored: Frames = torch.from_numpy(cut).flip(2).contiguous().numpy()  # in a seventh of numpy's time
        return mirrored


def cut_flow(codes: Codes, cut: Crop) -> Codes:
    """The part of whole-frame flow that belongs to a cut of the frames.

    Args:
        codes: uint8 (T, h, w, 2) of the whole frame, of any size.
        cut: how the frames are cut; its flip mirrors the flow, too.

    Returns:
        contiguous uint8 (T, size, size, 2), in pixels of the cut.
    """
    size = cut.size
    height, width = cut.region or (size, size)
    if codes.shape[1:3] == cut.read_size and (height, width) == (size, size):
        part = codes[:, cut.top : cut.top + size, cut.left : cut.left + size]
    else:
        down, across = codes.shape[1] / cut.read_size[0], codes.shape[2] / cut.read_size[1]
        rows = _bilinear(codes.shape[1], cut.top * down, height * down, size)
        columns = _bilinear(codes.shape[2], cut.left * across, width * across, size)
        planes = decode(codes).transpose(3, 0, 1, 2)
        scaled = rows @ planes @ columns.T
        scaled[0] *= size / (width * across)
        scaled[1] *= size / (height * down)
        part = encode(scaled.transpose(1, 2, 3, 0))
    return mirror(part) if cut.flip else np.ascontiguousarray(part)


def _bilinear(count: int, start: float, length: float, out: int) -> npt.NDArray[np.float32]:
    """float32 (out, count): the weights of `count` samples in `out` ones spread over [start, start + length).

    Sample i lies at i + 0.5. A triangle one sample wide each way, or wider where the result is coarser, so that
    nothing is skipped.
    """
    step = length / out
    centres = start + (np.arange(out) + 0.5) * step
    distance = np.abs(centres[:, None] - (np.arange(count) + 0.5))
    weights = np.maximum(0.0, 1 - distance / max(1.0, step))
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)
