"""The list of videos of a split, in a form that forked workers share without copying.

A Python list of five million paths costs a gigabyte, and every worker that reads it copies the pages it touches,
since reading counts references. One byte buffer and arrays of numbers cost 60 MB and are never written to.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from vidtrain.data.manifest.shared_columns import SharesColumns
from vidtrain.errors import ConfigError, DataError, one_of

SPLITS = ("train", "val", "test")
_PART = 65536  # strings worked on at once


def _damaged(row: int) -> DataError:
    return DataError(f"the index is damaged, near its row {row}: write it again")


def _check_offsets(offsets: npt.NDArray[np.int64], size: int, first: int) -> None:
    """Raise DataError for offsets of the rows from `first` on that do not ascend from 0 or more to `size` at most."""
    if len(offsets) and not (offsets[0] >= 0 and offsets[-1] <= size and bool((offsets[1:] >= offsets[:-1]).all())):
        raise _damaged(first)


def offsets_of(lengths: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """int64 (N + 1,): where each of N parts of these lengths begins when they follow each other, and the end."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


class _Parts(SharesColumns):
    """Immutable sequence of parts of unequal length of one array: `offsets` says where each begins."""

    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._part(index % len(self))

    def _part(self, index: int) -> Any:
        raise NotImplementedError


class StringArray(_Parts, Sequence[str]):
    """Immutable sequence of strings: one UTF-8 buffer plus int64 offsets; `prefix` stands before each of them.

    Both arrays may be memory-mapped files, a stranger's: offsets are checked where they are used, since looking at
    those of five million rows at once would take as long as all else that opens them.
    """

    def __init__(self, buffer: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], prefix: str = "") -> None:
        self.buffer = buffer
        self.offsets = offsets
        self.prefix = prefix

    @classmethod
    def of(cls, strings: Iterable[str]) -> StringArray:
        # surrogateescape: a file name on Linux is bytes, and need not be UTF-8
        encoded = [s.encode("utf-8", "surrogateescape") for s in strings]
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets_of([len(e) for e in encoded]))

    def _part(self, index: int) -> str:
        start, end = self.offsets[index], self.offsets[index + 1]
        if not 0 <= start <= end <= len(self.buffer):
            raise _damaged(index)
        return self.prefix + self.buffer[start:end].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        buffer = self.buffer.data
        for first in range(0, len(self), _PART):
            offsets = self.offsets[first : first + _PART + 1]
            _check_offsets(offsets, len(self.buffer), first)
            for start, end in pairwise(offsets.tolist()):
                yield self.prefix + str(buffer[start:end], "utf-8", "surrogateescape")

    def take(self, rows: npt.NDArray[np.int64]) -> StringArray:
        """The strings at `rows`, as a new array."""
        rows = np.arange(len(self))[rows]  # counts negative rows from the end, refuses those out of range
        starts, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        if len(rows) and (lengths.min() < 0 or starts.min() < 0 or (starts + lengths).max() > len(self.buffer)):
            raise _damaged(int(rows[0]))
        offsets = offsets_of(lengths)
        buffer = np.empty(offsets[-1], dtype=np.uint8)
        for first in range(0, len(rows), _PART):
            part = slice(first, first + _PART)
            # byte i of the part comes from i + (where its string starts here - where it starts there)
            at = np.arange(offsets[first], offsets[min(first + _PART, len(rows))])
            buffer[at] = self.buffer[at + np.repeat(starts[part] - offsets[:-1][part], lengths[part])]
        return StringArray(buffer, offsets, self.prefix)


_Own = TypeVar("_Own", bound="_Lists")


class _Lists(_Parts):
    """Immutable sequence of arrays of unequal length: one buffer of values plus offsets."""

    def __init__(self, values: npt.NDArray[Any], offsets: npt.NDArray[np.int64]) -> None:
        self.values = values
        self.offsets = offsets

    @classmethod
    def _of(cls: type[_Own], parts: Sequence[npt.NDArray[Any]], none: npt.NDArray[Any]) -> _Own:
        """none: what no part has, of the right type."""
        return cls(np.concatenate([none, *parts]), offsets_of([len(part) for part in parts]))

    def _part(self, index: int) -> npt.NDArray[Any]:
        return self.values[self.offsets[index] : self.offsets[index + 1]]


class IntLists(_Lists, Sequence["npt.NDArray[np.int64]"]):
    """Immutable sequence of lists of integers: the classes of multi-label rows."""

    @classmethod
    def of(cls, lists: Iterable[Iterable[int]]) -> IntLists:
        return cls._of([np.array(sorted(set(part)), dtype=np.int64) for part in lists], np.empty(0, np.int64))

    def take(self, rows: npt.NDArray[np.int64]) -> IntLists:
        """The lists at `rows`, as a new array."""
        return IntLists.of(self[int(row)].tolist() for row in np.arange(len(self))[rows])


class SegmentLists(_Lists, Sequence["npt.NDArray[np.float64]"]):
    """Immutable sequence of tables (n, 3): start and end in seconds and the class number of each segment of a video."""

    @classmethod
    def of(cls, tables: Iterable[npt.NDArray[np.float64]]) -> SegmentLists:
        """(n, 3) each, n may be 0."""
        return cls._of([table.reshape(-1, 3) for table in tables], np.empty((0, 3)))

    def take(self, rows: npt.NDArray[np.int64]) -> SegmentLists:
        """The tables at `rows`, as a new array."""
        return SegmentLists.of(self[int(row)] for row in np.arange(len(self))[rows])


@dataclass(frozen=True)
class FeatureInfo:
    """What a dataset of features is.

    length: D of each vector. made_by: dotted settings -> value, of all that the numbers depend on.
    max_clips: longest stretch that training takes of a video, None: all of it. tokens: vectors of each clip, which is
    then no single vector but what a layer has at each of its positions; None: one vector.
    """

    length: int
    made_by: Mapping[str, Any]
    max_clips: int | None = None
    tokens: int | None = None
    checkpoint: str | None = None
    """The file whose network made them, where it lay then."""
    times: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict, compare=False, repr=False)
    """Of untrimmed videos, by file: float64 (clips, 2), from when to when each clip goes, in seconds."""
    kept: dict[str, npt.NDArray[np.floating[Any]]] | None = field(default=None, compare=False, repr=False)
    """What has been read, by file, where all of it fits into memory; None: files are read each time."""

    @property
    def _what(self) -> str:
        return "features" if self.tokens is None else f"{self.tokens} tokens per clip"

    @property
    def protocol(self) -> str:
        """Where they come from, in a line."""
        made = self.made_by
        hop = made.get("hop")
        every = "one after the other" if hop is None else f"a clip every {hop}{' frames' * isinstance(hop, int)}"
        if (clips := made.get("clips")) is not None:
            whole = (
                "of frames of the whole video" if made.get("sampler.mode") == "segments" else "spread over the video"
            )
            every = f"{clips} {whole}"
        return (
            f"{self._what} (length {self.length}, layer {made.get('layer')}) of {made.get('model._target_')} over "
            f"{made.get('sampler.num_frames')}-frame clips at {made.get('transform.size')} px, {every}"
        )


@dataclass(frozen=True)
class Manifest(SharesColumns):
    """The videos of one split.

    paths: (N,) files, absolute or relative to the working directory; a folder is a video whose frames are images.
    labels: int64 (N,), class numbers; -1 where unknown. Multi-label: the first class of `tags`, -1 where there is none.
    starts, ends: float64 (N,) seconds, or None when every row is a whole file; an end of inf is the end of the file.
    tags: (N,) lists of class numbers, of a multi-label set; None otherwise.
    segments: (N,) tables of what happens when, of untrimmed videos; labels are -1 then. None otherwise.
    quiet: where rows are segments, the videos in which nothing happens; no row is theirs.
    missing: rows of the annotation file whose video is not on disk; they are not among the N.
    """

    paths: StringArray
    labels: npt.NDArray[np.int64]
    starts: npt.NDArray[np.float64] | None = None
    ends: npt.NDArray[np.float64] | None = None
    missing: Sequence[str] = ()
    tags: IntLists | None = None
    segments: SegmentLists | None = None
    quiet: Sequence[str] = ()

    def __post_init__(self) -> None:
        assert len(self.paths) == len(self.labels), "paths and labels differ in length"
        for column in (self.starts, self.ends, self.tags, self.segments):
            assert column is None or len(column) == len(self.labels), "columns differ in length"

    @classmethod
    def of(cls, paths: Iterable[str], labels: Iterable[int], missing: Iterable[str] = ()) -> Manifest:
        return cls(StringArray.of(paths), np.array(list(labels), dtype=np.int64), missing=tuple(missing))

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def listed(self) -> int:
        """Rows of the annotation file: found and missing."""
        return len(self) + len(self.missing)

    def take(self, rows: npt.NDArray[np.int64]) -> Manifest:
        """A manifest of these rows; the missing ones stay with the original."""
        return Manifest(
            self.paths.take(rows),
            self.labels[rows],
            None if self.starts is None else self.starts[rows],
            None if self.ends is None else self.ends[rows],
            tags=None if self.tags is None else self.tags.take(rows),
            segments=None if self.segments is None else self.segments.take(rows),
        )


def joined(manifests: Sequence[Manifest]) -> Manifest:
    """The rows of several splits in one manifest, those that stand in two of them once."""

    def seconds(name: str, default: float) -> npt.NDArray[np.float64] | None:
        columns = [getattr(m, name) for m in manifests]
        if all(column is None for column in columns):
            return None
        filled = (np.full(len(m), default) if c is None else c for m, c in zip(manifests, columns, strict=True))
        return np.concatenate(list(filled))

    def tags(m: Manifest) -> Iterable[Iterable[int]]:
        return m.tags if m.tags is not None else ([label] if label >= 0 else [] for label in m.labels.tolist())

    every = Manifest(
        StringArray.of(path for m in manifests for path in m.paths),
        np.concatenate([m.labels for m in manifests]),
        seconds("starts", 0.0),
        seconds("ends", np.inf),
    )
    if any(m.tags is not None for m in manifests):
        every = replace(every, tags=IntLists.of(row for m in manifests for row in tags(m)))
    identity = [column for column in (every.paths, every.starts, every.ends) if column is not None]
    first: dict[Any, int] = {}
    for row, key in enumerate(zip(*identity, strict=True)):
        first.setdefault(key, row)
    missing = dict.fromkeys(path for m in manifests for path in m.missing)
    return replace(every.take(np.array(list(first.values()), dtype=np.int64)), missing=tuple(missing))


@dataclass(frozen=True)
class VideoData:
    """A dataset: what a format reader returns.

    splits: "train", "val", "test", those that the set has; only training asks for "train".
    class_names: (K,), all different, position = class number.
    flip_pairs: pairs of classes that a horizontal flip exchanges ("move left", "move right").
    notes: lines for the user about how the lists were read.
    features: what the vectors are when the files hold features instead of images.
    """

    class_names: tuple[str, ...]
    splits: dict[str, Manifest]
    flip_pairs: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = field(default=())
    features: FeatureInfo | None = None

    def __post_init__(self) -> None:
        if len(set(self.class_names)) != len(self.class_names):  # which no checkpoint could be read with
            twice = next(name for n, name in enumerate(self.class_names) if name in self.class_names[:n])
            raise DataError(f"the dataset's class_names: {twice!r} is there twice; class names must differ")

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def split(self, name: str) -> Manifest:
        """Raises ConfigError where the dataset has none of this name."""
        if name not in self.splits:
            raise ConfigError(f"split={name}: this dataset has {one_of(self.splits)}")
        return self.splits[name]

    def files(self) -> list[str]:
        """The absolute path of every file of all splits, each once. Links stay as they are."""
        return list(dict.fromkeys(os.path.abspath(path) for m in self.splits.values() for path in m.paths))  # noqa: PTH100

    def not_validated(self) -> tuple[str, ...]:
        """Classes that are trained and of which "val" has no video, where they are a fifth of all or more."""
        seen = {
            split: set(np.unique(self.splits[split].labels).tolist())
            for split in ("train", "val")
            if split in self.splits
        }
        if len(seen) < 2 or self.multi_label:
            return ()
        lacking = sorted(label for label in seen["train"] - seen["val"] if label >= 0)
        return tuple(self.class_names[label] for label in lacking) if 5 * len(lacking) >= len(seen["train"]) else ()

    @property
    def multi_label(self) -> bool:
        """Whether a video may belong to any number of classes: trained with BCE, scored by mAP."""
        return self.untrimmed or any(manifest.tags is not None for manifest in self.splits.values())

    @property
    def untrimmed(self) -> bool:
        """Whether rows are whole videos with what happens in them when; see `untrimmed.untrimmed`."""
        return any(manifest.segments is not None for manifest in self.splits.values())
