"""What Something-Something and Jester share: where their files lie, `id;label` lists, videos named by numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vidtrain.data.formats._files.find_videos import find_by_name
from vidtrain.data.formats._files.rows import Rows, build_manifest, check_labels
from vidtrain.data.formats._files.split_checks import finish, val_is_test
from vidtrain.data.formats._files.text_files import (
    BadRows,
    check_root,
    find_list,
    read_classes,
    read_json_text,
    read_lines,
)
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.errors import DataError

FOLDERS = (".", "labels", "annotations")
NAMES = {"train": "train", "val": "(?:validation|val)", "test": "test[-_]answers", "labels": "labels"}


def find_lists(root: Path, prefix: str, extension: str, given: dict[str, str | None]) -> dict[str, Path]:
    """The annotation files that are there: of the splits, and the labels.

    Args:
        root: of the dataset.
        prefix: regular expression of what may stand before "train" and the like.
        extension: regular expression of the ending, without dot.
        given: {option: what the user set it to}, the options being keys of NAMES.

    Raises:
        DataError: no list of a split.
    """
    found = {}
    for key, name in given.items():
        ending = "csv" if key == "test" else extension
        file = find_list(root, key, rf"{prefix}{NAMES[key]}\.(?:{ending})", name, FOLDERS)
        if file is not None:
            found[key] = file
    if not found.keys() - {"labels"}:
        raise DataError(
            f"{root}: no lists of the videos (train, validation or test-answers) here, in labels or in annotations; "
            f"set data.train and data.val, or check data.root"
        )
    return found


def read_id_label(path: Path, bad: BadRows) -> Rows:
    """The rows of a list `id;label`."""
    rows = Rows(path)
    for place in read_lines(path):
        name, _, label = place[1].strip().partition(";")
        if name.isdecimal() and label.strip():
            rows.add(place, name, (plain(label),))
        else:
            bad.add(path, *place, "id;label, the id a number")
    return rows


def plain(template: str) -> str:
    """The class of a template: without the brackets around what was filled in."""
    return template.replace("[", "").replace("]", "").strip()


def unlabelled(root: Path, prefix: str, extension: str, videos: str | None) -> tuple[list[Path], set[str]]:
    """Where the videos may be, and the names of test videos without labels: folders that need not be looked into."""
    homes = [root] if videos is None else [root / videos if (root / videos).is_dir() else Path(videos)]
    if not homes[0].is_dir():
        raise DataError(f"videos={videos}: no such folder below {root} or in the working directory")
    test = find_list(root, "test", rf"{prefix}test\.(?:{extension})", None, FOLDERS)
    if test is None:
        return homes, set()
    if test.suffix.lower() == ".json":
        content = read_json_text(test)
        return homes, {str(e.get("id")) for e in content if isinstance(e, dict)} if isinstance(content, list) else set()
    return homes, {line.partition(";")[0].strip() for _, line in read_lines(test)}


def dataset(
    root: str | Path,
    prefix: str,
    extension: str,
    given: dict[str, str | None],
    videos: str | None,
    read: Callable[[Path, BadRows], Rows] = read_id_label,
    labels: Callable[[Path], tuple[str, ...]] = read_classes,
) -> VideoData:
    """The dataset of the lists below root.

    Args:
        prefix, extension, given: see `find_lists`.
        videos: the folder that the user set; None: root.
        read, labels: read a list of a split, and the file of the classes.

    Raises:
        DataError: no lists, entries that cannot be used.
    """
    root = check_root(root)
    files = find_lists(root, prefix, extension, given)
    bad = BadRows()
    tables = {split: read(file, bad) for split, file in files.items() if split != "labels"}
    bad.check()
    names, notes = class_names(tables, labels(files["labels"]) if "labels" in files else None)
    homes, others = unlabelled(root, prefix, extension, videos)
    numbers = check_labels(tables, names, bad)
    bad.check()
    where = find_by_name(homes, others.union(*(rows.names for rows in tables.values())))
    splits = {split: build_manifest(rows, numbers, where.get) for split, rows in tables.items()}
    splits, more = val_is_test(splits, "there are no answers for the test videos")
    return finish(names, splits, root, notes=[*notes, *more])


def class_names(tables: dict[str, Rows], labels: tuple[str, ...] | None) -> tuple[tuple[str, ...], list[str]]:
    """The classes of the labels file, or all that occur, with a note."""
    if labels is not None:
        return labels, []
    seen = tuple(sorted({label for rows in tables.values() for each in rows.labels for label in each}))
    return seen, [f"no labels file: the {len(seen)} classes are those of the lists, in alphabetical order"]
