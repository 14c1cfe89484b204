"""A dataset on disk as arrays that are memory-mapped: five million rows open at once and workers share them.

    <folder>/index.json              version, class_names, flip_pairs, notes, and the columns of each split
    <folder>/<split>.<column>.npy    paths, path_offsets, labels, starts, ends, tags, tag_offsets, missing, ...

Paths below the folder are kept relative to it, so that a prepared copy can be moved; others are absolute.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from vidtrain.data.manifest.manifest import SPLITS, IntLists, Manifest, SegmentLists, StringArray, VideoData
from vidtrain.errors import DataError
from vidtrain.remote import read_bytes
from vidtrain.runs.atomic import whole_file
from vidtrain.store_cache import Cache, writing
from vidtrain.untrusted_data import map_array, parse_json, read_json

FILE = "index.json"
_VERSION = 1
# every column there may be, and its type
_COLUMNS = {
    **dict.fromkeys(("paths", "missing"), np.dtype(np.uint8)),
    **dict.fromkeys(("path_offsets", "missing_offsets", "tag_offsets", "segment_offsets"), np.dtype(np.int64)),
    **dict.fromkeys(("labels", "tags", "segments"), np.dtype(np.int64)),
    **dict.fromkeys(("starts", "ends", "segment_starts", "segment_ends"), np.dtype(np.float64)),
}
_NEEDED = {"paths", "path_offsets", "labels", "missing", "missing_offsets"}
Columns = dict[str, npt.NDArray[Any]]


def write_index(folder: str | Path, data: VideoData) -> None:
    """Write `data` to `folder`, over an index that is there; index.json comes last, so half an index is none.

    Files are replaced, never written over: a training that has the old ones mapped goes on with them.
    """
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).unlink(missing_ok=True)
    splits: dict[str, Any] = {}
    digest = hashlib.sha256()
    for split, manifest in data.splits.items():
        columns, relative = _columns(manifest, folder)
        for name, column in columns.items():
            digest.update(f"{split}.{name}.{len(column)}".encode())
            digest.update(np.ascontiguousarray(column).data)
            with whole_file(folder / f"{split}.{name}.npy") as handle:
                np.save(handle, column)
        splits[split] = {"columns": sorted(columns), "relative": relative}
    content = {
        "version": _VERSION,
        "class_names": list(data.class_names),
        "flip_pairs": [list(pair) for pair in data.flip_pairs],
        "notes": list(data.notes),
        "splits": splits,
        "content": digest.hexdigest(),  # so that a copy of index.json shows whether copies of the arrays still fit
    }
    with whole_file(folder / FILE, "w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=1) + "\n")


def read_index(folder: str | Path, home: str | None = None) -> VideoData:
    """The dataset that `write_index` wrote; no row of it is read.

    Args:
        home: where the videos are that lie below the folder of the index; None: there.

    Raises:
        DataError: there is no index, or one that this version cannot read.
    """
    folder = Path(folder).absolute()
    file = folder / FILE
    if not file.is_file():
        raise DataError(f"{folder}: holds no {FILE}; `vidtrain data check` and `vidtrain data prepare` write one")
    try:
        content = read_json(file)
        if content["version"] != _VERSION:
            raise DataError(f"{file}: version {content['version']}, this vidtrain reads {_VERSION}; write it again")
        names, notes = tuple(content["class_names"]), tuple(content["notes"])
        pairs = tuple((left, right) for left, right in content["flip_pairs"])
        _check_names(names, pairs, notes)
        below = os.path.join(folder if home is None else home, "")  # noqa: PTH118
        splits = {name: _manifest(folder, name, found, below, len(names)) for name, found in content["splits"].items()}
        return VideoData(names, splits, pairs, notes)
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise DataError(f"{file}: not an index that can be read ({error}); write it again") from None


def fetch_index(url: str, cache: Cache) -> Path:
    """The folder of this machine that holds the index of a folder in a store, fetched unless it is there.

    Raises:
        DataError: there is none, or it cannot be fetched.
        ConfigError: see `Cache.fetch`.
    """
    text = read_bytes(f"{url}/{FILE}", cache.seconds, cache.most)
    try:
        content = parse_json(text)
        wanted = [
            f"{split}.{name}.npy"
            for split in SPLITS
            for name in _COLUMNS
            if name in content["splits"].get(split, {}).get("columns", ())
        ]
        whole = len(content["content"]) == hashlib.sha256().digest_size * 2
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{url}/{FILE}: not an index that can be read ({error}); write it again") from None
    if not whole:
        raise DataError(f"{url}/{FILE}: not an index that can be read (content); write it again")
    folder = cache.folder / "indices" / hashlib.sha256(url.encode() + b"\0" + text).hexdigest()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with writing(folder), FileLock(folder / ".lock"):  # the processes of a training begin together
        for name in wanted:
            if not (folder / name).is_file():
                with whole_file(folder / name) as file:
                    file.write(read_bytes(f"{url}/{name}", cache.seconds, cache.most))
        with whole_file(folder / FILE) as file:
            file.write(text)
    return folder


def _columns(manifest: Manifest, folder: Path) -> tuple[Columns, bool]:
    """The arrays of a manifest, and whether its paths are relative to `folder`."""
    paths = [os.path.abspath(path) for path in manifest.paths]  # noqa: PTH100 - keeps links as they are
    start = os.path.join(folder, "")  # noqa: PTH118
    relative = bool(paths) and all(path.startswith(start) for path in paths)
    strings = StringArray.of(path.removeprefix(start) for path in paths) if relative else StringArray.of(paths)
    missing = StringArray.of(manifest.missing)
    columns: Columns = {
        "paths": strings.buffer,
        "path_offsets": strings.offsets,
        "labels": manifest.labels,
        "missing": missing.buffer,
        "missing_offsets": missing.offsets,
    }
    if manifest.starts is not None:
        columns["starts"] = manifest.starts
    if manifest.ends is not None:
        columns["ends"] = manifest.ends
    if manifest.tags is not None:
        columns |= {"tags": manifest.tags.values, "tag_offsets": manifest.tags.offsets}
    if manifest.segments is not None:
        starts, ends, classes = manifest.segments.values.T
        columns |= {"segment_starts": starts, "segment_ends": ends, "segments": classes.astype(np.int64)}
        columns["segment_offsets"] = manifest.segments.offsets
    return columns, relative


def _manifest(folder: Path, split: str, found: Mapping[str, Any], below: str, classes: int) -> Manifest:
    if split not in SPLITS or not _COLUMNS.keys() >= {*found["columns"]} >= _NEEDED:
        raise ValueError(f"a split {split!r} of columns {found['columns']}"[:200])
    columns: Columns = {name: map_array(folder / f"{split}.{name}.npy") for name in found["columns"]}
    _check(split, columns, classes)
    prefix = below if found["relative"] else ""
    return _Unread(
        StringArray(columns["paths"], columns["path_offsets"], prefix),
        columns["labels"],
        columns.get("starts"),
        columns.get("ends"),
        StringArray(columns["missing"], columns["missing_offsets"]),
        IntLists(columns["tags"], columns["tag_offsets"]) if "tags" in columns else None,
        _segments(columns) if "segments" in columns else None,
        classes=classes,
    )


def _segments(columns: Columns) -> SegmentLists:
    """Checked whole: there are few of them beside the videos they are of."""
    starts, ends = columns["segment_starts"], columns["segment_ends"]
    if not (len(starts) == len(ends) == len(columns["segments"])):
        raise ValueError("segments without a start, an end or a class")
    if len(starts) and not (np.isfinite(starts).all() and (starts >= 0).all() and (ends > starts).all()):
        raise ValueError("segments that do not end after they begin")
    return SegmentLists(np.column_stack([starts, ends, columns["segments"]]), np.array(columns["segment_offsets"]))


@dataclass(frozen=True)
class _Unread(Manifest):
    """Rows out of a file, whose labels are checked when somebody asks for them first.

    classes: that there are.
    """

    classes: int = 0

    def __post_init__(self) -> None:
        self.__dict__["_labels"] = self.__dict__.pop("labels")

    @cached_property  # type: ignore[misc]
    def labels(self) -> npt.NDArray[np.int64]:
        found: npt.NDArray[np.int64] = self.__dict__["_labels"]
        try:
            _check_labels("labels", found, -1, self.classes)
        except ValueError as error:
            raise DataError(f"the index is damaged: {error}: write it again") from None
        return found


def _check_names(names: tuple[Any, ...], pairs: tuple[tuple[Any, Any], ...], notes: tuple[Any, ...]) -> None:
    known = names and all(type(text) is str for text in (*names, *notes))
    if not known or not all(name in names for pair in pairs for name in pair):
        raise ValueError("its class names, pairs of classes or notes are none")


def _check(split: str, columns: Columns, classes: int) -> None:
    """Raise ValueError for columns that do not belong together, or labels of classes that are not there."""
    for name, column in columns.items():
        if column.ndim != 1 or column.dtype != _COLUMNS[name]:
            raise ValueError(f"{split}.{name}: {column.dtype} of {column.ndim} dimensions, expected {_COLUMNS[name]}")
    rows = len(columns["labels"])
    for name, values, number in (
        ("path", "paths", rows),
        ("missing", "missing", None),
        ("tag", "tags", rows),
        ("segment", "segments", rows),
    ):
        if values not in columns:
            continue
        offsets = columns[f"{name}_offsets"]
        fits = len(offsets) and offsets[0] == 0 and offsets[-1] == len(columns[values])
        if values in ("tags", "segments"):  # what they are is read at once by a training, path by path elsewhere
            fits = fits and bool((offsets[1:] >= offsets[:-1]).all())
        if not fits or number not in (None, len(offsets) - 1):
            raise ValueError(f"{split}.{name}_offsets do not fit {split}.{values}")
    for name in ("tags", "segments"):
        _check_labels(f"{split}.{name}", columns.get(name, np.empty(0)), 0, classes)
    if any(len(columns.get(name, columns["labels"])) != rows for name in ("starts", "ends")):
        raise ValueError(f"{split}: starts or ends for another number of rows")


def _check_labels(name: str, labels: npt.NDArray[Any], least: int, classes: int) -> None:
    if len(labels) and not (labels.min() >= least and labels.max() < classes):
        raise ValueError(f"{name} has {labels.min()} to {labels.max()}, there are {classes} classes")
