"""The lists of a folder of features: written when an extraction ends, read for training."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vidtrain.data.clips.dataset import seconds_of
from vidtrain.data.clips.sampling import ClipSpec, covering_clips
from vidtrain.data.features.files import Done, Video
from vidtrain.data.jobs.journal import REPORT, write_report
from vidtrain.data.manifest.index import write_index
from vidtrain.data.manifest.manifest import Manifest, StringArray, VideoData, offsets_of
from vidtrain.data.readers.timeline import Seconds, Timeline, unpacked
from vidtrain.errors import DataError
from vidtrain.runs.atomic import whole_file
from vidtrain.types import BadVideo
from vidtrain.untrusted_data import map_array


def videos_of(manifest: Manifest) -> list[Video]:
    """The stretch of a file that each row is."""
    rows = []
    for row, path in enumerate(manifest.paths):
        seconds = seconds_of(manifest, row)
        rows.append(Video(path, seconds["first"], seconds["last"]))
    return rows


def write_feature_index(
    folder: Path,
    data: VideoData,
    done: Mapping[str, Done],
    spec: ClipSpec,
    hop: float | str | None,
    clips: int | None = None,
) -> VideoData:
    """Write the lists: the rows of `data` with the files of their features; returns what was written.

    A row without features is excluded from train; in other splits it is listed as missing, so that a test says how many
    of all its videos were scored.

    Args:
        done: by Video.key.
        spec, hop, clips: which clips were taken, as in `covering_clips`.
    """
    splits, notes = {}, list(data.notes)
    for split, manifest in data.splits.items():
        videos = videos_of(manifest)
        found = [done.get(video.key) for video in videos]
        rows = np.array([row for row, one in enumerate(found) if one is not None], dtype=np.int64)
        lost = [video.path for video, one in zip(videos, found, strict=True) if one is None]
        kept = [one for one in found if one is not None]
        part = manifest.take(rows)
        paths = StringArray.of(str(folder.absolute() / one.file) for one in kept)
        missing = (*manifest.missing, *(() if split == "train" else lost))
        splits[split] = Manifest(paths, part.labels, missing=missing, tags=part.tags, segments=part.segments)
        if lost:
            where = "excluded" if split == "train" else "listed as missing"
            notes.append(f"{split}: {len(lost)} videos have no features ({where}), see {REPORT}")
        _write_seconds(folder, split, [_seconds_of(one, spec, hop, clips) for one in kept])
    # a clip that was not mirrored has no mirrored features
    made = replace(data, splits=splits, flip_pairs=(), notes=tuple(notes))
    write_index(folder, made)
    return made


def _seconds_of(one: Done, spec: ClipSpec, hop: float | str | None, clips: int | None) -> Seconds:
    line = Timeline(one.frames, one.fps, unpacked(one.times, one.frames))
    return seconds_of_clips(line, spec, hop=hop, clips=clips, first=one.start, last=one.end)


def seconds_of_clips(line: Timeline, spec: ClipSpec, **taken: Any) -> Seconds:
    """float64 (clips, 2): when each clip begins and ends. taken: hop, clips, first, last of `covering_clips`."""
    found = covering_clips(line, spec, **taken)
    return line.seconds(np.stack([found.min(1), found.max(1) + 1], 1))


def _write_seconds(folder: Path, split: str, videos: Sequence[Seconds]) -> None:
    offsets = offsets_of([len(one) for one in videos])
    seconds = np.concatenate(videos) if videos else np.empty((0, 2))
    for name, column in (("clips", offsets), ("seconds", seconds)):
        with whole_file(folder / f"{split}.{name}.npy") as handle:
            np.save(handle, column)


def clip_seconds(folder: str | Path, split: str, row: int) -> npt.NDArray[np.float64]:
    """float64 (clips, 2): from when to when each clip of a video goes, in seconds of its file."""
    offsets, seconds = (map_array(Path(folder) / f"{split}.{name}.npy") for name in ("clips", "seconds"))
    return np.array(seconds[offsets[row] : offsets[row + 1]])


def report_features(
    folder: Path, videos: Sequence[Video], done: Mapping[str, Done], made: Collection[str], bad: Mapping[str, BadVideo]
) -> None:
    """A line per video, in the order of the data. made: keys whose features were made in this run. bad: by key."""

    def line(video: Video) -> dict[str, Any]:
        rows = {"path": video.path, "start": video.start, "end": video.end}
        one = done.get(video.key)
        if one is None:
            return {**rows, "status": "bad", "reason": bad[video.key].reason if video.key in bad else ""}
        status = "made" if video.key in made else "kept"
        return {**rows, "status": status, "clips": one.clips, "file": one.file}

    write_report(folder, ("path", "start", "end", "status", "clips", "file", "reason"), map(line, videos))


def times_of_clips(folder: Path, data: VideoData) -> dict[str, npt.NDArray[np.float64]]:
    """By file of features: float64 (clips, 2), as `clip_seconds`, of all splits.

    Raises:
        DataError: the times are not there, or of other videos.
    """
    found: dict[str, npt.NDArray[np.float64]] = {}
    for split, manifest in data.splits.items():
        try:
            offsets, seconds = (map_array(folder / f"{split}.{name}.npy") for name in ("clips", "seconds"))
        except (OSError, ValueError) as error:
            raise DataError(
                f"{folder}: the times of clips of {split} cannot be read ({error}); extract again"
            ) from None
        fits = offsets.dtype == np.int64 and offsets.shape == (len(manifest) + 1,)
        if not fits or seconds.dtype != np.float64 or seconds.shape[1:] != (2,) or not np.isfinite(seconds).all():
            raise DataError(f"{folder}: the times of clips of {split} are of other videos; extract again")
        for row, path in enumerate(manifest.paths):
            found[path] = np.array(seconds[offsets[row] : offsets[row + 1]])
    return found
