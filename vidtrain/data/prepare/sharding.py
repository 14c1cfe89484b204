"""The videos of a dataset in tar files as WebDataset lays them out, and an index of where in them each one lies.

    <output>/train-000000.tar        archery/v_12.mp4, archery/v_12.json, archery/v_12.cls, the next video ...
    <output>/index.json, *.npy       `data=shards data.root=<output>` trains from it
    <output>/classes.txt             a class name per line, in the order of the numbers in the .cls
    <output>/report.csv              a line per video and split: its shard, offset and size, or why it is in none
    <output>/shards.jsonl            the journal

A video stands once, byte by byte as it was, in the shards of each split that has rows of it. The rows of the index are
in the dataset's own order: what a training draws from the shards is, to the bit, what it draws from the files. Shards
that are written twice have the same bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from vidtrain.data.jobs.journal import REPORT, Journal, Stamp, stamp_of, write_report
from vidtrain.data.jobs.output_files import make_all
from vidtrain.data.jobs.parts import Part, PartMade, writer
from vidtrain.data.jobs.pool import Executor
from vidtrain.data.manifest.index import FILE as INDEX
from vidtrain.data.manifest.index import write_index
from vidtrain.data.manifest.manifest import StringArray, VideoData
from vidtrain.data.prepare.prepare import check_output
from vidtrain.data.prepare.shard_sample import ShardSample, samples_of
from vidtrain.data.prepare.shard_tar import Shard, ShardJob, members_of, write_shard
from vidtrain.data.settings import ShardConfig
from vidtrain.errors import ConfigError, DataError
from vidtrain.runs.atomic import whole_file
from vidtrain.tar_members import Member
from vidtrain.terminal import EXACT_NAMES
from vidtrain.types import BadVideo
from vidtrain.untrusted_data import as_dataclass, is_below

JOURNAL: Final = "shards.jsonl"
CLASSES: Final = "classes.txt"
_UNITS: Final = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_SIZE: Final = re.compile(rf"([0-9]{{1,9}}(?:\.[0-9]{{1,9}})?) ?({'|'.join(_UNITS)})", re.IGNORECASE)
_COLUMNS: Final = ("path", "split", "status", "shard", "member", "offset", "bytes", "reason")
_ABSENT: Final = "no such file, or it cannot be read"


@dataclass(frozen=True)
class Sharded:
    """What came of a run.

    made, kept: shards written now, and those finished before. videos, bytes: in all of them.
    bad: videos that are in none.
    """

    made: int
    kept: int
    videos: int
    bytes: int
    bad: tuple[BadVideo, ...]


def bytes_of(size: str) -> int:
    """shard.size as a number of bytes; raises ConfigError."""
    found = _SIZE.fullmatch(size.strip())
    count = 0 if found is None else int(float(found[1]) * _UNITS[found[2].lower()])
    if not count:
        raise ConfigError(f"shard.size={size}: expected a number above 0 with kB, MB, GB or TB, such as 1GB")
    return count


def write_shards(
    data: VideoData, output: str | Path, settings: ShardConfig, *, workers: int | Executor | None
) -> Sharded:
    """Write the shards that are not there yet, then the index and the report.

    Args:
        data: whose videos; of all its splits.
        output: folder for the shards; made where there is none.
        workers: processes, each of which writes one shard at a time, or what has others do it.

    Raises:
        ConfigError: a setting, or an output folder, that cannot be used: one with files that are not of this very job.
        DataError: a video is a folder of images; none is there; a shard could not be written.
        VidtrainError: another process writes to the folder.
    """
    output = Path(output).absolute()
    paths, jobs, lost = _all_planned(data, output, settings)
    with writer(output, "output", None):
        with closing(_open_journal(output)) as journal:
            journal.take_in_parts()
        _refuse_other_files(jobs, jobs, output, lost)
        made, failed = _make(jobs, output, settings, workers=workers)
        if failed:
            name, reason = next(iter(failed.items()))
            raise DataError(
                f"{len(failed)} of {len(jobs)} shards could not be written; the first: {name}: {reason}; the same "
                "command goes on with those that are missing"
            )
        return _record(data, output, paths, jobs, made)


def write_shards_part(
    data: VideoData, output: str | Path, settings: ShardConfig, part: Part, *, workers: int | Executor | None
) -> PartMade:
    """Write the shards of one part that are not there yet. `write_shards` writes the index when all have ended.

    Arguments and errors are those of `write_shards`, but that a shard which cannot be written is no error.
    """
    output = Path(output).absolute()
    _, jobs, lost = _all_planned(data, output, settings)
    own = part.share(jobs)
    with writer(output, "output", part, begin=lambda: _refuse_other_files(jobs, own, output, lost)):
        made, failed = _make(own, output, settings, workers=workers, part=part)
    return PartMade(made - len(failed), len(own) - made, tuple(BadVideo(*one) for one in failed.items()))


def _all_planned(
    data: VideoData, output: Path, settings: ShardConfig
) -> tuple[dict[str, list[str]], list[ShardJob], list[str]]:
    """The absolute paths of each split, all shards, and the videos that are not there. Makes the folder."""
    most = bytes_of(settings.size)
    if broken := [name for name in data.class_names if name.splitlines() != [name]]:
        raise DataError(f"class {broken[0]!r}: {CLASSES} has a name per line: rename it")
    paths = {split: [os.path.abspath(path) for path in m.paths] for split, m in data.splits.items()}  # noqa: PTH100
    sources = list(dict.fromkeys(path for own in paths.values() for path in own))
    check_output(output, sources, data)
    stamps = _stamps(sources)
    jobs: list[ShardJob] = []
    for number, (split, manifest) in enumerate(data.splits.items()):
        samples = samples_of(manifest, paths[split], data.class_names, stamps)
        if split == "train":
            order = np.random.default_rng((settings.seed, number)).permutation(len(samples))
            samples = [samples[n] for n in order.tolist()]
        jobs += _planned(split, samples, output, most)
    return paths, jobs, [source for source in sources if source not in stamps]


def _stamps(sources: Sequence[str]) -> dict[str, Stamp]:
    """Of each video that is there; raises DataError for folders, and when there is none."""
    found = {source: stamp_of(source) for source in sources}
    folders = [source for source, stamp in found.items() if stamp is not None and stamp.folder]
    if folders:
        raise DataError(
            f"{folders[0]}: is a folder of images ({len(folders)} of {len(sources)} videos are), and a member of a "
            "shard is one file: pack them first with `vidtrain data prepare prepare.format=jpeg`"
        )
    there = {source: stamp for source, stamp in found.items() if stamp is not None}
    if not there:
        raise DataError(f"none of the {len(sources)} videos is there; the first: {sources[0]}")
    return there


def _planned(split: str, samples: Sequence[ShardSample], output: Path, most: int) -> Iterator[ShardJob]:
    """The shards of a split, each with as many videos in a row as fit into `most` bytes."""
    parts: list[list[ShardSample]] = []
    room = 0
    for sample in samples:
        if not parts or room + sample.room > most:
            parts.append([])
            room = 0
        parts[-1].append(sample)
        room += sample.room
    for number, part in enumerate(parts):
        name = f"{split}-{number:06}.tar"
        yield ShardJob(name, str(output / name), None, split, tuple(part))


def _refuse_other_files(jobs: Sequence[ShardJob], own: Sequence[ShardJob], output: Path, lost: Sequence[str]) -> None:
    """Raise ConfigError where files would be overwritten, or stay, that are not of these very shards.

    Args:
        own: of the jobs, those of this run.
        lost: videos that are not there now, which other shards may hold.
    """
    with closing(_open_journal(output)) as journal:
        plans = {name: shard.plan for name, shard in journal.entries.items()}
    wanted = {job.source: job.plan for job in jobs}
    looked_at = dict.fromkeys([*plans, *(job.source for job in own)])  # another part may just be writing the others
    others = [name for name in looked_at if plans.get(name) != wanted.get(name)]
    if not plans:
        others += [CLASSES, REPORT, INDEX, *(file.name for file in output.glob("*.npy"))]
    there = sorted(name for name in others if os.path.lexists(output / name))
    if not there:
        return
    gone = f" ({len(lost)} videos of the set are not there now, the first: {lost[0]})" if lost else ""
    raise ConfigError(
        f"output={output}: holds {there[0]}{f' (and {len(there) - 1} more)' if there[1:] else ''} of another "
        f"dataset, other settings, or changed videos{gone}; choose another output=, or remove them yourself"
    )


def _make(
    jobs: Sequence[ShardJob],
    output: Path,
    settings: ShardConfig,
    *,
    workers: int | Executor | None,
    part: Part | None = None,
) -> tuple[int, dict[str, str]]:
    """Write the shards that are not finished; returns how many these were, and the reason for each that failed."""
    with closing(_open_journal(output, part)) as journal:
        todo = [job for job in jobs if not _is_finished(journal, job)]
        for job in todo:  # so that a shard is known for this job's own also where the run is killed right behind it
            journal.add(Shard(job.source, job.plan, 0))

        def keep(shard: Shard) -> str:
            journal.add(shard)
            return ""

        failed = make_all(
            partial(write_shard, output=str(output)),
            todo,
            "sharding",
            done=len(jobs) - len(todo),
            workers=workers,
            timeout=settings.timeout,
            made=keep,
        )
    return len(todo), failed


def _open_journal(output: Path, part: Part | None = None) -> Journal[Shard]:
    return Journal(output / JOURNAL, "name", _read_shard, part=part)


def _read_shard(content: Any) -> Shard:
    shard = as_dataclass(Shard, content)
    if not is_below(shard.name) or not shard.name.endswith(".tar"):
        raise ValueError(shard.name)
    return shard


def _is_finished(journal: Journal[Shard], job: ShardJob) -> bool:
    entry, found = journal.entries.get(job.source), stamp_of(job.target)
    return entry is not None and found is not None and (entry.plan, entry.bytes) == (job.plan, found.size or -1)


def _record(
    data: VideoData, output: Path, paths: Mapping[str, list[str]], jobs: Sequence[ShardJob], made: int
) -> Sharded:
    """Write classes, report and index; `made` shards were written now."""
    with whole_file(output / CLASSES, "w", encoding="utf-8", errors=EXACT_NAMES) as file:
        file.writelines(f"{name}\n" for name in data.class_names)
    where: dict[str, dict[str, tuple[ShardJob, Member]]] = {split: {} for split in data.splits}
    for job in jobs:
        members = members_of(job)
        where[job.split] |= {sample.source: (job, members[sample.name]) for sample in job.samples}
    splits, notes, lines = {}, list(data.notes), []
    for split, manifest in data.splits.items():
        found = [where[split].get(path) for path in paths[split]]
        rows = np.array([row for row, one in enumerate(found) if one is not None], dtype=np.int64)
        own = StringArray.of(one[1].path(one[0].target) for one in found if one is not None)
        lost = list(dict.fromkeys(path for path in paths[split] if path not in where[split]))
        missing = (*manifest.missing, *(() if split == "train" else lost))
        splits[split] = replace(manifest.take(rows), paths=own, missing=missing)
        if lost:
            how = "excluded" if split == "train" else "listed as missing"
            notes.append(f"{split}: {len(lost)} videos are in no shard and are {how}")
        for path, (job, member) in where[split].items():
            place = {"shard": job.source, "member": member.name, "offset": member.start, "bytes": member.size}
            lines.append({"path": path, "split": split, "status": "in", **place})
        lines += [{"path": path, "split": split, "status": "bad", "reason": _ABSENT} for path in lost]
    write_report(output, _COLUMNS, lines)
    write_index(output, replace(data, splits=splits, notes=tuple(notes)))
    inside = [member for own in where.values() for _, member in own.values()]
    bad = dict.fromkeys(str(line["path"]) for line in lines if line["status"] == "bad")
    size = sum(member.size for member in inside)
    return Sharded(made, len(jobs) - made, len(inside), size, tuple(BadVideo(path, _ABSENT) for path in bad))
