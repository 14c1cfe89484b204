"""A folder for each class, with or without folders for the splits above them."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidtrain.data.formats._files.find_videos import find_clips, skipped_note
from vidtrain.data.formats._files.split_checks import finish
from vidtrain.data.formats._files.text_files import check_root, some, without_gc
from vidtrain.data.formats.cutting import cut_splits
from vidtrain.data.manifest.files import is_folder, is_video, list_folders, scan, walk_videos
from vidtrain.data.manifest.manifest import Manifest, VideoData
from vidtrain.data.manifest.splits import SplitOptions
from vidtrain.errors import DataError
from vidtrain.ranges import takes
from vidtrain.types import Regex

_KINDS = ".mp4, .mkv, .avi, .mov, .webm"
_SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_OWN = frozenset({"runs", "check", "stats", "show"})  # what commands write in the folder they are started in


@without_gc
@takes(SplitOptions, without=["group_by"])
def folder(root: str | Path, *, group_by: Regex | None = None, **options: Any) -> VideoData:
    """Videos in `<root>/<class>/`, or in `<root>/<split>/<class>/`.

    Files in folders below a class folder belong to the class. A folder there that holds images (img_00001.jpg ...)
    is a video. Hidden files and those of the system are skipped (.DS_Store, @eaDir, Thumbs.db ...); a note counts
    what else is no video. Class numbers follow the sorted names of the folders. One that holds no video, in any split,
    is no class, as a note says.

    Args:
        root: holds the class folders; or a folder train with class folders, with or without val (valid, validation)
            and test beside it; or folders val and test alone, to score a model.
        group_by, val_fraction, test_fraction, split_seed, folds, fold: how splits that are not there are cut, see
            `SplitOptions`.

    Raises:
        DataError: no root, no or only one class folder with a video, splits with different classes.
    """
    cut = SplitOptions(group_by=group_by, **options)
    root = check_root(root)
    homes = _split_homes(root)
    classes = {split: _class_folders(home) for split, home in homes.items()}
    _check_same(classes, homes)
    names = next(iter(classes.values()))
    found = {split: _list(home, _in_order(classes[split], names)) for split, home in homes.items()}
    names, empty = _number_classes(names, found)
    twins = _Twins(root, names, found)
    splits = {split: Manifest.of(each.paths, each.labels) for split, each in found.items()}
    splits, cuts = cut_splits(splits, names, root, cut, groups=twins.together, own_names=True)
    notes = [
        *_outside(root, homes),
        *empty,
        *skipped_note(sum((each.skipped for each in found.values()), Counter())),
        *twins.notes,
        *cuts,
    ]
    return finish(names, splits, root, notes=notes)


def _folders(home: Path) -> list[str]:
    """Names of the folders in `home`, without those that vidtrain writes: it may have been started there."""
    return [name for name in list_folders(home) if name not in _OWN or next(walk_videos(home / name), None) is not None]


def _split_homes(root: Path) -> dict[str, Path]:
    """The folder of each split that is on disk, or root itself as that of "train"."""
    present = {name.lower(): name for name in _folders(root)}
    found = {split: [present[n] for n in names if n in present] for split, names in _SPLIT_FOLDERS.items()}
    if not found["train"]:
        held = {split: root / names[0] for split, names in found.items() if len(names) == 1}
        # nothing but folders for splits, with class folders in each: a set to score a model on
        alone = len(held) == len(present) and all(_folders(home) and not _videos_in(home) for home in held.values())
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
    names = _folders(home)
    if not names:
        holds = "holds videos but no class folders" if _videos_in(home) else "holds no class folders"
        raise DataError(f"{home}: {holds}; expected {home}/<class>/<video>")
    if len(names) == 1:
        raise DataError(f"{home}: holds one class folder only ({names[0]}), expected two or more; check data.root")
    return names


def _videos_in(home: Path) -> list[str]:
    return sorted(entry.name for entry in scan(home) if is_video(entry.name) and not is_folder(entry))


def _check_same(classes: dict[str, list[str]], homes: dict[str, Path]) -> None:
    base = next(iter(classes))
    forms = {split: [_composed(name) for name in names] for split, names in classes.items()}
    for split, names in forms.items():
        twins = [name for name, count in Counter(names).items() if count > 1]
        if twins:
            raise DataError(
                f"{homes[split]}: two class folders {twins[0]!r} that differ in their Unicode form only (NFC, NFD); "
                f"make them one"
            )
        for have, lack, there, gone in ((names, forms[base], split, base), (forms[base], names, base, split)):
            odd = sorted(set(have) - set(lack))
            if odd:
                raise DataError(
                    f"{homes[gone]}: has no class folder {some(odd)}, but {homes[there]} has; "
                    f"every split needs the same classes"
                )


def _in_order(names: Sequence[str], base: Sequence[str]) -> list[str]:
    """The folders of a split in the order of those of another, which may be in another Unicode form."""
    by_form = {_composed(name): name for name in names}
    return [by_form[_composed(name)] for name in base]


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


@dataclass
class _Found:
    """N videos of a split: their paths, labels and identities (see `find_clips`), and what else lay there.

    folders: of the classes, in the order of their labels.
    """

    folders: list[Path]
    paths: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    identities: list[int] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


def _list(home: Path, names: Sequence[str]) -> _Found:
    found = _Found([home / name for name in names])
    for label, folder in enumerate(found.folders):
        clips = find_clips(folder, found.skipped)
        found.paths += [path for path, _ in clips]
        found.identities += [identity for _, identity in clips]
        found.labels += [label] * len(clips)
    return found


def _number_classes(names: list[str], found: Mapping[str, _Found]) -> tuple[list[str], list[str]]:
    """(the classes that have a video, by which the labels of `found` are numbered again; a note about the others).

    Raises:
        DataError: a split lacks the videos of a class that another split has, or fewer than two classes have videos.
    """
    used = sorted({label for each in found.values() for label in each.labels})
    for each in found.values():
        needed = set(used if len(used) > 1 else range(len(names)))
        if empty := sorted(needed - {*each.labels}):
            more = f" (and {len(empty) - 1} more: {some([names[n] for n in empty[1:]])})" if len(empty) > 1 else ""
            there = "".join(f"; {note}" for note in skipped_note(each.skipped))
            raise DataError(
                f"{each.folders[empty[0]]}: class folder without a video{more}; "
                f"remove it, or add {_KINDS} or the like{there}"
            )
    number = {label: n for n, label in enumerate(used)}
    for each in found.values():
        each.labels = [number[label] for label in each.labels]
    without = [name for label, name in enumerate(names) if label not in number]
    notes = [f"class folders without a video are no classes: {some(without)}"] if without else []
    return [names[label] for label in used], notes


# ---------------------------------------------------------------- what is not in the lists, and what is there twice


def _outside(root: Path, homes: Mapping[str, Path]) -> list[str]:
    """Notes about what lies beside the class folders, or beside the folders of the splits."""
    notes = []
    for home in homes.values():
        loose = _videos_in(home)
        if loose:
            notes.append(f"{home}: {_videos(len(loose))} in no class folder skipped ({some(loose)})")
        if own := sorted(set(list_folders(home)) - set(_folders(home))):
            notes.append(f"{home}: skipped what vidtrain has written there ({some(own)})")
    if root not in homes.values():
        read = [home.name for home in homes.values()]
        beside = sorted(set(_folders(root)) - set(read))
        if beside:
            notes.append(f"{root}: the splits are {some(read)}; skipped {some(beside)}")
    return notes


def _videos(count: int) -> str:
    return f"{count} video{'' if count == 1 else 's'}"


class _Twins:
    """The same file or folder under several names, by links.

    notes: what to tell the user.
    together: the group of each path, so that no file is cut into two splits; None where there are no such files.
    """

    def __init__(self, root: Path, names: Sequence[str], found: Mapping[str, _Found]) -> None:
        self.notes: list[str] = []
        self.together: Callable[[str], str] | None = None
        identities = [number for each in found.values() for number in each.identities if number]
        if len(set(identities)) == len(identities):
            return
        repeated = {number for number, count in Counter(identities).items() if count > 1}
        rows: dict[int, list[tuple[str, int, str]]] = defaultdict(list)
        for split, each in found.items():
            for path, label, number in zip(each.paths, each.labels, each.identities, strict=True):
                if number in repeated:
                    rows[number].append((split, label, os.path.relpath(path, root)))
        first = {path: group[0][2] for group in rows.values() for _, _, path in group}
        self.together = lambda path: first.get(below := os.path.relpath(path, root), below)
        self._note("classes", [(group, {names[label] for _, label, _ in group}) for group in rows.values()])
        self._note("splits", [(group, {split for split, _, _ in group}) for group in rows.values()])

    def _note(self, what: str, groups: list[tuple[list[tuple[str, int, str]], set[str]]]) -> None:
        """A note about the files that stand in several classes or splits."""
        several = [(group, homes) for group, homes in groups if len(homes) > 1]
        if several:
            group, homes = several[0]
            shown = " and ".join(sorted(homes))
            why = "a clip can have one label" if what == "classes" else "scores will be too good"
            self.notes.append(
                f"{_videos(len(several))} in two {what} by links ({some([path for _, _, path in group])}: one file, "
                f"in {shown}); {why}: remove one"
            )
