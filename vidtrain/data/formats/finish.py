"""What every format does at the end: cut the splits that the data set lacks, check, and tell what was seen."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vidtrain.data.formats.text import some
from vidtrain.data.manifest import Manifest, VideoData
from vidtrain.data.splits import group_names, hold_out
from vidtrain.errors import DataError


def cut_splits(
    splits: dict[str, Manifest],
    class_names: Sequence[str],
    root: Path,
    *,
    val_fraction: float,
    test_fraction: float,
    split_seed: int,
    group_by: str | None,
) -> tuple[dict[str, Manifest], list[str]]:
    """Hold validation and test videos out of "train" where the data set does not come with them.

    With "train" alone both are cut; with "val" or "test" given, only a missing "val" is, and the training videos
    are otherwise left alone. The fractions are shares of the videos that "train" has at first.

    Returns:
        (splits, notes)
    """
    train, notes = splits["train"], []
    cuts = {"test": test_fraction if len(splits) == 1 else 0.0, "val": 0.0 if "val" in splits else val_fraction}
    left, done = 1.0, dict(splits)
    for split, fraction in cuts.items():
        if not fraction or not len(train):
            continue
        groups = None if group_by is None else group_names(_below(root, train), group_by)
        train, held = hold_out(train, fraction / left, split_seed, groups)
        left -= fraction
        unit = "video" if group_by is None else "group"
        if not len(held):
            raise DataError(
                f"{root}: nothing is left for {split}: every class has a single {unit}; "
                f"add videos, or set {split}_fraction=0"
            )
        lacking = _classes_with((_count(train, class_names) > 0) & (_count(held, class_names) == 0), class_names)
        if lacking:
            names = some(lacking)
            notes.append(f"{split}: no video of {names}: the class has a single {unit}, which stays in train")
        notes.append(f"{split}: {len(held)} videos held out of train, by class, split_seed={split_seed}")
        done[split] = held
    return {**done, "train": train}, notes


def finish(
    class_names: Sequence[str],
    splits: dict[str, Manifest],
    root: Path,
    *,
    notes: Sequence[str] = (),
) -> VideoData:
    """The data set, checked.

    Raises:
        DataError: a split without a video.
    """
    ordered: dict[str, Manifest] = {split: splits[split] for split in ("train", "val", "test") if split in splits}
    for split, manifest in ordered.items():
        if manifest.missing and not len(manifest):
            raise DataError(
                f"{split}: none of the {manifest.listed} listed videos is on disk below {root} "
                f"(first: {manifest.missing[0]}); check data.root"
            )
        if not len(manifest):
            raise DataError(f"{split}: no videos below {root}")
    seen = [*notes, *_missing_notes(ordered), *_class_notes(class_names, ordered), *_repeat_notes(ordered)]
    return VideoData(tuple(class_names), ordered, notes=tuple(seen))


def _missing_notes(splits: dict[str, Manifest]) -> list[str]:
    return [
        f"{split}: {len(m.missing)} of {m.listed} listed videos are not on disk (first: {m.missing[0]})"
        for split, m in splits.items()
        if m.missing and not (split == "test" and m is splits.get("val"))
    ]


def _class_notes(class_names: Sequence[str], splits: dict[str, Manifest]) -> list[str]:
    lacking = _classes_with(_count(splits["train"], class_names) == 0, class_names)
    if not lacking:
        return []
    return [f"train: no video of {len(lacking)} of {len(class_names)} classes ({some(lacking)})"]


def _repeat_notes(splits: dict[str, Manifest]) -> list[str]:
    notes = []
    paths = {split: set(manifest.paths) for split, manifest in splits.items()}
    for split, manifest in splits.items():
        if len(paths[split]) < len(manifest):
            notes.append(f"{split}: rows that name a video once more: {len(manifest) - len(paths[split])}")
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        both = sorted(paths.get(first, set()) & paths.get(second, set()))
        if both and splits[first] is not splits[second]:
            names = some([Path(path).name for path in both])
            notes.append(f"videos both in {first} and in {second}: {len(both)} ({names}); scores will be too good")
    return notes


def _classes_with(counts: npt.NDArray[np.bool_], class_names: Sequence[str]) -> list[str]:
    return [name for name, there in zip(class_names, counts.tolist(), strict=True) if there]


def _count(manifest: Manifest, class_names: Sequence[str]) -> npt.NDArray[np.int64]:
    return np.bincount(manifest.labels, minlength=len(class_names))


def _below(root: Path, manifest: Manifest) -> list[str]:
    prefix = f"{root}{os.sep}"
    return [path.removeprefix(prefix) for path in manifest.paths]
