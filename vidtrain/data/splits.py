"""Splitting a list of videos: seeded, by class, whole groups together."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from vidtrain.data.manifest import Manifest
from vidtrain.errors import DataError


def hold_out(
    manifest: Manifest, fraction: float, seed: int, groups: Sequence[str] | None = None
) -> tuple[Manifest, Manifest]:
    """Part a manifest in two, each class by itself as far as the groups allow.

    Which videos are held depends on the seed, on the groups, and, without groups, on the paths below the folder
    that all have in common: not on the order of the files, not on where the data set lies, not on the version of
    Python or numpy. A video added later moves few others.

    Args:
        manifest: N videos.
        fraction: share of each class to hold, 0 <= fraction < 1. A class of two or more gives one at least.
        seed: another seed, other videos.
        groups: (N,) names; the videos of one group stay together. None: each video is a group of its own.

    Returns:
        (kept, held), each in the order of the manifest; every class keeps a video. Rows that are missing on disk
        stay with `kept`.
    """
    assert 0 <= fraction < 1, fraction
    names = _below_common_folder(list(manifest.paths)) if groups is None else groups
    assert len(names) == len(manifest), "one group a video"
    labels = manifest.labels.tolist()

    members: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        members[name].append(row)
    order = [members[name] for _, name in sorted((_rank(seed, name), name) for name in members)]
    chosen = np.zeros(len(manifest), dtype=bool)
    for rows in _choose(order, labels, fraction):
        chosen[rows] = True
    kept = manifest.take(np.flatnonzero(~chosen))
    return replace(kept, missing=manifest.missing), manifest.take(np.flatnonzero(chosen))


def _choose(groups: list[list[int]], labels: list[int], fraction: float) -> Iterator[list[int]]:
    """The groups to hold, each a list of rows; labels are those of all rows."""
    total = Counter(labels)
    # at least one of a class where one can be spared, never all
    wanted = {k: min(max(int(n * fraction + 0.5), int(fraction > 0)), n - 1) for k, n in total.items()}
    held = dict.fromkeys(total, 0)

    def spares(counts: Mapping[int, int]) -> bool:
        return all(held[k] + n < total[k] for k, n in counts.items())

    def nears(counts: Mapping[int, int]) -> bool:
        """Whether the group brings its classes nearer to what is wanted."""
        return sum(abs(wanted[k] - held[k]) - abs(wanted[k] - held[k] - n) for k, n in counts.items()) > 0

    def starts(counts: Mapping[int, int]) -> bool:
        """Whether it gives a class its first."""
        return any(wanted[k] and not held[k] for k in counts)

    def pick(takes: Callable[[Mapping[int, int]], bool], candidates: list[list[int]]) -> Iterator[list[int]]:
        for rows in candidates:
            counts = Counter([labels[row] for row in rows]) if len(rows) > 1 else {labels[rows[0]]: 1}
            if takes(counts) and spares(counts):
                for k, n in counts.items():
                    held[k] += n
                yield rows

    yield from pick(nears, groups)
    # classes whose groups are all much larger than their share give the smallest
    if any(wanted[k] and not held[k] for k in wanted):
        yield from pick(starts, sorted(groups, key=len))


def group_names(paths: Sequence[str], group_by: str) -> list[str]:
    """The group of each path: what the regular expression finds, its first bracket where it has one.

    Raises:
        DataError: it is not a regular expression, or finds nothing in a path.
    """
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise DataError(f"group_by={group_by!r}: not a regular expression: {error}") from None
    names = []
    for path in paths:
        found = pattern.search(path)
        name = found and (found.group(1) if pattern.groups else found.group())
        if not name:
            raise DataError(f"group_by={group_by!r}: finds no group in {path}; it must match every path")
        names.append(name)
    return names


def check_fractions(val_fraction: float, test_fraction: float = 0.0) -> None:
    """Raise DataError unless both are shares that leave something to train on."""
    for key, value in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= value < 1:
            raise DataError(f"{key}={value}: expected a share of the videos, 0 or more and below 1")
    if val_fraction + test_fraction >= 1:
        raise DataError(f"val_fraction={val_fraction} and test_fraction={test_fraction} leave nothing to train on")


def _below_common_folder(paths: list[str]) -> list[str]:
    paths = [path.replace(os.sep, "/") for path in paths]
    if not paths:
        return paths
    first, last = min(paths), max(paths)
    same = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return [path[first.rfind("/", 0, same) + 1 :] for path in paths]


def _rank(seed: int, name: str) -> bytes:
    """A random number of fixed law that no library version changes."""
    return hashlib.blake2b(f"{seed}/{name}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
