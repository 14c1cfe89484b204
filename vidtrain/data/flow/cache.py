"""Optical flow of all videos of a dataset, computed once.

    <output>/flow.json               how it was made: every file of a folder in the same way
    <output>/<2 letters>/<id>.flow   of a video, whole or not there: a JPEG pack (readers/jpeg_pack.py) of grey
                                     images, one for each frame but the last, u above v
    <output>/report.csv              a line per video: made, kept from before, or bad and why

Why JPEGs: bytes of a field and milliseconds to decode it, dis on clips of UCF101 at 170 x 128 (43,520 bytes raw):

    JPEG, quality 95      1,600 to 2,500    0.1     off by 0.06 codes on average (0.01 pixels), by 7 at most
    JPEG, quality 85        800 to 1,100    0.1     0.15 and 16
    deflate (zlib, 1)     4,500 to 7,200    0.2     exact
    PNG                   4,500 to 6,500    0.5     exact
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from vidtrain.data.flow.codes import STILL, Codes, encode
from vidtrain.data.flow.files import SETTINGS, file_of, read_settings, video_id
from vidtrain.data.flow.methods import FlowMethod
from vidtrain.data.jobs.journal import write_report
from vidtrain.data.jobs.output_files import Job, make_all, whole
from vidtrain.data.jobs.parts import Part, PartMade, writer
from vidtrain.data.jobs.pool import Executor
from vidtrain.data.readers.base import VideoReader
from vidtrain.data.readers.jpeg_pack import write_pack
from vidtrain.data.readers.streaming import walk
from vidtrain.data.settings import FlowCacheConfig
from vidtrain.errors import ConfigError, DataError, VideoError
from vidtrain.ranges import check_fields
from vidtrain.runs.atomic import whole_file
from vidtrain.types import BadVideo, VideoInfo

_COLUMNS: Final = ("path", "status", "file", "bytes", "reason")


@dataclass(frozen=True)
class FlowMade:
    """What came of a run. made, kept: files made now, and those finished before. bytes: of them all."""

    made: int
    kept: int
    bad: tuple[BadVideo, ...]
    bytes: int


def make_flow(
    sources: Sequence[str],
    output: str | Path,
    settings: FlowCacheConfig,
    method: FlowMethod,
    reader: VideoReader,
    *,
    workers: int | Executor | None,
) -> FlowMade:
    """Compute the flow that is not there yet, then write the report.

    Args:
        sources: the videos, absolute, each once.
        output: folder of the cache; made where there is none.
        workers: processes; None: in this process, one video after the other (for a method that runs on a GPU); or what
            has others do it.

    Raises:
        ConfigError: a setting that cannot be used, or a folder that was made with others.
        DataError: no video could be used; the disk is full.
        VidtrainError: another process writes to the folder.
    """
    output = Path(output).absolute()
    _check(sources, settings)
    work = partial(compute, method=method, settings=settings, reader=reader, output=str(output))
    with _filling(output, None, settings, method):
        targets, jobs, todo, bad = _make(sources, work, output, settings, workers=workers)
    lost = {job.target for job in todo if job.source in bad}
    if len(bad) == len(sources):
        raise DataError(f"none of the {len(sources)} videos could be used; the first: {sources[0]}: {bad[sources[0]]}")
    write_report(output, _COLUMNS, _lines(output, sources, targets, bad, made={job.target for job in todo}))
    return FlowMade(
        made=len(todo) - len(lost),
        kept=len(jobs) - len(todo),
        bad=tuple(BadVideo(source, bad[source]) for source in sources if source in bad),
        bytes=sum(Path(job.target).stat().st_size for job in jobs if job.target not in lost),
    )


def make_flow_part(
    sources: Sequence[str],
    output: str | Path,
    settings: FlowCacheConfig,
    method: FlowMethod,
    reader: VideoReader,
    part: Part,
    *,
    workers: int | Executor | None,
) -> PartMade:
    """Compute the flow of one part that is not there yet. `make_flow` writes the report when all parts have ended.

    Arguments and errors are those of `make_flow`, but that it is no error when no video can be used.
    """
    output = Path(output).absolute()
    _check(sources, settings)
    work = partial(compute, method=method, settings=settings, reader=reader, output=str(output))
    with _filling(output, part, settings, method):
        _, jobs, todo, bad = _make(part.share(sources), work, output, settings, workers=workers)
    made = sum(job.source not in bad for job in todo)
    return PartMade(made, len(jobs) - len(todo), tuple(BadVideo(*one) for one in bad.items()))


def _check(sources: Sequence[str], settings: FlowCacheConfig) -> None:
    check_fields(settings, "flow.")
    if not sources:
        raise DataError("there is no video to compute the flow of")


@contextmanager
def _filling(output: Path, part: Part | None, settings: FlowCacheConfig, method: FlowMethod) -> Iterator[None]:
    """Hold the folder, which is made as these settings say, or is made."""
    recorded = {**method.settings, "short_side": settings.short_side, "quality": settings.quality}
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"output={output}: cannot be written to ({error.strerror})") from None
    with writer(output, "output", part, begin=lambda: _claim(output, recorded)):
        yield


def _make(
    sources: Sequence[str],
    work: Callable[[Job], None],
    output: Path,
    settings: FlowCacheConfig,
    *,
    workers: int | Executor | None,
) -> tuple[dict[str, Path], list[Job], list[Job], dict[str, str]]:
    """Compute what is missing: the file of each source that has one, all files, those computed now, what failed."""
    targets, bad = _targets(sources, output)
    # several files may be copies of one video
    jobs = [Job(source, str(target)) for target, source in {t: s for s, t in targets.items()}.items()]
    todo = [job for job in jobs if not Path(job.target).is_file()]
    kept = len(jobs) - len(todo)
    timeout = settings.timeout
    bad |= make_all(work, todo, "computing flow", done=kept, workers=workers, timeout=timeout, unit="video")
    lost = {job.target: bad[job.source] for job in todo if job.source in bad}
    bad |= {source: lost[str(target)] for source, target in targets.items() if str(target) in lost}
    return targets, jobs, todo, bad


def _claim(output: Path, recorded: Mapping[str, Any]) -> None:
    """Write how the folder is made, or refuse one that was made otherwise."""
    file = output / SETTINGS
    if file.is_file():
        found = read_settings(output)
        other = [key for key in (*recorded, *found) if recorded.get(key) != found.get(key)]
        if other:
            key = other[0]
            raise ConfigError(
                f"output={output}: its flow was made with {key}={found.get(key)}, not {recorded.get(key)}: "
                "give the same, or choose another folder"
            )
        return
    try:
        with whole_file(file, "w", encoding="utf-8") as out:
            out.write(json.dumps(recorded, indent=1) + "\n")
    except OSError as error:
        raise DataError(f"output={output}: cannot be written to ({error.strerror})") from None


def _targets(sources: Sequence[str], output: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The file of each video, and why there is none."""

    def find(source: str) -> Path | str:
        try:
            return file_of(output, video_id(source))
        except VideoError as error:
            return error.reason

    with ThreadPoolExecutor(8) as pool:  # waits for the disk
        found = dict(zip(sources, pool.map(find, sources), strict=True))
    targets = {source: target for source, target in found.items() if isinstance(target, Path)}
    return targets, {source: reason for source, reason in found.items() if isinstance(reason, str)}


def compute(job: Job, *, method: FlowMethod, settings: FlowCacheConfig, reader: VideoReader, output: str) -> None:
    """Write the flow of one video, whole or not at all. Memory: a few frames, however long the video is.

    A file that is there by now is of another part, which has a copy of this video.

    Raises:
        VideoError: the video cannot be read to its end, or is too small.
        DataError: the disk is full, or may not be written to.
    """
    if Path(job.target).is_file():
        return
    with whole(job, output) as part, reader.open(job.source) as video, part.open("wb") as out:
        info = video.info
        size = info.scaled(min(settings.short_side, info.height, info.width))
        count = max(1, info.num_frames - 1)
        fields = _fields(job.source, walk(job.source, video, size), method, settings.batch_size)
        jpegs = (_jpeg(codes, settings.quality) for codes in fields)
        write_pack(out, jpegs, VideoInfo(count, info.fps, 2 * size[0], size[1]))


def _fields(source: str, images: Iterator[Any], method: FlowMethod, batch: int) -> Iterator[Codes]:
    """Codes (H, W, 2) of each frame but the last; of a single frame one field that stands still."""
    last = next(images)
    shape, alone = last.shape[:2], True
    while following := list(islice(images, batch)):
        alone = False
        frames = np.stack([last, *following])
        try:
            yield from encode(method(frames[:-1], frames[1:]))
        except DataError as error:
            raise VideoError(source, str(error)) from None
        last = following[-1]
    if alone:
        yield np.full((*shape, 2), STILL, np.uint8)


def _jpeg(codes: Codes, quality: int) -> bytes:
    buffer = io.BytesIO()
    stacked = np.concatenate([codes[..., 0], codes[..., 1]])
    Image.fromarray(stacked).save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def _lines(
    output: Path, sources: Sequence[str], targets: Mapping[str, Path], bad: Mapping[str, str], made: set[str]
) -> Iterator[dict[str, Any]]:
    """A line per video, in the order of the data."""
    for source in sources:
        if source in bad:
            yield {"path": source, "status": "bad", "reason": bad[source]}
            continue
        target = targets[source]
        status, name = "made" if str(target) in made else "kept", target.relative_to(output).as_posix()
        yield {"path": source, "status": status, "file": name, "bytes": target.stat().st_size}
