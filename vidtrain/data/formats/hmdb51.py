"""HMDB51 (Kuehne et al., 2011) with its official split files, as they come from the download page."""

from __future__ import annotations

import re
from pathlib import Path

from vidtrain.data.formats._files.find_videos import find_by_name
from vidtrain.data.formats._files.rows import Rows, build_manifest
from vidtrain.data.formats._files.split_checks import finish
from vidtrain.data.formats._files.text_files import BadRows, check_root, read_lines
from vidtrain.data.formats.cutting import cut_splits
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.data.manifest.splits import SplitOptions
from vidtrain.errors import DataError
from vidtrain.types import FilePath

_LISTS = ("testTrainMulti_7030_splits", "splits", ".")  # where the split files may lie below root
_VIDEOS = ("videos", "hmdb51_org", ".")  # and the class folders
_TAGS = {"1": "train", "2": "test"}  # 0: in neither
# <film>_<class>_<body>_<camera>_<people>_<view>_<quality>_<number>: clips of one film and class stay together
_GROUP = r"([^/]+?)(?:_[a-z]_[a-z]{2}_np\d+_[a-z]{2}_[a-z]{3}_\d+)?(?:\.\w+)?$"


def hmdb51(
    root: str | Path,
    *,
    lists: FilePath | None = None,
    split: int = 1,
    val_fraction: float = 0.0,
    split_seed: int = 0,
) -> VideoData:
    """HMDB51, split 1, 2 or 3: a file `<class>_test_split<N>.txt` for each class, `name.avi 0|1|2` a line.

    1 is a training video, 2 a test video, 0 is in neither (70 and 30 of each class are used). Videos lie in
    `<root>/videos/<class>/`, `<root>/hmdb51_org/<class>/` or `<root>/<class>/`; a listed .avi is found under its name
    in another container, or as a folder of images, as well. What is not on disk goes to `Manifest.missing`.

    Args:
        root: folder of the dataset.
        lists: folder of the split files, below root or from the working directory. None: testTrainMulti_7030_splits,
            splits, or root.
        split: which of the three official splits.
        val_fraction: share of the training videos held out for validation, all clips of a film in a class together;
            0: none.
        split_seed: chooses the groups held out.

    Raises:
        DataError: no lists, no videos, a line that cannot be used.
    """
    cut = SplitOptions(val_fraction, 0.0, split_seed, group_by=_GROUP if val_fraction else None)
    if split not in (1, 2, 3):
        raise DataError(f"split={split}: expected 1, 2 or 3, the official splits of HMDB51")
    root = check_root(root)
    files = _find_lists(root, lists, split)
    names = tuple(files)
    bad = BadRows()
    tables: dict[str, Rows] = {}
    for name, file in files.items():
        _read(file, name, tables, bad)
    bad.check()
    numbers = {name: number for number, name in enumerate(names)}
    wanted = {name.rpartition(".")[0] for rows in tables.values() for name in rows.names}
    where = find_by_name([root / name for name in _VIDEOS], wanted, parents=True)

    def find(name: str) -> str | None:
        return where.get(name.rpartition(".")[0])

    splits = {s: build_manifest(rows, numbers, find) for s, rows in tables.items()}
    splits, notes = cut_splits(splits, names, root, cut)
    return finish(names, splits, root, notes=notes)


def _find_lists(root: Path, lists: str | None, split: int) -> dict[str, Path]:
    """{class: split file}, by class name."""
    ending = f"_test_split{split}.txt"
    homes = [root / name for name in _LISTS] if lists is None else [root / lists, Path(lists)]
    for home in homes:
        files = sorted(home.glob(f"*{ending}")) if home.is_dir() else []
        if files:
            return {file.name.removesuffix(ending): file for file in files}
    places = " or ".join(str(home) for home in homes)
    raise DataError(f"<class>{ending} is not in {places}; unpack test_train_splits.rar there, or set data.lists")


def _read(path: Path, name: str, tables: dict[str, Rows], bad: BadRows) -> None:
    """Add the rows of a class to those of its splits."""
    for place in read_lines(path):
        video, _, tag = place[1].strip().rpartition(" ")
        if tag not in ("0", "1", "2") or not re.search(r"\S\.\w+$", video.strip()):
            bad.add(path, *place, "name.avi and 0, 1 (train) or 2 (test)")
        elif tag != "0":
            tables.setdefault(_TAGS[tag], Rows(path)).add(place, f"{name}/{video.strip()}", (name,))
