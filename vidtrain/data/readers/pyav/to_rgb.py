"""From a decoded frame to the RGB pixels that a player would show."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import VideoReformatter

from vidtrain.types import Frames

ImageArray = npt.NDArray[np.uint8]

# From PyAV 17 on swscale starts a thread per core unless told not to, and from 19 on a process that was forked from one
# that has done so waits for those threads forever.
ONE_THREAD: Final[dict[str, Any]] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


@dataclass(frozen=True)
class Orientation:
    """How the stored raster is turned into the image shown: mirrored first, transposed after.

    Rotations by other than quarter turns are taken to the nearest one.
    """

    flip_rows: bool = False
    flip_columns: bool = False
    transpose: bool = False

    @classmethod
    def of(cls, frame: VideoFrame) -> Orientation:
        """Read from the display matrix that comes with a frame."""
        try:
            matrix: Any = frame.side_data.get("DISPLAYMATRIX")
        except ValueError:  # another note on the frame is of a kind that this PyAV does not know
            turns = round(getattr(frame, "rotation", 0) / 90) % 4  # counterclockwise
            return cls(flip_rows=turns in (2, 3), flip_columns=turns in (1, 2), transpose=turns in (1, 3))
        if matrix is None:
            return cls()
        a, b, _, c, d = struct.unpack("=5i", memoryview(matrix)[:20])
        # x' = a x + c y, y' = b x + d y, both axes pointing right and down.
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(flip_rows=d < 0, flip_columns=a < 0)
        return cls(flip_rows=c < 0, flip_columns=b < 0, transpose=True)

    @property
    def mirrored(self) -> bool:
        """True when no rotation alone gives it."""
        return self.flip_rows ^ self.flip_columns ^ self.transpose

    def apply(self, image: ImageArray) -> ImageArray:
        """(H, W, 3) or (H, W) as stored -> a view as shown."""
        image = image[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]
        return image.swapaxes(0, 1) if self.transpose else image

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Stored (height, width) of what is shown as (height, width), and the other way round."""
        return (width, height) if self.transpose else (height, width)


class Converter:
    """Frames to RGB in one swscale call, scaled and converted together. Keeps the scaler between frames.

    Scaled images are asked for as planes of green, blue and red: swscale then keeps the full resolution of the
    colours, which packed RGB of an even width halves (by 2 to 5 levels of 255 on average on detailed images, measured
    on clips scaled to a third), and takes a quarter less time with the interleaving below counted in.
    """

    def __init__(self, orientation: Orientation) -> None:
        self._orientation = orientation
        self._reformatter = VideoReformatter()

    def write(self, frame: VideoFrame, out: ImageArray) -> None:
        """Fill `out` (H, W, 3) with the frame as shown, scaled bilinearly to H x W."""
        height, width = self._orientation.shape(out.shape[0], out.shape[1])
        scaled = (frame.height, frame.width) != (height, width)
        rgb = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="gbrp" if scaled else "rgb24",
            interpolation="BILINEAR",  # PyAV 14 does not take its own Interpolation.BILINEAR
            **ONE_THREAD,
        )
        if scaled:
            for colour, plane in zip((1, 2, 0), rgb.planes, strict=True):
                out[..., colour] = self._orientation.apply(_rows(plane, height, width))
        else:
            rows = _rows(rgb.planes[0], height, 3 * width)
            out[:] = self._orientation.apply(rows.reshape(height, width, 3))


def _rows(plane: VideoPlane, height: int, length: int) -> ImageArray:
    """(height, length) bytes of a plane; its rows are padded for alignment."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)[:, :length]


def scaled(frames: Frames, size: tuple[int, int]) -> Frames:
    """RGB frames (N, H, W, 3) at another (height, width), bilinear."""
    out = np.empty((len(frames), *size, 3), np.uint8)
    converter = Converter(Orientation())
    for number, frame in enumerate(frames):
        converter.write(VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"), out[number])
    return out
