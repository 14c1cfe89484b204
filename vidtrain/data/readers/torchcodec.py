"""The reader for those who want torchcodec, on the processor or on NVIDIA's video decoder: the same contract as `pyav`.

The frames shown, their rate and their size are found as the PyAV reader finds them. Files of which torchcodec is known
to return wrong frames are refused before it sees them (tried with 0.17 and FFmpeg 5): MPEG streams, AVI with
reordered frames, interlaced MPEG-4 with open GOPs, packets that are marked as keyframes and are none (intra refresh,
MP4 without a table of them), mirrored frames; with older versions rotated ones (before 0.11) and those with frames
hidden by an edit list (before 0.16).

Pixels on the processor equal those of `pyav` at the video's own size, for 8-bit video; scaled ones differ in how the
colours are interpolated. On "cuda" the frame is converted by NVIDIA's code and scaled by torch, both of which round
differently.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Final

import numpy as np

from vidtrain.data.readers.base import OpenVideo
from vidtrain.data.readers.checked_video import CheckedVideo
from vidtrain.data.readers.guarded import Guarded
from vidtrain.data.readers.pyav.packet_table import false_keys, loses_palette
from vidtrain.data.readers.pyav.reader import PyAVVideo
from vidtrain.data.readers.pyav.references import has_fields
from vidtrain.data.readers.pyav.to_rgb import Orientation, scaled
from vidtrain.errors import ConfigError, VideoError
from vidtrain.ranges import LONGEST, Range
from vidtrain.tar_members import mapped, stretch_of
from vidtrain.types import Frames, Indices

_CONTAINERS: Final = ("mov", "matroska", "avi", "flv", "gif")
_ROTATES: Final = (0, 11)  # the version from which it turns frames
_EDITS: Final = (0, 16)  # the version from which it finds the keyframe of frames behind hidden ones


@dataclass(frozen=True)
class TorchCodecReader:
    """Opens videos with torchcodec, one decode thread.

    device: "cpu", or "cuda" (or "cuda:1" ...) to decode with NVDEC. Each loader's worker then takes some hundred
        megabytes of the GPU's memory; frames come back to the CPU, as from every reader.
    timeout: seconds that opening a file or one read may take (large files get more, see `guarded.Guarded`). torchcodec
        then runs in a process of its own, which is killed when it hangs. None: in this process, where nothing ends a
        hang.
    """

    device: str = "cpu"
    timeout: Annotated[float | None, Range(above=0, most=LONGEST)] = 5.0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise ConfigError(f"decoder.device={self.device!r} must be cpu, cuda, or cuda:N with the number of a GPU")

    def open(self, path: str) -> OpenVideo:
        """Open a file and find the frames it shows.

        Raises:
            ConfigError: torchcodec or FFmpeg's libraries are not installed; there is no such GPU.
            VideoError: not a video that can be read, or not one that torchcodec can be trusted with.
        """
        if self.timeout is not None:
            return Guarded(TorchCodecReader(self.device, timeout=None), self.timeout).open(path)
        self.prepare()
        return TorchCodecVideo(path, self.device)

    def prepare(self) -> None:
        """Import what takes its time; raises ConfigError."""
        _import_decoder(self.device)


class TorchCodecVideo(CheckedVideo):
    """A video being read, see `vidtrain.data.readers.base.OpenVideo`."""

    library = "torchcodec"

    def __init__(self, path: str, device: str) -> None:
        self._device = device
        super().__init__(path)

    def _why_not(self, probe: PyAVVideo) -> str:
        return _why_not(probe, self._device)

    def _batch(self, wanted: Indices, size: tuple[int, int]) -> Frames:
        try:
            frames = self._sized(size).get_frames_at(wanted.tolist()).data
        except (RuntimeError, ValueError, IndexError) as error:
            self._opened = None
            raise VideoError(self._path, f"torchcodec: {_gist(error)} (decoder=pyav may read it)") from None
        if tuple(frames.shape[1:3]) not in (size, (self.info.height, self.info.width)):
            raise VideoError(self._path, f"torchcodec gives frames of another size ({tuple(frames.shape[1:3])})")
        return _fitted(frames, size)

    def _open(self, size: tuple[int, int]) -> Any:
        decoder_class, resize = _import_decoder(self._device)
        options = {}
        if resize is not None and size != (self.info.height, self.info.width):
            options["transforms"] = [resize(size)]
        return decoder_class(
            self._path if stretch_of(self._path).size is None else mapped(self._path).tobytes(),
            stream_index=self._stream,
            dimension_order="NHWC",
            num_ffmpeg_threads=1,
            device=self._device,
            seek_mode="exact",
            **options,
        )


def _fitted(frames: Any, size: tuple[int, int]) -> Frames:
    """A tensor of frames, uint8 (N, H, W, 3) on any device, as an array of this (height, width)."""
    if tuple(frames.shape[1:3]) == size:
        same: Frames = frames.cpu().contiguous().numpy()
        return same
    if frames.device.type == "cpu":
        return scaled(frames.numpy(), size)
    from torch.nn.functional import interpolate

    planes = interpolate(frames.permute(0, 3, 1, 2).float(), size, mode="bilinear", antialias=True)
    out: Frames = planes.round_().clamp_(0, 255).byte().permute(0, 2, 3, 1).cpu().contiguous().numpy()
    return out


def _import_decoder(device: str) -> tuple[Any, Any]:
    """torchcodec's VideoDecoder, and its Resize where it has one that works on the device."""
    try:
        from torchcodec.decoders import VideoDecoder  # absolute: the library, not this module
    except ImportError:
        fix = "pip install torchcodec, in the version for your torch, or use decoder=pyav"
        raise ConfigError(f"decoder=torchcodec needs the package torchcodec: {fix}") from None
    except (OSError, RuntimeError):
        raise ConfigError(_NO_FFMPEG) from None
    if device != "cpu":
        import torch

        number = int(device.partition(":")[2] or 0)
        if number >= torch.cuda.device_count():
            raise ConfigError(f"decoder.device={device}: torch sees {torch.cuda.device_count()} GPUs here; use cpu")
        return VideoDecoder, None
    try:
        from torchcodec.transforms import Resize
    except ImportError:
        return VideoDecoder, None
    return VideoDecoder, Resize


_NO_FFMPEG: Final = (
    "decoder=torchcodec needs FFmpeg's shared libraries (version 4 to 9), and a torchcodec that fits the torch here: "
    "install FFmpeg (apt, brew or conda install ffmpeg), or use decoder=pyav"
)


def _why_not(probe: PyAVVideo, device: str) -> str:
    """What is wrong with the file for torchcodec, '' when nothing is."""
    container, table, version = probe.file.container.format.name, probe.frames.table, _version()
    if loses_palette(probe.file):
        return "torchcodec loses the palette of this file when it seeks"
    if table is None or probe.frames.packed or not container.startswith(_CONTAINERS):
        return f"torchcodec cannot be trusted to find the frames of this kind of file ({container})"
    if table.damaged:
        return f"has {table.damaged} damaged packets among {len(table.pts)}, which torchcodec may show"
    if probe.orientation.mirrored:
        return "torchcodec does not mirror frames"
    if probe.orientation != Orientation() and (device != "cpu" or version < _ROTATES):
        return "torchcodec does not turn frames" + (" here" if version >= _ROTATES else " in this version")
    if len(table.pts) > len(table.shown) and version < _EDITS:
        return f"torchcodec counts {len(table.pts)} frames in this version, {len(table.shown)} are shown"
    if table.false_keys:
        return f"{false_keys(table)}, to which torchcodec seeks"
    if container == "avi" and (np.diff(table.shown) < 0).any():
        return "torchcodec returns wrong frames of AVI files with reordered frames"
    context = probe.file.stream.codec_context
    if context.name == "mpeg4" and has_fields(context.extradata or b"") and (np.diff(table.start) < 0).any():
        return "torchcodec returns wrong frames of interlaced MPEG-4 with open GOPs"
    return ""


def _version() -> tuple[int, ...]:
    import torchcodec

    return tuple(int(part) for part in re.findall(r"\d+", torchcodec.__version__)[:2])


def _gist(error: Exception) -> str:
    """The last line of torchcodec's message that says something, without the places in its source."""
    line = next(iter(str(error).splitlines()), type(error).__name__)
    return re.sub(r"^.*?\.cpp:\d+,?\s*", "", line).strip()
