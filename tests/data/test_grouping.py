"""Names that show groups, names that do not, and what is said about them."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from vidtrain.data.formats.folder import folder
from vidtrain.data.formats.lists import lists
from vidtrain.data.manifest.grouping import Grouping, find_grouping
from vidtrain.data.manifest.splits import group_names

Name = Callable[[str, int], str]
CLASSES = ("walk", "run", "jump", "sit")


def digest(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def of(name: Name, each: int = 40) -> Grouping | None:
    rows = [(name(k, i), label) for label, k in enumerate(CLASSES) for i in range(each)]
    return find_grouping([path for path, _ in rows], [label for _, label in rows])


def code(k: str) -> int:
    return CLASSES.index(k)


# the name, and how many groups there are in 4 classes of 40 videos
GROUPED: dict[str, tuple[Name, int]] = {
    "ucf101": (lambda k, i: f"{k}/v_{k}_g{i // 5 + 1:02d}_c{i % 5 + 1:02d}.avi", 32),
    "ucf101 as folders of images": (lambda k, i: f"{k}/v_{k}_g{i // 5 + 1:02d}_c{i % 5 + 1:02d}", 32),
    "patient": (lambda k, i: f"{k}/pat{i // 5}Image_{i}.mp4", 8),
    "set and video": (lambda k, i: f"{k}/set{i // 8}_vid{i}.mp4", 5),
    "S01": (lambda k, i: f"{k}/S{i // 5 + 1:02d}_{k}_{i % 5}.mp4", 8),
    "S01 and task": (lambda k, i: f"{k}/S{i // 5 + 1:02d}_T{i % 5}.mp4", 8),
    "S01 once in each class": (lambda k, i: f"{k}/S{i + 1:02d}_{k}.mp4", 40),
    "S01 as folders of images": (lambda k, i: f"{k}/S{i // 5 + 1:02d}_{k}{i % 5}", 8),
    "subject": (lambda k, i: f"{k}/SUBJECT_{i // 5}_{i}.mp4", 8),
    "subject once in each class": (lambda k, i: f"{k}/subject{i}.mp4", 40),
    "kth": (lambda k, i: f"{k}/person{i // 4 + 1:02d}_{k}_d{i % 4 + 1}_uncomp.avi", 10),
    "ntu": (lambda k, i: f"{k}/S001C00{i % 3 + 1}P{i // 6 + 1:03d}R00{i % 2 + 1}A00{code(k)}.avi", 7),
    "msr": (lambda k, i: f"{k}/a{code(k):02d}_s{i // 2 + 1:02d}_e{i % 2:02d}_rgb.avi", 20),
    "breakfast": (lambda k, i: f"{k}/P{i // 4 + 3:02d}_cam0{i % 4}_P{i // 4 + 3:02d}_{k}.avi", 10),
    "smarthome": (lambda k, i: f"{k}/Cook.{k}_p{i // 4 + 2:02d}_r00_v0{i % 4}_c03.mp4", 10),
    "hmdb51": (lambda k, i: f"{k}/Film_{i // 5}_{k}_u_nm_np1_ba_goo_{i % 5}.avi", 32),
    "ravdess": (lambda k, i: f"{k}/01-01-{code(k) + 1:02d}-0{i % 2 + 1}-0{i // 2 % 2 + 1}-01-{i // 4 + 1:02d}.mp4", 10),
    "50salads": (lambda k, i: f"rgb-{i // 4:02d}-{i % 4}.avi", 10),
    "names of persons": (lambda k, i: f"{k}/{('anna', 'bob', 'carl', 'dora', 'emil')[i % 5]}_{i // 5}.avi", 5),
    "weizmann": (
        lambda k, i: f"{k}/{('daria', 'denis', 'eli', 'ido', 'ira', 'lena', 'moshe', 'shahar')[i % 8]}_{k}.avi",
        8,
    ),
    "parts of long videos": (lambda k, i: f"{k}/{('lecture', 'tour', 'match', 'party')[i % 4]}_part{i // 4}.mp4", 4),
    "clips of films": (lambda k, i: f"{k}/movie{'ABCDEFG'[i % 7]}_{i // 7:04d}.mp4", 7),
    "number and number": (lambda k, i: f"{k}/{code(k) * 100 + i // 4:05d}_{i % 4}.mp4", 40),
    "youtube": (lambda k, i: f"{k}/{digest(k + str(i // 4))[:6]}XyZ-1_{i * 10}_{i * 10 + 9}.mp4", 40),
    "session and camera": (lambda k, i: f"{k}/session-{i // 5}_cam{i % 2}_{i}.mp4", 8),
    "camera": (lambda k, i: f"{k}/cam{i % 5}_{i}.mp4", 5),
    "recording in a list": (lambda k, i: f"rec_{i // 4:03d}_{k}_{i % 4}.mp4", 10),
    "segments": (lambda k, i: f"clips/{k}_rec{i // 5}_seg{i}.mp4", 8),
    "augmented copies": (lambda k, i: f"{k}/{k}{i // 4}_aug{i % 4}.mp4", 40),
    "copies of windows": (lambda k, i: f"{k}/{k}_{i // 4} ({i % 4}).mp4", 40),
    "chapters of gopro": (lambda k, i: f"{k}/GH0{i % 4 + 1}{i // 4 + code(k) * 100:04d}.MP4", 40),
    "start and end": (lambda k, i: f"Bad.Boys.{1990 + i // 4}__#00-{i % 4}6-51_00-27-53_label_B{code(k)}.mp4", 10),
    "a folder for each person": (lambda k, i: f"{k}/person{i // 5:02d}/{i:03d}.mp4", 8),
    "a folder for each name": (lambda k, i: f"{k}/{('anna', 'bert', 'carl', 'dora', 'emil')[i % 5]}/{i}.mp4", 5),
    "folders above": (lambda k, i: f"S{i // 4:02d}/{k}_{i}.mp4", 10),
    "numbers of persons": (lambda k, i: f"{1001 + i // 4}_{('IEO', 'TIE')[i % 2]}_{k[:3].upper()}_{i % 4}X.flv", 10),
    "letters and numbers": (lambda k, i: f"{k}/S{i // 4}T{i % 4}.mp4", 10),
    "not all": (lambda k, i: f"{k}/S{i // 5}_t{i}.mp4" if i % 10 else f"{k}/other{i}.mp4", 24),
}


@pytest.mark.parametrize("name", GROUPED)
def test_names_with_groups(name: str) -> None:
    make, count = GROUPED[name]
    found = of(make)
    assert found is not None
    assert len(set(found.groups)) == count
    paths = [make(k, i) for k in CLASSES for i in range(40)]
    assert group_names(paths, found.group_by) == found.groups
    assert re.compile(found.group_by).groups == 1


def some_of(words: tuple[str, ...], seed: str) -> str:
    rng = random.Random(seed)
    return "-".join(rng.choices(words, k=rng.randint(2, 6)))


def number(seed: str, low: int, high: int) -> int:
    return random.Random(seed).randint(low, high)


def moment(k: str, i: int, date: str, joint: str, time: str) -> str:
    a, b, c, d, e = (number(f"{k}{i}{n}", 10, high) for n, high in enumerate((12, 28, 23, 59, 59)))
    return f"2019{date}{a}{date}{b}{joint}{c}{time}{d}{time}{e}"


SINGLE: dict[str, Name] = {
    "0001": lambda k, i: f"{k}/{i:04d}.mp4",
    "img_123": lambda k, i: f"{k}/img_{i}.mp4",
    "the class before": lambda k, i: f"{k}/{k}_{i:03d}.mp4",
    "the class before, list": lambda k, i: f"{k}_{i:03d}.mp4",
    "the class and no joint": lambda k, i: f"{k}/{k}{i}.mp4",
    "the number of the class": lambda k, i: f"{k}/c{code(k)}_{i:03d}.mp4",
    "another name of the class": lambda k, i: f"{k}/{('golf', 'tennis', 'hockey', 'judo')[code(k)]}_{i}.mp4",
    "kinds within a class": lambda k, i: f"{k}/{k}{'ab'[i % 2]}_{i}.mp4",
    "video1": lambda k, i: f"{k}/video{i}.mp4",
    "vid_1": lambda k, i: f"{k}/vid_{i}.mp4",
    "scene1": lambda k, i: f"{k}/scene{i}.mp4",
    "take_1": lambda k, i: f"{k}/take_{i}.mp4",
    "s1": lambda k, i: f"{k}/s{i}.mp4",
    "s1 and a word": lambda k, i: f"{k}/s{i}_cropped.mp4",
    "person_1": lambda k, i: f"{k}/person_{i}.mp4",
    "clip (3)": lambda k, i: f"{k}/clip ({i}).mp4",
    "train_1": lambda k, i: f"{k}/train_{i}.mp4",
    "md5": lambda k, i: f"{k}/{digest(k + str(i))}.mp4",
    "uuid": lambda k, i: f"{k}/{digest(k + str(i))[:8]}-{digest(str(i) + k)[:4]}-4{i:03d}.mp4",
    "youtube": lambda k, i: f"{k}/{digest(k + str(i))[:6]}XyZ-1_{i * 10:06d}_{i * 10 + 10:06d}.mp4",
    "telephone": lambda k, i: f"{k}/VID_{moment(k, i, '', '_', '')}.mp4",
    "telephone with milliseconds": lambda k, i: f"{k}/PXL_{moment(k, i, '', '_', '')}{i:03d}.mp4",
    "speed": lambda k, i: f"{k}/{(1, 2, 4)[i % 3]}x_{i}.mp4",
    "number and class": lambda k, i: f"{k}/{i:03d}_{k}_a.mp4",
    "number and class, list": lambda k, i: f"{code(k) * 40 + i:03d}_{k}_a.mp4",
    "screen": lambda k, i: f"{k}/{moment(k, i, '-', ' ', '-')}.mkv",
    "messenger": lambda k, i: f"{k}/WhatsApp Video {moment(k, i, '-', ' at ', '.')}.mp4",
    "seconds of the epoch": lambda k, i: f"{k}/{number(k + str(i), 1500000000, 1700000000)}.mp4",
    "camera roll": lambda k, i: f"{k}/IMG_{number(k + str(i), 1000, 9999)}.MOV",
    "gopro": lambda k, i: f"{k}/GH01{i + code(k) * 100:04d}.MP4",
    "stock": lambda k, i: (
        f"{k}/{some_of(('man', 'dog', 'walking', 'the', 'road', 'city'), k + str(i))}-{i * 77 + 1000}.mp4"
    ),
    "resolution": lambda k, i: f"{k}/{i}_1080p.mp4",
    "rate": lambda k, i: f"{k}/{k}{i}_30fps.mp4",
    "weather": lambda k, i: f"{k}/{('rain', 'sun', 'fog', 'snow')[i % 4]}_{i}.mp4",
    "side": lambda k, i: f"{k}/{('left', 'right')[i % 2]}_{i}.mp4",
    "shards": lambda k, i: f"videos/{i % 16:02x}/{number(k + str(i), 1, 10**6)}.mp4",
    "named shards": lambda k, i: f"shard_{i % 5}/{number(k + str(i), 1, 10**6)}.mp4",
    "letters": lambda k, i: f"{k}/{chr(97 + i % 26)}{chr(97 + i // 26)}.mp4",
}


@pytest.mark.parametrize("name", SINGLE)
def test_names_without_groups(name: str) -> None:
    assert of(SINGLE[name]) is None


def test_real_names(test_videos: Path) -> None:
    home = test_videos / "annotations"
    ucf = [line.split()[0] for line in (home / "ucf101/trainlist01.txt").read_text().splitlines()]
    classes = sorted({path.split("/")[0] for path in ucf})
    found = find_grouping(ucf, [classes.index(path.split("/")[0]) for path in ucf])
    assert found is not None
    # as the official lists have them
    assert found.groups == [re.findall(r"(v_\w+_g\d+)_c\d+", path)[0] for path in ucf]
    k400 = [line.split(",") for line in (home / "kinetics400/kinetics-400_val.csv").read_text().splitlines()[1:]]
    names = {label: number for number, label in enumerate(sorted({row[0] for row in k400}))}
    paths = [f"{label}/{i}_{int(start):06d}_{int(end):06d}.mp4" for label, i, start, end, *_ in k400]
    assert find_grouping(paths, [names[row[0]] for row in k400]) is None
    assert find_grouping([f"{row[0]}/{row[1]}.mp4" for row in k400], [names[row[0]] for row in k400]) is None
    ssv2 = json.loads((home / "ssv2/something-something-v2-validation.json").read_text())
    kinds = {label: number for number, label in enumerate(sorted({row["template"] for row in ssv2}))}
    assert find_grouping([f"{row['id']}.webm" for row in ssv2], [kinds[row["template"]] for row in ssv2]) is None


# ---------------------------------------------------------------- what is said


def make(root: Path, name: Name, each: int = 40) -> list[str]:
    paths = [name(k, i) for k in CLASSES for i in range(each)]
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return paths


def said(notes: tuple[str, ...]) -> list[str]:
    return [note for note in notes if "look grouped" in note]


@pytest.mark.parametrize(
    "name", ["ucf101", "patient", "set and video", "S01", "kth", "a folder for each person", "not all"]
)
def test_the_note_names_the_remedy_and_the_remedy_works(tmp_path: Path, name: str) -> None:
    paths = make(tmp_path, GROUPED[name][0])
    (note,) = said(folder(tmp_path).notes)
    parted, of_all = map(int, re.findall(r"and (\d+) of (\d+) such groups stand in two splits", note)[0])
    assert of_all == GROUPED[name][1]
    assert 0 < parted <= of_all
    group_by = re.findall(r"data\.group_by='([^']+)'$", note)[0]
    data = folder(tmp_path, group_by=group_by)
    assert not said(data.notes)
    groups = [
        set(group_names([str(Path(p).relative_to(tmp_path)) for p in m.paths], group_by)) for m in data.splits.values()
    ]
    assert sum(map(len, groups)) == len(set.union(*groups)) == of_all
    (tmp_path / "all.csv").write_text("".join(f"{path},{path.split('/')[0]}\n" for path in paths))
    (note,) = said(lists(tmp_path, train="all.csv").notes)
    assert note.endswith(f"data.group_by='{group_by}'")
    assert not said(lists(tmp_path, train="all.csv", group_by=group_by).notes)


def test_nothing_is_said_where_no_split_is_cut_or_nothing_is_parted(tmp_path: Path) -> None:
    make(tmp_path, GROUPED["S01"][0])
    assert not said(folder(tmp_path, val_fraction=0, test_fraction=0).notes)
    make(tmp_path / "other", SINGLE["img_123"])
    assert not said(folder(tmp_path / "other").notes)


def test_lists_that_part_groups_are_told_so(tmp_path: Path) -> None:
    paths = make(tmp_path, GROUPED["S01"][0])
    for name, part in (("a.csv", paths[::2]), ("b.csv", paths[1::2])):
        (tmp_path / name).write_text("".join(f"{path},{path.split('/')[0]}\n" for path in part))
    (note,) = said(lists(tmp_path, train="a.csv", val="b.csv").notes)
    assert "8 of 8 such groups stand in two splits" in note
    assert "lists part them" in note
    assert "group_by" not in note


def test_few_clips_of_ucf101() -> None:
    """Two of eight that share a recording are enough, and eight recordings of a clip each are none."""
    clips = ((1, 1), (3, 4), (7, 2), (7, 7), (9, 1), (12, 3), (20, 5))
    few = [f"Punch/v_Punch_g{g:02d}_c{c:02d}.avi" for g, c in clips]
    few += [f"PushUps/v_PushUps_g{g:02d}_c01.avi" for g in (1, 2, 5, 8, 11, 19)]
    labels = [int("PushUps" in path) for path in few]
    found = find_grouping(few, labels)
    assert found is not None
    assert found.groups[2] == found.groups[3] == "v_Punch_g07"
    assert len(set(found.groups)) == len(few) - 1
    assert find_grouping(few[:3] + few[4:], labels[:3] + labels[4:]) is None
