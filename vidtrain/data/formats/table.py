"""Tables with named columns: CSV, TSV, JSON lines and Parquet, as spreadsheets, pandas and databases write them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidtrain.data.formats._files.column_files import Columns, read_columns
from vidtrain.data.formats._files.row_times import RowTimes, TimeColumns
from vidtrain.data.formats._files.rows import Rows, build_manifest, number_labels
from vidtrain.data.formats._files.split_checks import SPLIT_WORDS, finish
from vidtrain.data.formats._files.text_files import BadRows, check_root, find_file, read_classes, without_gc
from vidtrain.data.formats.cutting import cut_splits
from vidtrain.data.manifest.files import Disk
from vidtrain.data.manifest.manifest import SPLITS, VideoData
from vidtrain.data.manifest.splits import SplitOptions
from vidtrain.errors import DataError
from vidtrain.ranges import takes
from vidtrain.types import FilePath, Regex


@without_gc
@takes(SplitOptions, without=["group_by"])
def table(
    root: str | Path,
    *,
    train: FilePath | None = None,
    val: FilePath | None = None,
    test: FilePath | None = None,
    path_column: str = "path",
    label_column: str = "label",
    split_column: str | None = None,
    start_column: str | None = None,
    end_column: str | None = None,
    multi_label: bool = False,
    label_separator: str = "|",
    classes: FilePath | None = None,
    group_by: Regex | None = None,
    **options: Any,
) -> VideoData:
    """Videos in tables with a header: .csv, .tsv, .jsonl (an object a line), .json (a list of objects) or .parquet.

    One table for each split, or one for all with `split_column`. A path is absolute, or relative to root, or, where
    it is not found there, to the folder of the table; it names a video file or a folder of images. Videos that are
    not on disk go to `Manifest.missing`. Labels are class names or numbers, as in data=list.

    Args:
        root: folder that the paths start from.
        train, val, test: the tables, below root or from the working directory; one at least. With split_column there
            is one, given as train.
        path_column, label_column: names of the columns.
        split_column: column with train, val or test (or training, valid, validation, dev, testing ...). None: the
            tables are the splits.
        start_column, end_column: columns with seconds; a row is that part of its video. An empty cell is the start
            or the end of the video. None: columns of the usual names (start, end, stop, duration ..., as data=segments
            finds them), when both a start and an end are there as numbers, which a note says. "": none of them, so
            that rows are whole videos, or as far as the other one says.
        multi_label: a row may have any number of labels, separated by label_separator, or lists of them in JSON and
            Parquet; trained as such and scored by mAP.
        label_separator: what stands between two labels of a cell.
        classes: file of class names in the order of their numbers. None: the sorted labels, or the numbers.
        group_by, val_fraction, test_fraction, split_seed, folds, fold: how splits that are not there are cut, see
            `SplitOptions`.

    Raises:
        DataError: no such file or column, or rows that cannot be used: the first is shown, the others are counted.
    """
    cut = SplitOptions(group_by=group_by, **options)
    root = check_root(root, stores=True)
    named = {"train": train, "val": val, "test": test}
    files = {split: find_file(name, root, split) for split, name in named.items() if name is not None}
    if not files:
        raise DataError("no table is given: set data.train, or data.val or data.test to score a model")
    if split_column is not None and set(files) != {"train"}:
        raise DataError(f"split_column={split_column}: one table holds all splits then; set data.train alone")
    if multi_label and not label_separator:
        raise DataError("label_separator='': expected the text between two labels, for instance '|'")
    given = None if classes is None else read_classes(find_file(classes, root, "classes"))
    named_columns = {
        "path_column": path_column,
        "label_column": label_column,
        "split_column": split_column,
    }
    wanted = {key: name for key, name in named_columns.items() if name is not None}
    times = TimeColumns(wanted, start_column, end_column)
    bad = BadRows()
    separator = label_separator if multi_label else None
    tables: dict[str, Rows] = {}
    for split, file in files.items():
        found = read_columns(file, {**wanted, **times.named}, bad, times.find)
        tables |= _rows(found, times.read(found, bad), split, separator, bad)
    bad.check()
    names, numbers, notes = number_labels(tables, given, bad)
    disk = Disk([root, *dict.fromkeys(file.parent for file in files.values())])
    splits = {s: build_manifest(rows, numbers, disk.find, multi_label=multi_label) for s, rows in tables.items()}
    splits, cuts = cut_splits(splits, names, root, cut, own_names=True)
    return finish(names, splits, root, notes=[*times.notes(), *notes, *disk.notes("the tables"), *cuts])


def _rows(columns: Columns, times: RowTimes, split: str, separator: str | None, bad: BadRows) -> dict[str, Rows]:
    """The rows of a table, by split."""
    paths = columns.text("path_column")
    labels = columns.labels(separator)
    splits = [split] * len(paths) if "split_column" not in columns else columns.text("split_column")
    odd = columns.odd_labels()
    starts, ends = times.starts, times.ends
    words = {word: SPLIT_WORDS.get(word.strip().lower()) for word in set(splits)}
    kept: dict[str, list[int]] = {name: [] for name in SPLITS}
    for row, (path, own, word) in enumerate(zip(paths, labels, splits, strict=True)):
        home = words[word]
        if not path:
            columns.bad(bad, row, "path_column", "a path")
        elif row in odd:
            columns.bad(bad, row, "label_column", "text or a number")
        elif not own and separator is None:
            columns.bad(bad, row, "label_column", "one label; data.multi_label=true takes several")
        elif home is None:
            columns.bad(bad, row, "split_column", "train, val or test")
        elif ends is not None and ends[row] <= (starts[row] if starts else 0.0):
            columns.bad(bad, row, times.end_key, f"an end after the start{times.hint}")
        else:
            kept[home].append(row)
    return {name: _take(columns, rows, paths, labels, starts, ends) for name, rows in kept.items() if rows}


def _take(
    columns: Columns,
    rows: list[int],
    paths: list[str],
    labels: list[tuple[str, ...]],
    starts: list[float] | None,
    ends: list[float] | None,
) -> Rows:
    whole = starts is None and ends is None
    return Rows(
        columns.file,
        lambda row: columns.show(rows[row]),
        [paths[row] for row in rows],
        [labels[row] for row in rows],
        None if whole else _pick(starts, rows, 0.0),
        None if whole else _pick(ends, rows, math.inf),
        entry=columns.entries,
    )


def _pick(values: Sequence[float] | None, rows: list[int], default: float) -> list[float]:
    return [default] * len(rows) if values is None else [values[row] for row in rows]
