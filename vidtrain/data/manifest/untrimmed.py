"""From rows that are segments to rows that are whole videos with their segments, and to what windows are drawn from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from vidtrain.data.manifest.manifest import IntLists, Manifest, SegmentLists, StringArray, VideoData
from vidtrain.errors import DataError


def untrimmed(data: VideoData) -> VideoData:
    """The videos that the rows are segments of, each once, with what happens in them when; as it is where it is so.

    Raises:
        DataError: rows are whole videos without times.
    """
    if data.untrimmed:
        return data
    known: dict[int, Manifest] = {}  # a split may stand for two
    for split, manifest in data.splits.items():
        if manifest.starts is None or manifest.ends is None:
            raise DataError(
                f"{split}: its rows have no start and end, and task=segments trains on when things happen: give "
                "data=segments, activitynet, motion_long, charades data.segments=true, or data=table with times"
            )
        known.setdefault(id(manifest), _whole_videos(manifest))
    return replace(data, splits={split: known[id(manifest)] for split, manifest in data.splits.items()})


def _whole_videos(manifest: Manifest) -> Manifest:
    assert manifest.starts is not None
    assert manifest.ends is not None
    tables: dict[str, list[tuple[float, float, float]]] = {}
    times = zip(manifest.starts.tolist(), manifest.ends.tolist(), strict=True)
    tags = manifest.tags
    labels = [tags[row].tolist() for row in range(len(tags))] if tags is not None else manifest.labels[:, None].tolist()
    for path, (start, end), own in zip(manifest.paths, times, labels, strict=True):
        rows = tables.setdefault(path, [])
        rows += [(start, end, float(label)) for label in own if label >= 0]
    for path in manifest.quiet:
        tables.setdefault(path, [])
    segments = SegmentLists.of(np.array(sorted(rows), np.float64) for rows in tables.values())
    unknown = np.full(len(tables), -1, dtype=np.int64)
    missing = tuple(dict.fromkeys(manifest.missing))
    return Manifest(StringArray.of(tables), unknown, missing=missing, segments=segments)


def stretches(manifest: Manifest) -> tuple[Manifest, npt.NDArray[np.float64]]:
    """The stretches of untrimmed videos within which the same things happen, also those in which nothing does.

    Returns:
        (a row per stretch with its classes as tags; the last one of a video has no end, float64 (rows,) its seconds,
        those of a last one being the median of the others in which nothing happens.)
    """
    assert manifest.segments is not None
    paths: list[str] = []
    rows: list[tuple[float, float]] = []
    tags: list[list[int]] = []
    for path, table in zip(manifest.paths, manifest.segments, strict=True):
        edges = np.unique(np.concatenate([[0.0, np.inf], table[:, 0], table[:, 1]]))
        for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            inside = (table[:, 0] <= start) & (table[:, 1] >= end)
            paths.append(path)
            rows.append((start, end))
            tags.append(table[inside, 2].astype(np.int64).tolist())
    starts, ends = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    seconds, nothing = ends - starts, np.array([not own for own in tags])
    gaps = seconds[nothing & np.isfinite(seconds)]
    seconds[~np.isfinite(seconds)] = np.median(gaps) if len(gaps) else 1.0
    first = np.array([own[0] if own else -1 for own in tags], dtype=np.int64)
    return Manifest(StringArray.of(paths), first, starts, ends, tags=IntLists.of(tags)), seconds
