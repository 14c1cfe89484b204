"""The list of videos of a split, in a form that forked workers share without copying.

A Python list of five million paths costs a gigabyte, and every worker that reads it copies the pages it touches,
since reading counts references. One byte buffer and arrays of numbers cost 60 MB and are never written to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

_PART = 65536  # strings worked on at once


class StringArray(Sequence[str]):
    """Immutable sequence of strings: one UTF-8 buffer plus int64 offsets."""

    def __init__(self, buffer: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> None:
        self.buffer = buffer
        self.offsets = offsets

    @classmethod
    def of(cls, strings: Iterable[str]) -> StringArray:
        # surrogateescape: a file name on Linux is bytes, and need not be UTF-8
        encoded = [s.encode("utf-8", "surrogateescape") for s in strings]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(e) for e in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start, end = self.offsets[index], self.offsets[index + 1]
        return self.buffer[start:end].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        buffer = self.buffer.data
        for first in range(0, len(self), _PART):
            offsets = self.offsets[first : first + _PART + 1].tolist()
            for start, end in pairwise(offsets):
                yield str(buffer[start:end], "utf-8", "surrogateescape")

    def take(self, rows: npt.NDArray[np.int64]) -> StringArray:
        """The strings at `rows`, as a new array."""
        rows = np.arange(len(self))[rows]  # counts negative rows from the end, refuses those out of range
        starts, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        buffer = np.empty(offsets[-1], dtype=np.uint8)
        for first in range(0, len(rows), _PART):
            part = slice(first, first + _PART)
            # byte i of the part comes from i + (where its string starts here - where it starts there)
            at = np.arange(offsets[first], offsets[min(first + _PART, len(rows))])
            buffer[at] = self.buffer[at + np.repeat(starts[part] - offsets[:-1][part], lengths[part])]
        return StringArray(buffer, offsets)


@dataclass(frozen=True)
class Manifest:
    """The videos of one split.

    paths: (N,) files, absolute or relative to the working directory. labels: int64 (N,), class numbers.
    starts, ends: float64 (N,) seconds, or None when every row is a whole file.
    missing: rows of the annotation file whose video is not on disk; they are not among the N.
    """

    paths: StringArray
    labels: npt.NDArray[np.int64]
    starts: npt.NDArray[np.float64] | None = None
    ends: npt.NDArray[np.float64] | None = None
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert len(self.paths) == len(self.labels), "paths and labels differ in length"

    @classmethod
    def of(cls, paths: Iterable[str], labels: Iterable[int], missing: Iterable[str] = ()) -> Manifest:
        return cls(StringArray.of(paths), np.array(list(labels), dtype=np.int64), missing=tuple(missing))

    def __len__(self) -> int:
        return len(self.labels)

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
        )


@dataclass(frozen=True)
class VideoData:
    """A data set: what a format reader returns.

    splits: "train" always, "val" and "test" where the set has them.
    class_names: (K,), position = class number.
    flip_pairs: pairs of classes that a horizontal flip exchanges ("move left", "move right").
    notes: lines for the user about how the lists were read.
    """

    class_names: tuple[str, ...]
    splits: dict[str, Manifest]
    flip_pairs: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def num_classes(self) -> int:
        return len(self.class_names)
