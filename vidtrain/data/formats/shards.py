"""Videos in tar files, read in place: shards of `vidtrain data shard`, or anybody's in WebDataset's layout."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from vidtrain.data.formats._files.rows import Rows, build_manifest, number_labels
from vidtrain.data.formats._files.split_checks import finish
from vidtrain.data.formats._files.text_files import BadRows, check_root, find_file, read_classes, some, without_gc
from vidtrain.data.formats.cutting import cut_splits
from vidtrain.data.formats.index import index
from vidtrain.data.manifest.files import VIDEO_SUFFIXES, natural_key
from vidtrain.data.manifest.index import FILE
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.data.manifest.splits import SplitOptions
from vidtrain.errors import DataError
from vidtrain.ranges import takes
from vidtrain.remote import is_url
from vidtrain.tar_members import Member, ends_behind, walk_tar
from vidtrain.types import FilePath, Regex
from vidtrain.untrusted_data import parse_json

_CLASSES: Final = "classes.txt"
_SPLITS: Final = {"val": ("val", "valid", "validation", "dev"), "test": ("test",)}
_LABELS: Final = (".json", ".cls", ".txt")  # files that say what is in a video, the best one first
_LARGEST_LABEL: Final = 1 << 20  # bytes of such a file
_Row = tuple[tuple[str, ...], float, float]
"""Labels, start and end in seconds."""


@without_gc
@takes(SplitOptions, without=["group_by"])
def shards(
    root: str | Path,
    *,
    classes: FilePath | None = None,
    group_by: Regex | None = None,
    **options: Any,
) -> VideoData:
    """The videos in the tar files of a folder.

    With the index.json that `vidtrain data shard` writes beside them the folder is read as data=index reads it, at
    once, with the splits and rows that the dataset had. Without it the headers of all tar files are read: files of one
    name, up to the first dot in it, are a sample: a video, and its label in a `.json` (a "label", "labels", "cls" or
    "class", "start" and "end" in seconds), `.cls` or `.txt`. A tar file is of val (valid, validation, dev) or test
    where this is a word of its name or its folder's, else of train. Hidden files and folders are not read.

    Args:
        root: folder with .tar files, or with folders of them; or, with an index, its address in a store (s3://,
            https://, ...), see `vidtrain.remote`.
        classes: file of class names, as of data=list; null: classes.txt in root, if it is there. Only without an index.
        val_fraction, test_fraction, split_seed, group_by, folds, fold: without an index as of data=list, with one as of
            data=index.

    Raises:
        DataError: no tar file; one that is none, or is cut off; a sample with two videos, or a label that is none.
    """
    if is_url(root) or (check_root(root) / FILE).is_file():
        return index(root, group_by=group_by, **{key: v for key, v in options.items() if key != "test_fraction"})
    folder = check_root(root)
    cut = SplitOptions(group_by=group_by, **options)
    found = (path.relative_to(folder) for path in folder.rglob("*.tar") if path.is_file())
    tars = sorted((str(path) for path in found if not any(part[0] == "." for part in path.parts)), key=natural_key)
    if not tars:
        raise DataError(f"{folder}: holds neither {FILE} nor a .tar file; `vidtrain data shard` writes them")
    if classes is None and (folder / _CLASSES).is_file():
        classes = _CLASSES
    given = None if classes is None else read_classes(find_file(classes, folder, "classes"))
    rows: dict[str, Rows] = {}
    for tar in tars:
        split = _split_of(tar)
        _read_tar(folder / tar, rows.setdefault(split, Rows(folder / tar, entry=True, starts=[], ends=[])))
    for own in rows.values():
        if not any(own.starts or ()) and all(map(math.isinf, own.ends or ())):  # whole files, all of them
            own.starts = own.ends = None
    bad = BadRows()
    multi_label = any(len(labels) != 1 for own in rows.values() for labels in own.labels)
    if not any(own.names for own in rows.values()):
        notes = [note for own in rows.values() for note in own.notes]
        rule = "a sample is what has one name up to the first dot in it"
        raise DataError(f"{folder}: no videos in the tar files: {some(notes) or 'they are empty'}; {rule}")
    names, numbers, notes = number_labels(rows, given, bad)
    splits = {split: build_manifest(own, numbers, str, multi_label=multi_label) for split, own in rows.items()}
    notes.append(
        f"the headers of {len(tars)} tar files were read; `vidtrain data check` writes an index that opens at once"
    )
    notes += [note for own in rows.values() for note in own.notes]
    splits, cuts = cut_splits(splits, names, folder, cut, own_names=True)
    return finish(names, splits, folder, notes=[*notes, *cuts])


def _split_of(name: str) -> str:
    """The split of a tar file by its path below the root."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    return next((split for split, own in _SPLITS.items() if words.intersection(own)), "train")


def _read_tar(tar: Path, rows: Rows) -> None:
    """Add the samples of a tar file to `rows`, whose times are seconds, 0 to inf for a whole file."""
    skipped: list[str] = []
    last: Member | None = None
    try:
        with tar.open("rb") as file:
            for key, members in _samples(file, str(tar)):
                last = members[-1][1]
                videos = [member for suffix, member in members if suffix in VIDEO_SUFFIXES]
                if len(videos) > 1:
                    raise DataError(f"{tar}: sample {key} has several videos: {some([one.name for one in videos])}")
                beside = {suffix: member for suffix, member in members if suffix in _LABELS}
                if not videos or not beside:
                    skipped.append(members[0][1].name)
                    continue
                name = videos[0].path(str(tar))
                for labels, start, end in _rows_of(file, tar, beside):
                    rows.add((len(rows) + 1, name), name, labels, (start, end))
            if last is not None and ends_behind(file, last):
                rows.notes.append(f"{tar.name}: ends without an end-of-archive mark: cut off between two members?")
    except OSError as error:
        raise DataError(f"{tar}: cannot be read: {error.strerror or error}") from None
    if skipped:
        what = f"without a video, or without a label ({', '.join(_LABELS)})"
        rows.notes.append(f"{tar.name}: {len(skipped)} samples {what} are skipped ({some(skipped)})")


def _samples(file: BinaryIO, name: str) -> Iterator[tuple[str, list[tuple[str, Member]]]]:
    """(key, (suffix, member) of each) of the samples, whose members follow each other."""
    members: list[tuple[str, Member]] = []
    current = ""
    for member in list(walk_tar(file, name)):  # at once: the file is read elsewhere between two samples
        folder, slash, base = member.name.rpartition("/")
        stem, dot, suffix = base.partition(".")
        key = f"{folder}{slash}{stem}"
        if key != current and members:
            yield current, members
            members = []
        current = key
        members.append((f"{dot}{suffix}".lower(), member))
    if members:
        yield current, members


def _rows_of(file: BinaryIO, tar: Path, beside: dict[str, Member]) -> list[_Row]:
    """What the files beside a video say: the first of _LABELS that says something.

    Raises:
        DataError: none of them does.
    """
    for suffix in _LABELS:
        member = beside.get(suffix)
        if member is None:
            continue
        if member.size > _LARGEST_LABEL:
            raise DataError(f"{tar}: {member.name}: a label of {member.size} bytes; at most {_LARGEST_LABEL} are read")
        file.seek(member.start)
        text = file.read(member.size)
        if suffix != ".json":
            return [((text.decode("utf-8", "replace").strip(),), 0.0, math.inf)]
        try:
            content = parse_json(text)
            return [_row(row) for row in content.get("rows", [content])]
        except (ValueError, TypeError, AttributeError):
            if len(beside) == 1:  # else .json holds something of the writer's own
                expected = 'a "label", "labels", "cls" or "class", and "start" and "end" as seconds'
                raise DataError(f"{tar}: {member.name}: expected {expected}") from None
    raise AssertionError(sorted(beside))


def _row(content: dict[str, Any]) -> _Row:
    """A row of a .json; raises ValueError, TypeError or AttributeError for what is none."""
    labels = content.get("labels", [content.get(key) for key in ("label", "cls", "class") if key in content][:1])
    start, end = content.get("start", 0.0), content.get("end", math.inf)
    if type(labels) is not list or not all(type(label) in (int, str) for label in labels):
        raise ValueError("labels")
    if not labels and "labels" not in content:
        raise ValueError("no label")
    if type(start) not in (int, float) or type(end) not in (int, float) or not 0 <= start < end:
        raise ValueError("times")
    return tuple(str(label) for label in labels), float(start), float(end)
