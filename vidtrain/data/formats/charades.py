"""Charades (Sigurdsson et al., 2016): long videos at home with several actions each."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from vidtrain.data.formats._files.find_videos import IMAGES_PER_SECOND, find_by_name
from vidtrain.data.formats._files.rows import Rows, build_manifest, check_labels
from vidtrain.data.formats._files.split_checks import empty_segments, finish
from vidtrain.data.formats._files.text_files import BadRows, check_root, find_list, read_lines, some, without_gc
from vidtrain.data.formats.cutting import cut_splits
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.data.manifest.splits import SplitOptions
from vidtrain.errors import DataError
from vidtrain.types import FilePath

_FOLDERS = (".", "annotations", "Charades")
_ACTION = re.compile(r"(c\d+) (\d+(?:\.\d+)?) (\d+(?:\.\d+)?)")
_CLASS = re.compile(r"(c\d+)\s+(\S.*)")
_EXPECTED = "actions 'c092 11.90 21.20;c147 0.00 12.60': class, first and last second"


@without_gc
def charades(
    root: str | Path,
    *,
    train: FilePath | None = None,
    test: FilePath | None = None,
    classes: FilePath | None = None,
    segments: bool = False,
    images_fps: float = 24.0,
    val_fraction: float = 0.0,
    split_seed: int = 0,
) -> VideoData:
    """Whole videos with all their actions (multi-label, scored by mAP), or a row for each action with its time.

    Videos are found by their id anywhere below root: `Charades_v1_480/<id>.mp4`, or the folders of images
    `Charades_v1_rgb/<id>/`. What is not on disk goes to `Manifest.missing`. A video without an action belongs to no
    class; `segments` has no row for it.

    Args:
        root: folder of the dataset.
        train, test: the CSVs, below root or from the working directory. None: Charades_v1_train.csv and
            Charades_v1_test.csv, in root, root/annotations or root/Charades.
        classes: `c000 name` a line. None: Charades_v1_classes.txt in the same places; without it the classes are
            called by their codes.
        segments: a row is the time of one action, with one label; actions that overlap give rows that overlap.
        images_fps: the rate at which folders of images were written; the official ones have 24 per second.
        val_fraction: share of the training rows held out for validation, all videos of a person together; 0: none.
        split_seed: chooses the persons held out.

    Raises:
        DataError: no lists, lines that cannot be used.
    """
    cut = SplitOptions(val_fraction, 0.0, split_seed)
    if not images_fps > 0:
        raise DataError(f"images_fps={images_fps}: expected images per second, above 0")
    root = check_root(root)
    given = {"train": train, "test": test}
    files = {
        split: file
        for split, name in given.items()
        if (file := find_list(root, split, rf"Charades(_v1)?_{split}\.csv", name, _FOLDERS))
    }
    if not files:
        raise DataError(
            f"{root}: neither Charades_v1_train.csv nor Charades_v1_test.csv here, in annotations or in Charades; "
            f"set data.train and data.test, or check data.root"
        )
    bad = BadRows()
    people: dict[str, str] = {}
    empty: list[str] = []
    tables = {split: _read(file, segments, people, empty, bad) for split, file in files.items()}
    bad.check()
    codes = _read_classes(root, classes, tables, bad)
    names = tuple(codes.values())
    numbers = {code: number for number, code in enumerate(codes)}
    check_labels(tables, tuple(codes), bad)
    bad.check()

    where = find_by_name([root], people)
    splits = {}
    for split, rows in tables.items():
        if segments:
            _scale_times(rows, where, images_fps / IMAGES_PER_SECOND)
        splits[split] = build_manifest(rows, numbers, where.get, multi_label=not segments)
    splits, notes = cut_splits(splits, names, root, cut, groups=lambda path: people[Path(path).name.partition(".")[0]])
    return finish(names, splits, root, notes=[*empty_segments(empty), *notes])


def _read(path: Path, segments: bool, people: dict[str, str], empty: list[str], bad: BadRows) -> Rows:
    """The rows of a CSV; who is in each video goes to `people`, what has no length to `empty`."""
    lines = read_lines(path)
    texts = [line for _, line in lines]
    rows = Rows(path)
    if segments:
        rows.starts, rows.ends = [], []
    reader = csv.DictReader(texts)
    lacking = [name for name in ("id", "subject", "actions") if name not in (reader.fieldnames or ())]
    if lacking:
        raise DataError(f"{path}:1: no column {lacking[0]}; expected the header of Charades_v1_train.csv")
    for cells in reader:
        place = lines[min(reader.line_num, len(lines)) - 1]
        name, actions = cells["id"], (cells["actions"] or "").strip()
        found = [_ACTION.fullmatch(action.strip()) for action in actions.split(";") if action.strip()]
        if not name or cells["actions"] is None or not all(found):
            bad.add(path, *place, _EXPECTED)
            continue
        people[name] = cells["subject"] or name
        times = [(m[1], float(m[2]), float(m[3])) for m in found if m]
        if not segments:
            rows.add(place, name, tuple([code for code, _, _ in times]))
            continue
        for code, start, end in times:
            if end <= start:
                empty.append(f"{name} {code} {start:g} {end:g}")
            else:
                rows.add(place, name, (code,), (start, end))
    return rows


def _read_classes(root: Path, name: str | None, tables: dict[str, Rows], bad: BadRows) -> dict[str, str]:
    """{code: name}, in the order of the codes."""
    file = find_list(root, "classes", r"Charades_v1_classes\.txt", name, _FOLDERS)
    if file is None:
        seen = {code for rows in tables.values() for labels in rows.labels for code in labels}
        return {code: code for code in sorted(seen)}
    codes = {}
    for place in read_lines(file):
        match = _CLASS.fullmatch(place[1].strip())
        if match is None or match[1] in codes:
            bad.add(file, *place, "c000 and the name of the class, each code once")
        else:
            codes[match[1]] = match[2]
    bad.check()
    twice = [name for name in codes.values() if list(codes.values()).count(name) > 1]
    if twice:
        raise DataError(f"{file}: class {some(twice, 1)} is there twice; class names must differ")
    return dict(sorted(codes.items()))


def _scale_times(rows: Rows, where: dict[str, str], scale: float) -> None:
    """Seconds of the film become seconds of its images, which are read at another rate than they were written."""
    assert rows.starts is not None
    assert rows.ends is not None
    folders = {name for name, path in where.items() if Path(path).suffix == "" and Path(path).is_dir()}
    for row, name in enumerate(rows.names):
        if name in folders:
            rows.starts[row] *= scale
            rows.ends[row] *= scale
