"""Splitting a list of videos: seeded, by class, whole groups together."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from vidtrain.data.jobs.pool import run
from vidtrain.data.manifest.manifest import Manifest
from vidtrain.errors import DataError
from vidtrain.types import Regex


def hold_out(
    manifest: Manifest, fraction: float, seed: int, groups: Sequence[str] | None = None
) -> tuple[Manifest, Manifest]:
    """Part a manifest in two, each class by itself as far as the groups allow.

    Which videos are held depends on the seed, on the groups, and, without groups, on the paths below the folder
    that all have in common: not on the order of the files, not on where the dataset lies, not on the version of
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
    labels = strata_of(manifest)
    if groups is None and len(set(names)) == len(names):
        held = _choose_single(names, labels, fraction, seed)
    else:
        members: dict[str, list[int]] = defaultdict(list)
        for row, name in enumerate(names):
            members[name].append(row)
        order = [members[name] for _, name in sorted(zip(_hashes(seed, members), members, strict=True))]
        held = np.zeros(len(manifest), dtype=bool)
        for rows in _choose(order, labels.tolist(), fraction):
            held[rows] = True
    kept = manifest.take(np.flatnonzero(~held))
    return replace(kept, missing=manifest.missing), manifest.take(np.flatnonzero(held))


def assign_folds(
    manifest: Manifest, folds: int, seed: int, groups: Sequence[str] | None = None
) -> npt.NDArray[np.int64]:
    """int64 (N,): the fold of each video, 0 ... folds - 1: each class spread evenly, no group in two folds.

    Depends on what `hold_out` depends on, and on nothing else. Groups are dealt one by one, those first that hold most
    of their classes, each to the fold that has least of these.

    Args:
        manifest: N videos; in a multi-label set a row counts as the rarest of its classes.
        folds: 2 or more.
        seed: another seed, other folds.
        groups: (N,) names; the videos of one group stay together. None: each video is a group of its own, the
            folds differ by one video at most, and so do the videos that they have of a class.
    """
    assert folds >= 2, folds
    names = _below_common_folder(list(manifest.paths)) if groups is None else groups
    assert len(names) == len(manifest), "one group per video"
    if groups is None and len(set(names)) == len(names):
        return _deal_single(names, strata_of(manifest), folds, seed)
    labels = strata_of(manifest).tolist()
    members: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        members[name].append(row)
    # in the order of the classes, since the sums below round
    counts = {name: dict(sorted(Counter(labels[row] for row in rows).items())) for name, rows in members.items()}
    total = Counter(labels)
    hashes = dict(zip(members, _hashes(seed, members), strict=True))
    order = sorted(members, key=lambda name: (-_spread(counts[name], total), hashes[name], name))
    held = [dict.fromkeys(total, 0) for _ in range(folds)]
    sizes = [0] * folds
    result = np.zeros(len(manifest), dtype=np.int64)
    for name in order:
        own = counts[name]
        # what adding the group does to the sum of the squared shares that the folds have of each class
        costs = [sum(n * held[f][k] / total[k] ** 2 for k, n in own.items()) for f in range(folds)]
        fold = min(range(folds), key=lambda f: (costs[f], sizes[f], f))
        for k, n in own.items():
            held[fold][k] += n
        sizes[fold] += len(members[name])
        result[members[name]] = fold
    return result


def _deal_single(names: Sequence[str], labels: npt.NDArray[np.int64], folds: int, seed: int) -> npt.NDArray[np.int64]:
    """int64 (N,): the folds when each row is a group of its own: each class in turn, the smallest fold first."""
    rows = np.lexsort((_ranks(names, seed), labels))
    _, starts, counts = np.unique(labels[rows], return_index=True, return_counts=True)
    sizes = [0] * folds
    result = np.zeros(len(labels), dtype=np.int64)
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        order = np.array(sorted(range(folds), key=lambda fold: (sizes[fold], fold)))
        dealt = order[np.arange(count) % folds]
        result[rows[start : start + count]] = dealt
        sizes = [size + n for size, n in zip(sizes, np.bincount(dealt, minlength=folds).tolist(), strict=True)]
    return result


def _spread(counts: Mapping[int, int], total: Mapping[int, int]) -> float:
    """How much of its classes a group has: the large ones are dealt first, while there is room."""
    return sum((n / total[k]) ** 2 for k, n in counts.items())


def strata_of(manifest: Manifest) -> npt.NDArray[np.int64]:
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
    rows = np.lexsort((_ranks(names, seed), labels))  # class by class, each in the order of the ranks
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


class StrangersRegex(str):
    """A regular expression out of a file: searching with it may take forever, and is ended after a while."""

    __slots__ = ()
    SECONDS: ClassVar[float] = 5.0  # and one more for each 10,000 paths; vidtrain's own take 2 ms for these


def find_groups(paths: Sequence[str], group_by: str) -> list[str]:
    """`group_names`, with "" for a path without a group.

    Raises:
        DataError: it is not a regular expression; or it is a StrangersRegex, and takes too long.
    """
    if not isinstance(group_by, StrangersRegex):
        return _search(paths, group_by)
    # nothing within this process ends a search on every system, and in any thread
    work, limit = partial(_search, group_by=str(group_by)), group_by.SECONDS + len(paths) / 10_000
    with closing(run(work, [paths], workers=1, timeout=limit)) as outcomes:
        found = next(outcomes)
    if found.value is None:
        raise DataError(
            f"group_by={str(group_by)[:200]!r}, which the file gives: {found.error} on {len(paths)} paths: give "
            "data=NAME with its options yourself"
        )
    return found.value


def _search(paths: Sequence[str], group_by: str) -> list[str]:
    try:
        pattern = re.compile(group_by)
    except (re.error, RecursionError, OverflowError) as error:
        raise DataError(f"group_by={str(group_by)[:200]!r}: not a regular expression: {error}") from None
    matches = (pattern.search(path) for path in paths)
    bracket = min(pattern.groups, 1)
    return [(match.group(bracket) or "") if match else "" for match in matches]


@dataclass(frozen=True)
class SplitOptions:
    """How splits are cut from the training videos. Raises DataError for numbers that make no sense.

    A format names group_by itself, since options/path_options.py finds regular expressions and paths in what is
    written there.
    """

    val_fraction: float = 0.15
    """Share of the videos held out of train for validation, where the dataset has no such split; 0: none."""
    test_fraction: float = 0.15
    """The same for testing, used when train is the only split."""
    split_seed: int = 0
    """Chooses the videos held out."""
    group_by: Regex | None = None
    """A regular expression on the path below root. Videos whose match (its first bracket, if any) is the same are never
    parted: clips cut from one recording, say."""
    folds: int | None = None
    """Cut so many folds, each of which has its share of every class, whole groups together; the test split is one of
    them, val_fraction is held out of the others. For data without a split of its own."""
    fold: int = 0
    """Which of the folds is the test split, 0 to folds - 1."""

    def __post_init__(self) -> None:
        for key, value in (("val_fraction", self.val_fraction), ("test_fraction", self.test_fraction)):
            if not 0 <= value < 1:
                raise DataError(f"{key}={value}: expected a share of the videos, 0 or more and below 1")
        if self.folds is None:
            if self.fold:
                raise DataError(f"fold={self.fold}: data.folds is not set; data.folds=5 cuts five folds, 0 to 4")
        elif self.folds < 2:
            raise DataError(f"folds={self.folds}: expected 2 or more")
        elif not 0 <= self.fold < self.folds:
            raise DataError(f"fold={self.fold}: expected 0 to {self.folds - 1}, as data.folds={self.folds}")
        if self.val_fraction + self.test_share >= 1:
            test = f"test_fraction={self.test_fraction}" if self.folds is None else f"folds={self.folds}"
            raise DataError(f"val_fraction={self.val_fraction} and {test} leave nothing to train on")

    @property
    def test_share(self) -> float:
        """The share of all videos that is held out for testing."""
        return self.test_fraction if self.folds is None else 1 / self.folds


def _below_common_folder(paths: list[str]) -> list[str]:
    if os.sep != "/":
        paths = [path.replace(os.sep, "/") for path in paths]
    if not paths:
        return paths
    first, last = min(paths), max(paths)
    same = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return [path[first.rfind("/", 0, same) + 1 :] for path in paths]


def _ranks(names: Sequence[str], seed: int) -> npt.NDArray[Any]:
    """(N,) numbers to sort the names by, each once."""
    ranks = np.frombuffer(b"".join(_hashes(seed, names)), dtype=">u8")
    if len(np.unique(ranks)) < len(ranks):  # the names break the tie
        return np.argsort(np.array(sorted(range(len(names)), key=lambda row: (ranks[row], names[row]))))
    return ranks


def _hashes(seed: int, names: Iterable[str]) -> list[bytes]:
    """Of each name a random number of fixed law that no library version changes, in 8 bytes."""
    start, new = f"{seed}/".encode(), hashlib.blake2b
    return [new(start + name.encode("utf-8", "surrogateescape"), digest_size=8).digest() for name in names]
