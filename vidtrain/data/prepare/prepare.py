"""Small copies of all videos of a dataset that training reads many times faster, and an index to train from.

    <output>/<path below the sources' common folder>.mp4     or .jpack; whole, or not there
    <output>/index.json, *.npy                               `data=index data.root=<output>` trains from it
    <output>/report.csv                                      a line per video: made, kept from before, or bad and why
    <output>/copies.jsonl                                    the journal, see `plan`

Every file is copied once and whole, however many rows use it and whichever part of it they are: their starts and ends
hold for the copy as they did for the original.

A video that cannot be copied is excluded from train. In val and test its rows are listed as missing, so that a test
says how many of all its videos were scored, and names the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from vidtrain.data.jobs.journal import Journal, stamp_of, write_report
from vidtrain.data.jobs.output_files import Job, make_all
from vidtrain.data.jobs.parts import Part, PartMade, writer
from vidtrain.data.jobs.pool import Executor
from vidtrain.data.manifest.index import write_index
from vidtrain.data.manifest.manifest import StringArray, VideoData
from vidtrain.data.prepare.copy import make_copy, recorded, suffix_of
from vidtrain.data.prepare.plan import Copy, finished, name_copies, open_journal
from vidtrain.data.readers.base import VideoReader
from vidtrain.data.settings import CopyFormat, PrepareConfig
from vidtrain.errors import ConfigError, DataError
from vidtrain.ranges import check_fields
from vidtrain.types import BadVideo

_SIZES: Final = ("frames", "fps", "height", "width", "bytes", "copy_bytes", "psnr")
_COLUMNS: Final = ("path", "status", "copy", *_SIZES, "reason")


@dataclass(frozen=True)
class Prepared:
    """What came of a run.

    made, kept: copies made now, and those finished before. bad: what could not be copied, in the order of the data.
    odd: copies of sources that are cut off, with what is missing.
    bytes_before, bytes_after: of the sources that have a copy, and of the copies.
    """

    made: int
    kept: int
    bad: tuple[BadVideo, ...]
    odd: tuple[BadVideo, ...]
    bytes_before: int
    bytes_after: int


def check_settings(settings: PrepareConfig) -> None:
    """Raise ConfigError for a number that its key cannot have."""
    check_fields(settings, "prepare.")
    if settings.format is CopyFormat.video:
        from vidtrain.data.prepare.video import check_encoder

        if settings.short_side % 2:
            raise ConfigError(f"prepare.short_side={settings.short_side}: must be even for prepare.format=video")
        check_encoder()


def prepare(
    data: VideoData, output: str | Path, settings: PrepareConfig, reader: VideoReader, *, workers: int | Executor | None
) -> Prepared:
    """Make the copies that are not there yet, then the index and the report.

    Args:
        data: what to copy: all videos of all its splits.
        output: folder for the copies; made where there is none.
        settings: of the copies.
        reader: reads the originals.
        workers: processes, or what has others do it.

    Raises:
        ConfigError: a setting, or an output folder, that cannot be used.
        DataError: none of the videos could be copied; the disk is full.
        VidtrainError: another process writes to the folder.
    """
    output, sources = _checked(data, output, settings)
    with writer(output, "output", None):
        return _fill(data, output, sources, settings, reader, workers=workers)


def prepare_part(
    data: VideoData,
    output: str | Path,
    settings: PrepareConfig,
    reader: VideoReader,
    part: Part,
    *,
    workers: int | Executor | None,
) -> PartMade:
    """Make the copies of one part that are not there yet. `prepare` writes index and report when all parts have ended.

    Arguments and errors are those of `prepare`, but that it is no error when no video can be copied.
    """
    output, sources = _checked(data, output, settings)
    work = partial(make_copy, reader=reader, settings=settings, output=str(output))
    with writer(output, "output", part), closing(open_journal(output, part)) as journal:
        done, jobs = _plan(sources, output, settings, journal)
        own = set(part.share(sources))
        done = {source: copy for source, copy in done.items() if source in own}
        jobs = [job for job in jobs if job.source in own]
        kept = len(done)
        bad = _work(jobs, done, journal, work, workers=workers, timeout=settings.timeout)
    return PartMade(len(done) - kept, kept, tuple(BadVideo(*one) for one in bad.items()))


def _checked(data: VideoData, output: str | Path, settings: PrepareConfig) -> tuple[Path, list[str]]:
    """The folder, which is there, and the absolute path of each source, once."""
    check_settings(settings)
    output = Path(output).absolute()
    sources = data.files()
    check_output(output, sources, data)
    return output, sources


def _fill(
    data: VideoData,
    output: Path,
    sources: list[str],
    settings: PrepareConfig,
    reader: VideoReader,
    *,
    workers: int | Executor | None,
) -> Prepared:
    with closing(open_journal(output)) as journal:
        listed = set(sources)
        former = {copy.target for copy in (*journal.replaced, *journal.entries.values()) if copy.source in listed}
        journal.take_in_parts()
        done, jobs = _plan(sources, output, settings, journal)
        kept = len(done)
        work = partial(make_copy, reader=reader, settings=settings, output=str(output))
        bad = _work(jobs, done, journal, work, workers=workers, timeout=settings.timeout)
    if not done:
        reason = f"{sources[0]}: {bad[sources[0]]}"
        raise DataError(f"none of the {len(sources)} videos could be prepared; the first: {reason}")
    write_report(output, _COLUMNS, _lines(sources, done, bad, made={job.source for job in jobs}))
    write_index(output, _indexed(data, output, done))
    used = {copy.target for copy in done.values()}
    for target in former:  # copies with other settings, or of what the source was before
        if target not in used:
            (output / target).unlink(missing_ok=True)
    return Prepared(
        made=len(done) - kept,
        kept=kept,
        bad=tuple(BadVideo(source, bad[source]) for source in sources if source in bad),
        odd=tuple(BadVideo(s, done[s].note) for s in sources if s in done and done[s].note),
        bytes_before=sum(copy.stamp.size for copy in done.values()),
        bytes_after=sum(copy.bytes for copy in done.values()),
    )


def check_output(output: Path, sources: list[str], data: VideoData) -> None:
    if not sources:
        raise DataError("there is no video to prepare")
    inside = next((s for s in sources if s.startswith(os.path.join(output, ""))), None)  # noqa: PTH118
    if inside is not None:
        raise ConfigError(f"output={output}: {inside} of the dataset lies in it; choose a folder outside of the set")
    mapped = [m.labels.filename for m in data.splits.values() if isinstance(m.labels, np.memmap)]
    if any(file is not None and Path(file).parent == output for file in mapped):
        raise ConfigError(f"output={output}: holds the index that is being read; choose another folder")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"output={output}: cannot be made ({error.strerror})") from None


def _plan(
    sources: list[str], output: Path, settings: PrepareConfig, journal: Journal[Copy]
) -> tuple[dict[str, Copy], list[Job]]:
    """The copies that are finished, by source, and those to make."""
    stamps = {source: stamp_of(source) for source in sources}
    found = {source: finished(journal, source, stamp, recorded(settings)) for source, stamp in stamps.items()}
    done = {source: copy for source, copy in found.items() if copy is not None}
    names = name_copies(
        sources,
        (stamp is not None and stamp.folder for stamp in stamps.values()),
        suffix_of(settings),
        {source: copy.target for source, copy in done.items()},
        # of other data sets in the same folder
        (copy.target for source, copy in journal.entries.items() if source not in stamps),
    )
    return done, [Job(s, str(output / names[s]), stamps[s]) for s in sources if s not in done]


def _work(
    jobs: list[Job],
    done: dict[str, Copy],
    journal: Journal[Copy],
    function: Callable[[Job], Copy],
    *,
    workers: int | Executor | None,
    timeout: float,
) -> dict[str, str]:
    """Do the jobs; adds to `done`, returns the reason for each that failed."""
    before = after = 0

    def keep(copy: Copy) -> str:
        nonlocal before, after
        journal.add(copy)
        done[copy.source] = copy
        before, after = before + copy.stamp.size, after + copy.bytes
        return f"{readable(before)} -> {readable(after)}"

    return make_all(function, jobs, "preparing", done=len(done), workers=workers, timeout=timeout, made=keep)


def _indexed(data: VideoData, output: Path, done: Mapping[str, Copy]) -> VideoData:
    """The same rows with the copies' paths."""
    splits, notes = {}, list(data.notes)
    for split, manifest in data.splits.items():
        paths = [os.path.abspath(path) for path in manifest.paths]  # noqa: PTH100
        copies = [done.get(path) for path in paths]
        rows = np.array([row for row, copy in enumerate(copies) if copy is not None], dtype=np.int64)
        lost = [path for path, copy in zip(paths, copies, strict=True) if copy is None]
        missing = [*manifest.missing, *(() if split == "train" else lost)]
        targets = StringArray.of(os.path.join(output, copy.target) for copy in copies if copy is not None)  # noqa: PTH118
        splits[split] = replace(manifest.take(rows), paths=targets, missing=tuple(missing))
        if lost:
            where = "excluded" if split == "train" else "listed as missing"
            notes.append(f"{split}: {len(lost)} of {len(manifest)} videos could not be prepared and are {where}")
    return replace(data, splits=splits, notes=tuple(notes))


def _lines(
    sources: list[str], done: Mapping[str, Copy], bad: Mapping[str, str], made: set[str]
) -> Iterator[dict[str, Any]]:
    """A line per video, in the order of the data."""
    for source in sources:
        copy = done.get(source)
        if copy is None:
            yield {"path": source, "status": "bad", "reason": bad[source]}
            continue
        status = {"path": source, "status": "made" if source in made else "kept", "copy": copy.target}
        sizes = {"bytes": copy.stamp.size, "copy_bytes": copy.bytes, "fps": f"{copy.fps:g}", "reason": copy.note}
        yield {**status, **{key: getattr(copy, key) for key in ("frames", "height", "width", "psnr")}, **sizes}


def readable(count: int) -> str:
    """12.3 MB; decimal units, as disks are sold."""
    size, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
