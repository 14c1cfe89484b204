"""Kinetics-400, 600 and 700: the official CSVs, or one folder for each class."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from vidtrain.data.formats._files.delimited import cut_csv
from vidtrain.data.formats._files.find_videos import find_clips, skipped_note
from vidtrain.data.formats._files.rows import Rows, build_manifest, check_labels
from vidtrain.data.formats._files.split_checks import finish, val_is_test
from vidtrain.data.formats._files.text_files import (
    BadRows,
    check_root,
    find_file,
    find_list,
    read_classes,
    read_lines,
    without_gc,
)
from vidtrain.data.manifest.files import is_video, list_folders, walk_videos
from vidtrain.data.manifest.manifest import Manifest, VideoData
from vidtrain.errors import DataError, did_you_mean
from vidtrain.types import FilePath

_SPLITS = {"train": ("train",), "val": ("val", "validate", "validation", "valid"), "test": ("test",)}
# train.csv, validate.csv, kinetics-400_train.csv, k700_val.csv, kinetics700_2020_test.csv ...
_LIST_NAME = r"((kinetics|k)?[-_]?(400|600|700)?[-_]?(2020)?[-_])?({})(_set)?\.csv"
_COLUMNS = ("label", "youtube_id", "time_start", "time_end")
_CLIP = 14  # characters of "_000417_000427", which follow the youtube_id in the name of a clip


@without_gc
def kinetics(
    root: str | Path,
    *,
    train: FilePath | None = None,
    val: FilePath | None = None,
    test: FilePath | None = None,
    classes: FilePath | None = None,
) -> VideoData:
    """Kinetics as it is downloaded; 400, 600 or 700 classes follow from the data.

    Each split comes from its official CSV (label, youtube_id, time_start, time_end, split), or, where there is none,
    from the folders `<root>/<split>/<class>/`. Videos are found by name anywhere below root, those in a folder named
    after their split first: `{id}_{start:06d}_{end:06d}.mp4` or `{id}.mp4`, in any container. Listed videos that are
    not on disk go to `Manifest.missing`.

    The field reports on val, as the labels of test were long unknown: without a test list that has labels and videos
    on disk, the split "test" is "val", which a note says.

    Args:
        root: folder of the dataset.
        train, val, test: the CSVs, below root or from the working directory. None: train.csv, val.csv, validate.csv,
            kinetics-400_val.csv, k700_train.csv and the like, in root or root/annotations.
        classes: file of class names, one per line in the order of their numbers. None: the sorted labels.

    Raises:
        DataError: no validation data, a CSV without a needed column, lines that cannot be used.
    """
    root = check_root(root)
    given = {"train": train, "val": val, "test": test}
    bad = BadRows()
    tables: dict[str, Rows] = {}
    for split, name in given.items():
        pattern = _LIST_NAME.format("|".join(_SPLITS[split]))
        file = find_list(root, split, pattern, name, (".", "annotations"))
        rows = file and _read(file, bad, needs_labels=split != "test" or test is not None)
        if rows:
            tables[split] = rows
    bad.check()
    homes = {s: home for s in _SPLITS if s not in tables and (home := _split_folder(root, s)) is not None}
    there = tables.keys() | homes.keys()
    for split in ("train", "val"):
        # without train a model can still be scored
        if split not in there and (split == "val" or not there):
            raise DataError(
                f"{root}: has neither {split}.csv (here or in annotations) nor {split}/<class>/<video>; "
                f"set data.{split} to the CSV, or check data.root"
            )
    names = _class_names(root, classes, tables, homes)
    numbers = {_loose(name): number for number, name in enumerate(names)}
    splits = _from_tables(_Index(root), tables, names, numbers, bad)
    skipped: Counter[str] = Counter()
    splits |= {s: _from_folders(home, numbers, skipped) for s, home in homes.items()}
    splits, notes = val_is_test(splits, "there is no test list with labels")
    return finish(names, splits, root, notes=[*skipped_note(skipped), *notes])


def _loose(name: str) -> str:
    """The same for "air drumming" and the folder "air_drumming", whatever became of brackets and quotes."""
    return " ".join(re.findall(r"[^\W_]+", name.lower()))


def _read(path: Path, bad: BadRows, *, needs_labels: bool) -> Rows | None:
    """The rows of a CSV, named `id_000417_000427`; None when it has no labels and needs none."""
    lines = read_lines(path)
    if not lines:
        raise DataError(f"{path}: empty; expected {','.join(_COLUMNS)}")
    header, *fields = cut_csv(path, lines, ",")
    header = [name.strip() for name in header]
    at = {name: header.index(name) for name in _COLUMNS if name in header}
    if "label" not in at and not needs_labels:
        return None
    lacking = [name for name in _COLUMNS if name not in at]
    if lacking:
        raise DataError(f"{path}:1: no column {lacking[0]} in {','.join(header)!r}; expected {','.join(_COLUMNS)}")
    label_at, id_at, start_at, end_at = (at[name] for name in _COLUMNS)
    width = len(header)
    rows = Rows(path)
    for place, cells in zip(lines[1:], fields, strict=True):
        if len(cells) != width or not cells[id_at]:
            bad.add(path, *place, f"{width} fields: {','.join(header)}")
        elif not (cells[start_at].isdecimal() and cells[end_at].isdecimal()):
            bad.add(path, *place, "time_start and time_end in whole seconds")
        elif cells[label_at]:
            name = f"{cells[id_at]}_{cells[start_at].zfill(6)}_{cells[end_at].zfill(6)}"
            rows.add(place, name, (cells[label_at].strip(),))
        elif needs_labels:
            bad.add(path, *place, "a label")
    return rows if len(rows) else None


def _split_folder(root: Path, split: str) -> Path | None:
    """The folder of a split, when it holds class folders."""
    homes = [root / name for name in list_folders(root) if name.lower() in _SPLITS[split]]
    return next((home for home in homes if list_folders(home)), None)


def _class_names(root: Path, classes: str | None, tables: dict[str, Rows], homes: dict[str, Path]) -> tuple[str, ...]:
    """From the file, or all that occur: as the CSVs write them, else as the folders do."""
    found: dict[str, str] = {}
    for name in sorted({label for table in tables.values() for (label,) in table.labels}):
        found.setdefault(_loose(name), name)
    for home in homes.values():
        for name in list_folders(home):
            found.setdefault(_loose(name), name)
    if classes is None:
        return tuple(sorted(found.values()))
    names = read_classes(find_file(classes, root, "classes"))
    known = {_loose(name) for name in names}
    for home in homes.values():
        odd = [name for name in list_folders(home) if _loose(name) not in known]
        if odd:
            raise DataError(f"{home / odd[0]}: no class of {classes}{did_you_mean(odd[0], names)}")
    return names


class _Index:
    """Where the videos are, by name without extension. Each folder is listed once, and only when it is needed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._tops = {name: name.lower() for name in list_folders(root)}
        self._found: dict[str, dict[str, str]] = {}

    def finder(self, split: str) -> Callable[[str], str | None]:
        """Where a clip of the split is, by the name of the clip or of its whole video; first in the split's folders."""
        own = self._get(split, [name for name, low in self._tops.items() if low in _SPLITS[split]])

        def find(name: str) -> str | None:
            path = own.get(name) or own.get(name[:-_CLIP])
            if path is None:
                others = self._elsewhere()
                path = others.get(name) or others.get(name[:-_CLIP])
            return path

        return find

    def _elsewhere(self) -> dict[str, str]:
        """Videos in no folder named after a split."""
        splits = {name for names in _SPLITS.values() for name in names}
        return self._get("", [name for name, low in self._tops.items() if low not in splits])

    def _get(self, key: str, tops: Iterable[str]) -> dict[str, str]:
        if key not in self._found:
            paths = [path for top in tops for path in walk_videos(self._root / top)]
            if not key:
                paths += [str(p) for p in self._root.iterdir() if is_video(p.name)]
            found = self._found[key] = {}
            for path in paths:
                name = path[path.rfind(os.sep) + 1 : path.rfind(".")]
                if found.setdefault(name, path) > path:  # among several containers the first by name
                    found[name] = path
        return self._found[key]


def _from_tables(
    index: _Index, tables: dict[str, Rows], names: tuple[str, ...], numbers: dict[str, int], bad: BadRows
) -> dict[str, Manifest]:
    """The videos of the CSVs; a label is the class that it spells, however it is written."""
    written = {label for table in tables.values() for (label,) in table.labels}
    by_label = {label: numbers[_loose(label)] for label in written if _loose(label) in numbers}
    check_labels(tables, names, bad, by_label)
    bad.check()
    return {s: build_manifest(table, by_label, index.finder(s)) for s, table in tables.items()}


def _from_folders(home: Path, numbers: dict[str, int], skipped: Counter[str]) -> Manifest:
    clips = {name: find_clips(home / name, skipped) for name in list_folders(home)}
    rows = [(path, numbers[_loose(name)]) for name, found in clips.items() for path, _ in found]
    return Manifest.of([path for path, _ in rows], [label for _, label in rows])
