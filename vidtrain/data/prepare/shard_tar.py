"""One shard: a tar file of videos and of what is beside them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

from vidtrain.data.jobs.journal import stamp_of
from vidtrain.data.jobs.output_files import Job, whole
from vidtrain.data.manifest.files import suffix_of
from vidtrain.data.prepare.shard_sample import ShardSample
from vidtrain.errors import DataError, VideoError
from vidtrain.tar_members import Member, open_bytes, walk_tar


@dataclass(frozen=True)
class Shard:
    """A shard. name: below the output folder. plan: see `ShardJob`. bytes: its size; 0: it was begun."""

    name: str
    plan: str
    bytes: int


@dataclass(frozen=True)
class ShardJob(Job):
    """A shard to write; its source is the name of the shard."""

    split: str = ""
    samples: tuple[ShardSample, ...] = ()

    @property
    def plan(self) -> str:
        """Digest of all that the bytes of the shard depend on."""
        parts = (
            [
                sample.source,
                sample.name,
                sample.stamp.size,
                sample.stamp.mtime_ns,
                *(b.decode() for _, b in sample.beside),
            ]
            for sample in self.samples
        )
        return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()


def write_shard(job: ShardJob, *, output: str) -> Shard:
    """Write one shard, whole or not at all; no time, owner or order of the disk is in its bytes.

    Raises:
        VideoError: a video cannot be read, or has changed.
        DataError: the disk is full, or may not be written to.
    """
    with whole(job, output) as part, tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as tar:
        for sample in job.samples:
            _add_video(tar, job.source, sample)
            stem = sample.name.removesuffix(suffix_of(sample.name))
            for suffix, content in sample.beside:
                info = tarfile.TarInfo(stem + suffix)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return Shard(job.source, job.plan, Path(job.target).stat().st_size)


def _add_video(tar: tarfile.TarFile, shard: str, sample: ShardSample) -> None:
    try:
        file = open_bytes(sample.source)
    except OSError as error:
        raise VideoError(shard, f"{sample.source} cannot be read ({error.strerror or error})") from None
    with file:
        if stamp_of(sample.source) != sample.stamp:
            raise VideoError(shard, f"{sample.source} has changed since this run began")
        info = tarfile.TarInfo(sample.name)
        info.size = sample.stamp.size
        tar.addfile(info, file)


def members_of(job: ShardJob) -> dict[str, Member]:
    """Where the videos of a shard lie in it, by name, and what is beside them.

    Raises:
        DataError: it lacks one of them.
    """
    with Path(job.target).open("rb") as file:
        found = {member.name: member for member in walk_tar(file, job.target)}
    lost = [sample.name for sample in job.samples if sample.name not in found]
    if lost:
        raise DataError(f"{job.target}: lacks {lost[0]}; delete it, and give the same command again")
    return found
