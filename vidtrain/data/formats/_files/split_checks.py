"""What every format does at the end: check the splits, and tell what was seen."""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vidtrain.data.formats._files.flip_classes import flip_pairs
from vidtrain.data.formats._files.text_files import some
from vidtrain.data.manifest.manifest import SPLITS, Manifest, VideoData
from vidtrain.errors import DataError

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}
"""What files call the splits, in small letters."""
_ODD = ("/./", "//", "/../")  # in a path: there is another spelling of it


def val_is_test(splits: Mapping[str, Manifest], why: str) -> tuple[dict[str, Manifest], list[str]]:
    """The splits with "val" for "test", where there is no test with labels and videos; and a note that says so."""
    if ("test" in splits and len(splits["test"])) or "val" not in splits:
        return dict(splits), []
    if "test" in splits:
        why = "none of the listed test videos is on disk"
    note = f"test: the val split, as the field reports it; {why}"
    return {**splits, "test": splits["val"]}, [note]


def empty_segments(empty: Sequence[str]) -> list[str]:
    """A note about segments that end where they begin, or before; there are some in published files."""
    if not empty:
        return []
    return [f"{len(empty)} segments end before they begin and are skipped ({some(empty)})"]


def finish(
    class_names: Sequence[str],
    splits: dict[str, Manifest],
    root: Path | str,
    *,
    notes: Sequence[str] = (),
) -> VideoData:
    """The dataset, checked, with the classes that a flip exchanges.

    A "train" that has no video on disk is dropped where another split has some: those can be scored.

    Raises:
        DataError: a split without a video.
    """
    ordered: dict[str, Manifest] = {split: splits[split] for split in SPLITS if split in splits}
    dropped = []
    train = ordered.get("train")
    if train is not None and not len(train) and train.missing and any(len(m) for m in ordered.values()):
        dropped = [
            f"train: none of the {train.listed} listed videos is on disk (first: {train.missing[0]}): "
            f"the other splits can be scored, nothing can be trained"
        ]
        del ordered["train"]
    for split, manifest in ordered.items():
        if manifest.missing and not len(manifest):
            raise DataError(
                f"{split}: none of the {manifest.listed} listed videos is on disk below {root} "
                f"(first: {manifest.missing[0]}){_found_below(Path(root), manifest.missing[0])}; check data.root"
            )
        if not len(manifest):
            raise DataError(f"{split}: no videos below {root}")
    pairs, mirror_notes = _mirror(class_names)
    seen = [
        *notes,
        *dropped,
        *_missing_notes(ordered),
        *_class_notes(class_names, ordered),
        *_twin_notes(class_names),
        *_repeat_notes(class_names, ordered),
    ]
    return VideoData(tuple(class_names), ordered, pairs, (*seen, *mirror_notes))


def _missing_notes(splits: dict[str, Manifest]) -> list[str]:
    return [
        f"{split}: {len(m.missing)} of {m.listed} listed videos are not on disk (first: {m.missing[0]})"
        for split, m in splits.items()
        if m.missing and not (split == "test" and m is splits.get("val"))
    ]


def _found_below(root: Path, name: str) -> str:
    """A hint where the end of a path is below root: the list was made on another machine, or from another folder."""
    parts = re.split(r"[\\/]+", name)
    ends = ("/".join(parts[at:]) for at in range(1, len(parts)))
    end = next((end for end in ends if end and os.path.exists(root / end)), None)  # noqa: PTH110 - a name may be too long
    return "" if end is None else f"; {end} is there: write the paths of the list from data.root on"


def _class_notes(class_names: Sequence[str], splits: dict[str, Manifest]) -> list[str]:
    if "train" not in splits:
        return []
    lacking = classes_with(count_classes(splits["train"], class_names) == 0, class_names)
    if not lacking:
        return []
    return [f"train: no video of {len(lacking)} of {len(class_names)} classes ({some(lacking)})"]


def _twin_notes(class_names: Sequence[str]) -> list[str]:
    """A note about classes that may be one: Walk and walk, sit_down and sit down, two Unicode forms of é."""
    alike: dict[str, list[str]] = {}
    for name in class_names:
        form = unicodedata.normalize("NFKC", name).casefold()
        alike.setdefault(re.sub(r"[\s_-]+", " ", form).strip(), []).append(name)
    twins = []
    for names in alike.values():
        shown = repr if all(unicodedata.is_normalized("NFC", name) for name in names) else ascii
        if len(names) > 1:
            twins.append(" and ".join(map(shown, names)))
    if not twins:
        return []
    return [f"names of classes that differ in case, Unicode form, spaces, - or _ alone: {some(twins)}; are they one?"]


def _mirror(class_names: Sequence[str]) -> tuple[tuple[tuple[str, str], ...], list[str]]:
    pairs, lonely = flip_pairs(class_names)
    notes = []
    if pairs:
        shown = some([f"{left!r} and {right!r}" for left, right in pairs], 2)
        count = f"{len(pairs)} pair{'s' if len(pairs) > 1 else ''} of classes"
        notes.append(f"a horizontal flip exchanges {count}, and so does training with flips: {shown}")
    if lonely:
        notes.append(
            f"a horizontal flip changes what {some([repr(name) for name in lonely])} shows, "
            f"and no class has the mirrored name; consider transform.flip=0"
        )
    return pairs, notes


# ---------------------------------------------------------------- leaks


def _repeat_notes(class_names: Sequence[str], splits: dict[str, Manifest]) -> list[str]:
    """Videos that stand twice in a split or in two splits, and those that seem to, by their names."""
    notes = []
    paths = {split: _plain(manifest.paths) for split, manifest in splits.items()}
    sets = {split: set(each) for split, each in paths.items()}
    for split, manifest in splits.items():
        rows = len(set(_rows(manifest, paths[split]))) if manifest.starts is not None else len(sets[split])
        if rows < len(manifest):
            notes.append(f"{split}: rows that name a video once more: {len(manifest) - rows}")
    distinct = list({id(m): m for m in splits.values()}.values())
    if len(set().union(*sets.values())) < sum(map(len, distinct)):
        notes += _two_label_notes(class_names, distinct)
    names = {split: _names(each) for split, each in sets.items()}
    for first, second in combinations(splits, 2):
        if splits[first] is splits[second]:
            continue
        both = sets[first] & sets[second]
        if both:
            shown = some(sorted(_names(both) or both))
            notes.append(f"videos both in {first} and in {second}: {len(both)} ({shown}); scores will be too good")
        alike = sorted((names[first] & names[second]) - _names(both))
        if alike:
            notes.append(
                f"files of the same name both in {first} and in {second}: {len(alike)} ({some(alike)}); "
                f"if they are copies, scores will be too good"
            )
    return notes


def _two_label_notes(class_names: Sequence[str], manifests: Sequence[Manifest]) -> list[str]:
    """Videos, or parts of them, that are listed again with another label."""
    if any(m.tags is not None for m in manifests):
        return []
    rows = (row for m in manifests for row in _rows(m, _plain(m.paths)))
    labels: dict[tuple[str, float, float], set[int]] = {}
    for row, label in zip(rows, np.concatenate([m.labels for m in manifests]).tolist(), strict=True):
        labels.setdefault(row, set()).add(label)
    several = {row: found for row, found in labels.items() if len(found) > 1}
    if not several:
        return []
    (path, start, end), found = next(iter(several.items()))
    where = path if start == 0 and math.isinf(end) else f"{path} from {start:g} s"
    shown = " and ".join(repr(class_names[label]) if label >= 0 else "no label" for label in sorted(found))
    return [
        f"listed with two labels: {len(several)} video{'s' if len(several) > 1 else ''} (first: {where}: {shown}); "
        f"one label of each must be wrong, unless the set is multi-label (data.columns='path labels' of data=list, "
        f"data.multi_label=true of data=table: one row with all labels)"
    ]


def _rows(manifest: Manifest, paths: Sequence[str]) -> list[tuple[str, float, float]]:
    """(path, start, end) of each row, in seconds."""
    starts = [0.0] * len(paths) if manifest.starts is None else manifest.starts.tolist()
    ends = [math.inf] * len(paths) if manifest.ends is None else manifest.ends.tolist()
    return list(zip(paths, starts, ends, strict=True))


def _plain(paths: Iterable[str]) -> list[str]:
    """One spelling for ./a.mp4, b/../a.mp4 and a.mp4."""
    given = list(paths)
    if not _odd("\n".join(given)):  # nearly always: all at once, since there may be millions
        return given
    return [os.path.normpath(path) if _odd(path) else path for path in given]


def _odd(text: str) -> bool:
    return any(odd in text for odd in _ODD)


def _names(paths: set[str]) -> set[str]:
    """The file names; none where two are the same: then 0001.mp4 is no more than a number."""
    names = {path.rpartition(os.sep)[2] for path in paths}
    return names if len(names) == len(paths) else set()


# ---------------------------------------------------------------- counting


def classes_with(counts: npt.NDArray[np.bool_], class_names: Sequence[str]) -> list[str]:
    """The names of the classes that are True among (K,)."""
    return [name for name, there in zip(class_names, counts.tolist(), strict=True) if there]


def count_classes(manifest: Manifest, class_names: Sequence[str]) -> npt.NDArray[np.int64]:
    """int64 (K,): the videos of each class."""
    labels = manifest.labels if manifest.tags is None else manifest.tags.values
    return np.bincount(labels[labels >= 0], minlength=len(class_names))
