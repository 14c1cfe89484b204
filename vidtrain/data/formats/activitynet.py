"""ActivityNet v1.3 (Caba Heilbron et al., 2015): whole videos with the times of their activities."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from vidtrain.data.formats._files.find_videos import find_by_name
from vidtrain.data.formats._files.rows import Rows, build_manifest, check_labels
from vidtrain.data.formats._files.split_checks import SPLIT_WORDS, empty_segments, finish, val_is_test
from vidtrain.data.formats._files.text_files import (
    BadRows,
    check_root,
    find_file,
    find_list,
    read_classes,
    read_json_text,
    without_gc,
)
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.errors import DataError
from vidtrain.types import FilePath

_FOLDERS = (".", "annotations")
_EXPECTED = "an object with subset and annotations, [{segment: [start, end], label}]"


@without_gc
def activitynet(root: str | Path, *, annotations: FilePath | None = None, classes: FilePath | None = None) -> VideoData:
    """A row is the segment of one activity, from its first to its last second; a video may have several.

    activity_net.v1-3.min.json ("database": each video with its subset and annotations), and the files of the same
    layout without "database" that other tools cut from it. Videos are found by id anywhere below root: `v_<id>.mp4`
    or `<id>.mp4`, in any container. What is not on disk goes to `Manifest.missing`, once a segment. The test videos
    have no labels: the split "test" is "val", a note says so.

    Args:
        root: folder of the dataset.
        annotations: the JSON, below root or from the working directory. None: activity_net.v1-3.min.json or
            activity_net.v1-2.min.json, in root or root/annotations.
        classes: file of class names in the order of their numbers. None: the sorted labels.

    Raises:
        DataError: no annotations, or entries that cannot be used.
    """
    root = check_root(root)
    file = find_list(root, "annotations", r"activity_?net.*\.json", annotations, _FOLDERS)
    if file is None:
        raise DataError(
            f"{root}: activity_net.v1-3.min.json is neither here nor in annotations; set data.annotations to it"
        )
    bad = BadRows()
    empty: list[str] = []
    tables, ids = _read(file, empty, bad)
    bad.check()
    if classes is not None:
        names = read_classes(find_file(classes, root, "classes"))
    else:
        names = tuple(sorted({label for rows in tables.values() for (label,) in rows.labels}))
    numbers = check_labels(tables, names, bad)
    bad.check()
    where = find_by_name([root], {name for video in ids for name in (video, f"v_{video}")})
    paths = {video: where.get(f"v_{video}") or where.get(video) for video in ids}
    splits = {split: build_manifest(rows, numbers, paths.get) for split, rows in tables.items()}
    splits, notes = val_is_test(splits, "the labels of the test videos are not public")
    return finish(names, splits, root, notes=[*empty_segments(empty), *notes])


def _read(path: Path, empty: list[str], bad: BadRows) -> tuple[dict[str, Rows], list[str]]:
    """The segments of each split, and the ids of all videos; segments without length go to `empty`."""
    content: Any = read_json_text(path)
    videos = content.get("database", content) if isinstance(content, dict) else None
    if not isinstance(videos, dict) or not videos:
        raise DataError(f'{path}: expected {{"database": {{id: {_EXPECTED.removeprefix("an object with ")}}}}}')
    ids = [video.removeprefix("v_") for video in videos]
    tables: dict[str, Rows] = {}
    for number, (video, entry) in enumerate(videos.items(), 1):
        split, segments = _entry(entry)
        if segments is None or split is None:
            bad.add(path, number, json.dumps({video: entry}), _EXPECTED, entry=True)
            continue
        for label, start, end in segments:
            if end <= start:
                empty.append(f"{video} {start:g} {end:g}")
                continue
            rows = tables.setdefault(split, Rows(path, starts=[], ends=[], entry=True))
            rows.add((number, {video: entry}), video.removeprefix("v_"), (label,), (start, end))
    if not tables and not bad.count:
        raise DataError(f"{path}: no video has an annotation")
    return tables, ids


def _entry(entry: Any) -> tuple[str | None, list[tuple[str, float, float]] | None]:
    """The split of a video and its segments (label, start, end); None in place of what cannot be read."""
    if not isinstance(entry, dict) or not isinstance(entry.get("annotations"), list):
        return None, None
    split = SPLIT_WORDS.get(str(entry.get("subset", "training")).lower())
    segments = []
    for annotation in entry["annotations"]:
        try:
            start, end = (float(second) for second in annotation["segment"])
            label = annotation["label"]
        except (KeyError, TypeError, ValueError, OverflowError):  # JSON has whole numbers of any length
            return split, None
        if not (isinstance(label, str) and label and math.isfinite(start) and math.isfinite(end)):
            return split, None
        segments.append((label, max(start, 0.0), end))
    return split, segments
