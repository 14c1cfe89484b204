"""A data set on disk as arrays that are memory-mapped: five million rows open at once and workers share them.

    <folder>/index.json              version, class_names, flip_pairs, notes, and the columns of each split
    <folder>/<split>.<column>.npy    paths, path_offsets, labels, starts, ends, tags, tag_offsets, missing, ...

Paths below the folder are kept relative to it, so that a prepared copy can be moved; others are absolute.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vidtrain.data.manifest import IntLists, Manifest, StringArray, VideoData
from vidtrain.errors import DataError

FILE = "index.json"
_VERSION = 1
Columns = dict[str, npt.NDArray[Any]]


def write_index(folder: str | Path, data: VideoData) -> None:
    """Write `data` to `folder`, over an index that is there; index.json comes last, so half an index is none.

    Files are replaced, never written over: a training that has the old ones mapped goes on with them.
    """
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).unlink(missing_ok=True)
    splits: dict[str, Any] = {}
    for split, manifest in data.splits.items():
        columns, relative = _columns(manifest, folder)
        for name, column in columns.items():
            part = folder / f"{split}.{name}.part"
            with part.open("wb") as handle:
                np.save(handle, column)
            part.replace(folder / f"{split}.{name}.npy")
        splits[split] = {"columns": sorted(columns), "relative": relative}
    content = {
        "version": _VERSION,
        "class_names": list(data.class_names),
        "flip_pairs": [list(pair) for pair in data.flip_pairs],
        "notes": list(data.notes),
        "splits": splits,
    }
    part = folder / f"{FILE}.part"
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(folder / FILE)


def read_index(folder: str | Path) -> VideoData:
    """The data set that `write_index` wrote; no row of it is read.

    Raises:
        DataError: there is no index, or one that this version cannot read.
    """
    folder = Path(folder).absolute()
    file = folder / FILE
    if not file.is_file():
        raise DataError(f"{folder}: holds no {FILE}; `vidtrain data check` and `vidtrain data prepare` write one")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["version"] != _VERSION:
            raise DataError(f"{file}: version {content['version']}, this vidtrain reads {_VERSION}; write it again")
        splits = {name: _manifest(folder, name, found) for name, found in content["splits"].items()}
        pairs = tuple((left, right) for left, right in content["flip_pairs"])
        return VideoData(tuple(content["class_names"]), splits, pairs, tuple(content["notes"]))
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise DataError(f"{file}: not an index that can be read ({error}); write it again") from None


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
    return columns, relative


def _manifest(folder: Path, split: str, found: Mapping[str, Any]) -> Manifest:
    columns: Columns = {name: _open(folder / f"{split}.{name}.npy") for name in found["columns"]}
    prefix = os.path.join(folder, "") if found["relative"] else ""  # noqa: PTH118
    return Manifest(
        StringArray(columns["paths"], columns["path_offsets"], prefix),
        columns["labels"],
        columns.get("starts"),
        columns.get("ends"),
        StringArray(columns["missing"], columns["missing_offsets"]),
        IntLists(columns["tags"], columns["tag_offsets"]) if "tags" in columns else None,
    )


def _open(file: Path) -> npt.NDArray[Any]:
    """A column, mapped; as a plain array, since indexing a numpy.memmap costs three times as much."""
    column: npt.NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    return column.view(np.ndarray)
