"""UCF101 with its official split files, as they come from the download page."""

from __future__ import annotations

import re
from pathlib import Path

from vidtrain.data.files import is_video, list_folders
from vidtrain.data.formats.finish import cut_splits, finish
from vidtrain.data.formats.text import BadRows, check_root, read_classes, read_lines
from vidtrain.data.manifest import Manifest, VideoData
from vidtrain.data.splits import check_fractions
from vidtrain.errors import DataError, did_you_mean

_LISTS = ("ucfTrainTestlist", ".")  # where the split files may lie below root
_VIDEOS = ("videos", "UCF-101", ".")  # and the class folders
_TRAIN_ROW = re.compile(r"([^/]+)/(\S.*\.\w+)\s+(\d+)")
_TEST_ROW = re.compile(r"([^/]+)/(\S.*\.\w+)")
# clips of one group are cut from one source video
_GROUP = r"(\w+_g\d+)_c\d+"


def ucf101(
    root: str | Path,
    *,
    lists: str | None = None,
    split: int = 1,
    val_fraction: float = 0.0,
    split_seed: int = 0,
) -> VideoData:
    """UCF101, split 1, 2 or 3: classInd.txt, trainlist0N.txt and testlist0N.txt, untouched.

    Videos lie in `<root>/videos/<class>/`, `<root>/UCF-101/<class>/` or `<root>/<class>/`. A listed .avi is found
    under its name in another container as well (.mp4, .mkv, .webm ...). Listed videos that are not on disk go to
    `Manifest.missing` under their official names.

    Args:
        root: folder of the data set.
        lists: folder of the split files, below root or from the working directory. None: ucfTrainTestlist, or root.
        split: which of the three official splits.
        val_fraction: share of the training list held out for validation, whole groups (gXX) of a class together,
            since the clips of a group are cut from one source video; 0: none.
        split_seed: chooses the groups held out.

    Raises:
        DataError: no lists, no videos, a line that cannot be used.
    """
    check_fractions(val_fraction)
    if split not in (1, 2, 3):
        raise DataError(f"split={split}: expected 1, 2 or 3, the official splits of UCF101")
    root = check_root(root)
    home = _find_lists(root, lists, split)
    class_names = read_classes(home / "classInd.txt")
    disk = _index(root, class_names)
    files = {"train": home / f"trainlist{split:02d}.txt", "test": home / f"testlist{split:02d}.txt"}
    bad = BadRows()
    splits = {name: _read(path, name, class_names, disk, bad) for name, path in files.items()}
    bad.check()
    cut, notes = cut_splits(
        splits,
        class_names,
        root,
        val_fraction=val_fraction,
        test_fraction=0.0,
        split_seed=split_seed,
        group_by=_GROUP,
    )
    return finish(class_names, cut, root, notes=notes)


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


def _index(root: Path, class_names: tuple[str, ...]) -> dict[tuple[str, str], str]:
    """(class, name without extension) -> path, from one listing of each class folder."""
    wanted = set(class_names)
    found: dict[tuple[str, str], str] = {}
    for home in (root / name for name in _VIDEOS):
        for name in wanted.intersection(list_folders(home)) if home.is_dir() else ():
            # backwards, so that among several containers the first by name stays
            for path in sorted((home / name).iterdir(), reverse=True):
                if is_video(path.name):
                    found.setdefault((name, path.stem), "")
                    found[name, path.stem] = str(path)
    if not found:
        places = ", ".join(str(root / name / class_names[0]) for name in _VIDEOS)
        raise DataError(f"{root}: no videos of UCF101 (looked in {places} ...); check data.root")
    return found


def _read(
    path: Path, split: str, class_names: tuple[str, ...], disk: dict[tuple[str, str], str], bad: BadRows
) -> Manifest:
    pattern, expected = (_TRAIN_ROW, "Class/name.avi N") if split == "train" else (_TEST_ROW, "Class/name.avi")
    numbers = {name: number for number, name in enumerate(class_names)}
    paths, labels, missing = [], [], []
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
        elif (name, Path(file).stem) in disk:
            paths.append(disk[name, Path(file).stem])
            labels.append(numbers[name])
        else:
            missing.append(f"{name}/{file}")
    return Manifest.of(paths, labels, missing)
