"""Something-Something v1 and v2 (Goyal et al., 2017) with the files of their download pages."""

from __future__ import annotations

import json
from pathlib import Path

from vidtrain.data.formats._files import twentybn
from vidtrain.data.formats._files.rows import Rows
from vidtrain.data.formats._files.text_files import BadRows, read_classes, read_json_text, whole, without_gc
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.errors import DataError
from vidtrain.types import FilePath

_PREFIX = r"(?:something-something-v[12]-)?"
_ENDING = "json|csv"


@without_gc
def something_something(
    root: str | Path,
    *,
    train: FilePath | None = None,
    val: FilePath | None = None,
    test: FilePath | None = None,
    labels: FilePath | None = None,
    videos: FilePath | None = None,
) -> VideoData:
    """Version 2 (JSON lists, .webm videos) or 1 (CSV lists, folders of images); which one follows from the files.

    The class of a video is its template without the brackets: "Pushing [something] from left to right". Videos are
    found by their number anywhere below root: `<id>.webm`, in another container, or a folder `<id>` of images. What
    is not on disk goes to `Manifest.missing`.

    Without test answers the split "test" is "val", as the field reports it; a note says so.

    Args:
        root: folder of the dataset.
        train, val: the lists, below root or from the working directory. None: train.json, validation.json,
            something-something-v2-train.json and the like, or .csv, in root, root/labels or root/annotations.
        test: the answers for the test videos, `id;template` a line. None: test-answers.csv, in the same places.
        labels: the classes in the order of their numbers: labels.json or labels.csv. None: in the same places.
        videos: folder with the videos, below root or from the working directory. None: root.

    Raises:
        DataError: no lists, entries that cannot be used.
    """
    given = {"train": train, "val": val, "test": test, "labels": labels}
    return twentybn.dataset(root, _PREFIX, _ENDING, given, videos, _read_list, _read_labels)


def _read_list(path: Path, bad: BadRows) -> Rows:
    return _read_templates(path, bad) if path.suffix.lower() == ".json" else twentybn.read_id_label(path, bad)


def _read_templates(path: Path, bad: BadRows) -> Rows:
    """The entries of a list of version 2."""
    content = read_json_text(path)
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list of objects with id and template")
    rows = Rows(path, entry=True)
    for number, entry in enumerate(content, 1):
        name, template = (entry.get("id"), entry.get("template")) if isinstance(entry, dict) else (None, None)
        if str(name).isdecimal() and isinstance(template, str) and template:
            rows.add((number, entry), str(name), (twentybn.plain(template),))
        else:
            expected = "an object with id, a number, and template; the test list has none: its labels are the answers"
            bad.add(path, number, json.dumps(entry), expected, entry=True)
    return rows


def _read_labels(path: Path) -> tuple[str, ...]:
    """labels.json, {"class": "number"}, or one class per line."""
    if path.suffix.lower() != ".json":
        return read_classes(path)
    content = read_json_text(path)
    if not isinstance(content, dict) or any(whole(str(number)) is None for number in content.values()):
        raise DataError(f'{path}: expected {{"class": "number", ...}}')
    names = sorted(content, key=lambda name: int(content[name]))
    if [int(content[name]) for name in names] != list(range(len(names))):
        raise DataError(f"{path}: the numbers of the {len(names)} classes should run from 0 to {len(names) - 1}")
    return tuple(twentybn.plain(name) for name in names)
