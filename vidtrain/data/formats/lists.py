"""Text files with a path and a label in each line, and the list files of other video libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidtrain.data.formats._files.delimited import LAYOUTS, check_options, read_table
from vidtrain.data.formats._files.frame_lists import is_frame_list, read_frame_list
from vidtrain.data.formats._files.json_lists import read_json_list
from vidtrain.data.formats._files.rows import Rows, build_manifest, number_labels
from vidtrain.data.formats._files.split_checks import finish
from vidtrain.data.formats._files.text_files import BadRows, check_root, find_file, read_classes, without_gc
from vidtrain.data.formats.cutting import cut_splits
from vidtrain.data.manifest.files import Disk, is_video
from vidtrain.data.manifest.manifest import Manifest, VideoData
from vidtrain.data.manifest.splits import SplitOptions
from vidtrain.errors import DataError
from vidtrain.ranges import takes
from vidtrain.types import FilePath, Regex


@without_gc
@takes(SplitOptions, without=["group_by"])
def lists(
    root: str | Path,
    *,
    train: FilePath | None = None,
    val: FilePath | None = None,
    test: FilePath | None = None,
    classes: FilePath | None = None,
    separator: str = "auto",
    header: str | bool = "auto",
    columns: str = "auto",
    group_by: Regex | None = None,
    **options: Any,
) -> VideoData:
    """Videos named in list files, `path label` a line, and the lists of MMAction2, PySlowFast, PyTorchVideo, VideoMAE.

    A path is absolute, or relative to `root`, or, where it is not found there, to the folder of the list file. It
    names a video file or a folder of images. Videos that are not on disk go to `Manifest.missing`. Labels are class
    names, or class numbers from 0; numbers that run from 1 to K without a gap and without a 0 are taken to count from
    1, which a note says. Without `classes` the names are the sorted labels, or the numbers themselves.

    A `.json` file is read as the lists of MMAction2 are (`filename` or `frame_dir` with `label`, OmniSource's
    `video_dir`). A list of images with the header of PySlowFast (`original_vido_id video_id frame_id path labels`)
    gives a video for each folder.

    Args:
        root: folder that the paths start from.
        train, val, test: list files, below root or from the working directory; one at least.
        classes: file of class names, one per line in the order of their numbers, or `number name` per line.
        separator: auto, comma, tab, semicolon, space. CSV and TSV may quote; a line with spaces is cut from its end,
            so that paths may hold spaces.
        header: auto, true or false: whether the first line names the columns. A header says which columns hold the
            path and the label. auto: a line that names a video on disk is none; a note says where that is a guess.
        columns: what the fields of a line without header are: auto, or one of "path label", "path labels",
            "path total label", "path total labels", "path offset total label". auto goes by most of the lines: a
            video file with several numbers has several labels, a folder with two numbers has a total and a label.
        group_by, val_fraction, test_fraction, split_seed, folds, fold: how splits that are not there are cut, see
            `SplitOptions`.

    Raises:
        DataError: no such file, or lines that cannot be used: the first is shown, the others are counted.
    """
    cut = SplitOptions(group_by=group_by, **options)
    check_options(separator, header, columns)
    root = check_root(root, stores=True)
    named = {"train": train, "val": val, "test": test}
    files = {split: find_file(name, root, split) for split, name in named.items() if name is not None}
    if not files:
        raise DataError("no list is given: set data.train, or data.val or data.test to score a model")
    given = None if classes is None else read_classes(find_file(classes, root, "classes"))
    bad = BadRows()
    tables: dict[str, Rows] = {}
    layouts: dict[str, str] = {}
    disks: dict[str, Disk] = {}
    for split, path in files.items():
        disks[split] = Disk([root, path.parent])
        tables[split], layouts[split] = _read(path, separator, header, columns, disks[split], bad)
    bad.check()

    class_names, numbers, notes = number_labels(tables, given, bad)
    multi_label = any(layout.endswith("labels") for layout in layouts.values())
    splits = {s: _find_videos(rows, numbers, disks[s], multi_label, bad) for s, rows in tables.items()}
    bad.check()
    notes += [note for split, rows in tables.items() for note in (*rows.notes, *disks[split].notes(split))]
    notes += [
        f"{split}: the lines of {files[split].name} are read as '{layout}'; data.columns changes that"
        for split, layout in layouts.items()
        if columns == "auto" and layout in LAYOUTS[1:]
    ]
    splits, cuts = cut_splits(splits, class_names, root, cut, own_names=True)
    return finish(class_names, splits, root, notes=[*notes, *cuts])


def _read(path: Path, separator: str, header: str | bool, columns: str, disk: Disk, bad: BadRows) -> tuple[Rows, str]:
    """The rows of a list and their layout, which ends in "labels" when a row may have any number of them."""
    if path.suffix.lower() == ".json":
        return read_json_list(path, bad)
    if columns == "auto" and is_frame_list(path):
        return read_frame_list(path, bad)
    return read_table(path, separator, header, columns, disk, bad)


def _find_videos(rows: Rows, numbers: dict[str, int], disk: Disk, multi_label: bool, bad: BadRows) -> Manifest:
    """Where the videos of a list are; those that are nowhere are noted as missing."""
    manifest = build_manifest(rows, numbers, disk.find, multi_label=multi_label)
    # a name without a video's extension is a folder, or no video at all: counts of images tell
    if rows.starts is None and not rows.entry:
        missing = {name for name in manifest.missing if not is_video(name)}
        for row, name in enumerate(rows.names) if missing else ():
            if name in missing:
                expected = f"a video and its label; {name!r} is not on disk and has no video extension"
                rows.bad(bad, row, expected)
    return manifest
