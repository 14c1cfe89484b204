"""Text files with a path and a label in each line: CSV, TSV or separated by a space."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from vidtrain.data.files import Disk, is_video
from vidtrain.data.formats.finish import cut_splits, finish
from vidtrain.data.formats.table import Row, check_options, read_table
from vidtrain.data.formats.text import BadRows, check_root, find_file, read_classes
from vidtrain.data.manifest import Manifest, VideoData
from vidtrain.data.splits import check_fractions
from vidtrain.errors import did_you_mean

_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
_MOST_NUMBERS = 100_000  # a class number above, without a list of classes, is a mistake


def lists(
    root: str | Path,
    *,
    train: str,
    val: str | None = None,
    test: str | None = None,
    classes: str | None = None,
    separator: str = "auto",
    header: str | bool = "auto",
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    split_seed: int = 0,
    group_by: str | None = None,
) -> VideoData:
    """Videos named in list files, one `path label` a line.

    A path is absolute, or relative to `root`, or, where it is not found there, to the folder of the list file.
    Videos that are not on disk go to `Manifest.missing`. Labels are class names, or class numbers from 0; numbers
    that run from 1 to K without a gap and without a 0 are taken to count from 1, which a note says. Without
    `classes` the names are the sorted labels, or the numbers themselves.

    Args:
        root: folder that the paths start from.
        train, val, test: list files, below root or from the working directory.
        classes: file of class names, one a line in the order of their numbers, or `number name` a line.
        separator: auto, comma, tab, space. CSV and TSV may quote; a line with spaces is cut at the last one, so that
            paths may hold spaces.
        header: auto, true or false: whether the first line names the columns. A header says which columns hold the
            path and the label; without one there are two, the path first.
        val_fraction: share of the videos held out of train for validation, where no list is given for it; 0: none.
        test_fraction: the same for testing, used when train is the only list.
        split_seed: chooses the videos held out.
        group_by: a regular expression on the path below root. Videos whose match (its first bracket, if any) is the
            same are never parted: clips cut from one recording, say.

    Raises:
        DataError: no such file, or lines that cannot be used: the first is shown, the others are counted.
    """
    check_fractions(val_fraction, test_fraction)
    check_options(separator, header)
    root = check_root(root)
    names = {"train": train, "val": val, "test": test}
    files = {split: find_file(name, root, split) for split, name in names.items() if name is not None}
    given = None if classes is None else read_classes(find_file(classes, root, "classes"))
    bad = BadRows()
    rows = {split: read_table(path, separator, header, bad) for split, path in files.items()}
    bad.check()

    class_names, numbers, notes = _number_labels(rows, given, bad, files)
    splits = {split: _find_videos(rows[split], numbers, root, file, bad) for split, file in files.items()}
    bad.check()
    splits, cuts = cut_splits(
        splits,
        class_names,
        root,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        split_seed=split_seed,
        group_by=group_by,
    )
    return finish(class_names, splits, root, notes=[*notes, *cuts])


def _number_labels(
    rows: dict[str, list[Row]], given: tuple[str, ...] | None, bad: BadRows, files: dict[str, Path]
) -> tuple[tuple[str, ...], dict[str, int], list[str]]:
    """Class names, the number of each label as written, and notes; labels that are none go to `bad`."""
    notes: list[str] = []
    counts = Counter(row.label for split in rows.values() for row in split)
    numeric = {label: int(label) for label in counts if _NUMBER.fullmatch(label)}
    by_name = given is not None and all(label in given for label in counts)
    # one odd label among numbers is a mistake, not a class name
    if by_name or 2 * sum(counts[label] for label in numeric) <= counts.total():
        names = given or tuple(sorted(counts))
        numbers = {name: number for number, name in enumerate(names)}
        expected = f"a label among the {len(names)} classes"
    else:
        base, notes = _base(set(numeric.values()), given)
        top = len(given) if given is not None else min(max(numeric.values()) - base + 1, _MOST_NUMBERS)
        names = given or tuple(str(number + base) for number in range(top))
        numbers = {label: n - base for label, n in numeric.items() if 0 <= n - base < top}
        expected = f"a class number from {base} to {top - 1 + base}"
    for split, table in rows.items():
        for row in table:
            if row.label not in numbers:
                hint = "" if numeric.get(row.label) is not None else did_you_mean(row.label, names)
                bad.add(files[split], row.number, row.line, f"{expected}, not {row.label!r}{hint}")
    bad.check()
    return names, numbers, notes


def _base(seen: set[int], given: tuple[str, ...] | None) -> tuple[int, list[str]]:
    """Whether class numbers count from 0 or from 1.

    From 1 when there is no 0 and the largest is the number of classes: of those listed in a file of classes, or of
    the numbers themselves.
    """
    classes = len(seen) if given is None else len(given)
    if 0 in seen or max(seen) != classes:
        return 0, []
    return 1, [f"class numbers run from 1 to {classes} without a 0: taken to count from 1"]


def _find_videos(rows: list[Row], numbers: dict[str, int], root: Path, file: Path, bad: BadRows) -> Manifest:
    """Where the videos of a list are; those that are nowhere are noted as missing."""
    disk = Disk([root, file.parent])
    paths, labels, missing = [], [], []
    for row in rows:
        path = disk.find(row.path)
        if path is not None:
            paths.append(path)
            labels.append(numbers[row.label])
        elif is_video(row.path):
            missing.append(row.path)
        else:
            expected = f"a video and one label; {row.path!r} is not on disk and has no video extension"
            bad.add(file, row.number, row.line, expected)
    return Manifest.of(paths, labels, missing)
