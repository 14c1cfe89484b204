"""A folder for each class, with or without folders for the splits above them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vidtrain.data.files import VIDEO_EXTENSIONS, is_video, list_folders
from vidtrain.data.formats.finish import cut_splits, finish
from vidtrain.data.formats.places import list_clips
from vidtrain.data.formats.text import check_root, some, without_gc
from vidtrain.data.manifest import Manifest, VideoData
from vidtrain.data.splits import check_fractions
from vidtrain.errors import DataError

_SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


@without_gc
def folder(
    root: str | Path,
    *,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    split_seed: int = 0,
    group_by: str | None = None,
) -> VideoData:
    """Videos in `<root>/<class>/`, or in `<root>/<split>/<class>/`.

    Files in folders below a class folder belong to the class. A folder there that holds pictures (img_00001.jpg ...)
    is a video. Hidden files and files that are neither are passed over. Class numbers follow the sorted names of the
    folders.

    Args:
        root: holds the class folders; or a folder train with class folders, with or without val (valid, validation)
            and test beside it; or folders val and test alone, to score a model.
        val_fraction: share of the videos held out of train for validation, where there is no folder for it; 0: none.
        test_fraction: the same for testing, used when train is the only split on disk.
        split_seed: chooses the videos held out.
        group_by: a regular expression on the path below root. Videos whose match (its first bracket, if any) is the
            same are never parted: clips cut from one recording, say.

    Raises:
        DataError: no root, no or only one class folder, a class without a video, splits with different classes.
    """
    check_fractions(val_fraction, test_fraction)
    root = check_root(root)
    homes = _split_homes(root)
    classes = {split: _class_folders(home) for split, home in homes.items()}
    _check_same(classes, homes)
    names = next(iter(classes.values()))
    splits = {split: _list(home, names) for split, home in homes.items()}
    splits, notes = cut_splits(
        splits,
        names,
        root,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        split_seed=split_seed,
        group_by=group_by,
    )
    return finish(names, splits, root, notes=notes)


def _split_homes(root: Path) -> dict[str, Path]:
    """The folder of each split that is on disk, or root itself as that of "train"."""
    present = {name.lower(): name for name in list_folders(root)}
    found = {split: [present[n] for n in names if n in present] for split, names in _SPLIT_FOLDERS.items()}
    if not found["train"]:
        held = {split: root / names[0] for split, names in found.items() if len(names) == 1}
        # nothing but folders for splits, with class folders in each: a set to score a model on
        alone = len(held) == len(present) and all(list_folders(home) and not _videos_in(home) for home in held.values())
        return held if held and alone else {"train": root}
    train = root / found["train"][0]
    if _videos_in(train):
        # a class called train, among others, unless the other folders are splits, too
        if found["val"] or found["test"]:
            raise DataError(f"{train}: holds videos but no class folders; expected {train}/<class>/<video>")
        return {"train": root}
    for split, names in found.items():
        if len(names) > 1:
            raise DataError(f"{root}: {some(names)} could all be the {split} split; keep one of them")
    return {split: root / names[0] for split, names in found.items() if names}


def _class_folders(home: Path) -> list[str]:
    names = list_folders(home)
    if not names:
        holds = "holds videos but no class folders" if _videos_in(home) else "holds no class folders"
        raise DataError(f"{home}: {holds}; expected {home}/<class>/<video>")
    if len(names) == 1:
        raise DataError(f"{home}: holds one class folder only ({names[0]}), expected two or more; check data.root")
    return names


def _videos_in(home: Path) -> bool:
    return any(is_video(path.name) for path in home.iterdir())


def _check_same(classes: dict[str, list[str]], homes: dict[str, Path]) -> None:
    base = next(iter(classes))
    for split, names in classes.items():
        for have, lack, there, gone in ((names, classes[base], split, base), (classes[base], names, base, split)):
            odd = sorted(set(have) - set(lack))
            if odd:
                raise DataError(
                    f"{homes[gone]}: has no class folder {some(odd)}, but {homes[there]} has; "
                    f"every split needs the same classes"
                )


def _list(home: Path, names: Iterable[str]) -> Manifest:
    paths: list[str] = []
    labels: list[int] = []
    empty = []
    for label, name in enumerate(names):
        found = list_clips(home / name)
        paths += found
        labels += [label] * len(found)
        if not found:
            empty.append(name)
    if empty:
        more = f" (and {len(empty) - 1} more: {some(empty[1:])})" if len(empty) > 1 else ""
        kinds = " ".join(VIDEO_EXTENSIONS)
        raise DataError(f"{home / empty[0]}: class folder without a video{more}; remove it, or add one of {kinds}")
    return Manifest.of(paths, labels)
