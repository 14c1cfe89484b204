from __future__ import annotations

import json
import time
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from vidtrain.data.formats.lists import lists
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.errors import DataError

CLIPS = ("clips/a.mp4", "clips/b.mp4", "clips/c.mp4", "clips/d.mp4")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "clips").mkdir()
    for name in (*CLIPS, "clips/with space.mp4", "clips/with, comma.mp4"):
        (tmp_path / name).touch()
    return tmp_path


def read(root: Path, text: str | bytes, **options: object) -> VideoData:
    (root / "train.txt").write_bytes(text.encode() if isinstance(text, str) else text)
    options = {"val_fraction": 0, "test_fraction": 0, **options}
    return lists(root, train="train.txt", **options)  # type: ignore[arg-type]


def rows(root: Path, data: VideoData, split: str = "train") -> list[tuple[str, str]]:
    """(path below root, class name) of each row."""
    m = data.splits[split]
    return [
        (str(Path(p).relative_to(root)), data.class_names[k]) for p, k in zip(m.paths, m.labels.tolist(), strict=True)
    ]


EXPECTED = [("clips/a.mp4", "run"), ("clips/b.mp4", "walk"), ("clips/c.mp4", "run")]
SAME = {
    "comma": "clips/a.mp4,run\nclips/b.mp4,walk\nclips/c.mp4,run\n",
    "tab": "clips/a.mp4\trun\nclips/b.mp4\twalk\nclips/c.mp4\trun\n",
    "space": "clips/a.mp4 run\nclips/b.mp4 walk\nclips/c.mp4 run\n",
    "many spaces": "clips/a.mp4   run\n clips/b.mp4 walk \nclips/c.mp4 \trun\n",
    "no newline at the end": "clips/a.mp4 run\nclips/b.mp4 walk\nclips/c.mp4 run",
    "windows": "clips/a.mp4,run\r\nclips/b.mp4,walk\r\nclips/c.mp4,run\r\n",
    "old mac": "clips/a.mp4,run\rclips/b.mp4,walk\rclips/c.mp4,run\r",
    "blank lines": "\n\nclips/a.mp4 run\n  \nclips/b.mp4 walk\n\nclips/c.mp4 run\n\n",
    "byte order mark": "\ufeffclips/a.mp4,run\nclips/b.mp4,walk\nclips/c.mp4,run\n",
    "empty rows of a spreadsheet": "sep=,\nclips/a.mp4,run\n,\n,,\nclips/b.mp4,walk\nclips/c.mp4,run\n,\n",
    "separators at the ends": "clips/a.mp4,run,\nclips/b.mp4,walk,\nclips/c.mp4,run,\n",
    "separators at the ends of rows": "path\tlabel\nclips/a.mp4\trun\t\nclips/b.mp4\twalk\t\nclips/c.mp4\trun\t\n",
    "quoted": '"clips/a.mp4","run"\n"clips/b.mp4","walk"\nclips/c.mp4,run\n',
    "header": "path,label\nclips/a.mp4,run\nclips/b.mp4,walk\nclips/c.mp4,run\n",
    "header in capitals": "Video_Path, Label\nclips/a.mp4, run\nclips/b.mp4, walk\nclips/c.mp4, run\n",
    "header with unknown names": "wo,was\nclips/a.mp4,run\nclips/b.mp4,walk\nclips/c.mp4,run\n",
    "header and space": "file class\nclips/a.mp4 run\nclips/b.mp4 walk\nclips/c.mp4 run\n",
    "label first": "label,path\nrun,clips/a.mp4\nwalk,clips/b.mp4\nrun,clips/c.mp4\n",
    "more columns": "id,label,clip_name,clip_path\n1,run,x,clips/a.mp4\n2,walk,y,clips/b.mp4\n3,run,z,clips/c.mp4\n",
    "dots": "./clips/a.mp4,run\nclips/../clips/b.mp4,walk\nclips//c.mp4,run\n",
}


@pytest.mark.parametrize("name", SAME)
def test_one_list_in_many_forms(root: Path, name: str) -> None:
    data = read(root, SAME[name])
    assert data.class_names == ("run", "walk")
    found = [(str((root / path).resolve().relative_to(root.resolve())), label) for path, label in rows(root, data)]
    assert found == EXPECTED


@pytest.mark.parametrize(
    "text",
    [
        "clips/with space.mp4,run\nclips/a.mp4,walk",
        "clips/with space.mp4\trun\nclips/a.mp4\twalk",
        "clips/with space.mp4 run\nclips/a.mp4 walk",
        '"clips/with space.mp4" run\nclips/a.mp4 walk',
    ],
)
def test_paths_with_spaces(root: Path, text: str) -> None:
    assert rows(root, read(root, text)) == [("clips/with space.mp4", "run"), ("clips/a.mp4", "walk")]


def test_labels_with_spaces_and_paths_with_commas(root: Path) -> None:
    data = read(root, '"clips/with, comma.mp4",play chess\nclips/a.mp4,run\n')
    assert rows(root, data) == [("clips/with, comma.mp4", "play chess"), ("clips/a.mp4", "run")]
    data = read(root, "clips/with, comma.mp4 run\nclips/a.mp4 run\nclips/b.mp4 run")
    assert rows(root, data)[0] == ("clips/with, comma.mp4", "run")


def test_absolute_paths_and_paths_beside_the_list(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("lists")
    (elsewhere / "own.mp4").touch()
    (elsewhere / "train.txt").write_text(f"{root}/clips/a.mp4 x\nclips/b.mp4 x\nown.mp4 y\n")
    data = lists(root, train=str(elsewhere / "train.txt"), val_fraction=0, test_fraction=0)
    assert list(data.splits["train"].paths) == [f"{root}/clips/a.mp4", f"{root}/clips/b.mp4", f"{elsewhere}/own.mp4"]


def test_a_header_can_be_forced_and_forbidden(root: Path) -> None:
    text = "clips/a.mp4,run\nclips/b.mp4,run\n"
    assert len(read(root, text, header=True).splits["train"]) == 1
    assert len(read(root, text, header=False).splits["train"]) == 2


def test_a_video_with_a_class_of_its_own_in_line_one_is_no_header(root: Path) -> None:
    assert len(read(root, "clips/a.mp4,jump\nclips/b.mp4,run\nclips/c.mp4,run\n").splits["train"]) == 3


def test_a_first_line_whose_file_is_on_disk_is_no_header(root: Path) -> None:
    (root / "clips/raw.braw").touch()
    data = read(root, "clips/raw.braw,jump\nclips/b.mp4,run\nclips/c.mp4,run\n")
    assert rows(root, data)[0] == ("clips/raw.braw", "jump")
    (root / "raw").touch()
    data = read(root, "raw jump\nclips/b.mp4 run\nclips/c.mp4 run\n")
    assert rows(root, data)[0] == ("raw", "jump")
    pictures(root, "one", "two")
    assert rows(root, read(root, "one,x\ntwo,3\n", classes=None))[0] == ("one", "x")


def test_a_first_line_with_a_path_is_no_header(root: Path) -> None:
    with pytest.raises(DataError, match=r"train.txt:1: .*'clips/gone.braw' is not on disk and has no video extension"):
        read(root, "clips/gone.braw,jump\nclips/b.mp4,run\nclips/c.mp4,run\n")


def test_a_header_may_name_the_folder_of_the_videos(root: Path) -> None:
    data = read(root, "clips,what\nclips/a.mp4,run\nclips/b.mp4,walk\n")
    assert len(data.splits["train"]) == 2


@pytest.mark.parametrize(("header", "said"), [("wo,was", True), ("path,label", False), ("File,Class", False)])
def test_a_header_that_was_guessed_is_said(root: Path, header: str, said: bool) -> None:
    data = read(root, f"{header}\nclips/a.mp4,run\nclips/b.mp4,walk\n")
    assert any(f":1: '{header}' is read as a header; data.header=false" in note for note in data.notes) is said


def test_times_that_a_list_has_no_use_for_are_named(root: Path) -> None:
    data = read(root, "path,label,Start,end\nclips/a.mp4,run,1,2\nclips/b.mp4,walk,0,1\n")
    note = "not used: the columns Start and end: data=list takes whole videos, data=table reads them"
    assert any(one.endswith(note) for one in data.notes)


def test_a_list_without_a_header_may_start_with_any_video(test_cases: Path, root: Path) -> None:
    text = (test_cases / "header_eats_row" / "q.csv").read_text()
    for line in text.splitlines():
        (root / line.split(",")[0]).parent.mkdir(exist_ok=True)
        (root / line.split(",")[0]).touch()
    assert rows(root, read(root, text)) == [tuple(line.split(",")) for line in text.splitlines()]


@pytest.mark.parametrize("zero", [".0", ".00", "."])
def test_labels_that_a_spreadsheet_made_decimal_are_the_numbers(root: Path, zero: str) -> None:
    text = f"clips/a.mp4,0{zero}\nclips/b.mp4,6{zero}\nclips/c.mp4,12{zero}\n"
    data, whole = read(root, text), read(root, text.replace(zero + "\n", "\n"))
    assert data.class_names == whole.class_names == tuple(str(n) for n in range(13))
    assert data.splits["train"].labels.tolist() == [0, 6, 12]


@pytest.mark.parametrize("form", ["{},0", "{},00", "{}.000000000000000000e+00"])
def test_labels_as_spreadsheets_and_numpy_write_them(root: Path, form: str) -> None:
    text = "".join(f"{clip};{form.format(n)}\n" for clip, n in zip(CLIPS, (0, 6, 12), strict=False))
    data = read(root, text)
    assert data.class_names == tuple(str(n) for n in range(13))
    assert data.splits["train"].labels.tolist() == [0, 6, 12]


def test_thousands_are_not_ones(root: Path) -> None:
    assert read(root, "clips/a.mp4\t1,000\nclips/b.mp4\t2,000\n").class_names == ("1,000", "2,000")


def test_commas_in_names_between_semicolons(root: Path) -> None:
    for name in ("a, 1.mp4", "a; 2.mp4"):
        (root / name).touch()
    assert rows(root, read(root, "a, 1.mp4;x\nclips/a.mp4;y,z\n")) == [("a, 1.mp4", "x"), ("clips/a.mp4", "y,z")]
    assert rows(root, read(root, "a; 2.mp4,x\nclips/a.mp4,y;z\n")) == [("a; 2.mp4", "x"), ("clips/a.mp4", "y;z")]


def test_decimal_labels_of_the_case(test_cases: Path, tmp_path: Path) -> None:
    text = (test_cases / "float_labels" / "flt12.csv").read_text()
    for name in [line.split(",")[0] for line in text.splitlines()[1:]]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "flt12.csv").write_text(text)
    data = lists(tmp_path, train="flt12.csv", val_fraction=0, test_fraction=0)
    assert data.class_names == tuple(str(n) for n in range(13))
    assert Counter(data.splits["train"].labels.tolist()) == {0: 8, 6: 8, 12: 8}


def test_zeros_before_a_number_mean_nothing(root: Path) -> None:
    data = read(root, "clips/a.mp4,01\nclips/b.mp4,02\nclips/c.mp4,1\nclips/d.mp4,00\n")
    assert data.class_names == ("0", "1", "2")
    assert data.splits["train"].labels.tolist() == [1, 2, 1, 0]


def test_decimals_that_are_no_whole_numbers_are_names(root: Path) -> None:
    assert read(root, "clips/a.mp4,1.5\nclips/b.mp4,0.5\nclips/c.mp4,2.0\n").class_names == ("0.5", "1.5", "2.0")


def test_json_labels_with_a_point_are_numbers(root: Path) -> None:
    entries = [{"filename": name, "label": 3.0 * n} for n, name in enumerate(CLIPS[:2])]
    (root / "l.json").write_text(json.dumps(entries))
    data = lists(root, train="l.json", val_fraction=0, test_fraction=0)
    assert not data.multi_label
    assert data.splits["train"].labels.tolist() == [0, 3]


def test_a_video_listed_with_two_labels_is_said(root: Path) -> None:
    data = read(root, "clips/a.mp4,run\nclips/b.mp4,walk\nclips/a.mp4,walk\nclips/b.mp4,walk\n")
    (note,) = (note for note in data.notes if note.startswith("listed"))
    assert note.startswith(f"listed with two labels: 1 video (first: {root}/clips/a.mp4: 'run' and 'walk')")
    assert len(data.splits["train"]) == 4  # it is said, and trains


def test_a_video_with_one_label_in_train_and_another_in_val_is_said(root: Path) -> None:
    (root / "val.csv").write_text("clips/a.mp4,walk\nclips/d.mp4,run\n")
    data = read(root, "clips/a.mp4,run\nclips/b.mp4,walk\n", val="val.csv")
    assert any("listed with two labels: 1 video" in note for note in data.notes)
    data = read(root, "clips/a.mp4,walk\nclips/b.mp4,run\n", val="val.csv")
    assert not any("two labels" in note for note in data.notes)


def test_paths_as_windows_writes_them(root: Path) -> None:
    data = read(root, "clips\\a.mp4,run\n.\\clips\\b.mp4,walk\nclips/c.mp4,run\n")
    assert rows(root, data) == EXPECTED
    assert not data.splits["train"].missing
    assert r"train: 2 paths are written with \ for / and were found so (first: clips\a.mp4)" in data.notes


@pytest.mark.parametrize(("listed", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_letters_with_accents_are_found_in_either_form(root: Path, listed: str, stored: str) -> None:
    name = "Grüße/Café é.mp4"
    path = root / unicodedata.normalize(stored, name)  # type: ignore[arg-type]
    path.parent.mkdir()
    path.touch()
    text = unicodedata.normalize(listed, f"{name},run\n{root}/{name},walk\n")  # type: ignore[arg-type]
    data = read(root, text + "clips/a.mp4,run\n")
    assert list(data.splits["train"].paths) == [str(path), str(path), str(root / "clips/a.mp4")]
    assert any("2 paths are written with another Unicode form (NFC, NFD)" in note for note in data.notes)
    (root / unicodedata.normalize(listed, name)).parent.mkdir()  # type: ignore[arg-type]
    (root / unicodedata.normalize(listed, name)).touch()  # type: ignore[arg-type]
    assert read(root, text).splits["train"].paths[0] != str(path)  # the exact name is taken first


def test_labels_in_two_forms_are_one_class(root: Path) -> None:
    one, other = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    text = f"clips/a.mp4,{one}\nclips/b.mp4,{other}\nclips/c.mp4,tea\n"
    data = read(root, text)
    assert data.class_names == (one, "tea") or data.class_names == ("tea", one)
    assert len(set(data.splits["train"].labels[:2].tolist())) == 1
    assert any(note == f"labels in two Unicode forms (NFC, NFD) are taken for one class: {one}" for note in data.notes)
    (root / "names.txt").write_text(f"tea\n{other}\n")
    assert read(root, text, classes="names.txt").splits["train"].labels.tolist() == [1, 1, 0]
    assert read(root, f"clips/a.mp4,{other}\nclips/b.mp4,tea\n").class_names == (other, "tea")  # as it is written


def test_names_of_classes_that_are_nearly_the_same_are_said(root: Path) -> None:
    notes = " ".join(read(root, "clips/a.mp4,Sit_down\nclips/b.mp4,sit down\nclips/c.mp4,tea\n").notes)
    assert "alone: 'Sit_down' and 'sit down'; are they one?" in notes
    assert "are they one?" not in " ".join(read(root, SAME["comma"]).notes)


def test_a_negative_number_is_no_name_of_a_class(root: Path) -> None:
    with pytest.raises(DataError, match=r":2: .*a label among the 2 classes, not '-1'; .* without a label: remove"):
        read(root, "clips/a.mp4,run\nclips/b.mp4,-1\nclips/c.mp4,walk\n")


def test_home_is_understood(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root))
    (root / "train.txt").write_text("~/clips/a.mp4,run\n~/clips/b.mp4,walk\n")
    options = {"val_fraction": 0, "test_fraction": 0}
    data = lists("~/clips", train="~/train.txt", **options)  # type: ignore[arg-type]
    assert rows(root, data) == EXPECTED[:2]


@pytest.mark.parametrize("start", ["/mnt/other/", "C:\\Users\\me\\", "data/"])
def test_paths_of_another_machine_are_said(root: Path, start: str) -> None:
    with pytest.raises(DataError, match=r"clips/a\.mp4 is there: write the paths of the list from data.root on"):
        read(root, f"{start}clips/a.mp4,run\n{start}clips/b.mp4,walk\n")


def test_numbers_count_from_0(root: Path) -> None:
    data = read(root, "clips/a.mp4 0\nclips/b.mp4 2\n")
    assert data.class_names == ("0", "1", "2")
    assert data.splits["train"].labels.tolist() == [0, 2]
    assert any("no video of 1 of 3 classes (1)" in note for note in data.notes)


def test_numbers_from_1_without_a_0_count_from_1(root: Path) -> None:
    data = read(root, "clips/a.mp4 2\nclips/b.mp4 1\nclips/c.mp4 3\n")
    assert data.class_names == ("1", "2", "3")
    assert data.splits["train"].labels.tolist() == [1, 0, 2]
    assert any("taken to count from 1" in note for note in data.notes)


def test_all_lists_together_decide_where_numbers_start(root: Path) -> None:
    (root / "val.txt").write_text("clips/d.mp4 0\n")
    data = read(root, "clips/a.mp4 1\nclips/b.mp4 2\n", val="val.txt")
    assert data.splits["train"].labels.tolist() == [1, 2]


@pytest.mark.parametrize(("labels", "expected"), [("0 1", [0, 1]), ("1 3", [0, 2]), ("1 2", [1, 2]), ("b c", [1, 2])])
def test_a_file_of_classes(root: Path, labels: str, expected: list[int]) -> None:
    (root / "classes.txt").write_text("a\nb\nc\n")
    first, second = labels.split()
    data = read(root, f"clips/a.mp4 {first}\nclips/b.mp4 {second}\n", classes="classes.txt")
    assert data.class_names == ("a", "b", "c")
    assert data.splits["train"].labels.tolist() == expected


def test_classes_that_are_called_by_numbers(root: Path) -> None:
    (root / "classes.txt").write_text("7\n5\n0\n")
    assert read(root, "clips/a.mp4 0\nclips/b.mp4 7\n", classes="classes.txt").splits["train"].labels.tolist() == [2, 0]


def test_held_out_splits(root: Path) -> None:
    for n in range(40):
        (root / f"clips/{n}.mp4").touch()
    text = "".join(f"clips/{n}.mp4 {n % 2}\n" for n in range(40))
    data = read(root, text, val_fraction=0.1, test_fraction=0.2)
    assert {s: Counter(m.labels.tolist()) for s, m in data.splits.items()} == {
        "train": {0: 14, 1: 14},
        "val": {0: 2, 1: 2},
        "test": {0: 4, 1: 4},
    }
    (root / "test.txt").write_text("clips/a.mp4 0\nclips/b.mp4 1\n")
    data = read(root, text, test="test.txt", val_fraction=0.1, test_fraction=0.2)
    assert {s: len(m) for s, m in data.splits.items()} == {"train": 36, "val": 4, "test": 2}


def test_videos_that_are_not_on_disk(root: Path) -> None:
    data = read(root, "clips/a.mp4 0\nclips/gone.mp4 1\nclips/b.mp4 1\n")
    assert len(data.splits["train"]) == 2
    assert data.splits["train"].missing == ("clips/gone.mp4",)
    assert "train: 1 of 3 listed videos are not on disk (first: clips/gone.mp4)" in data.notes
    with pytest.raises(DataError, match=r"none of the 2 listed videos is on disk below .*first: x/a.mp4"):
        read(root, "x/a.mp4 0\nx/b.mp4 1\n")


def test_leaks_and_repeats_are_told(root: Path) -> None:
    (root / "val.txt").write_text("clips/b.mp4 1\nclips/d.mp4 0\n")
    data = read(root, "clips/a.mp4 0\nclips/b.mp4 1\nclips/a.mp4 0\n", val="val.txt")
    assert "videos both in train and in val: 1 (b.mp4); scores will be too good" in data.notes
    assert "train: rows that name a video once more: 1" in data.notes


BAD: dict[str, tuple[str, dict[str, object], str]] = {
    "no label": (
        "clips/a.mp4,run\nclips/b.mp4\nclips/c.mp4,run\n",
        {},
        r"train.txt:2: got 'clips/b.mp4', expected path,",
    ),
    "more": (
        "clips/a.mp4,run\nb\nc\nclips/c.mp4,\nclips/d.mp4,run\na,b",
        {},
        r":2: got 'b'.*\(and 2 more such lines\)",
    ),
    "three fields": (
        "clips/a.mp4,1,2\n" + "clips/b.mp4,3\nclips/c.mp4,4\n" * 9,
        {},
        r":1: .*quote a field that holds the separator; columns='path labels' takes several labels",
    ),
    "named labels": ("clips/a.mp4,run,jump\nclips/b.mp4,walk,run\n", {}, r":1: .*columns='path labels' takes several"),
    "no video": ("clips/a 0\nclips/b.mp4 1", {}, r":1: .*'clips/a' is not on disk and has no video extension"),
    "odd number": ("clips/a.mp4 0\nclips/b.mp4 l\nclips/c.mp4 1", {}, r":2: .*a class number from 0 to 1, not 'l'"),
    "negative": (
        "clips/a.mp4 0\nclips/b.mp4 -1\nclips/c.mp4 1",
        {},
        r":2: .*from 0 to 1, not '-1'; .* without a label: remove",
    ),
    "all negative": ("clips/a.mp4 -1\nclips/b.mp4 -1", {}, r":1: .*not '-1'; .* without a label: remove .*1 more"),
    "negative decimal": ("clips/a.mp4 0\nclips/b.mp4 -1.0\nclips/c.mp4 1", {}, r":2: .*not '-1.0'; .* remove"),
    "half": ("clips/a.mp4 0.0\nclips/b.mp4 1.5\nclips/c.mp4 1", {}, r":2: .*class number from 0 to 1, not '1.5'"),
    "huge": ("clips/a.mp4 0\nclips/b.mp4 999999\nclips/c.mp4 1", {}, r":2: .*from 0 to 99999, not '999999'"),
    "too high": ("clips/a.mp4 0\nclips/b.mp4 3", {"classes": "names.txt"}, r":2: .*from 0 to 2, not '3'"),
    "typo": (
        "clips/a.mp4 run\nclips/b.mp4 wolk",
        {"classes": "names.txt"},
        r"3 classes, not 'wolk' \(did you mean walk",
    ),
    "empty": ("\n \n", {}, r"train.txt: empty"),
    "not text": ("clips/a.mp4\0", {}, r"train.txt: not UTF-8 text"),
    "open quote": ('clips/a.mp4,run\n"clips/b.mp4,run\nclips/c.mp4,run', {}, r":2: .*balanced quotes"),
    "long quote": ('clips/a.mp4,run\n"clips/b,\nclips/c.mp4",run', {}, r":2: .*balanced quotes"),
    "header": ("id,label,size\n1,run,3\n2,run,4", {}, r":1: the header \(id, label, size\) has no column for the path"),
    "separator": ("clips/a.mp4 0", {"separator": "tabs"}, r"separator='tabs': .*did you mean tab"),
    "columns": ("clips/a.mp4 0", {"columns": "path lable"}, r"columns='path lable': .*did you mean path label"),
    "no total": ("clips 0 1", {"columns": "path total label"}, r":1: .*expected path total label, with whole numbers"),
    "offset": ("clips x 4 1", {"columns": "path offset total label"}, r"with whole numbers of images"),
    "too few": ("clips 4", {"columns": "path total label"}, r":1: got 'clips 4', expected path total label"),
    "header twice": ("path,label\npath,label\nclips/a.mp4,run", {}, r":2: .*the names of the columns again; remove"),
    "header option": ("clips/a.mp4 0", {"header": "yes"}, r"header='yes': expected auto, true or false"),
    "no val": ("clips/a.mp4 0", {"val": "trian.txt"}, r"val=trian.txt: no such file below .*did you mean train.txt"),
    "nothing for test": ("clips/a.mp4 0\nclips/b.mp4 1", {"test_fraction": 0.2}, r"nothing is left for test"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_lists(root: Path, name: str) -> None:
    (root / "names.txt").write_text("jump\nrun\nwalk\n")
    text, options, says = BAD[name]
    with pytest.raises(DataError, match=says) as error:
        read(root, text, **options)
    assert "\n" not in str(error.value)


def test_utf16_is_named(root: Path) -> None:
    with pytest.raises(DataError, match="save it as UTF-8"):
        read(root, "clips/a.mp4 0".encode("utf-16"))


def test_bytes_that_are_not_utf8_reach_the_file_system(root: Path) -> None:
    data = read(root, b"clips/a.mp4 0\nclips/\xff.mp4 1\n")
    assert data.splits["train"].missing == ("clips/\udcff.mp4",)


def test_real_lists(test_videos: Path) -> None:
    data = lists(
        test_videos / "ucf101_3c",
        train="train_split1.csv",
        test="test_split1.csv",
        classes="classes.txt",
        val_fraction=0.1,
        group_by=r"(\w+_g\d+)_c",
    )
    assert data.class_names == ("BabyCrawling", "Punch", "PushUps")
    assert {s: len(m) for s, m in data.splits.items() if s != "val"}["test"] == 65
    assert len(data.splits["train"]) + len(data.splits["val"]) == 290
    groups = [{Path(p).name.split("_c")[0] for p in data.splits[s].paths} for s in ("train", "val", "test")]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    shapes = lists(test_videos / "motion_shapes", train="train.csv", test="test.csv", val_fraction=0)
    assert {s: len(m) for s, m in shapes.splits.items()} == {"train": 81, "test": 54}
    assert not shapes.splits["train"].missing


def pictures(root: Path, *names: str, count: int = 3) -> None:
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"img_{number + 1:05d}.jpg").touch()


def times(data: VideoData, split: str = "train") -> list[tuple[float, float]]:
    m = data.splits[split]
    assert m.starts is not None
    assert m.ends is not None
    return list(zip((m.starts * 30).round(6).tolist(), (m.ends * 30).round(6).tolist(), strict=True))


def tags(data: VideoData, split: str = "train") -> list[list[int]]:
    found = data.splits[split].tags
    assert found is not None
    return [each.tolist() for each in found]


def test_folders_of_pictures(root: Path) -> None:
    pictures(root, "frames/1", "frames/take 2")
    gone = "".join(f"frames/gone{n} 20 1\n" for n in range(10))
    data = read(root, f"frames/1 40 0\nframes/take 2 30 1\n{gone}")
    assert rows(root, data) == [("frames/1", "0"), ("frames/take 2", "1")]
    assert times(data) == [(0, 40), (0, 30)]
    assert data.splits["train"].missing[0] == "frames/gone0"
    assert any("read as 'path total label'" in note for note in data.notes)
    data = read(root, "frames/1 5 40 0\nframes/take 2 0 30 1\n", columns="path offset total label")
    assert times(data) == [(5, 45), (0, 30)]
    assert not data.multi_label


def test_a_folder_called_by_a_number_needs_its_columns_named(root: Path) -> None:
    pictures(root, "take 1", "take 2")
    data = read(root, "take 1 0\ntake 2 1\n", columns="path label")
    assert rows(root, data) == [("take 1", "0"), ("take 2", "1")]
    assert data.splits["train"].starts is None


@pytest.mark.parametrize("joint", [" ", ",", "\t", ";"])
def test_several_labels(root: Path, joint: str) -> None:
    text = "clips/a.mp4 0 3\nclips/b.mp4 2\nclips/c.mp4 4 2 4\n".replace(" ", joint)
    data = read(root, text)
    assert data.multi_label
    assert tags(data) == [[0, 3], [2], [2, 4]]
    assert data.splits["train"].labels.tolist() == [0, 2, 2]
    assert data.class_names == ("0", "1", "2", "3", "4")
    pictures(root, "x", "y")
    data = read(root, "x 5 0\ny 5 3 2\n".replace(" ", joint))
    assert tags(data) == [[0], [2, 3]]
    assert times(data) == [(0, 5), (0, 5)]


def test_several_labels_by_name(root: Path) -> None:
    data = read(root, "clips/a.mp4;run;jump\nclips/b.mp4;walk\n", columns="path labels")
    assert data.class_names == ("jump", "run", "walk")
    assert tags(data) == [[0, 1], [2]]


def test_held_out_rows_keep_their_labels_and_times(root: Path) -> None:
    pictures(root, *(f"p/{n}" for n in range(20)), count=1)
    lines = "".join(f"p/{n} {n + 1} {n % 2} {2 + n % 3}\n" for n in range(20))
    data = read(root, lines, columns="path total labels", val_fraction=0.2, test_fraction=0.2)
    for split in ("train", "val", "test"):
        for path, own, (_, end) in zip(data.splits[split].paths, tags(data, split), times(data, split), strict=True):
            n = int(Path(path).name)
            assert (own, end) == ([n % 2, 2 + n % 3], n + 1)


def test_only_a_test_list(root: Path) -> None:
    (root / "test.txt").write_text("clips/a.mp4 run\nclips/b.mp4 walk\n")
    data = lists(root, test="test.txt")
    assert {s: len(m) for s, m in data.splits.items()} == {"test": 2}
    with pytest.raises(DataError, match=r"no list is given: set data.train, or data.val or data.test"):
        lists(root)


def test_leaks_by_name_and_by_group_are_told(root: Path) -> None:
    for name in ("x/p1_a.mp4", "y/p1_a.mp4", "x/p2_b.mp4", "y/p2_c.mp4"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    (root / "val.txt").write_text("y/p1_a.mp4 0\ny/p2_c.mp4 1\n")
    data = read(root, "x/p1_a.mp4 0\nx/p2_b.mp4 1\n", val="val.txt", group_by=r"p\d")
    assert "groups both in train and in val: 2 (p1, p2); scores will be too good" in data.notes
    assert any(note.startswith("files of the same name both in train and in val: 1 (p1_a.mp4)") for note in data.notes)


def test_names_that_are_mere_numbers_are_no_leak(root: Path) -> None:
    for name in ("a/1.mp4", "b/1.mp4", "c/1.mp4", "d/1.mp4"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    (root / "val.txt").write_text("c/1.mp4 0\nd/1.mp4 1\n")
    assert not read(root, "a/1.mp4 0\nb/1.mp4 1\n", val="val.txt").notes


def test_classes_that_a_flip_exchanges(root: Path) -> None:
    data = read(root, "clips/a.mp4,swipe_left\nclips/b.mp4,swipe_right\nclips/c.mp4,turn left\n")
    assert data.flip_pairs == (("swipe_left", "swipe_right"),)
    assert any("changes what 'turn left' shows" in note for note in data.notes)


SLOWFAST = """original_vido_id video_id frame_id path labels
YSKX3 0 0 YSKX3/YSKX3-000001.jpg ""
YSKX3 0 1 YSKX3/YSKX3-000002.jpg "1,3"
YSKX3 0 2 YSKX3/YSKX3-000003.jpg "3,4"
T5ECU 1 0 T5ECU/T5ECU-000001.jpg "0"
"""


def test_lists_of_pictures(root: Path) -> None:
    pictures(root, "YSKX3", "T5ECU")
    data = read(root, SLOWFAST)
    assert [Path(path).name for path in data.splits["train"].paths] == ["YSKX3", "T5ECU"]
    assert tags(data) == [[1, 3, 4], [0]]
    single = SLOWFAST.replace('""', "2").replace('"1,3"', "2").replace('"3,4"', "2").replace('"', "")
    data = read(root, single)
    assert not data.multi_label
    assert data.splits["train"].labels.tolist() == [2, 0]
    with pytest.raises(DataError, match=r"train.txt:3: got 'YSKX3 0 1', expected video number image"):
        read(root, SLOWFAST.replace("YSKX3 0 1 YSKX3/YSKX3-000002.jpg", "YSKX3 0 1").replace(' "1,3"', ""))


def test_json_lists(root: Path) -> None:
    pictures(root, "imgs")
    content: list[dict[str, object]] = [
        {"filename": "clips/a.mp4", "label": 1},
        {"frame_dir": "imgs", "total_frames": 3, "label": 0},
        {"video_dir": "clips", "label": 1, "num_clips": 3, "positive_clip_inds": [0, 2]},
    ]
    for n in (0, 2):
        (root / f"clips/part_{n}.mp4").touch()
    (root / "list.json").write_text(json.dumps(content))
    data = lists(root, train="list.json", val_fraction=0, test_fraction=0)
    assert rows(root, data) == [
        ("clips/a.mp4", "1"),
        ("imgs", "0"),
        ("clips/part_0.mp4", "1"),
        ("clips/part_2.mp4", "1"),
    ]
    ends = data.splits["train"].ends
    assert ends is not None
    assert ends.tolist() == [float("inf"), 0.1, float("inf"), float("inf")]
    (root / "list.json").write_text(json.dumps([*content, {"filename": "clips/a.mp4", "label": {"action": "x"}}]))
    with pytest.raises(DataError, match=r'list.json: entry 4: got \'{"filename": "clips/a.mp4", .*and label'):
        lists(root, train="list.json")
    (root / "list.json").write_text(json.dumps([{"video_dir": "clips", "label": 1, "positive_clip_inds": None}]))
    with pytest.raises(DataError, match=r'list.json: entry 1: got \'{"video_dir": "clips", .*and label'):
        lists(root, train="list.json")


MMACTION = Path("annotations") / "mmaction2_tests" / "annotations"


@pytest.mark.parametrize(
    ("name", "count", "expected", "end"),
    [
        ("video_test_list.txt", 2, [0], None),
        ("video_test_list_multi_label.txt", 2, [[0, 3], [0, 2, 4]], None),
        ("rawframe_test_list.txt", 2, [127], (0, 5)),
        ("rawframe_test_list_multi_label.txt", 2, [[1], [3, 5]], (0, 5)),
        ("rawframe_test_list_with_offset.txt", 2, [127], (2, 7)),
        ("rawvideo_test_anno.json", 1, [0], None),
        ("hvu_frame_test_anno.json", 2, [12], (0, 5)),
        ("hvu_video_eval_test_anno.json", 2, [3], None),
    ],
)
def test_the_lists_of_mmaction2(
    test_videos: Path, tmp_path: Path, name: str, count: int, expected: list[object], end: tuple[int, int] | None
) -> None:
    pictures(tmp_path, "imgs", count=5)
    (tmp_path / "rawvideo_dataset").mkdir()
    for video in ("test.mp4", "test.avi", "tmp.mp4", "rawvideo_dataset/part_0.mp4"):
        (tmp_path / video).touch()
    path = str(test_videos / MMACTION / name)
    data = lists(tmp_path, train=path, val_fraction=0, test_fraction=0)
    assert len(data.splits["train"]) == count
    if isinstance(expected[0], list):
        assert tags(data) == expected
    elif name.startswith("hvu"):
        assert {len(each) for each in tags(data)} == set(expected)
        assert "action 180" in data.class_names or "action 2" in data.class_names
    else:
        assert set(data.splits["train"].labels.tolist()) == set(expected)
        assert not data.multi_label
    if end is None:
        assert data.splits["train"].starts is None
    else:
        assert set(times(data)) == {end}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("audio_test_list.txt", r":1: .*|none of the 2 listed videos"),
        ("proposal_test_list.txt", r":\d+: got '.*', expected"),
        ("action_test_anno.json", r"segments in whole videos, as ActivityNet has them; use data=activitynet"),
        ("video_text_test_list.json", r"no list of videos with labels"),
    ],
)
def test_lists_for_other_tasks_are_refused(test_videos: Path, name: str, says: str) -> None:
    folder = test_videos / MMACTION
    with pytest.raises(DataError, match=says) as error:
        lists(folder, train=name, val_fraction=0, test_fraction=0)
    assert "\n" not in str(error.value)


def test_80_thousand_lines_take_two_seconds(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/1.mp4").touch()
    lines = "".join(f"clips/{n % 2}.mp4,{n % 400}\n" for n in range(80_000))
    (tmp_path / "train.csv").write_text(lines)
    start = time.process_time()
    data = lists(tmp_path, train="train.csv", val_fraction=0, test_fraction=0)
    assert len(data.splits["train"]) == len(data.splits["train"].missing) == 40_000
    assert time.process_time() - start < 2  # 0.4 on an idle core; ten times that if each line is looked at slowly


def test_another_spelling_of_a_path_is_no_other_video(root: Path) -> None:
    (root / "val.txt").write_text("clips/../clips/b.mp4 1\n")
    data = read(root, "clips/a.mp4 0\nclips/b.mp4 1\nclips//a.mp4 0\n./clips/a.mp4 1\n", val="val.txt")
    assert "train: rows that name a video once more: 2" in data.notes
    assert "videos both in train and in val: 1 (b.mp4); scores will be too good" in data.notes
    assert any(note.startswith("listed with two labels: 1 video") for note in data.notes)
