"""Segments of untrimmed videos: labels with a start and an end, as programs for it and public datasets write them.

Tables of any columns, BORIS, DeepEthogram's frame by frame, Charades and EPIC-KITCHENS in `_files.annotation_tables`;
ActivityNet's and THUMOS' JSON, Label Studio and ELAN in `_files.annotation_trees`.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, Final

import numpy as np

from vidtrain.data.formats._files.annotation_record import Annotation, Annotations, check_size
from vidtrain.data.formats._files.annotation_tables import TableColumns, names_times, read_annotation_table
from vidtrain.data.formats._files.annotation_trees import read_annotation_json, read_eaf
from vidtrain.data.formats._files.find_videos import find_by_name
from vidtrain.data.formats._files.rows import Rows, build_manifest, check_labels, number_names
from vidtrain.data.formats._files.split_checks import SPLIT_WORDS, finish, val_is_test
from vidtrain.data.formats._files.text_files import BadRows, check_root, find_file, read_classes, some, without_gc
from vidtrain.data.formats.cutting import cut_splits
from vidtrain.data.manifest.files import Disk, is_video, natural_key
from vidtrain.data.manifest.manifest import SPLITS, VideoData
from vidtrain.data.manifest.splits import SplitOptions
from vidtrain.data.readers.any_path import AnyReader
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.data.readers.timeline import Timeline
from vidtrain.errors import DataError, VideoError, did_you_mean, one_of
from vidtrain.ranges import takes
from vidtrain.types import FilePath, Regex

_TABLES: Final = (".csv", ".tsv", ".txt")
_TREES: Final = (".json", ".boris", ".eaf")
_UNITS: Final = ("auto", "seconds", "frames", "milliseconds")
_HEADER: Final = 40  # lines within which a table has its header
_LONGEST_LINE: Final = 65_536
_UPLOADED: Final = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before the names of uploaded files


@without_gc
@takes(SplitOptions, without=["group_by"])
def segments(
    root: str | Path,
    *,
    annotations: FilePath | None = None,
    train: FilePath | None = None,
    val: FilePath | None = None,
    test: FilePath | None = None,
    unit: str = "auto",
    fps: float | None = None,
    file_column: str | None = None,
    label_column: str | None = None,
    start_column: str | None = None,
    end_column: str | None = None,
    classes: FilePath | None = None,
    exclude: Sequence[str] = ("Ambiguous",),
    group_by: Regex | None = None,
    **options: Any,
) -> VideoData:
    """A row per segment: its video, start, end and label. A video may have many, and they may overlap.

    An annotation file is a table (.csv, .tsv, .txt) with a column each for video, start, end (or duration) and label,
    in seconds, as clocks, or in frames; or what one of these writes: BORIS (tabular or aggregated events, .boris),
    ELAN (.eaf, tab-delimited export), Label Studio (JSON), DeepEthogram, ActivityNet, THUMOS14, Charades,
    EPIC-KITCHENS, `vidtrain predict timeline=true`. A folder stands for all such files below it. Videos are found by
    their path, or by their name anywhere below root; what is not on disk goes to `Manifest.missing`.

    Args:
        root: folder that the videos lie below.
        annotations: the file or folder, below root or from the working directory, with the segments of all splits.
            Splits that the file names are taken, the others are cut by video.
        train, val, test: a file or folder for each split, instead of `annotations`.
        unit: of the times in tables: "seconds" (clocks, too), "frames", "milliseconds"; "auto": frames where the only
            columns are called so.
        fps: the rate of the frames that annotations count; None: those of the video, by their own times.
        file_column, label_column, start_column, end_column: of tables; None: found by the names that are usual.
        classes: file of class names in the order of their numbers. None: the sorted labels.
        exclude: labels that are no classes; their segments are skipped.
        group_by, val_fraction, test_fraction, split_seed, folds, fold: how splits that are not there are cut, see
            `SplitOptions`; all segments of a video stay together.

    Raises:
        DataError: no such file, none that is known, or rows that cannot be used: the first is shown.
    """
    cut = SplitOptions(group_by=group_by, **options)
    if unit not in _UNITS:
        raise DataError(f"unit={unit}: expected one of {one_of(_UNITS)}{did_you_mean(unit, _UNITS)}")
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise DataError(f"fps={fps}: expected frames per second, above 0")
    root = check_root(root)
    files = {"train": train, "val": val, "test": test}
    given = {split: name for split, name in files.items() if name is not None}
    if (annotations is None) == (not given):
        raise DataError("set data.annotations=FILE, or a file for each split: data.train, data.val, data.test")
    columns = TableColumns(file_column, label_column, start_column, end_column, unit)
    bad, notes = BadRows(), list[str]()
    sources: list[tuple[str | None, Annotations]] = []
    for split, name in (("annotations", annotations),) if annotations is not None else given.items():
        for file in _files(name or "", root, split):
            sources.append((None if annotations is not None else split, _read(file, columns, bad)))
    bad.check()
    where = _Videos(root, {video for _, source in sources for video in source.videos}, fps)
    _check_one_video(sources, where, bad)
    nameless = [source.file for _, source in sources if source.own_name and source.file.stem not in where.paths]
    if nameless and not where.paths:
        stem = nameless[0].stem
        raise DataError(f"{nameless[0]}: no column for the video (data.file_column names it), none is called {stem}")
    notes += [note for _, source in sources for note in source.notes]
    quiet: dict[str, list[str]] = {}
    tables = _tables(sources, set(exclude), where, notes, quiet)
    named = None if classes is None else read_classes(find_file(classes, root, "classes"))
    names, numbers, forms = number_names(sorted({label for rows in tables.values() for (label,) in rows.labels}), named)
    check_labels(tables, names, bad, numbers)
    bad.check()
    splits = {split: build_manifest(rows, numbers, where.paths.get) for split, rows in tables.items()}
    if "train" not in splits and annotations is not None and "val" in splits:
        quiet["train"] = quiet.pop("train", []) + quiet.pop("val", [])
        splits = {"train": splits.pop("val"), **splits}  # THUMOS14: what is trimmed trains, nobody uses it
        notes.append("train: the validation videos, since the annotations name none for training, as THUMOS14's")
    splits, cuts = cut_splits(splits, names, root, cut, own_names=True)
    for split, videos in quiet.items():
        paths = tuple(path for video in videos if (path := where.paths.get(video)) is not None)
        if split in splits and paths:
            splits[split] = replace(splits[split], quiet=paths)
    if annotations is not None:
        splits, more = val_is_test(splits, "the annotations name no other")
        cuts += more
    return finish(names, splits, root, notes=[*notes, *forms, *where.disk.notes("the annotations"), *cuts])


def has_times(file: Path) -> bool:
    """Whether a file is one of segments, as far as its name and its first lines say."""
    kind = file.suffix.lower()
    if kind not in _TABLES or not file.is_file():
        return kind in (".boris", ".eaf") and file.is_file()
    with file.open(encoding="utf-8", errors="replace") as lines:
        return any(names_times(line) for line in islice(iter(lambda: lines.readline(_LONGEST_LINE), ""), _HEADER))


def _files(name: str, root: Path, key: str) -> list[Path]:
    """The annotation file, or all those below a folder."""
    for folder in (root / Path(name).expanduser(), Path(name).expanduser()):
        if folder.is_dir():
            kinds = (*_TABLES, *_TREES)
            found = [p for p in folder.rglob("*") if p.suffix.lower() in kinds and p.is_file() and p.name[0] != "."]
            if not found:
                raise DataError(f"data.{key}={name}: no annotation file ({one_of(kinds, 9)}) below {folder}")
            return sorted(found, key=lambda path: natural_key(str(path)))
    return [find_file(name, root, key)]


def _read(file: Path, columns: TableColumns, bad: BadRows) -> Annotations:
    check_size(file)
    into, kind = Annotations(file, bad), file.suffix.lower()
    if kind in _TABLES:
        read_annotation_table(into, columns)
    elif kind == ".eaf":
        read_eaf(into)
    elif kind in _TREES:
        read_annotation_json(into)
    else:
        raise DataError(f"{file}: expected an annotation file that ends in {one_of((*_TABLES, *_TREES), 9)}")
    return into


def _tables(
    sources: Iterable[tuple[str | None, Annotations]],
    exclude: set[str],
    where: _Videos,
    notes: list[str],
    quiet: dict[str, list[str]],
) -> dict[str, Rows]:
    """The rows of each split; notes say what is no segment, and videos without one go to `quiet`, by split."""
    tables: dict[str, Rows] = {}
    skipped: Counter[str] = Counter()
    for split, source in sources:
        skipped += source.skipped
        busy = set()
        for one in source.found:
            busy.add(one.video)
            if one.label in exclude:
                skipped[f"are of a label in data.exclude ({one.label})"] += 1
                continue
            home = split or _home(one.subset, source, one.video)
            rows = tables.setdefault(home, Rows(source.file, starts=[], ends=[], entry=source.entries))
            place = one.place, f"{one.video} {one.start:g} {one.end:g} {one.label}"
            rows.add(place, one.video, (one.label,), where.seconds(one))
        for video, subset in source.videos.items():
            if video not in busy:
                quiet.setdefault(split or _home(subset, source, video), []).append(video)
    if not tables:
        raise DataError(
            "the annotations hold no segment" + (f": {sum(skipped.values())} {next(iter(skipped))}" if skipped else "")
        )
    notes += [f"{count} annotations {reason} and are skipped" for reason, count in skipped.items()]
    for home, videos in quiet.items():
        shown = f"{len(videos)} videos have no segment ({some(videos)})"
        notes.append(f"{home}: {shown}: task=segments alone takes them, as videos in which nothing happens")
    return {split: tables[split] for split in SPLITS if split in tables}


def _home(subset: str, source: Annotations, video: str) -> str:
    """The split that a file means by its own word, train where it has none."""
    word = subset.strip().lower()
    if word and word not in SPLIT_WORDS:  # it may be the rows to test on
        raise DataError(
            f"{source.file}: {source.subset_column}={subset[:80]!r} of {video[:200]!r} is no split that is known: "
            f"{one_of(SPLIT_WORDS, 20)}; write one of these, or give a file for each split: data.train, data.test"
        )
    return SPLIT_WORDS.get(word, "train")


def _check_one_video(sources: Iterable[tuple[str | None, Annotations]], where: _Videos, bad: BadRows) -> None:
    """Refuse rows of BORIS whose times go on through several videos, `a.mp4;b.mp4`."""
    for _, source in sources:
        for one in source.found:
            media = [name for name in one.video.split(";") if is_video(name.strip())] if ";" in one.video else []
            if len(media) > 1 and ";" not in Path(where.paths.get(one.video, "")).name:
                expected = f"one video in player 1, not {len(media)} one after the other"
                bad.add(source.file, one.place, one.video, expected, entry=source.entries)
    bad.check()


class _Videos:
    """Where the videos are that annotations name: by the path, or by the name wherever it is below the root."""

    def __init__(self, root: Path, names: set[str], fps: float | None) -> None:
        self.disk, self._fps = Disk([root]), fps
        self._lines: dict[str, Timeline | None] = {}
        self.paths = {name: path for name in names if (path := self.disk.find(name)) is not None}
        lost = {name: _stems(name) for name in names if name not in self.paths}
        if lost:
            several: dict[str, list[str]] = {}
            found = find_by_name([root], {stem for stems in lost.values() for stem in stems}, several=several)
            for name, stems in lost.items():
                stem = next((stem for stem in stems if stem in found), None)
                if stem is not None:
                    self.paths[name] = _the_one(name, several.get(stem, [])) or found[stem]

    def seconds(self, one: Annotation) -> tuple[float, float]:
        """From when to when, whatever it is counted in; an end beyond the video stays there, for who checks it."""
        if not one.frames:
            return one.start, one.end
        if self._fps is not None:
            return one.start / self._fps, one.end / self._fps
        path = self.paths.get(one.video)
        if path is None:  # not on disk: it is listed as missing, with any times
            return 0.0, math.inf
        if path not in self._lines:
            self._lines[path] = _timeline(path)
        line = self._lines[path]
        if line is None:
            return 0.0, math.inf
        start, end = line.seconds(np.minimum([int(one.start), int(one.end)], line.total)).tolist()
        beyond = max(0.0, one.end - line.total) / line.fps
        return start + max(0.0, one.start - line.total) / line.fps, end + beyond


def _the_one(name: str, paths: list[str]) -> str | None:
    """Of videos of one name, files before folders of images, that whose folders are those of `name`; None where all lie
    in one folder.

    Raises:
        DataError: which it is cannot be told.
    """
    paths = list(filter(is_video, paths)) or paths
    if len({Path(path).parent for path in paths}) < 2:
        return None
    folders = re.split(r"[\\/]", name)[-2::-1]

    def alike(path: str) -> int:
        pairs = zip(folders, Path(path).parts[-2::-1], strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    most = max(map(alike, paths))
    best = sorted(path for path in paths if alike(path) == most)
    if len({os.path.realpath(path) for path in best}) > 1:
        raise DataError(f"{name}: is in {len(best)} folders ({some(best)}): give its path below data.root")
    return best[0]


def _timeline(path: str) -> Timeline | None:
    """When the frames of a video are shown; None of one that cannot be opened: training and tests will name it."""
    try:
        with AnyReader(PyAVReader()).open(path) as video:
            info = video.info
            return Timeline.of(info)
    except VideoError:
        return None


def _stems(name: str) -> list[str]:
    """What a video may be called below the root: its file name, in any container."""
    last = re.split(r"[\\/]", name.rstrip("\\/"))[-1]
    stem = last.rpartition(".")[0] if is_video(last) else last
    return list(dict.fromkeys((stem, _UPLOADED.sub("", stem), f"v_{stem}", stem.removeprefix("v_"))))
