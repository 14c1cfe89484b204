"""Moments in Time (Monfort et al., 2019), as it is sent to those who ask for it."""

from __future__ import annotations

from pathlib import Path

from vidtrain.data.formats._files.delimited import cut_csv
from vidtrain.data.formats._files.find_videos import find_by_name
from vidtrain.data.formats._files.rows import Rows, build_manifest, check_labels
from vidtrain.data.formats._files.split_checks import finish, val_is_test
from vidtrain.data.formats._files.text_files import BadRows, check_root, find_list, read_lines, whole, without_gc
from vidtrain.data.manifest.manifest import Manifest, VideoData
from vidtrain.errors import DataError
from vidtrain.types import FilePath

_LISTS = {"train": r"training_?set\.csv", "val": r"validation_?set\.csv", "test": r"test(ing)?_?set\.csv"}
_FOLDERS = (".", "annotations")
_HOMES = {"train": ("training", "train"), "val": ("validation", "val"), "test": ("testing", "test")}


@without_gc
def moments_in_time(
    root: str | Path,
    *,
    train: FilePath | None = None,
    val: FilePath | None = None,
    test: FilePath | None = None,
    categories: FilePath | None = None,
) -> VideoData:
    """trainingSet.csv and validationSet.csv (`class/name.mp4,class,agree,disagree`), moments_categories.txt.

    Videos lie in `<root>/training/<class>/` and `<root>/validation/<class>/`, with or without a folder `videos` above
    them; other containers and folders of images named `name` are found, too. What is not on disk goes to
    `Manifest.missing`. The labels of the test set are not public: the split "test" is "val", a note says so.

    Args:
        root: folder of the dataset.
        train, val, test: the lists, below root or from the working directory. None: trainingSet.csv,
            validationSet.csv and testingSet.csv, in root or root/annotations.
        categories: the classes, `name,number` a line. None: moments_categories.txt in the same places; without it the
            classes are those of the lists, in alphabetical order.

    Raises:
        DataError: no lists, lines that cannot be used.
    """
    root = check_root(root)
    given = {"train": train, "val": val, "test": test}
    files = {s: file for s, name in given.items() if (file := find_list(root, s, _LISTS[s], name, _FOLDERS))}
    if not files:
        raise DataError(
            f"{root}: neither trainingSet.csv nor validationSet.csv here or in annotations; "
            f"set data.train and data.val, or check data.root"
        )
    bad = BadRows()
    tables = {split: _read(file, bad) for split, file in files.items()}
    file = find_list(root, "categories", r"moments_categories\.txt", categories, _FOLDERS)
    notes = []
    if file is not None:
        names = _read_categories(file, bad)
    else:
        names = tuple(sorted({label for rows in tables.values() for (label,) in rows.labels}))
        notes.append(f"no moments_categories.txt: the {len(names)} classes are those of the lists, by alphabet")
    numbers = check_labels(tables, names, bad)
    bad.check()
    splits = {split: _find(root, split, rows, numbers) for split, rows in tables.items()}
    splits, more = val_is_test(splits, "the labels of the test videos are not public")
    return finish(names, splits, root, notes=[*notes, *more])


def _read(path: Path, bad: BadRows) -> Rows:
    lines = read_lines(path)
    rows = Rows(path)
    for place, cells in zip(lines, cut_csv(path, lines, ","), strict=True):
        if len(cells) >= 2 and "/" in cells[0] and cells[1].strip():
            rows.add(place, cells[0].strip(), (cells[1].strip(),))
        else:
            bad.add(path, *place, "class/name.mp4,class, and counts that are not read")
    return rows


def _read_categories(path: Path, bad: BadRows) -> tuple[str, ...]:
    names: dict[int, str] = {}
    for place in read_lines(path):
        name, _, text = place[1].rpartition(",")
        number = whole(text.strip())
        if name.strip() and number is not None and number not in names:
            names[number] = name.strip()
        else:
            bad.add(path, *place, "class,number, each number once")
    bad.check()
    if sorted(names) != list(range(len(names))):
        raise DataError(f"{path}: the numbers of the {len(names)} classes should run from 0 to {len(names) - 1}")
    return tuple(names[number] for number in range(len(names)))


def _find(root: Path, split: str, rows: Rows, numbers: dict[str, int]) -> Manifest:
    """The videos of a split: those in the folders named after it first, else anywhere below root."""
    homes = [home / name for home in (root, root / "videos", root / "rawframes") for name in _HOMES[split]]
    homes = [home for home in homes if home.is_dir()] or [root]
    keys = {name: "/".join(name.rpartition(".")[0].split("/")[-2:]) for name in rows.names}
    where = find_by_name(homes, set(keys.values()), parents=True)
    return build_manifest(rows, numbers, lambda name: where.get(keys[name]))
