"""Kinetics-400, 600 and 700: the official CSVs, or one folder for each class."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from vidtrain.data.files import is_video, list_folders, list_videos, walk_videos
from vidtrain.data.formats.finish import finish
from vidtrain.data.formats.table import cut_csv
from vidtrain.data.formats.text import BadRows, check_root, find_file, read_classes, read_lines, some
from vidtrain.data.manifest import Manifest, VideoData
from vidtrain.errors import DataError, did_you_mean

_SPLITS = {"train": ("train",), "val": ("val", "validate", "validation", "valid"), "test": ("test",)}
# train.csv, validate.csv, kinetics-400_train.csv, k700_val.csv, kinetics700_2020_test.csv ...
_LIST_NAME = r"((kinetics|k)?[-_]?(400|600|700)?[-_]?(2020)?[-_])?({})(_set)?\.csv"
_COLUMNS = ("label", "youtube_id", "time_start", "time_end")


class _Clip(NamedTuple):
    """A row of a CSV."""

    number: int
    line: str
    label: str
    youtube_id: str
    name: str  # id_000417_000427


def kinetics(
    root: str | Path,
    *,
    train: str | None = None,
    val: str | None = None,
    test: str | None = None,
    classes: str | None = None,
) -> VideoData:
    """Kinetics as it is downloaded; 400, 600 or 700 classes follow from the data.

    Each split comes from its official CSV (label, youtube_id, time_start, time_end, split), or, where there is none,
    from the folders `<root>/<split>/<class>/`. Videos are found by name anywhere below root, those in a folder named
    after their split first: `{id}_{start:06d}_{end:06d}.mp4` or `{id}.mp4`, in any container. Listed videos that are
    not on disk go to `Manifest.missing`.

    The field reports on val, as the labels of test were long unknown: without a test list that has labels and videos
    on disk, the split "test" is "val", which a note says.

    Args:
        root: folder of the data set.
        train, val, test: the CSVs, below root or from the working directory. None: train.csv, val.csv, validate.csv,
            kinetics-400_val.csv, k700_train.csv and the like, in root or root/annotations.
        classes: file of class names, one a line in the order of their numbers. None: the sorted labels.

    Raises:
        DataError: no training or validation data, a CSV without a needed column, lines that cannot be used.
    """
    root = check_root(root)
    given = {"train": train, "val": val, "test": test}
    files = {s: _find_list(root, s) if name is None else find_file(name, root, s) for s, name in given.items()}
    bad = BadRows()
    tables = {}
    for split, file in files.items():
        rows = file and _read(file, bad, needs_labels=split != "test" or test is not None)
        if rows:
            tables[split] = rows
    bad.check()
    homes = {s: home for s in _SPLITS if s not in tables and (home := _split_folder(root, s)) is not None}
    for split in ("train", "val"):
        if split not in tables and split not in homes:
            raise DataError(
                f"{root}: has neither {split}.csv (here or in annotations) nor {split}/<class>/<video>; "
                f"set data.{split} to the CSV, or check data.root"
            )
    names = _class_names(root, classes, tables, homes)
    numbers = {_loose(name): number for number, name in enumerate(names)}
    index = _Index(root)
    splits = {s: _from_table(index, s, table, numbers, files[s], bad) for s, table in tables.items()}
    bad.check()
    splits |= {s: _from_folders(home, numbers) for s, home in homes.items()}
    notes = []
    if "test" not in splits or not len(splits["test"]):
        why = "none of the listed test videos is on disk" if "test" in splits else "there is no test list with labels"
        notes.append(f"test: the val split, as the field reports it; {why}")
        splits["test"] = splits["val"]
    return finish(names, splits, root, notes=notes)


def _loose(name: str) -> str:
    """The same for "air drumming" and the folder "air_drumming", whatever became of brackets and quotes."""
    return " ".join(re.findall(r"[^\W_]+", name.lower()))


def _find_list(root: Path, split: str) -> Path | None:
    """The CSV of a split, by its name, in root or root/annotations."""
    pattern = re.compile(_LIST_NAME.format("|".join(_SPLITS[split])), re.IGNORECASE)
    homes = [home for home in (root, root / "annotations") if home.is_dir()]
    found = sorted(p for home in homes for p in home.iterdir() if pattern.fullmatch(p.name))
    if len(found) > 1:
        names = some([str(path.relative_to(root)) for path in found])
        raise DataError(f"{root}: several lists for {split} ({names}); choose with data.{split}")
    return found[0] if found else None


def _read(path: Path, bad: BadRows, *, needs_labels: bool) -> list[_Clip]:
    """The rows of a CSV; none when it has no labels and needs none."""
    lines = read_lines(path)
    if not lines:
        raise DataError(f"{path}: empty; expected {','.join(_COLUMNS)}")
    header, *fields = cut_csv(path, lines, ",")
    header = [name.strip() for name in header]
    at = {name: header.index(name) for name in _COLUMNS if name in header}
    if "label" not in at and not needs_labels:
        return []
    lacking = [name for name in _COLUMNS if name not in at]
    if lacking:
        raise DataError(f"{path}:1: no column {lacking[0]} in {','.join(header)!r}; expected {','.join(_COLUMNS)}")
    label, youtube_id, start, end = (at[name] for name in _COLUMNS)
    clips = []
    for (number, line), cells in zip(lines[1:], fields, strict=True):
        if len(cells) != len(header) or not cells[youtube_id]:
            bad.add(path, number, line, f"{len(header)} fields: {','.join(header)}")
        elif not (cells[start].isdecimal() and cells[end].isdecimal()):
            bad.add(path, number, line, "time_start and time_end in whole seconds")
        elif not cells[label] and needs_labels:
            bad.add(path, number, line, "a label")
        elif cells[label]:
            name = f"{cells[youtube_id]}_{cells[start]:0>6}_{cells[end]:0>6}"
            clips.append(_Clip(number, line, cells[label].strip(), cells[youtube_id], name))
    return clips


def _split_folder(root: Path, split: str) -> Path | None:
    """The folder of a split, when it holds class folders."""
    homes = [root / name for name in list_folders(root) if name.lower() in _SPLITS[split]]
    return next((home for home in homes if list_folders(home)), None)


def _class_names(
    root: Path, classes: str | None, tables: dict[str, list[_Clip]], homes: dict[str, Path]
) -> tuple[str, ...]:
    """From the file, or all that occur: as the CSVs write them, else as the folders do."""
    found: dict[str, str] = {}
    for name in sorted({clip.label for table in tables.values() for clip in table}):
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

    def of_split(self, split: str) -> dict[str, str]:
        """Videos in the folders named after a split."""
        return self._get(split, [name for name, low in self._tops.items() if low in _SPLITS[split]])

    def elsewhere(self) -> dict[str, str]:
        """Videos in no such folder."""
        splits = {name for names in _SPLITS.values() for name in names}
        return self._get("", [name for name, low in self._tops.items() if low not in splits])

    def _get(self, key: str, tops: Iterable[str]) -> dict[str, str]:
        if key not in self._found:
            paths = [path for top in tops for path in walk_videos(self._root / top)]
            if not key:
                paths += [str(p) for p in self._root.iterdir() if is_video(p.name)]
            # backwards, so that among several containers the first by name stays
            paths.sort(reverse=True)
            self._found[key] = {path[path.rfind(os.sep) + 1 : path.rfind(".")]: path for path in paths}
        return self._found[key]


def _from_table(
    index: _Index, split: str, table: list[_Clip], numbers: dict[str, int], file: Path | None, bad: BadRows
) -> Manifest:
    by_label = {label: numbers.get(_loose(label)) for label in {clip.label for clip in table}}
    own = index.of_split(split)
    paths, labels, missing = [], [], []
    for clip in table:
        label = by_label[clip.label]
        path = own.get(clip.name) or own.get(clip.youtube_id)
        if path is None:
            others = index.elsewhere()
            path = others.get(clip.name) or others.get(clip.youtube_id)
        if label is None:
            assert file is not None
            hint = did_you_mean(_loose(clip.label), numbers)
            bad.add(file, clip.number, clip.line, f"a label among the {len(numbers)} classes{hint}")
        elif path is None:
            missing.append(clip.name)
        else:
            paths.append(path)
            labels.append(label)
    return Manifest.of(paths, labels, missing)


def _from_folders(home: Path, numbers: dict[str, int]) -> Manifest:
    rows = [(path, numbers[_loose(name)]) for name in list_folders(home) for path in list_videos(home / name)]
    return Manifest.of([path for path, _ in rows], [label for _, label in rows])
