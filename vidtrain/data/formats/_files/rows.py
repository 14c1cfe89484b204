"""The rows of an annotation file on their way to a manifest: labels get numbers, names get paths."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vidtrain.data.formats._files.text_files import BadRows, some
from vidtrain.data.manifest.manifest import IntLists, Manifest, StringArray, offsets_of
from vidtrain.errors import did_you_mean

_BOUND = 10**9
_MOST_NUMBERS = 100_000  # a class number above, without a list of classes, is a mistake
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]{0,30}|,0{1,2})?(?:[eE][+-]?[0-9]{1,2})?")
_NUMPY = re.compile(r"(?:numpy|np)\.u?(?:int|float)[0-9]+\((.*)\)")
_PRINTED = re.compile(r"""b(['"])(.*)\1|(?:numpy|np)\.\w+\((?:b?(['"])(.*)\3)\)""")


def whole_number(text: str) -> int | None:
    """The class number that a label is: 6 for "6", "06" and for what programs make of it: "6.0" of pandas, "6,0" of a
    spreadsheet in German, "6.000000e+00" and "np.int64(6)" of NumPy."""
    text = printed[1] if (printed := _NUMPY.fullmatch(text)) else text
    if not _NUMBER.fullmatch(text):
        return None
    number = Decimal(text.replace(",", "."))
    return int(number) if number == int(number) and abs(number) < _BOUND else None


@dataclass
class Rows:
    """N rows of one split, column by column.

    file: where they come from.
    show: (number, content) of row i, for messages; None: its place. entry: that number is no line, see BadRows.
    names: (N,) the videos, as the file names them.
    labels: (N,) the labels of each, as the file writes them; one, or any number in a multi-label set.
    starts, ends: (N,) seconds, both or neither.
    notes: for the user, about how the file was read.
    places: (number, content) of each row: its line, or the entry of a JSON file.
    """

    file: Path
    show: Callable[[int], tuple[int, str]] | None = None
    names: list[str] = field(default_factory=list)
    labels: list[tuple[str, ...]] = field(default_factory=list)
    starts: list[float] | None = None
    ends: list[float] | None = None
    entry: bool = False
    notes: list[str] = field(default_factory=list)
    places: list[tuple[int, Any]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def add(
        self, place: tuple[int, Any], name: str, labels: tuple[str, ...], times: tuple[float, float] | None = None
    ) -> None:
        """Take a row in; times: its start and end, for rows that have them."""
        self.places.append(place)
        self.names.append(name)
        self.labels.append(labels)
        if times is not None:
            assert self.starts is not None
            assert self.ends is not None
            self.starts.append(times[0])
            self.ends.append(times[1])

    def bad(self, bad: BadRows, row: int, expected: str) -> None:
        """Note that a row cannot be used."""
        number, content = self.places[row] if self.show is None else self.show(row)
        line = content if isinstance(content, str) else json.dumps(content)
        bad.add(self.file, number, line, expected, entry=self.entry)


def build_manifest(
    rows: Rows, numbers: Mapping[str, int], where: Callable[[str], str | None], *, multi_label: bool = False
) -> Manifest:
    """The videos that are on disk as a manifest, the others as its `missing`.

    Args:
        rows: N rows.
        numbers: the class number of every label in them.
        where: the path of a video by its name, or None.
        multi_label: labels become tags.
    """
    found = [where(name) for name in rows.names]
    kept = [i for i, path in enumerate(found) if path is not None]
    if len(kept) == len(found):
        labels, missing = rows.labels, []
    else:
        labels = [rows.labels[i] for i in kept]
        missing = [name for name, path in zip(rows.names, found, strict=True) if path is None]
    paths = StringArray.of([path for path in found if path is not None])
    first = np.array([numbers[some[0]] if some else -1 for some in labels], dtype=np.int64)
    tags = None
    if multi_label:
        tags = make_tags([[numbers[label] for label in some] for some in labels])
        first = first_tags(tags)
    starts, ends = (None if c is None else np.array(c, np.float64)[kept] for c in (rows.starts, rows.ends))
    return Manifest(paths, first, starts, ends, missing=tuple(missing), tags=tags)


def make_tags(lists: Sequence[Sequence[int]]) -> IntLists:
    """IntLists.of for many short lists: one array, not one a list."""
    parts = [part if len(part) < 2 else sorted(set(part)) for part in lists]
    offsets = offsets_of([len(part) for part in parts])
    return IntLists(np.array(list(chain.from_iterable(parts)), dtype=np.int64), offsets)


def first_tags(tags: IntLists) -> npt.NDArray[np.int64]:
    """int64 (N,): the first class of each list, -1 where there is none."""
    first = np.full(len(tags), -1, dtype=np.int64)
    there = tags.offsets[1:] > tags.offsets[:-1]
    first[there] = tags.values[tags.offsets[:-1][there]]
    return first


def check_labels(
    rows: Mapping[str, Rows], names: Sequence[str], bad: BadRows, numbers: dict[str, int] | None = None
) -> dict[str, int]:
    """The number of each label; rows with a label that has none go to `bad`.

    Args:
        rows: those of each split.
        names: of the classes.
        bad: takes the rows with other labels.
        numbers: those of the labels as they are written, where that is not as in `names`.
    """
    numbers = {name: number for number, name in enumerate(names)} if numbers is None else numbers
    _report_unknown(rows, numbers, names, f"a label among the {len(names)} classes", bad)
    return numbers


def _report_unknown(
    rows: Mapping[str, Rows], numbers: Mapping[str, int], names: Sequence[str], expected: str, bad: BadRows
) -> None:
    """Note the rows with a label that has no number, or that is how Python prints bytes or NumPy a text."""
    for split in rows.values():
        there = set(chain.from_iterable(split.labels))
        printed = {label: match[2] or match[4] for label in there if (match := _PRINTED.fullmatch(label))}
        if numbers.keys() >= there and not printed:
            continue
        for row, labels in enumerate(split.labels):
            for label in labels:
                if label in printed:
                    split.bad(bad, row, f"{printed[label]!r} instead of {label!r}, as a program has printed it")
                elif label not in numbers:
                    # the first alone is shown, and a hint takes long where there are many classes
                    number = whole_number(label)
                    hint = "" if bad.count or number is not None else did_you_mean(label, names)
                    if number is not None and number < 0:
                        hint = "; a negative number often marks a video without a label: remove its line"
                    split.bad(bad, row, f"{expected}, not {label!r}{hint}")


def number_labels(
    rows: Mapping[str, Rows], given: tuple[str, ...] | None, bad: BadRows
) -> tuple[tuple[str, ...], dict[str, int], list[str]]:
    """Class names, the number of each label as written, and notes; labels that are none go to `bad`.

    Labels are names, or whole numbers when more than half of them are (6.0 is 6): from 0, or from 1 where that is
    plain.

    Args:
        rows: those of each split.
        given: the class names in the order of their numbers; None: from the labels.
        bad: takes the rows with other labels.
    """
    notes: list[str] = []
    counts = Counter(chain.from_iterable(chain.from_iterable(split.labels for split in rows.values())))
    numeric = {label: number for label in counts if (number := whole_number(label)) is not None}
    by_form = {_composed(name): name for name in given or ()}
    by_name = given is not None and all(label in given or _composed(label) in by_form for label in counts)
    # one odd label among numbers is a mistake, not a class name
    if by_name or 2 * sum(counts[label] for label in numeric) <= sum(counts.values()):
        names, numbers, notes = number_names([label for label in counts if numeric.get(label, 0) >= 0], given)
        expected = f"a label among the {len(names)} classes"
    else:
        seen = {number for number in numeric.values() if number >= 0} or {0}
        base, notes = _base(seen, given)
        top = len(given) if given is not None else min(max(seen) - base + 1, _MOST_NUMBERS)
        names = given or tuple(str(number + base) for number in range(top))
        numbers = {label: n - base for label, n in numeric.items() if 0 <= n - base < top}
        expected = f"a class number from {base} to {top - 1 + base}"
    _report_unknown(rows, numbers, names, expected, bad)
    bad.check()
    return names, numbers, notes


def number_names(
    labels: Sequence[str], given: tuple[str, ...] | None
) -> tuple[tuple[str, ...], dict[str, int], list[str]]:
    """As `number_labels`, of labels that are names. Two Unicode forms of one name are one class."""
    by_form, notes = _forms(labels) if given is None else ({_composed(name): name for name in given}, [])
    names = given or tuple(sorted(by_form.values()))
    numbers = {name: number for number, name in enumerate(names)}
    numbers |= {n: numbers[by_form[form]] for n in labels if n not in numbers and (form := _composed(n)) in by_form}
    return names, numbers, notes


def _composed(label: str) -> str:
    """The label with letters and accents in one: macOS takes them apart."""
    return label if label.isascii() else unicodedata.normalize("NFC", label)


def _forms(labels: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Class name by composed form, and a note where labels differ in nothing else."""
    names: dict[str, str] = {}
    twins = []
    for label in labels:
        form = _composed(label)
        if form in names:
            names[form] = form
            twins.append(form)
        else:
            names[form] = label
    if not twins:
        return names, []
    return names, [f"labels in two Unicode forms (NFC, NFD) are taken for one class: {some(twins)}"]


def _base(seen: set[int], given: tuple[str, ...] | None) -> tuple[int, list[str]]:
    """Whether class numbers count from 0 or from 1.

    From 1 when there is no 0 and the largest is the number of classes: of those listed in a file of classes, or of
    the numbers themselves.
    """
    classes = len(seen) if given is None else len(given)
    if 0 in seen or max(seen) != classes:
        return 0, []
    return 1, [f"class numbers run from 1 to {classes} without a 0: taken to count from 1"]
