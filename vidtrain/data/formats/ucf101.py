"""UCF101 with its official split files, as they come from the download page."""

from __future__ import annotations

import re
from pathlib import Path

from vidtrain.data.formats._files.find_videos import find_by_name
from vidtrain.data.formats._files.rows import Rows, build_manifest
from vidtrain.data.formats._files.split_checks import finish
from vidtrain.data.formats._files.text_files import BadRows, check_root, read_classes, read_lines
from vidtrain.data.formats.cutting import cut_splits
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.data.manifest.splits import SplitOptions
from vidtrain.errors import DataError, did_you_mean
from vidtrain.types import FilePath

_LISTS = ("ucfTrainTestlist", ".")  # where the split files may lie below root
_VIDEOS = ("videos", "UCF-101", ".")  # and the class folders
_TRAIN_ROW = re.compile(r"([^/]+)/(\S.*\.\w+)\s+(\d{1,18})")
_TEST_ROW = re.compile(r"([^/]+)/(\S.*\.\w+)")
# clips of one group are cut from one source video
_GROUP = r"(\w+_g\d+)_c\d+"


def ucf101(
    root: str | Path,
    *,
    lists: FilePath | None = None,
    split: int = 1,
    val_fraction: float = 0.0,
    split_seed: int = 0,
) -> VideoData:
    """UCF101, split 1, 2 or 3: classInd.txt, trainlist0N.txt and testlist0N.txt, untouched.

    Videos lie in `<root>/videos/<class>/`, `<root>/UCF-101/<class>/` or `<root>/<class>/`. A listed .avi is found
    under its name in another container as well (.mp4, .mkv, .webm ...), or as a folder of images. Listed videos
    that are not on disk go to `Manifest.missing` under their official names.

    Args:
        root: folder of the dataset.
        lists: folder of the split files, below root or from the working directory. None: ucfTrainTestlist, or root.
        split: which of the three official splits.
        val_fraction: share of the training list held out for validation, whole groups (gXX) of a class together,
            since the clips of a group are cut from one source video; 0: none.
        split_seed: chooses the groups held out.

    Raises:
        DataError: no lists, no videos, a line that cannot be used.
    """
    cut = SplitOptions(val_fraction, 0.0, split_seed, group_by=_GROUP if val_fraction else None)
    if split not in (1, 2, 3):
        raise DataError(f"split={split}: expected 1, 2 or 3, the official splits of UCF101")
    root = check_root(root)
    home = _find_lists(root, lists, split)
    class_names = read_classes(home / "classInd.txt")
    files = {"train": home / f"trainlist{split:02d}.txt", "test": home / f"testlist{split:02d}.txt"}
    bad = BadRows()
    tables = {name: _read(path, name, class_names, bad) for name, path in files.items()}
    bad.check()
    where = _find_videos(root, class_names, tables)
    numbers = {name: number for number, name in enumerate(class_names)}
    splits = {s: build_manifest(rows, numbers, lambda name: where.get(_key(name))) for s, rows in tables.items()}
    splits, notes = cut_splits(splits, class_names, root, cut)
    return finish(class_names, splits, root, notes=notes)


def _find_lists(root: Path, lists: str | None, split: int) -> Path:
    wanted = ("classInd.txt", f"trainlist{split:02d}.txt", f"testlist{split:02d}.txt")
    homes = [root / name for name in _LISTS] if lists is None else [root / lists, Path(lists)]
    for home in homes:
        if (home / wanted[1]).is_file():
            lacking = [name for name in wanted if not (home / name).is_file()]
            if lacking:
                raise DataError(f"{home}: {lacking[0]} is not there; unpack the official split files again")
            return home
    places = " or ".join(str(home) for home in homes)
    raise DataError(f"{wanted[1]} is not in {places}; unpack UCF101TrainTestSplits there, or set data.lists")


def _find_videos(root: Path, class_names: tuple[str, ...], tables: dict[str, Rows]) -> dict[str, str]:
    """Where the listed videos are, by class/name without extension; each class folder is listed once."""
    wanted = {_key(name) for rows in tables.values() for name in rows.names}
    homes = [root / home / name for home in _VIDEOS for name in class_names]
    found = find_by_name(homes, wanted, parents=True)
    if not found:
        places = ", ".join(str(root / name / class_names[0]) for name in _VIDEOS)
        raise DataError(f"{root}: no videos of UCF101 (looked in {places} ...); check data.root")
    return found


def _key(name: str) -> str:
    """Class/name of a video, without its extension."""
    return name.rpartition(".")[0]


def _read(path: Path, split: str, class_names: tuple[str, ...], bad: BadRows) -> Rows:
    pattern, expected = (_TRAIN_ROW, "Class/name.avi N") if split == "train" else (_TEST_ROW, "Class/name.avi")
    numbers = {name: number for number, name in enumerate(class_names)}
    rows = Rows(path)
    for at, line in read_lines(path):
        match = pattern.fullmatch(line.strip())
        if match is None:
            bad.add(path, at, line, expected)
            continue
        name, file = match.group(1, 2)
        if name not in numbers:
            bad.add(path, at, line, f"a class of classInd.txt{did_you_mean(name, class_names)}")
        elif split == "train" and int(match.group(3)) != numbers[name] + 1:
            bad.add(path, at, line, f"{numbers[name] + 1}, the number of {name} in classInd.txt")
        else:
            rows.add((at, line), f"{name}/{file}", (name,))
    return rows
