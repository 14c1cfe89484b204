"""What is wrong with a dataset, from its lists and from the probes of its files.

missing      a row whose file is not on the disk
unreadable   a file that does not open, shows no frame, hangs or crashes its reader
corrupt      frames that do not decode
truncated    the file is shorter than its container says
segment      starts or ends beyond the end of the video
short        fewer frames than a clip spans
times        timestamps that jump, step back, stand still, are missing or give more than 1000 frames per second; the
             frames are read in their right order
duplicate    the same video as an earlier row of the split: the same frames, whatever the file's name and container
leak         the same video, or one of the same group, in an earlier split (train, val, test)
still        no frame differs from the first
black        nothing is to be seen in any frame
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from vidtrain.data.checks.probe_video import Probe
from vidtrain.data.clips.sampling import ClipSpec
from vidtrain.data.jobs.journal import REPORT, write_report
from vidtrain.data.manifest.manifest import SPLITS, Manifest, VideoData
from vidtrain.data.manifest.splits import group_names
from vidtrain.data.readers.timeline import Timeline
from vidtrain.errors import DataError

KINDS: Final = (
    *("missing", "unreadable", "corrupt", "truncated", "segment", "short"),
    *("times", "duplicate", "leak", "still", "black"),
)
_COLUMNS: Final = (
    *("path", "split", "class", "frames", "fps", "seconds", "width", "height", "codec", "container", "bytes"),
    *("problem", "detail"),
)
_LATE: Final = 0.5  # seconds that a segment may end after its video: annotators round
_SAME_RATE: Final = 1.02  # containers round times; a copy that plays at another speed is another video
_SHORT: Final = {
    "repeat_last": "its last frame is repeated",
    "loop": "it is played again",
    "error": "sampler.short=error refuses it",
}


@dataclass(frozen=True)
class Problem:
    """Something wrong with a row.

    row: its place in the split; -1 for one that is missing on disk.
    serious: False for what training can live with as it is set: short, still and black videos, odd timestamps.
    usable: False when no clip can ever be read from the row.
    """

    split: str
    row: int
    path: str
    kind: str
    detail: str
    serious: bool = True
    usable: bool = True


def find_problems(
    data: VideoData, probes: Mapping[str, Probe], spec: ClipSpec, group_leaks: Sequence[Problem] = ()
) -> list[Problem]:
    """All that is wrong, split by split and row by row.

    Args:
        data: the lists.
        probes: of every file in them, by absolute path.
        spec: the clip that the videos have to hold.
        group_leaks: what `find_group_leaks` found; a row that leaks by itself is named once.
    """
    found = []
    for split, manifest in data.splits.items():
        found += [Problem(split, -1, path, "missing", "not on the disk", usable=False) for path in manifest.missing]
        for row, path in enumerate(manifest.paths):
            found += _of_row(split, manifest, row, path, probes[_full(path)], spec)
    found += _copies(data, probes)
    leaking = {(problem.split, problem.row) for problem in found if problem.kind == "leak"}
    found += [problem for problem in group_leaks if (problem.split, problem.row) not in leaking]
    order = {split: number for number, split in enumerate(data.splits)}
    return sorted(found, key=lambda p: (order[p.split], p.row, KINDS.index(p.kind)))


def _of_row(split: str, manifest: Manifest, row: int, path: str, probe: Probe, spec: ClipSpec) -> Iterator[Problem]:
    """What is wrong with a row by itself."""
    if probe.error is not None:
        yield Problem(split, row, path, "unreadable", probe.error, usable=False)
        return
    if probe.corrupt:
        yield Problem(split, row, path, "corrupt", _broken_frames(probe))
    if probe.absent:
        shown = (
            f"{probe.frames} of {probe.claimed} frames" if probe.claimed > probe.frames else f"{probe.frames} frames"
        )
        lost = f"the last {probe.absent} bytes of the file are missing"
        yield Problem(split, row, path, "truncated", f"{lost}, it shows {shown}")
    first = None if manifest.starts is None else float(manifest.starts[row])
    last = None if manifest.ends is None else float(manifest.ends[row])
    line = probe.line
    try:
        start, stop = line.within(first, last)
    except DataError as error:
        yield Problem(split, row, path, "segment", str(error), usable=False)
        return
    if last is not None and np.isfinite(last) and last > line.end + _LATE:
        detail = f"the segment ends at {last:g} s, the video at {line.end:.4g} s"
        yield Problem(split, row, path, "segment", detail)
    if probe.times_note:
        yield Problem(split, row, path, "times", probe.times_note, serious=False)
    lacking = _too_short(spec, line, start, stop)
    if lacking:
        fate = "some are taken twice" if spec.mode == "segments" and spec.short != "error" else _SHORT[spec.short]
        yield Problem(split, row, path, "short", f"{lacking}: {fate}", serious=spec.short == "error")
    if probe.black:
        yield Problem(split, row, path, "black", "nothing is to be seen in any frame", serious=False)
    elif probe.still:
        yield Problem(split, row, path, "still", "no frame differs from the first", serious=False)


def _too_short(spec: ClipSpec, line: Timeline, start: int, stop: int) -> str:
    """'30 frames, a clip spans 31' where a clip does not fit into [start, stop), else ''."""
    if line.times is None or spec.fps is None or spec.mode == "segments":
        needed = frames_needed(spec, line.fps)
        return f"{_frames(stop - start)}, a clip spans {needed}" if stop - start < needed else ""
    begin, end = line.seconds(np.array([start, stop])).tolist()
    span = (spec.num_frames - 1) / spec.fps
    return f"{end - begin:.4g} s, a clip spans {span:.4g} s" if line.at(np.array([begin + span]))[0] >= stop else ""


@lru_cache(maxsize=1024)  # a dataset has few frame rates, and many rows
def frames_needed(spec: ClipSpec, fps: float) -> int:
    """Frames that a video of this rate must have for a clip without repeated frames."""
    return spec.num_frames if spec.mode == "segments" else spec.span(fps)


def _frames(number: int) -> str:
    return f"{number} frame{'s' if number != 1 else ''}"


def _broken_frames(probe: Probe) -> str:
    return probe.broken if probe.corrupt == 1 else f"{probe.corrupt} frames do not decode, the first: {probe.broken}"


# ---------------------------------------------------------------- the same video twice


@dataclass(frozen=True)
class _Place:
    """Where a video was met first."""

    split: str
    path: str
    file: str
    label: int
    fps: float


def _copies(data: VideoData, probes: Mapping[str, Probe]) -> Iterator[Problem]:
    """Duplicates and leaks: each row against the first one that shows the same."""
    met: dict[tuple[str, int], list[_Place]] = defaultdict(list)
    for split, manifest in _distinct(data):
        segmented = manifest.starts is not None or manifest.ends is not None
        for row, (path, label) in enumerate(zip(manifest.paths, manifest.labels.tolist(), strict=True)):
            file = _full(path)
            probe = probes[file]
            here = _Place(split, path, file, label, probe.fps)
            places = met[(probe.content or file, probe.frames)]
            first = next((place for place in places if _same_rate(place.fps, probe.fps)), None)
            if first is None:
                places.append(here)
            elif first.split != split:
                yield Problem(split, row, path, "leak", f"is also in {first.split}{_elsewhere(first, here, data)}")
            elif first.file != file:
                yield Problem(split, row, path, "duplicate", f"is the same video{_elsewhere(first, here, data)}")
            elif not segmented:
                yield Problem(split, row, path, "duplicate", f"was listed before{_elsewhere(first, here, data)}")


def _distinct(data: VideoData) -> Iterator[tuple[str, Manifest]]:
    """The splits in the order train, val, test; not a test list that is the validation list under another name."""
    seen: list[Manifest] = []
    for split in SPLITS:
        manifest = data.splits.get(split)
        if manifest is not None and not any(_equal(manifest, other) for other in seen):
            seen.append(manifest)
            yield split, manifest


def _equal(one: Manifest, other: Manifest) -> bool:
    return one is other or (len(one) == len(other) > 0 and list(one.paths) == list(other.paths))


def _same_rate(one: float, other: float) -> bool:
    return one == other or max(one, other) <= _SAME_RATE * min(one, other)


def _elsewhere(first: _Place, here: _Place, data: VideoData) -> str:
    as_class = "" if first.label == here.label else f" as {data.class_names[first.label] if first.label >= 0 else '-'}"
    return (f": {first.path}" if first.file != here.file else "") + as_class


def find_group_leaks(data: VideoData, root: str | None, group_by: str) -> list[Problem]:
    """Videos that belong together and stand in different splits. Looks into no file.

    Args:
        data: the lists.
        root: paths are matched from here on.
        group_by: regular expression; videos with the same match belong together.

    Raises:
        DataError: group_by is not a regular expression or finds nothing in a path.
    """
    found: list[Problem] = []
    home: dict[str, str] = {}
    start = os.path.join(_full(root), "") if root else ""  # noqa: PTH118 - with the separator at its end
    for split, manifest in _distinct(data):
        paths = list(manifest.paths)
        for row, group in enumerate(group_names([_full(path).removeprefix(start) for path in paths], group_by)):
            first = home.setdefault(group, split)
            if first != split:
                found.append(Problem(split, row, paths[row], "leak", f"group {group} is also in {first}"))
    return found


def _full(path: str) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - keeps links as they are


# ---------------------------------------------------------------- what is written


def without_unusable(data: VideoData, problems: Sequence[Problem]) -> VideoData:
    """The dataset without the training rows that no clip can be read from. Tests keep theirs, and count them.

    Raises:
        DataError: nothing is left to train on.
    """
    out = sorted({p.row for p in problems if p.split == "train" and not p.usable and p.row >= 0})
    train = data.splits.get("train")
    if not out or train is None:
        return data
    if len(out) == len(train):
        first = next(p for p in problems if p.split == "train" and p.row == out[0])
        raise DataError(f"train: none of the {len(out)} videos can be used (first: {first.path}: {first.detail})")
    kept = replace(train.take(np.setdiff1d(np.arange(len(train)), out)), missing=train.missing)
    note = f"train: {len(out)} of {len(train)} videos cannot be used and are excluded; {REPORT} of the check names them"
    return replace(data, splits={**data.splits, "train": kept}, notes=(*data.notes, note))


def report_problems(folder: Path, data: VideoData, probes: Mapping[str, Probe], problems: Sequence[Problem]) -> None:
    """Write a report with a line for each row of the lists; several problems of one are joined by "; "."""
    of_row: dict[tuple[str, int], list[Problem]] = defaultdict(list)
    for problem in problems:
        of_row[(problem.split, problem.row)].append(problem)

    def lines() -> Iterator[dict[str, Any]]:
        for split, manifest in data.splits.items():
            for row, path in enumerate(manifest.paths):
                ours = of_row.get((split, row), [])
                what = {"problem": "; ".join(p.kind for p in ours), "detail": "; ".join(p.detail for p in ours)}
                listed = {"path": path, "split": split, "class": _classes(data, manifest, row)}
                yield {**listed, **_cells(probes[_full(path)]), **what}
            for problem in of_row.get((split, -1), []):
                yield {"path": problem.path, "split": split, "problem": problem.kind, "detail": problem.detail}

    write_report(folder, _COLUMNS, lines())


def _cells(probe: Probe) -> dict[str, Any]:
    if probe.error is not None:
        return {}
    shown = {key: getattr(probe, key) for key in ("frames", "width", "height", "codec", "container")}
    return {**shown, "fps": f"{probe.fps:.6g}", "seconds": f"{probe.seconds:.6g}", "bytes": probe.size}


def _classes(data: VideoData, manifest: Manifest, row: int) -> str:
    labels = [int(manifest.labels[row])] if manifest.tags is None else manifest.tags[row].tolist()
    return "|".join(data.class_names[label] for label in labels if label >= 0)
