"""Optical flow as 8-bit numbers: where each pixel of a frame has moved to in the next frame of the file.

    code = 128 + round(127 / 20 * pixels), pixels clipped to -20 ... 20

so codes are 1 to 255, 128 stands still, a step is 0.16 pixels, and mirroring is exact: the codes of -u are 256 - those
of u. Channel 0 is u, to the right, channel 1 is v, downwards. Pixels are those of the image that the field belongs
to: a field that is scaled to another size has its values scaled by the same ratio.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

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
    """Codes (..., H, W, 2) of the mirrored video: the image from right to left, u negated."""
    flipped = codes[..., ::-1, :].copy()
    np.subtract(0, flipped[..., 0], out=flipped[..., 0])  # 256 - code, in 8 bits
    return flipped
