"""Where the flow of a clip comes from: computed from the frames as they are read, or from a cache.

The flow of frame i is the motion from it to frame i + 1 of the file, whatever the frames between two samples of a
clip: one field a source frame serves every sampler. The last frame has no next one and repeats the field before it;
a video of a single frame stands still.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from vidtrain.data.flow.codes import STILL, Codes, encode
from vidtrain.data.flow.files import file_of, video_id
from vidtrain.data.flow.methods import FlowMethod
from vidtrain.data.readers.base import OpenVideo
from vidtrain.data.readers.jpeg_pack import JpegPackReader
from vidtrain.errors import DataError, VideoError
from vidtrain.types import Frames, Indices


class FlowSource(Protocol):
    """Reads frames together with their flow. Holds settings only, so that it can be pickled to a loader's worker."""

    def read(self, path: str, video: OpenVideo, indices: Indices, size: tuple[int, int]) -> tuple[Frames, Codes]:
        """Frames `indices` of a video and the flow that begins at each of them.

        Returns:
            RGB uint8 (N, *size, 3), and codes uint8 (N, h, w, 2) of the whole frame, in pixels of their own size.

        Raises:
            VideoError: as OpenVideo.read; there is no flow; the frames are too small for the method.
        """
        ...


@dataclass(frozen=True)
class ComputedFlow:
    """Computes the flow from the frames, at the size they are read in."""

    method: FlowMethod

    def read(self, path: str, video: OpenVideo, indices: Indices, size: tuple[int, int]) -> tuple[Frames, Codes]:
        last = video.info.num_frames - 1
        if last == 0:
            return video.read(indices, size), np.full((len(indices), *size, 2), STILL, np.uint8)
        starts, field_of = np.unique(np.minimum(indices, last - 1), return_inverse=True)
        # every frame is decoded once
        wanted, place = np.unique(np.concatenate([indices, starts, starts + 1]), return_inverse=True)
        frames = video.read(wanted, size)
        at, first, second = np.split(place, [len(indices), len(indices) + len(starts)])
        try:
            codes = encode(self.method(frames[first], frames[second]))
        except DataError as error:
            raise VideoError(path, str(error)) from None
        return frames[at], codes[field_of]


@dataclass(frozen=True)
class CachedFlow:
    """Reads what `vidtrain data flow` wrote.

    root: the cache. otherwise: computes the flow of videos that the cache has none of; None: they are errors.
    """

    root: Path
    otherwise: FlowSource | None = None

    def read(self, path: str, video: OpenVideo, indices: Indices, size: tuple[int, int]) -> tuple[Frames, Codes]:
        file = file_of(self.root, video_id(path))
        if not file.is_file():
            if self.otherwise is not None:
                return self.otherwise.read(path, video, indices, size)
            raise VideoError(path, f"there is no flow of it in {self.root}: `vidtrain data flow` makes what is missing")
        frames = video.read(indices, size)
        with JpegPackReader().open(str(file)) as pack:
            if pack.info.num_frames != max(1, video.info.num_frames - 1):
                raise VideoError(
                    path, f"{file} has {pack.info.num_frames} fields for {video.info.num_frames} frames: delete it"
                )
            stacked = pack.read_grey(np.minimum(indices, pack.info.num_frames - 1))
        half = stacked.shape[1] // 2
        # 0 is no code, but a decoder may round to it
        return frames, np.maximum(np.stack([stacked[:, :half], stacked[:, half:]], axis=-1), 1)
