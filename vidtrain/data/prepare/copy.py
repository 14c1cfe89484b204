"""Making one copy: encode, look at what was written, and only then give it its name. Runs in a worker process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vidtrain.data.jobs.output_files import Job, whole
from vidtrain.data.manifest.files import PACK_EXTENSION
from vidtrain.data.prepare.frames import copy_size, timestamps
from vidtrain.data.prepare.plan import Copy
from vidtrain.data.readers.base import VideoReader
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.data.readers.pyav.to_rgb import ImageArray
from vidtrain.data.readers.pyav.truncation import missing_bytes
from vidtrain.data.readers.streaming import walk
from vidtrain.data.readers.timeline import Timeline
from vidtrain.data.settings import CopyFormat, PrepareConfig
from vidtrain.errors import VideoError
from vidtrain.types import VideoInfo

_LOOKED_AT: Final = 8  # frames of each copy that are held against the source
_LATE: Final = 3e-3  # seconds; the source's times may have been rounded, and the copy's are
_CEILING: Final = 99.0  # dB, of a copy without loss


def suffix_of(settings: PrepareConfig) -> str:
    """The extension of the copies."""
    return PACK_EXTENSION if settings.format is CopyFormat.jpeg else ".mp4"


def recorded(settings: PrepareConfig) -> dict[str, Any]:
    """What the pixels of a copy depend on; `version` changes when this code makes others."""
    common: dict[str, Any] = {"format": str(settings.format), "short_side": settings.short_side}
    if settings.format is CopyFormat.jpeg:
        return {"version": 2, **common, "quality": settings.quality}  # 2: with the times of the frames
    return {"version": 1, **common, "crf": settings.crf, "gop": settings.gop}


def make_copy(job: Job, *, reader: VideoReader, settings: PrepareConfig, output: str) -> Copy:
    """Write job.target, whole or not at all.

    Raises:
        VideoError: the source cannot be read to its end, or what was written does not show the same.
        DataError: the disk is full, or may not be written to.
    """
    with whole(job, output) as part:
        info, psnr = _write(job.source, part, reader, settings)
    assert job.stamp is not None, f"{job.source}: was read, but not there"
    target = Path(job.target)
    relative, size = target.relative_to(output).as_posix(), target.stat().st_size
    shape = info.num_frames, info.fps, info.height, info.width
    return Copy(job.source, job.stamp, recorded(settings), relative, size, *shape, psnr, _note(job.source))


def _write(source: str, part: Path, reader: VideoReader, settings: PrepareConfig) -> tuple[VideoInfo, float]:
    """Encode and look at it; returns what the copy shows, and the PSNR of its worst frame looked at."""
    jpeg = settings.format is CopyFormat.jpeg
    with reader.open(source) as video:
        size = copy_size(video.info, settings.short_side, even=not jpeg)
        info = VideoInfo(video.info.num_frames, video.info.fps, *size, video.info.times)
        places = np.linspace(0, info.num_frames - 1, _LOOKED_AT).round().astype(int)
        kept: dict[int, ImageArray] = {}
        images = _keep(walk(source, video, size), set(places.tolist()), kept)
        if jpeg:
            from vidtrain.data.prepare.jpeg import encode_pack
            from vidtrain.data.readers.jpeg_pack import JpegPackReader

            encode_pack(part, images, info, quality=settings.quality)
            copies: VideoReader = JpegPackReader()
        else:
            from vidtrain.data.prepare.video import encode_video

            encode_video(part, images, size, timestamps(video), crf=settings.crf, gop=settings.gop)
            copies = PyAVReader()
    try:
        return info, check_copy(str(part), copies, info, kept, settings.min_psnr)
    except VideoError as error:
        raise VideoError(source, f"its copy is not good: {error.reason}") from None


def _note(source: str) -> str:
    """A source that was broken off still opens when its index lies at the front: its copy will look whole."""
    try:
        missing = 0 if Path(source).is_dir() else missing_bytes(source)
    except OSError:
        return ""
    return f"is cut off: {missing} bytes are missing at its end" if missing else ""


def _keep(images: Iterable[ImageArray], places: set[int], kept: dict[int, ImageArray]) -> Iterator[ImageArray]:
    """Pass the images on and put those at `places` aside."""
    for number, image in enumerate(images):
        if number in places:
            kept[number] = image
        yield image


def check_copy(path: str, reader: VideoReader, planned: VideoInfo, kept: dict[int, ImageArray], floor: float) -> float:
    """Read a whole copy with the reader that training uses.

    Args:
        path: the copy.
        reader: to read it with.
        planned: what it has to show; the rate may differ by a thousandth, the time of a frame by `_LATE`.
        kept: frames of the source at the copy's size, by number.
        floor: the least PSNR that they may have (dB), see `likeness`.

    Returns:
        The PSNR of the worst of them.

    Raises:
        VideoError: it shows something else, or a frame does not decode.
    """
    with reader.open(path) as video:
        info = video.info
        for what in ("num_frames", "height", "width"):
            if getattr(info, what) != getattr(planned, what):
                raise VideoError(path, f"{what} is {getattr(info, what)}, not {getattr(planned, what)}")
        if abs(info.fps - planned.fps) > planned.fps / 1000:
            raise VideoError(path, f"it shows {info.fps:g} frames per second, the source {planned.fps:g}")
        late = np.abs(_seconds(info) - _seconds(planned))
        if late.max() > _LATE:
            raise VideoError(path, f"frame {late.argmax()} is shown {late.max():.3g} s from when the source shows it")
        worst, at = _CEILING, 0
        for number, image in enumerate(walk(path, video, (planned.height, planned.width))):
            if number in kept and (level := likeness(image, kept[number])) < worst:
                worst, at = level, number
    if worst < floor:
        low = f"frame {at} has a PSNR of {worst:.1f} dB, less than prepare.min_psnr={floor:g}"
        raise VideoError(path, f"{low}; a lower prepare.crf or a higher prepare.quality may do")
    return round(worst, 2)


def _seconds(info: VideoInfo) -> npt.NDArray[np.float64]:
    return Timeline.of(info).seconds(np.arange(info.num_frames))


def likeness(one: ImageArray, other: ImageArray) -> float:
    """PSNR (dB, up to 99) of two images (H, W, 3), each first averaged over blocks of 2x2.

    Averaged, because sharp colours and noise, which no small copy keeps, would drown what this is to find: an image
    that is broken, of the wrong colours, or of another place in the video.
    """
    error = float(np.square(_halved(one) - _halved(other)).mean())
    return min(_CEILING, float(10 * np.log10(255**2 / max(error, 1e-9))))


def _halved(image: ImageArray) -> npt.NDArray[np.float32]:
    height, width = (side // 2 * 2 if side > 1 else 1 for side in image.shape[:2])
    rows, columns = min(2, height), min(2, width)
    blocks = image[:height, :width].reshape(height // rows, rows, width // columns, columns, 3)
    means: npt.NDArray[np.float32] = blocks.mean((1, 3), dtype=np.float32)
    return means
