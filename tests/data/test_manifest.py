from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidtrain.data.manifest.manifest import IntLists, Manifest, StringArray, VideoData

# file names as Linux gives them: any bytes but NUL and "/", those that are not UTF-8 as surrogates
names = st.binary(max_size=20).map(lambda b: b.replace(b"\0", b"").replace(b"/", b"")).map(os.fsdecode)


@given(st.lists(names, max_size=20))
def test_strings_come_back(strings: list[str]) -> None:
    array = StringArray.of(strings)
    assert len(array) == len(strings)
    assert list(array) == strings
    assert [array[i] for i in range(len(strings))] == strings
    assert [array[-1 - i] for i in range(len(strings))] == strings[::-1]
    assert array[1:-1] == strings[1:-1]


@given(st.lists(names, min_size=1, max_size=20), st.data())
def test_take(strings: list[str], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(-len(strings), len(strings) - 1), max_size=30))
    taken = StringArray.of(strings).take(np.array(rows, dtype=np.int64))
    assert list(taken) == [strings[row] for row in rows]


def test_take_works_across_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidtrain.data.manifest.manifest._PART", 3)
    strings = [str(n) * (n % 5) for n in range(11)]
    rows = np.arange(11)[::-1]
    assert list(StringArray.of(strings).take(rows)) == strings[::-1]
    assert list(StringArray.of(strings)) == strings


@pytest.mark.parametrize("row", [3, -4])
def test_a_row_out_of_range_is_refused(row: int) -> None:
    array = StringArray.of("abc")
    with pytest.raises(IndexError):
        array[row]
    with pytest.raises(IndexError):
        array.take(np.array([row]))


def test_pickling_keeps_names_that_are_not_utf8() -> None:
    manifest = Manifest.of(["a/имя.mp4", os.fsdecode(b"b/\xff\xfe.avi"), ""], [2, 0, 1], missing=["c.mp4"])
    again = pickle.loads(pickle.dumps(manifest))
    assert list(again.paths) == list(manifest.paths)
    assert again.labels.tolist() == [2, 0, 1]
    assert again.missing == ("c.mp4",)


def test_manifest_counts_and_takes() -> None:
    manifest = Manifest.of(["a", "b", "c"], [0, 1, 0], missing=["d"])
    assert (len(manifest), manifest.listed, manifest.labels.dtype) == (3, 4, np.int64)
    part = manifest.take(np.array([2, 0]))
    assert (list(part.paths), part.labels.tolist(), part.missing) == (["c", "a"], [0, 0], ())


def test_an_empty_manifest() -> None:
    empty = Manifest.of([], [])
    assert (len(empty), list(empty.paths), empty.labels.dtype) == (0, [], np.int64)
    assert len(empty.take(np.array([], dtype=np.int64))) == 0


@given(st.lists(st.lists(st.integers(0, 50), max_size=5), max_size=20), st.data())
def test_lists_of_integers_come_back_sorted_and_once(lists: list[list[int]], data: st.DataObject) -> None:
    found = IntLists.of(lists)
    assert [row.tolist() for row in found] == [sorted(set(row)) for row in lists]
    if lists:
        rows = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=10))
        taken = found.take(np.array(rows, dtype=np.int64))
        assert [row.tolist() for row in taken] == [found[row].tolist() for row in rows]


def test_a_prefix_stands_before_every_string() -> None:
    plain = StringArray.of(["a", "bc"])
    found = StringArray(plain.buffer, plain.offsets, "dir/")
    assert list(found) == found[:] == ["dir/a", "dir/bc"]
    assert found.take(np.array([1]))[0] == "dir/bc"


def test_classes_that_validation_lacks_are_named_where_they_are_many() -> None:
    def data(val: list[int], classes: int) -> VideoData:
        names = tuple(f"c{n}" for n in range(classes))
        splits = {"train": range(classes), "val": val}
        return VideoData(names, {s: Manifest.of([f"{n}.mp4" for n in rows], rows) for s, rows in splits.items()})

    assert data([2], 3).not_validated() == ("c0", "c1")
    assert data([0, 1, 2], 3).not_validated() == ()
    assert data(list(range(9)), 10).not_validated() == ()  # a rare one
    assert data(list(range(8)), 10).not_validated() == ("c8", "c9")
    assert VideoData(("a",), {"train": Manifest.of(["a.mp4"], [0])}).not_validated() == ()
