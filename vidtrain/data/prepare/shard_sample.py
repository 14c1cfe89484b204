"""What of a video stands in a shard: its member, and the small files beside it that say what its rows say.

.json    {"path", "label" or "labels", "class" or "classes"}, with "start" and "end" (seconds) where rows have them;
         {"path", "rows": [...]} of these where a video has several rows
.cls     the class number, of a video with one row and one class
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vidtrain.data.jobs.journal import Stamp
from vidtrain.data.manifest.files import suffix_of
from vidtrain.data.manifest.manifest import Manifest
from vidtrain.data.prepare.plan import below_common
from vidtrain.tar_members import BLOCK


@dataclass(frozen=True)
class ShardSample:
    """A video as it is to stand in a shard.

    source: its path. name: of the member. stamp: of the source when this was planned. beside: (suffix, content) of the
    small files after it.
    """

    source: str
    name: str
    stamp: Stamp
    beside: tuple[tuple[str, bytes], ...]

    @property
    def room(self) -> int:
        """Bytes that it takes in a tar file, the extended headers of long names aside."""
        sizes = (self.stamp.size, *(len(content) for _, content in self.beside))
        return sum(BLOCK + -(-size // BLOCK) * BLOCK for size in sizes)


def member_names(sources: Sequence[str]) -> dict[str, str]:
    """What each video is called in the shards: its path below the sources' common folder.

    WebDataset takes all before the first dot of a file name for the sample's key: other dots become _, and keys
    that would then agree, on a disk that does not distinguish capitals either, are numbered.
    """
    used: set[str] = set()
    names: dict[str, str] = {}
    for source, path in zip(sources, below_common(sources), strict=True):
        folder, slash, base = path.rpartition("/")
        suffix = suffix_of(base)
        stem = base.removesuffix(base[len(base) - len(suffix) :]).replace(".", "_") or "_"
        key, number = f"{folder}{slash}{stem}", 1
        while key.casefold() in used:
            number += 1
            key = f"{folder}{slash}{stem}-{number}"
        used.add(key.casefold())
        names[source] = key + (suffix or ".bin")
    return names


def samples_of(
    manifest: Manifest, paths: Sequence[str], class_names: Sequence[str], stamps: Mapping[str, Stamp]
) -> list[ShardSample]:
    """The videos of a split that have a stamp, in the order in which they first come.

    Args:
        paths: of the rows, absolute.
        stamps: of the videos of all splits that are there: their names are chosen together.
    """
    names = member_names(list(stamps))
    rows: dict[str, list[dict[str, Any]]] = {}
    for row, path in enumerate(paths):
        if path in stamps:
            rows.setdefault(path, []).append(_described(manifest, row, class_names))
    return [ShardSample(path, names[path], stamps[path], _beside(names[path], own)) for path, own in rows.items()]


def _described(manifest: Manifest, row: int, class_names: Sequence[str]) -> dict[str, Any]:
    """What a row says, as JSON has it."""
    label = int(manifest.labels[row])
    described: dict[str, Any] = {"label": label, "class": class_names[label]} if label >= 0 else {}
    if manifest.tags is not None:
        labels = manifest.tags[row].tolist()
        described = {"labels": labels, "classes": [class_names[label] for label in labels]}
    if manifest.starts is not None:
        described["start"] = float(manifest.starts[row])
    if manifest.ends is not None and math.isfinite(manifest.ends[row]):
        described["end"] = float(manifest.ends[row])
    return described


def _beside(name: str, rows: Sequence[dict[str, Any]]) -> tuple[tuple[str, bytes], ...]:
    content: dict[str, Any] = {"path": name, **(rows[0] if len(rows) == 1 else {"rows": list(rows)})}
    files = [(".json", json.dumps(content).encode())]
    if len(rows) == 1 and "label" in rows[0]:
        files.append((".cls", str(rows[0]["label"]).encode()))
    return tuple(files)
