"""Splitting a list of videos: seeded, by class, whole groups together."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

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
        fraction: share of each class to hold, 0 <= fraction < 1. A class of two or more gives one at least. In a
            multi-label set a row counts as the rarest of its classes.
        seed: another seed, other videos.
        groups: (N,) names; the videos of one group stay together. None: each video is a group of its own.

    Returns:
        (kept, held), each in the order of the manifest; every class keeps a video. Rows that are missing on disk
        stay with `kept`.
    """
    assert 0 <= fraction < 1, fraction
    names = _below_common_folder(list(manifest.paths)) if groups is None else groups
    assert len(names) == len(manifest), "one group a video"
    labels = _strata(manifest)
    if groups is None and len(set(names)) == len(names):
        held = _choose_single(names, labels, fraction, seed)
    else:
        members: dict[str, list[int]] = defaultdict(list)
        for row, name in enumerate(names):
            members[name].append(row)
        order = [members[name] for _, name in sorted((_rank(seed, name), name) for name in members)]
        held = np.zeros(len(manifest), dtype=bool)
        for rows in _choose(order, labels.tolist(), fraction):
            held[rows] = True
    kept = manifest.take(np.flatnonzero(~held))
    return replace(kept, missing=manifest.missing), manifest.take(np.flatnonzero(held))


def _strata(manifest: Manifest) -> npt.NDArray[np.int64]:
    """int64 (N,): what each row counts as: its class, or the rarest of its classes in a multi-label set."""
    tags = manifest.tags
    if tags is None or not len(tags.values):
        return manifest.labels
    frequency = np.bincount(tags.values)
    order = np.argsort(np.argsort(frequency, kind="stable"), kind="stable")  # from rare to frequent, without ties
    rarest = np.full(len(tags), len(order), dtype=np.int64)
    rows = np.repeat(np.arange(len(tags)), np.diff(tags.offsets))
    np.minimum.at(rarest, rows, order[tags.values])
    back = np.append(np.argsort(order), -1)
    return back[rarest]


def _wanted(count: int, fraction: float) -> int:
    """How many of a class to hold: one at least where one can be spared, never all."""
    return min(max(int(count * fraction + 0.5), int(fraction > 0)), count - 1)


def _choose_single(
    names: Sequence[str], labels: npt.NDArray[np.int64], fraction: float, seed: int
) -> npt.NDArray[np.bool_]:
    """bool (N,): the rows to hold when each is a group of its own: what `_choose` gives, at a tenth of its cost."""
    held = np.zeros(len(labels), dtype=bool)
    ranks = np.frombuffer(b"".join([_rank(seed, name) for name in names]), dtype=">u8")
    if len(np.unique(ranks)) < len(ranks):  # the names break the tie
        ranks = np.argsort(np.array(sorted(range(len(names)), key=lambda row: (ranks[row], names[row]))))
    rows = np.lexsort((ranks, labels))  # class by class, each in the order of the ranks
    _, starts, counts = np.unique(labels[rows], return_index=True, return_counts=True)
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        held[rows[start : start + _wanted(count, fraction)]] = True
    return held


def _choose(groups: list[list[int]], labels: list[int], fraction: float) -> Iterator[list[int]]:
    """The groups to hold, each a list of rows; labels are those of all rows."""
    total = Counter(labels)
    wanted = {k: _wanted(n, fraction) for k, n in total.items()}
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
    names = find_groups(paths, group_by)
    for path, name in zip(paths, names, strict=True):
        if not name:
            raise DataError(f"group_by={group_by!r}: finds no group in {path}; it must match every path")
    return names


def find_groups(paths: Sequence[str], group_by: str) -> list[str]:
    """`group_names`, with "" for a path without a group."""
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise DataError(f"group_by={group_by!r}: not a regular expression: {error}") from None
    matches = (pattern.search(path) for path in paths)
    bracket = min(pattern.groups, 1)
    return [(match.group(bracket) or "") if match else "" for match in matches]


def check_fractions(val_fraction: float, test_fraction: float = 0.0) -> None:
    """Raise DataError unless both are shares that leave something to train on."""
    for key, value in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= value < 1:
            raise DataError(f"{key}={value}: expected a share of the videos, 0 or more and below 1")
    if val_fraction + test_fraction >= 1:
        raise DataError(f"val_fraction={val_fraction} and test_fraction={test_fraction} leave nothing to train on")


def _below_common_folder(paths: list[str]) -> list[str]:
    if os.sep != "/":
        paths = [path.replace(os.sep, "/") for path in paths]
    if not paths:
        return paths
    first, last = min(paths), max(paths)
    same = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return [path[first.rfind("/", 0, same) + 1 :] for path in paths]


def _rank(seed: int, name: str) -> bytes:
    """A random number of fixed law that no library version changes."""
    return hashlib.blake2b(f"{seed}/{name}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
