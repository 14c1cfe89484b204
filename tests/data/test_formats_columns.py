from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from vidtrain.data.formats.table import table
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.errors import DataError

ROWS = [
    {"clip": "a.mp4", "kind": "heron", "part": "train", "from": "0", "to": "2.5", "note": "x, y"},
    {"clip": "b.mp4", "kind": "owl", "part": "train", "from": "", "to": "", "note": ""},
    {"clip": "c.mp4", "kind": "heron", "part": "Validation", "from": "0:01", "to": "1:02:03.5", "note": 'say "hi"'},
    {"clip": "a.mp4", "kind": "owl", "part": "testing", "from": "3", "to": "4", "note": "-"},
]
OPTIONS = {
    "path_column": "clip",
    "label_column": "kind",
    "split_column": "part",
    "start_column": "from",
    "end_column": "to",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in "abc":
        (tmp_path / f"{name}.mp4").touch()
    return tmp_path


def write(root: Path, kind: str, rows: list[dict[str, str]]) -> str:
    """A table in one of the formats; its name."""
    path = root / f"clips.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        joint = {"csv": ",", "tsv": "\t", "txt": ";"}[kind]
        cells = [list(rows[0]), *(list(row.values()) for row in rows)]
        quoted = [
            '"' + cell.replace('"', '""') + '"' if set(cell) & {'"', ",", ";"} else cell for r in cells for cell in r
        ]
        width = len(rows[0])
        path.write_text("".join(joint.join(quoted[at : at + width]) + "\n" for at in range(0, len(quoted), width)))
    return path.name


def names(data: VideoData, split: str) -> list[str]:
    return [Path(path).name for path in data.splits[split].paths]


@pytest.mark.parametrize("kind", ["csv", "tsv", "txt", "jsonl", "json", "parquet"])
def test_one_table_in_many_formats(root: Path, kind: str) -> None:
    data = table(root, train=write(root, kind, ROWS), **OPTIONS)  # type: ignore[arg-type]
    assert data.class_names == ("heron", "owl")
    assert {s: names(data, s) for s in data.splits} == {
        "train": ["a.mp4", "b.mp4"],
        "val": ["c.mp4"],
        "test": ["a.mp4"],
    }
    assert data.splits["train"].labels.tolist() == [0, 1]
    starts, ends = data.splits["train"].starts, data.splits["train"].ends
    assert starts is not None
    assert ends is not None
    assert (starts.tolist(), ends.tolist()) == ([0, 0], [2.5, float("inf")])
    starts, ends = data.splits["val"].starts, data.splits["val"].ends
    assert starts is not None
    assert ends is not None
    assert (starts.tolist(), ends.tolist()) == ([1], [3723.5])
    assert "videos both in train and in test: 1 (a.mp4); scores will be too good" in data.notes


def test_numbers_lists_and_gaps_of_parquet_and_json(root: Path) -> None:
    rows = [
        {"path": "a.mp4", "label": [0, 2], "start": 1.5},
        {"path": "b.mp4", "label": [], "start": None},
        {"path": "c.mp4", "label": [1], "start": float("nan")},
    ]
    (root / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), root / "rows.parquet")
    for file in ("rows.jsonl", "rows.parquet"):
        data = table(root, train=file, multi_label=True, start_column="start", val_fraction=0, test_fraction=0)
        train = data.splits["train"]
        assert train.tags is not None
        assert [each.tolist() for each in train.tags] == [[0, 2], [], [1]]
        assert train.labels.tolist() == [0, -1, 1]
        assert train.starts is not None
        assert train.starts.tolist() == [1.5, 0, 0]
        with pytest.raises(
            DataError, match=r"expected one label; data.multi_label=true takes several in column 'label'"
        ):
            table(root, train=file)


def test_several_labels_in_a_cell(root: Path) -> None:
    (root / "t.csv").write_text("path,label\na.mp4,run|jump\nb.mp4,jump | walk|jump\nc.mp4,\n")
    data = table(root, train="t.csv", multi_label=True, val_fraction=0, test_fraction=0)
    assert data.class_names == ("jump", "run", "walk")
    tags = data.splits["train"].tags
    assert tags is not None
    assert [each.tolist() for each in tags] == [[0, 1], [0, 2], []]
    data = table(root, train="t.csv", multi_label=True, label_separator=" ", val_fraction=0, test_fraction=0)
    assert data.class_names == ("jump", "run|jump", "walk|jump", "|") or "run|jump" in data.class_names


def test_a_table_for_each_split_and_none_for_training(root: Path) -> None:
    for name, clip in (("train", "a"), ("val", "b"), ("test", "c")):
        (root / f"{name}.csv").write_text(f"path,label,more\n{clip}.mp4,1,x\n{clip}2.mp4,0,x\n")
    data = table(root, train="train.csv", val="val.csv", test="test.csv")
    assert {s: (names(data, s), m.missing) for s, m in data.splits.items()} == {
        "train": (["a.mp4"], ("a2.mp4",)),
        "val": (["b.mp4"], ("b2.mp4",)),
        "test": (["c.mp4"], ("c2.mp4",)),
    }
    assert list(table(root, test="test.csv").splits) == ["test"]


def test_held_out(root: Path) -> None:
    (root / "v").mkdir()
    for n in range(40):
        (root / f"v/{n}.mp4").touch()
    (root / "t.csv").write_text("path,label\n" + "".join(f"v/{n}.mp4,{n % 2}\n" for n in range(40)))
    data = table(root, train="t.csv", val_fraction=0.1, test_fraction=0.2, group_by=r"(\d)\.mp4")
    assert [len(data.splits[s]) for s in ("train", "val", "test")] == [24, 8, 8]
    digits = [{name[-5] for name in names(data, s)} for s in ("train", "val", "test")]
    assert not digits[0] & digits[1]
    assert not digits[0] & digits[2]


BAD: dict[str, tuple[str, dict[str, object], str]] = {
    "no table": ("", {"train": None}, "no table is given: set data.train"),
    "no column": (
        "path,lable\na.mp4,1\n",
        {},
        r"t.csv: no column 'label' \(label_column\) \(did you mean lable\?\); it has",
    ),
    "twice": ("path,label,label\na.mp4,1,1\n", {}, "2 columns are called 'label'"),
    "no path": ("path,label\n,1\n", {}, r"t.csv:2: got ',1', expected a path in column 'path'"),
    "no label": ("path,label\na.mp4,1\nb.mp4,\nc.mp4,\n", {}, r":3: .*expected one label.*\(and 1 more such lines\)"),
    "short": ("path,label,x\na.mp4,1\n", {}, r":2: got 'a.mp4,1', expected 3 fields, as in the header: path,label,x"),
    "split": (
        "path,label,s\na.mp4,1,holdout\n",
        {"split_column": "s"},
        r":2: .*expected train, val or test in column 's'",
    ),
    "splits": ("path,label,s\na.mp4,1,train\n", {"split_column": "s", "val": "t.csv"}, "one table holds all splits"),
    "seconds": (
        "path,label,s\na.mp4,1,soon\n",
        {"start_column": "s"},
        r":2: .*expected seconds, 0 or more in column 's'",
    ),
    "minutes beside hours": ("path,label,s\na.mp4,1,1:75:00\n", {"start_column": "s"}, r":2: .*seconds, 0 or more"),
    "a long clock": (
        f"path,label,s\na.mp4,1,{'9' * 400}:00:00.5\n",
        {"start_column": "s"},
        r":2: .*seconds, 0 or more",
    ),
    "a start of inf": ("path,label,s\na.mp4,1,inf\n", {"start_column": "s"}, r":2: .*seconds, 0 or more"),
    "1_0": ("path,label,s\na.mp4,1,1_0\n", {"start_column": "s"}, r":2: .*expected seconds, 0 or more in column 's'"),
    "order": (
        "path,label,s,e\na.mp4,1,5,4\n",
        {"start_column": "s", "end_column": "e"},
        r":2: .*an end after the start in column 'e'",
    ),
    "empty": ("", {}, "t.csv: empty"),
    "point among commas": (
        'path,label,start,end\na.mp4,1,"0,5",2\nb.mp4,1,0,1.5\n',
        {},
        r":3: .*expected seconds with a point or with a comma throughout, not '1.5' among others in column 'end'",
    ),
    "a comma of thousands": (
        'path,label,s\na.mp4,1,"1,500"\n',
        {"start_column": "s"},
        r":2: .*expected 1500 or 1\.500 instead of '1,500', which may be either, in column 's'",
    ),
    "header twice": ("path,label\na.mp4,1\npath,label\n", {}, r":3: .*the names of the columns again; remove the line"),
    "bytes": ("path,label\na.mp4,b'c0'\nb.mp4,c1\n", {}, r"t\.csv:2: .*expected 'c0' instead of \"b'c0'\", as a pro"),
    "numpy's text": ("path,label\na.mp4,np.str_('c')\n", {}, r":2: .*expected 'c' instead of \"np\.str_\('c'\)\""),
    "separator": ("path,label\na.mp4,1\n", {"multi_label": True, "label_separator": ""}, "label_separator=''"),
    "label": ("path,label\na.mp4,1\nb.mp4,2\nc.mp4,x\n", {}, r":4: .*a class number from 1 to 2, not 'x'"),
    "kind": ("", {"train": "t.xlsx"}, r"t.xlsx: expected a table that ends in .csv, .tsv"),
    "parquet": ("", {"train": "t.parquet"}, r"t.parquet: not a Parquet file that can be read"),
    "json": ("", {"train": "t.json"}, r"t.json:1: not JSON: "),
    "jsonl": ("", {"train": "t.jsonl"}, r"t.jsonl:2: got '\[1\]', expected an object"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tables(root: Path, name: str) -> None:
    text, options, says = BAD[name]
    (root / "t.csv").write_text(text)
    (root / "t.xlsx").write_text("")
    (root / "t.parquet").write_text("nothing")
    (root / "t.json").write_text("[{]")
    (root / "t.jsonl").write_text('{"path": "a.mp4", "label": 1}\n[1]\n')
    if name == "parquet":
        pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match=says) as error:
        table(root, **{"train": "t.csv", **options})  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_parquet_without_pyarrow_is_one_clear_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (root / "t.parquet").touch()
    with pytest.raises(DataError, match=r"Parquet is read by pyarrow; pip install 'vidtrain\[parquet\]'"):
        table(root, train="t.parquet")


def test_80_thousand_rows_take_two_seconds(root: Path) -> None:
    lines = "".join(f"{'abc'[n % 3]}.mp4,{n % 400},train,{n}.5\n" for n in range(80_000))
    (root / "t.csv").write_text("path,label,part,from\n" + lines)
    start = time.process_time()
    data = table(root, train="t.csv", split_column="part", start_column="from", val_fraction=0, test_fraction=0)
    assert len(data.splits["train"]) == 80_000
    assert time.process_time() - start < 2


def times(data: VideoData) -> tuple[list[float], list[float]] | None:
    train = data.splits["train"]
    return None if train.starts is None or train.ends is None else (train.starts.tolist(), train.ends.tolist())


FOUND: dict[str, tuple[str, dict[str, str], tuple[list[float], list[float]] | None, str]] = {
    "start, end": ("start,end\n1,2.5\n,0:04\n", {}, ([1, 0], [2.5, 4]), "times from the columns start, end; "),
    "decimal commas": ('start,end\n"0,5","2,25"\n1,0:04\n', {}, ([0.5, 1], [2.25, 4]), "times from the columns start"),
    "duration": ("Start (s),Duration\n1,2\n3,\n", {}, ([1, 3], [3, float("inf")]), "columns Start (s), Duration; "),
    "one is named": ("s,stop\n1,2\n3,4\n", {"start_column": "s"}, ([1, 3], [2, 4]), "times from the column stop; "),
    "no, said of the start": ("start,end\n1,2\n3,4\n", {"start_column": ""}, None, ""),
    "no, said of the end": (
        "start,end\n1,2\n3,4\n",
        {"start_column": "start", "end_column": ""},
        ([1, 3], [float("inf")] * 2),
        "",
    ),
    "both are named": ("s,end,e\n1,9,2\n3,9,4\n", {"start_column": "s", "end_column": "e"}, ([1, 3], [2, 4]), ""),
    "text": (
        "start,end\n1,2\nhere,there\n",
        {},
        None,
        "not used: the columns start, end: 'start' has no seconds at line 3",
    ),
    "nothing": ("start,end\n1,\n2,\n", {}, None, "'end' is empty; data.start_column and data.end_column name others"),
    "a start": ("start,x\n1,2\n3,4\n", {}, None, "or data.start_column='start' uses it alone"),
    "an end": ("end,x\n1,2\n3,4\n", {}, None, "or data.end_column='end' uses it alone"),
    "the length of files": ("duration,x\n1,2\n3,4\n", {}, None, ""),
    "frames": ("start_frame,end_frame\n1,2\n3,4\n", {}, None, "data=table takes seconds; data=segments reads frames"),
}


@pytest.mark.parametrize("name", FOUND)
def test_times_are_found_by_the_names_of_columns(root: Path, name: str) -> None:
    text, options, expected, says = FOUND[name]
    header, first, second, _ = text.split("\n")
    (root / "t.csv").write_text(f"path,label,{header}\na.mp4,x,{first}\nb.mp4,y,{second}\n")
    data = table(root, train="t.csv", val_fraction=0, test_fraction=0, **options)  # type: ignore[arg-type]
    assert times(data) == expected
    notes = [note for note in data.notes if note.startswith("t.csv: ")]
    assert len(notes) == bool(says), notes
    assert says in "".join(notes)


def test_found_times_that_are_none_name_the_way_out(root: Path) -> None:
    (root / "t.csv").write_text("path,label,start,end\na.mp4,x,1,2\nb.mp4,y,4,3\n")
    with pytest.raises(DataError, match=r":3: .*an end after the start \(data.start_column='' takes whole videos\)"):
        table(root, train="t.csv")
    (root / "t.csv").write_text("path,label,start,start,end\na.mp4,x,1,1,2\n")
    with pytest.raises(DataError, match="2 columns are called 'start'"):
        table(root, train="t.csv")


@pytest.mark.parametrize(("label", "several"), [({"a": [1]}, False), ({"a": 1}, True), ([["a"]], True)])
def test_a_label_that_is_no_text_is_refused_with_its_row(root: Path, label: object, several: bool) -> None:
    rows = [{"path": "a.mp4", "label": 1}, {"path": "b.mp4", "label": label}]
    (root / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"t.jsonl:2: .*expected text or a number in column 'label'$"):
        table(root, train="t.jsonl", multi_label=several)


def test_a_comma_between_semicolons_is_a_decimal_point(root: Path) -> None:
    (root / "t.csv").write_text("path;label;start;end\na.mp4;np.int64(0);0;1,500\nb.mp4;np.int64(1);0,125;0:02,5\n")
    data = table(root, train="t.csv", val_fraction=0, test_fraction=0)
    assert times(data) == ([0, 0.125], [1.5, 2.5])
    assert data.class_names == ("0", "1")  # NumPy's numbers as it prints them
