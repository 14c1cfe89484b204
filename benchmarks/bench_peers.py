"""How the public peers load a clip, as their own documentation shows it, for bench_data.py.

decord 0.6.0: one thread, width and height given at open, one get_batch of sorted unique frames. (Its defaults, a thread
per core and a full-size decode, are slower on one core.)

PyTorchVideo 0.1.5: EncodedVideoPyAV.get_clip, UniformTemporalSubsample, ShortSideScale, CenterCrop or UniformCrop; in
the loader LabeledVideoDataset with a random clip sampler. Its transforms import a module that torchvision has removed;
the same functions under their new name are put in its place.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
import torch
import torchvision.transforms.functional as torchvision_functional
from torch.utils.data import Dataset

from vidtrain.types import Frames, Indices


def have_decord() -> bool:
    try:
        import decord
    except ImportError:
        return False
    decord.logging.set_level(decord.logging.QUIET)
    return True


def have_pytorchvideo() -> bool:
    sys.modules.setdefault("torchvision.transforms.functional_tensor", torchvision_functional)
    try:
        import pytorchvideo.transforms  # noqa: F401
    except ImportError:
        return False
    return True


def decord_clip(path: str, wanted: Indices, size: tuple[int, int], crop: int) -> Frames:
    """uint8 (T, crop, crop, 3) from the centre."""
    import decord

    frames, place = np.unique(wanted, return_inverse=True)
    reader = decord.VideoReader(path, num_threads=1, height=size[0], width=size[1])
    clip: Frames = reader.get_batch(frames.tolist()).asnumpy()[place]
    top, left = (size[0] - crop) // 2, (size[1] - crop) // 2
    return np.ascontiguousarray(clip[:, top : top + crop, left : left + crop])


class DecordClips(Dataset[torch.Tensor]):
    """Random clips of `frames` samples, `stride` apart, as people write it around decord."""

    def __init__(self, paths: Sequence[str], frames: int, stride: int, size: tuple[int, int], crop: int) -> None:
        self.paths, self.frames, self.stride, self.size, self.crop = list(paths), frames, stride, size, crop

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> torch.Tensor:
        import decord

        reader = decord.VideoReader(self.paths[row], num_threads=1, height=self.size[0], width=self.size[1])
        span = (self.frames - 1) * self.stride + 1
        start = int(torch.randint(max(1, len(reader) - span + 1), ()))
        wanted = np.minimum(start + np.arange(self.frames) * self.stride, len(reader) - 1)
        clip = reader.get_batch(wanted.tolist()).asnumpy()
        top, left = (int(torch.randint(side - self.crop + 1, ())) for side in self.size)
        return torch.from_numpy(np.ascontiguousarray(clip[:, top : top + self.crop, left : left + self.crop]))


def pytorchvideo_clip(path: str, first: float, last: float, frames: int, short: int, crops: Sequence[int]) -> list[Any]:
    """Float clips (3, T, crop, crop) of the part from `first` to `last` seconds, one for each of `crops` (0, 1, 2)."""
    from pytorchvideo.data.encoded_video import EncodedVideo
    from pytorchvideo.transforms import ShortSideScale, UniformTemporalSubsample
    from pytorchvideo.transforms.functional import uniform_crop

    video = EncodedVideo.from_path(path, decode_audio=False)
    clip = video.get_clip(first, last)["video"]
    video.close()
    clip = ShortSideScale(short)(UniformTemporalSubsample(frames)(clip) / 255)
    return [uniform_crop(clip, 112, crop) for crop in crops]


def pytorchvideo_dataset(paths: Sequence[str], frames: int, seconds: float, short: int, crop: int) -> Any:
    """LabeledVideoDataset with a random clip a video."""
    from pytorchvideo.data import LabeledVideoDataset, make_clip_sampler
    from pytorchvideo.transforms import ApplyTransformToKey, ShortSideScale, UniformTemporalSubsample
    from torchvision.transforms import Compose, Lambda, RandomCrop

    steps = [UniformTemporalSubsample(frames), Lambda(_to_unit), ShortSideScale(short), RandomCrop(crop)]
    return LabeledVideoDataset(
        [(path, {"label": 0}) for path in paths],
        make_clip_sampler("random", seconds),
        transform=ApplyTransformToKey(key="video", transform=Compose(steps)),
        decode_audio=False,
    )


def _to_unit(clip: torch.Tensor) -> torch.Tensor:
    return clip / 255


def decode_only(path: str, first: int, last: int, fps: float) -> int:
    """Decode the frames from the keyframe before frame `first` to frame `last`; convert none. Their number."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        assert stream.time_base is not None
        if first:
            container.seek(int(first / Fraction(fps).limit_denominator(1001) / stream.time_base), stream=stream)
        count = 0
        for frame in container.decode(stream):
            count += 1
            if frame.pts is not None and float(frame.pts * stream.time_base) * fps > last - 0.5:
                break
    return count


def decode_all(path: str, size: tuple[int, int]) -> Iterator[Frames]:
    """Every frame of a file, from its start, as RGB of `size`, converted as vidtrain does it."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            # as planes, see vidtrain.data.readers.pyav.to_rgb.Converter
            rgb = frame.reformat(width=size[1], height=size[0], format="gbrp", interpolation="BILINEAR")
            yield rgb.to_ndarray()
