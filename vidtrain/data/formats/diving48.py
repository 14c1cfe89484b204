"""Diving48 (Li et al., 2018), version 2 of its lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vidtrain.data.formats._files.find_videos import find_by_name
from vidtrain.data.formats._files.rows import Rows, build_manifest, check_labels
from vidtrain.data.formats._files.split_checks import finish
from vidtrain.data.formats._files.text_files import BadRows, check_root, find_list, read_json_text
from vidtrain.data.formats.cutting import cut_splits
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.data.manifest.splits import SplitOptions
from vidtrain.errors import DataError
from vidtrain.types import FilePath

_FOLDERS = (".", "annotations")


def diving48(
    root: str | Path,
    *,
    train: FilePath | None = None,
    test: FilePath | None = None,
    vocab: FilePath | None = None,
    val_fraction: float = 0.0,
    split_seed: int = 0,
) -> VideoData:
    """48 dives: Diving48_V2_train.json and Diving48_V2_test.json, the names in Diving48_vocab.json.

    Videos are found by name anywhere below root: `rgb/<vid_name>.mp4`, in another container, or a folder of images.
    What is not on disk goes to `Manifest.missing`. The files are cut to the dives: start_frame and end_frame count
    from the start of the file and cover all of it, so they are not read.

    Args:
        root: folder of the dataset.
        train, test: the lists, below root or from the working directory. None: Diving48_V2_train.json and
            Diving48_V2_test.json (or without _V2), in root or root/annotations.
        vocab: the dives in the order of their numbers. None: Diving48_vocab.json in the same places; without it the
            classes are called by their numbers.
        val_fraction: share of the training videos held out for validation, all dives of a recording together;
            0: none.
        split_seed: chooses the recordings held out.

    Raises:
        DataError: no lists, entries that cannot be used.
    """
    cut = SplitOptions(val_fraction, 0.0, split_seed)
    root = check_root(root)
    given = {"train": train, "test": test}
    files = {
        split: file
        for split, name in given.items()
        if (file := find_list(root, split, rf"Diving48(_V2)?_{split}\.json", name, _FOLDERS))
    }
    if not files:
        raise DataError(
            f"{root}: neither Diving48_V2_train.json nor Diving48_V2_test.json here or in annotations; "
            f"set data.train and data.test, or check data.root"
        )
    bad = BadRows()
    tables = {split: _read(file, bad) for split, file in files.items()}
    bad.check()
    file = find_list(root, "vocab", r"Diving48_vocab\.json", vocab, _FOLDERS)
    names = _read_vocab(file) if file else tuple(str(n) for n in range(48))
    numbers = check_labels(tables, [str(n) for n in range(len(names))], bad)
    bad.check()
    where = find_by_name([root], {name for rows in tables.values() for name in rows.names})
    splits = {split: build_manifest(rows, numbers, where.get) for split, rows in tables.items()}
    splits, notes = cut_splits(splits, names, root, cut, groups=lambda path: Path(path).stem.rpartition("_")[0])
    return finish(names, splits, root, notes=notes)


def _read(path: Path, bad: BadRows) -> Rows:
    content: Any = read_json_text(path)
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list of objects with vid_name and label")
    rows = Rows(path, entry=True)
    for number, entry in enumerate(content, 1):
        name, label = (entry.get("vid_name"), entry.get("label")) if isinstance(entry, dict) else (None, None)
        if isinstance(name, str) and name and isinstance(label, int) and label >= 0:
            rows.add((number, entry), name, (str(label),))
        else:
            bad.add(path, number, json.dumps(entry), "an object with vid_name and label, a number", entry=True)
    return rows


def _read_vocab(path: Path) -> tuple[str, ...]:
    """[["Back", "15som", "05Twis", "FREE"], ...]: take-off, somersaults, twists, position."""
    content: Any = read_json_text(path)
    if not isinstance(content, list) or not all(isinstance(dive, (list, str)) and dive for dive in content):
        raise DataError(f'{path}: expected a list of dives, ["Back", "15som", "05Twis", "FREE"] each')
    names = tuple(dive if isinstance(dive, str) else "_".join(map(str, dive)) for dive in content)
    if len(set(names)) < len(names):
        raise DataError(f"{path}: a dive is there twice; class names must differ")
    return names
