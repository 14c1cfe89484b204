"""Parts of the training videos of a data set of features, by the names of the videos that the features are of."""

from __future__ import annotations

import csv
import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vidtrain.data.jobs.journal import REPORT
from vidtrain.data.manifest.grouping import find_grouping
from vidtrain.data.manifest.manifest import Manifest, VideoData
from vidtrain.data.manifest.splits import hold_out, strata_of
from vidtrain.errors import DataError


def source_paths(folder: Path) -> dict[str, str]:
    """File of features, relative to the folder -> the video that they are of, as report.csv lists them."""
    file = folder / REPORT
    try:
        with file.open(newline="", encoding="utf-8", errors="surrogateescape") as lines:
            rows = csv.DictReader(lines)
            return {row["file"]: row["path"] for row in rows if row.get("file") and row.get("path")}
    except (OSError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read ({error}); run `vidtrain extract` again") from None


def sources_of(manifest: Manifest) -> list[str]:
    """(N,) the video of each row; the file of features itself where report.csv does not name it."""
    known: dict[Path, dict[str, str]] = {}
    found = []
    for path in manifest.paths:
        parts = Path(path).parts
        folder = Path(*parts[:-3])
        if folder not in known:
            known[folder] = source_paths(folder) if (folder / REPORT).is_file() else {}
        found.append(known[folder].get("/".join(parts[-3:]), path))
    return found


def _below_common_folder(paths: list[str]) -> list[str]:
    common = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""  # noqa: PTH120
    return [os.path.relpath(path, common or ".").replace(os.sep, "/") for path in paths]


def _drawn(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape")).digest()


def groups_of(manifest: Manifest) -> tuple[list[str], str]:
    """(N,) the group of each video by the names of the videos, and how it was found, in words."""
    sources = _below_common_folder(sources_of(manifest))
    grouping = find_grouping(sources, strata_of(manifest).tolist())
    if grouping is None:
        return sources, "the names show no groups"
    groups = [group or source for group, source in zip(grouping.groups, sources, strict=True)]
    return groups, f"groups by {grouping.group_by!r}, none of them in both"


def with_validation(data: VideoData, fraction: float, seed: int) -> tuple[VideoData, str]:
    """The same with a part of "train" as "val", no group of videos in both; and a line that says so."""
    train = data.splits["train"]
    groups, how = groups_of(train)
    kept, held = hold_out(train, fraction, seed, groups)
    if not len(held):
        raise DataError(f"train: {len(train)} videos are too few to hold some out for validation")
    note = f"no val split: {len(held)} of {len(train)} training videos are held out to choose by ({how})"
    return replace(data, splits={**data.splits, "train": kept, "val": held}), note


def few_of_each(manifest: Manifest, count: int, seed: int, class_names: Sequence[str] = ()) -> Manifest:
    """`count` videos of each class, from as many groups as there are: no group gives a second one before all others of
    its class have given one. The same for the same names and seed.

    Raises:
        DataError: a class has fewer.
    """
    groups, _ = groups_of(manifest)
    labels = strata_of(manifest)
    sources = _below_common_folder(sources_of(manifest))
    rows = []
    for label in np.unique(labels[labels >= 0]).tolist():
        own = np.flatnonzero(labels == label).tolist()
        if len(own) < count:
            name = class_names[label] if class_names else f"number {label}"
            raise DataError(f"probe.shots={count}: class {name} has {len(own)} training videos")
        own.sort(key=lambda row: _drawn(f"{seed}/{sources[row]}"))
        turns: dict[str, int] = defaultdict(int)
        turn = {}
        for row in own:
            turn[row] = turns[groups[row]]
            turns[groups[row]] += 1
        rows += sorted(own, key=lambda row: turn[row])[:count]
    return manifest.take(np.array(sorted(rows), dtype=np.int64))
