"""Cutting the splits that a dataset lacks out of its training videos, whole groups together."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations, islice
from pathlib import Path

import numpy as np

from vidtrain.data.formats._files.split_checks import classes_with, count_classes
from vidtrain.data.formats._files.text_files import some
from vidtrain.data.manifest.grouping import MOST, find_grouping
from vidtrain.data.manifest.manifest import SPLITS, Manifest
from vidtrain.data.manifest.splits import SplitOptions, assign_folds, find_groups, group_names, hold_out, strata_of
from vidtrain.errors import DataError

_FAR = 0.05  # a share further than this from what was asked for is said


def cut_splits(
    splits: dict[str, Manifest],
    class_names: Sequence[str],
    root: Path | str,
    cut: SplitOptions,
    *,
    groups: Callable[[str], str] | None = None,
    own_names: bool = False,
) -> tuple[dict[str, Manifest], list[str]]:
    """Hold validation and test videos out of "train" where the dataset does not come with them.

    With "train" alone both are cut; with "val" or "test" given, only a missing "val" is, and the training videos
    are otherwise left alone. The fractions are shares of the videos that "train" has at first. Without "train"
    there is nothing to cut from. Groups are never parted: `cut.group_by` finds them in the paths below root, for
    users; `groups` tells them from the paths, for formats that know them.

    Args:
        own_names: the names are the user's: where they look grouped and nothing says so, a note does.

    Returns:
        (splits, notes)

    Raises:
        DataError: nothing is left for a split; folds of a dataset that has splits, or of classes too small for them.
    """
    if cut.folds is not None and set(splits) != {"train"}:
        there = " and ".join(split for split in SPLITS if split in splits and split != "train")
        raise DataError(
            f"folds={cut.folds}: the dataset comes with its own split for {there}; folds are cut from one list of "
            f"videos: name no other (with folders: data.root={root}/train), or leave data.folds out"
        )
    done, notes = _cut(splits, class_names, root, cut, groups)
    if cut.group_by is not None:
        notes += _group_notes(done, root, cut.group_by)
    elif own_names:
        notes += _looks_grouped(splits, done, class_names, root, cut)
    return done, notes


def _cut(
    splits: dict[str, Manifest],
    class_names: Sequence[str],
    root: Path | str,
    cut: SplitOptions,
    groups: Callable[[str], str] | None,
) -> tuple[dict[str, Manifest], list[str]]:
    if "train" not in splits:
        return splits, []
    train, notes = splits["train"], []
    shares = {"test": cut.test_share if len(splits) == 1 else 0.0, "val": 0.0 if "val" in splits else cut.val_fraction}
    left, done = 1.0, dict(splits)
    for split, fraction in shares.items():
        if not fraction or not len(train):
            continue
        names = None
        if cut.group_by is not None:
            names = group_names(list(_below(root, train)), cut.group_by)
        elif groups is not None:
            names = [groups(path) for path in train.paths]
        folded = split == "test" and cut.folds is not None
        if folded:
            train, held = _fold(train, class_names, root, cut, names)
        else:
            train, held = hold_out(train, fraction / left, cut.split_seed, names)
        left -= fraction
        unit = "video" if names is None else "group"
        if not len(held):
            raise DataError(
                f"{root}: nothing is left for {split}: every class has a single {unit}; "
                f"add videos, or set {split}_fraction=0"
            )
        kept, there = (count_classes(part, class_names) > 0 for part in (train, held))
        lacking, unknown = classes_with(kept & ~there, class_names), classes_with(there & ~kept, class_names)
        if folded and unknown:
            notes.append(f"{split}: {some(unknown)} cannot be learned: all videos of the class are in fold {cut.fold}")
        if lacking:
            why = f": the class has a single {unit}, which stays in train"
            why = f" in fold {cut.fold}: their groups are in others" if folded else why
            notes.append(f"{split}: no video of {some(lacking)}{why}")
        how = f"fold {cut.fold} of {cut.folds}, " if folded else ""
        notes.append(f"{split}: {how}{_held_out(held, len(splits['train']), None if folded else fraction, unit, cut)}")
        done[split] = held
    done["train"] = train
    return done, notes


def _held_out(held: Manifest, total: int, fraction: float | None, unit: str, cut: SplitOptions) -> str:
    """How many of `total` rows are held, and the share where it is far from `fraction`, the one asked for."""
    what, grouped = "videos" if held.starts is None else "segments", unit == "group"
    share = len(held) / total
    if fraction is not None and abs(share - fraction) > _FAR:
        why = ": whole groups" if grouped else ""
        what += f" ({100 * share:.0f} %, {100 * fraction:.0f} % asked for{why})"
    by = "class and group" if grouped else "class"
    return f"{len(held)} {what} held out of train, stratified by {by}, split_seed={cut.split_seed}"


def _fold(
    train: Manifest, class_names: Sequence[str], root: Path | str, cut: SplitOptions, names: Sequence[str] | None
) -> tuple[Manifest, Manifest]:
    """(the other folds, the fold that is asked for).

    Raises:
        DataError: there are fewer groups than folds; without groups, fewer videos of a class.
    """
    assert cut.folds is not None
    groups: Sequence[str] = list(train.paths) if names is None else names
    total, why, fix = len(set(groups)), "", "give more videos"
    if total < cut.folds:
        why = f"{total} {'videos' if names is None else 'groups'} in all, and each fold tests one or more"
        fewest = total
    elif names is None:  # whole subjects are another matter: not all of them show all there is
        seen = set(zip(strata_of(train).tolist(), groups, strict=True))  # a video may have many segments
        count = Counter(label for label, _ in seen if label >= 0)
        few = [f"{class_names[label]} ({n})" for label, n in sorted(count.items()) if n < cut.folds]
        why = f"these classes have fewer videos: {some(few)}; each fold has to test every class" if few else ""
        fewest, fix = min(count.values(), default=0), "add videos, or remove the class"
    if why:
        fix = f"set data.folds={fewest} or less" if fewest >= 2 else fix
        raise DataError(f"{root}: folds={cut.folds}: {why}: {fix}")
    folds = assign_folds(train, cut.folds, cut.split_seed, names)
    kept = replace(train.take(np.flatnonzero(folds != cut.fold)), missing=train.missing)
    return kept, train.take(np.flatnonzero(folds == cut.fold))


# ---------------------------------------------------------------- groups in two splits


def _group_notes(splits: dict[str, Manifest], root: Path | str, group_by: str) -> list[str]:
    """Groups that stand in two splits."""
    groups = {split: find_groups(list(_below(root, manifest)), group_by) for split, manifest in splits.items()}
    notes = []
    for first, second in combinations((s for s in SPLITS if s in splits), 2):
        both = sorted({name for name in groups[first] if name} & {name for name in groups[second] if name})
        if both:
            notes.append(f"groups both in {first} and in {second}: {len(both)} ({some(both)}); scores will be too good")
    return notes


def _looks_grouped(
    splits: dict[str, Manifest],
    done: dict[str, Manifest],
    class_names: Sequence[str],
    root: Path | str,
    cut: SplitOptions,
) -> list[str]:
    """A note when the names say that videos belong together which stand in two splits, with the remedy."""
    if len(done) < 2:
        return []
    first = dict.fromkeys(islice(_named(root, max(splits.values(), key=len)), MOST))
    if find_grouping([path for path, _ in first], [label for _, label in first]) is None:
        return []  # as a rule: what follows takes long where there are millions
    # each video once: its segments are no group
    rows = dict.fromkeys((*row, split) for split in SPLITS if split in done for row in _named(root, done[split]))
    paths, homes = [path for path, *_ in rows], [split for *_, split in rows]
    found = find_grouping(paths, [label for _, label, _ in rows])
    parted = [] if found is None else _parted(found.groups, homes)
    if found is None or not parted:
        return []
    members = [path.rpartition("/")[2] for path, group in zip(paths, found.groups, strict=True) if group == parted[0]]
    members = list(dict.fromkeys(members))
    note = (
        f"names look grouped, like {parted[0]!r} ({some(members)}), and {len(parted)} of {len(set(found.groups))} "
        f"such groups stand in two splits: scores will be too good"
    )
    try:
        better, _ = _cut(splits, class_names, root, replace(cut, group_by=found.group_by), None)
        new = [(s, group) for s in better for group in find_groups(list(_below(root, better[s])), found.group_by)]
        if len(_parted([group for _, group in new], [s for s, _ in new])) < len(parted):
            return [f"{note}; to keep each in one: data.group_by='{found.group_by}'"]
    except DataError:  # too few groups
        pass
    return [f"{note}; they are too few to cut splits from, or lists part them: give lists that do not"]


def _parted(groups: Sequence[str], homes: Sequence[str]) -> list[str]:
    """The groups that stand in more than one split, in the order in which they come."""
    first: dict[str, str] = {}
    parted: dict[str, None] = {}
    for group, home in zip(groups, homes, strict=True):
        if first.setdefault(group, home) != home:
            parted[group] = None
    return list(parted)


def _named(root: Path | str, manifest: Manifest) -> Iterator[tuple[str, int]]:
    """(path below root, label) of each row."""
    return zip(_below(root, manifest), manifest.labels.tolist(), strict=True)


def _below(root: Path | str, manifest: Manifest) -> Iterator[str]:
    """The paths below root, with / on every machine, so that one group_by fits all."""
    prefix = f"{root}{os.sep}"
    return (path.removeprefix(prefix).replace(os.sep, "/") for path in manifest.paths)
