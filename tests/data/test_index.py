"""An index on disk: what went in comes out, mapped, movable, and whole or absent."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.hostile import write_index_by_hand
from vidtrain.data.formats.index import index
from vidtrain.data.manifest.index import read_index, write_index
from vidtrain.data.manifest.manifest import IntLists, Manifest, StringArray, VideoData, joined
from vidtrain.errors import DataError


def example(folder: Path) -> VideoData:
    train = Manifest(
        StringArray.of([str(folder / "a" / "имя 1.mp4"), str(folder / "b.mp4")]),
        np.array([1, -1]),
        np.array([0.0, 2.5]),
        np.array([np.inf, 4.0]),
        missing=("gone.mp4", "other.mp4"),
        tags=IntLists.of([[1, 2], []]),
    )
    test = Manifest.of(["/elsewhere/c.mp4", str(folder / "d.mp4")], [0, 2])
    return VideoData(("x", "y", "z"), {"train": train, "val": Manifest.of([], []), "test": test}, (("x", "y"),), ("n",))


def same(one: Manifest, other: Manifest) -> None:
    assert list(one.paths) == list(other.paths)
    assert list(one.missing) == list(other.missing)
    for name in ("labels", "starts", "ends"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (one.tags is None) == (other.tags is None)
    if one.tags is not None and other.tags is not None:
        assert [t.tolist() for t in one.tags] == [t.tolist() for t in other.tags]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    data = example(tmp_path)
    write_index(tmp_path, data)
    found = index(tmp_path)
    assert (found.class_names, found.flip_pairs, found.notes) == (data.class_names, data.flip_pairs, data.notes)
    assert list(found.splits) == ["train", "val", "test"]
    for split, manifest in data.splits.items():
        same(found.splits[split], manifest)
    assert found.multi_label
    write_index(tmp_path, VideoData(("x", "y"), {"train": Manifest.of(["q.mp4"], [1])}))  # over the old one
    assert list(read_index(tmp_path).splits) == ["train"]


def test_the_arrays_are_mapped_not_read(tmp_path: Path) -> None:
    write_index(tmp_path, example(tmp_path))
    train = read_index(tmp_path).splits["train"]
    for column in (train.paths.buffer, train.paths.offsets, train.labels, train.starts):
        assert column is not None
        assert isinstance(column.base, np.memmap)


def test_other_processes_map_the_files_themselves(tmp_path: Path) -> None:
    """What spawned workers get: some names of files, however long the list is; and never the rows of another file."""
    rows = 10_000
    train = Manifest.of((f"/d/{'x' * 40}{n}.mp4" for n in range(rows)), range(rows))
    train = replace(train, starts=np.arange(rows) / 1, tags=IntLists.of([[n % 3] for n in range(rows)]))
    names = tuple(map(str, range(rows)))
    write_index(tmp_path, VideoData(names, {"train": train, "val": example(tmp_path).splits["test"]}))
    found = read_index(tmp_path).splits["train"]
    sent = pickle.dumps(found)
    assert len(sent) < 5000
    there = pickle.loads(sent)
    same(there, train)
    for column in (there.paths.buffer, there.paths.offsets, there.labels, there.starts, there.tags.values):
        assert isinstance(column.base, np.memmap)
    part = found.take(np.arange(5, 50))  # no whole files any more
    same(pickle.loads(pickle.dumps(part)), part)

    write_index(tmp_path, VideoData(("x",), {"train": Manifest.of(["/d/other.mp4"], [0])}))
    same(pickle.loads(pickle.dumps(found)), train)  # from memory, since the files are others now
    with pytest.raises(DataError, match=r"train.*npy: was replaced while it was read: start again, resume=auto"):
        pickle.loads(sent)


def test_a_copy_that_is_moved_finds_its_videos(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    videos = [str(old / "a" / "1.mp4"), str(old / "2.mp4")]
    write_index(old, VideoData(("x", "y"), {"train": Manifest.of(videos, [0, 1])}))
    shutil.move(old, new)
    assert list(read_index(new).splits["train"].paths) == [str(new / "a" / "1.mp4"), str(new / "2.mp4")]


def test_folds_of_an_index(tmp_path: Path) -> None:
    """The splits are put together, a row that two of them name once; without folds they stay."""
    names = [f"{label}/S{n // 4:02d}_{n}.mp4" for label in "ab" for n in range(20)]
    labels = [0] * 20 + [1] * 20
    parts = {"train": slice(0, 30), "val": slice(30, 40), "test": slice(28, 34)}
    splits = {
        split: Manifest.of([str(tmp_path / name) for name in names[part]], labels[part], [f"lost {split}"])
        for split, part in parts.items()
    }
    old = (
        "val: 10 videos held out of train, stratified by class, split_seed=0",
        "names look grouped, like 'S00' (S00_0.mp4), and 5 of 5 such groups stand in two splits: scores ...",
        "videos both in train and in test: 2 (S07_28.mp4, S07_29.mp4); scores will be too good",
        "test: no video of b: the class has a single group, which stays in train",
        "test: the val split, as the field reports it; there is no other",
    )
    write_index(tmp_path, VideoData(("a", "b"), splits, notes=("2 .txt files skipped", *old)))
    assert len(index(tmp_path).splits["train"]) == 30
    tested: list[str] = []
    for fold in range(5):
        data = index(tmp_path, folds=5, fold=fold, group_by=r"S\d+", val_fraction=0.2)
        rows = {split: list(manifest.paths) for split, manifest in data.splits.items()}
        assert sorted(path for paths in rows.values() for path in paths) == sorted(str(tmp_path / n) for n in names)
        groups = {split: {re.findall(r"S\d+", path)[0] for path in paths} for split, paths in rows.items()}
        assert not groups["test"] & (groups["train"] | groups["val"])
        assert data.splits["test"].labels.tolist() == [0] * 4 + [1] * 4
        assert list(data.splits["train"].missing) == ["lost train", "lost val", "lost test"]
        assert data.notes[0] == "2 .txt files skipped"
        assert not set(old) & set(data.notes)
        assert "the splits of the index (train, val, test) were put together and cut into 5 folds" in data.notes
        tested += rows["test"]
    assert sorted(tested) == sorted(str(tmp_path / name) for name in names)
    with pytest.raises(DataError, match=r"^fold=1: data.folds is not set"):
        index(tmp_path, fold=1)


def test_splits_are_joined_with_all_their_columns() -> None:
    data = example(Path("/x"))
    both = joined([data.splits["train"], data.splits["test"]])
    assert list(both.paths) == ["/x/a/имя 1.mp4", "/x/b.mp4", "/elsewhere/c.mp4", "/x/d.mp4"]
    assert both.starts == pytest.approx([0.0, 2.5, 0.0, 0.0])
    assert both.ends == pytest.approx([np.inf, 4.0, np.inf, np.inf])
    assert both.tags is not None
    assert [row.tolist() for row in both.tags] == [[1, 2], [], [0], [2]]
    segments = Manifest(StringArray.of(["a", "a", "a"]), np.zeros(3, np.int64), np.array([0.0, 1.0, 0.0]))
    assert joined([segments, segments]).starts == pytest.approx([0.0, 1.0])


def test_half_an_index_is_none(tmp_path: Path) -> None:
    write_index(tmp_path, example(tmp_path))
    file = tmp_path / "index.json"
    text = file.read_text()
    for wrong, message in (
        ("{", "not an index that can be read"),
        (text.replace('"version": 1', '"version": 99'), "version 99"),
        (text.replace('"labels"', '"labelz"'), "not an index that can be read"),
    ):
        file.write_text(wrong)
        with pytest.raises(DataError, match=message):
            read_index(tmp_path)
    file.unlink()
    with pytest.raises(DataError, match=r"holds no index\.json; `vidtrain data check`"):
        read_index(tmp_path)


GOOD = {"columns": ["labels", "missing", "missing_offsets", "path_offsets", "paths"], "relative": True}
TAGGED = {**GOOD, "columns": [*GOOD["columns"], "tags", "tag_offsets"]}  # type: ignore[misc]
TAGS = {"tags": np.array([1]), "tag_offsets": np.array([0, 1])}


@pytest.mark.parametrize(
    ("splits", "arrays", "message"),
    [
        ({"../x": GOOD}, {}, r"a split '\.\./x' of columns"),
        ({"all": GOOD}, {}, "a split 'all' of columns"),
        ({"train": {**GOOD, "columns": [*GOOD["columns"], "../x"]}}, {}, "a split 'train' of columns"),  # type: ignore[misc]
        ({"train": {**GOOD, "columns": ["labels"]}}, {}, "a split 'train' of columns"),
        ({"train": GOOD}, {"labels": np.array([2])}, "labels has 2 to 2, there are 2 classes"),
        ({"train": GOOD}, {"labels": np.array([-2])}, "labels has -2 to -2"),
        ({"train": GOOD}, {"labels": np.array([0], np.int32)}, "train.labels: int32 of 1 dimensions, expected int64"),
        ({"train": GOOD}, {"labels": np.zeros((1, 1), np.int64)}, "train.labels: int64 of 2 dimensions"),
        ({"train": GOOD}, {"labels": np.array([print], dtype=object)}, "objects"),
        ({"train": GOOD}, {"path_offsets": np.array([0, 9])}, "train.path_offsets do not fit train.paths"),
        ({"train": GOOD}, {"path_offsets": np.array([1, 8])}, "train.path_offsets do not fit train.paths"),
        ({"train": GOOD}, {"path_offsets": np.empty(0, np.int64)}, "train.path_offsets do not fit train.paths"),
        ({"train": GOOD}, {"labels": np.zeros(2, np.int64)}, "train.path_offsets do not fit train.paths"),
        ({"train": GOOD}, {"missing_offsets": np.array([0, 1])}, "train.missing_offsets do not fit train.missing"),
        ({"train": TAGGED}, {**TAGS, "tags": np.array([2])}, "train.tags has 2 to 2, there are 2 classes"),
        ({"train": TAGGED}, {**TAGS, "tags": np.array([-1])}, "train.tags has -1 to -1"),
        ({"train": TAGGED}, {**TAGS, "tag_offsets": np.array([0, 0, 1])}, "train.tag_offsets do not fit train.tags"),
        (
            {"train": {**GOOD, "columns": [*GOOD["columns"], "starts"]}},  # type: ignore[misc]
            {"starts": np.zeros(2)},
            "train: starts or ends for another number of rows",
        ),
    ],
)
def test_arrays_that_do_not_belong_together(tmp_path: Path, splits: Any, arrays: dict[str, Any], message: str) -> None:
    write_index_by_hand(tmp_path, {"train": TAGGED}, {**TAGS, "labels": np.array([-1])})
    assert len(read_index(tmp_path).splits["train"]) == 1
    write_index_by_hand(tmp_path, splits, arrays)
    with pytest.raises(
        DataError, match=f"(not an index that can be read|the index is damaged).*{message}.*write it again"
    ):
        # what takes long to look at where there are millions of rows is looked at when it is used
        _ = read_index(tmp_path).splits["train"].labels


def test_rows_that_lie_outside_are_refused_when_they_are_read(tmp_path: Path) -> None:
    """None of the ways to a row reads what is not there, or takes much memory before it says so."""
    three = {"labels": np.zeros(3, np.int64)}
    rows = np.arange(3)
    for offsets in ([0, 9, 8, 8], [0, -5, 3, 8], [0, 1 << 40, 5, 8], [0, 5, 3, 8], [0, -(1 << 62), 3, 8]):
        write_index_by_hand(tmp_path, {"train": GOOD}, {**three, "path_offsets": np.array(offsets)})
        paths = read_index(tmp_path).splits["train"].paths
        for read in (list, lambda p: [p[row] for row in range(3)], lambda p: p.take(rows), lambda p: p[:]):
            with pytest.raises(DataError, match=r"^the index is damaged, near its row \d: write it again$"):
                read(paths)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    "changes",
    [
        {"class_names": []},
        {"class_names": [1, 2]},
        {"flip_pairs": [["a", "x"]]},
        {"flip_pairs": [["a"]]},
        {"notes": [1]},
    ],
)
def test_names_that_are_none(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_index_by_hand(tmp_path, {"train": GOOD}, {})
    file = tmp_path / "index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(DataError, match="not an index that can be read"):
        read_index(tmp_path)


TOUCH_ALL = """
import sys
from pathlib import Path
from vidtrain.data.manifest.index import read_index

def anonymous_kilobytes():  # behind which no file stands: pages of a mapped file are dropped when memory is short
    text = Path("/proc/self/smaps_rollup").read_text()
    fields = dict(line.split(":") for line in text.splitlines()[1:])
    return int(fields["Anonymous"].split()[0])

manifest = read_index(Path(sys.argv[1])).splits["train"]
for row in range(len(manifest)):
    if row == 1000:  # what the first look costs anyway
        before = anonymous_kilobytes()
    manifest.paths[row]
    int(manifest.labels[row])
print(anonymous_kilobytes() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_does_not_grow_while_it_reads(tmp_path: Path) -> None:
    rows = 50_000
    paths = (str(tmp_path / f"class{n % 400:03d}" / f"{n:011d}_000000_000010.mp4") for n in range(rows))
    write_index(tmp_path, VideoData(("x", "y"), {"train": Manifest.of(paths, [n % 2 for n in range(rows)])}))
    command = [sys.executable, "-c", TOUCH_ALL, tmp_path]  # free of what this process has allocated and freed
    grown = int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout)
    assert grown < 1_000, f"{grown} kB"
