"""Optical flow as 8-bit numbers: where each pixel of a frame has moved to in the next frame of the file.

    code = 128 + round(127 / 20 * pixels), pixels clipped to -20 ... 20

so codes are 1 to 255, 128 stands still, a step is 0.16 pixels, and mirroring is exact: the codes of -u are 256 - those
of u. Channel 0 is u, to the right, channel 1 is v, downwards. Pixels are those of the picture that the field belongs
to: a field that is scaled to another size has its values scaled by the same ratio.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from vidtrain.data.clips.crop import Crop

LIMIT: Final = 20.0
"""The longest motion that is kept, in pixels along each axis."""
STILL: Final = 128
LEVELS: Final = 127
"""Codes from standing still to LIMIT."""

Field = npt.NDArray[np.float32]
"""Flow in pixels (..., H, W, 2)."""
Codes = npt.NDArray[np.uint8]
"""The same as 8-bit codes."""


def encode(field: Field) -> Codes:
    """Pixels (..., 2) -> codes; what is no number stands still."""
    pixels = np.nan_to_num(np.clip(field, -LIMIT, LIMIT))
    return (np.rint(pixels * np.float32(LEVELS / LIMIT)) + STILL).astype(np.uint8)


def decode(codes: Codes) -> Field:
    """Codes (..., 2) -> pixels."""
    return (codes.astype(np.float32) - STILL) * np.float32(LIMIT / LEVELS)


def mirror(codes: Codes) -> Codes:
    """Codes (..., H, W, 2) of the mirrored video: the picture from right to left, u negated."""
    flipped = codes[..., ::-1, :].copy()
    np.subtract(0, flipped[..., 0], out=flipped[..., 0])  # 256 - code, in 8 bits
    return flipped


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
