"""Files with segments, as each program writes them. Those of BORIS, ELAN, Label Studio, DeepEthogram, THUMOS14 and
EPIC-KITCHENS are made after their documented exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.videos import numbered, write_video
from vidtrain.data.formats._files.annotation_record import seconds_of
from vidtrain.data.formats.segments import has_times, segments
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.data.manifest.untrimmed import untrimmed
from vidtrain.errors import DataError
from vidtrain.segments import Segment

ROOT = "videos"


def read(folder: Path, **options: Any) -> VideoData:
    (folder / ROOT).mkdir(exist_ok=True)
    for name in ("a.mp4", "b.mkv"):
        (folder / ROOT / name).touch()
    options = {"val_fraction": 0, "test_fraction": 0, **options}
    return segments(folder / ROOT, **options)


def rows(data: VideoData, split: str = "train") -> list[tuple[str, float, float, str]]:
    m = data.splits[split]
    assert m.starts is not None
    assert m.ends is not None
    columns = zip(m.paths, m.starts.tolist(), m.ends.tolist(), m.labels.tolist(), strict=True)
    return [(Path(p).name, round(s, 3), round(e, 3), data.class_names[n]) for p, s, e, n in columns]


TWO = [("a.mp4", 1.5, 4.25, "walk"), ("a.mp4", 3.0, 5.0, "run"), ("b.mkv", 0.0, 62.5, "walk")]

TABLES = {
    "plain.csv": "video,start,end,label\na.mp4,1.5,4.25,walk\na.mp4,3,5,run\nb.mkv,0,62.5,walk\n",
    "semicolons.csv": "File Name;Start (s);End (s);Class\na;1,5;4,25;walk\na;3;5;run\nb;0;62,5;walk\n",
    "excel.csv": "sep=;\nvideo;start;end;label\na;1,5;4,25;walk\n;;;\na;3;5;run\nb;0;62,5;walk\n;;;\n",
    "clocks.tsv": "clip\tstart_time\tend_time\taction\na\t00:00:01.5\t0:04.25\twalk\na\t0:03\t0:05\trun\n"
    "b\t0:00:00\t00:01:02.500\twalk\n",
    "durations.csv": "path,onset,duration,event\na.mp4,1.5,2.75,walk\na.mp4,3,2,run\nb.mkv,0,62.5,walk\n",
    # ours: what predict wrote comes back
    "segments.csv": "file,start,end,label,score\n/x/a.mp4,1.500,4.250,walk,0.9\n/x/a.mp4,3.000,5.000,run,0.8\n"
    "/x/b.mkv,0.000,62.500,walk,0.7\n",
    "epic.csv": "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,"
    "stop_frame,narration,verb,verb_class\nP01_0,P01,a,00:00:01.089,00:00:01.50,00:00:04.25,90,255,walk,walk,3\n"
    "P01_1,P01,a,00:00:03.00,00:00:03.00,00:00:05.00,180,300,run,run,1\n"
    "P01_2,P01,b,00:00:00.10,00:00:00.00,00:01:02.50,0,3750,walk,walk,3\n",
    "Charades_v1_train.csv": "id,subject,scene,actions,length\na,S1,Kitchen,walk 1.50 4.25;run 3.00 5.00,20.1\n"
    "b,S2,Hall,walk 0.00 62.50,70\nq,S3,Hall,,9.0\n",
    "boris_aggregated.csv": "Observation id,Observation date,Description,Media file,Total length,FPS,Subject,Behavior,"
    "Behavioral category,Modifiers,Behavior type,Start (s),Stop (s),Duration (s),Comment start,Comment stop\n"
    "o1,2021-12-06 13:26:24,,T:/Old Videos/a.mp4,1381.010,29.97,No focal subject,walk,,,STATE,1.5,4.25,2.75,,\n"
    "o1,2021-12-06 13:26:24,,T:/Old Videos/a.mp4,1381.010,29.97,No focal subject,run,,,STATE,3.0,5.0,2.0,,\n"
    "o1,2021-12-06 13:26:24,,T:/Old Videos/a.mp4,1381.010,29.97,No focal subject,jump,,,POINT,3.0,3.0,0,,\n"
    "o2,2021-12-06 13:26:24,,T:\\Old Videos\\b.mkv,1381.010,29.97,No focal subject,walk,,,STATE,0,62.5,62.5,,\n",
    "boris_events.tsv": "Observation id\to1\n\nMedia file(s)\n\nIndependent variables\n\nTime\tMedia file path\t"
    "Total length\tFPS\tSubject\tBehavior\tBehavioral category\tModifiers\tComment\tStatus\n"
    "1.5\t/x/a.mp4\t90\t25\tA\twalk\t\t\t\tSTART\n3.0\t/x/a.mp4\t90\t25\tB\trun\t\t\t\tSTART\n"
    "4.25\t/x/a.mp4\t90\t25\tA\twalk\t\t\t\tSTOP\n5.0\t/x/a.mp4\t90\t25\tB\trun\t\t\t\tSTOP\n"
    "0.0\t/x/b.mkv\t90\t25\tA\twalk\t\t\t\tSTART\n7.0\t/x/b.mkv\t90\t25\tA\tjump\t\t\t\tPOINT\n"
    "62.5\t/x/b.mkv\t90\t25\tA\twalk\t\t\t\tSTOP\n",
    "elan_tiers.tsv": "File Path\tBegin Time - ss.msec\tEnd Time - ss.msec\tDuration - ss.msec\twho\tcalm\n"
    "file:///x/a.mp4\t1.5\t4.25\t2.75\twalk\t\nfile:///x/a.mp4\t3.0\t5.0\t2.0\t\trun\n"
    "file:///x/b.mkv\t0.0\t62.5\t62.5\twalk\t\n",
    "own.json": json.dumps(
        {"file": "a.mp4", "segments": [{"start": s, "end": e, "label": n} for _, s, e, n in TWO[:2]]}
    ),
    "thumos_14.json": json.dumps(
        {
            "version": "Thumos14-30fps",
            "database": {
                "a": {
                    "subset": "training",
                    "duration": 90.0,
                    "annotations": [
                        {"label": "walk", "segment": [1.5, 4.25], "segment(frames)": [45, 127], "label_id": 7},
                        {"label": "run", "segment": [3, 5]},
                        {"label": "Ambiguous", "segment": [7, 8]},
                    ],
                },
                "v_b": {"subset": "training", "annotations": [{"label": "walk", "segment": [0, 62.5]}]},
            },
        }
    ),
    "project.boris": json.dumps(
        {
            "project_format_version": "7.0",
            "behaviors_conf": {
                "0": {"type": "State event", "code": "walk"},
                "1": {"type": "Point event", "code": "hop"},
            },
            "observations": {
                "o1": {
                    "file": {"1": ["C:\\old\\a.mp4"], "2": []},
                    "time offset": 0.0,
                    "events": [
                        [1.5, "A", "walk", "", ""],
                        [2.0, "A", "hop", "", ""],
                        [3.0, "B", "run", "", ""],
                        [4.25, "A", "walk", "", ""],
                        [5.0, "B", "run", "", ""],
                    ],
                },
                "o2": {
                    "file": {"1": ["b.mkv"]},
                    "events": [[0.0, "", "walk", "", "", 0], [62.5, "", "walk", "", "", 9]],
                },
            },
        }
    ),
    "studio.json": json.dumps(
        [
            {
                "id": 1,
                "data": {"video": "/data/upload/1/0123abcd-a.mp4"},
                "annotations": [
                    {
                        "was_cancelled": False,
                        "result": [
                            {"type": "labels", "value": {"start": 1.5, "end": 4.25, "labels": ["walk"], "channel": 0}},
                            {"type": "labels", "value": {"start": 3.0, "end": 5.0, "labels": ["run"]}},
                            {"type": "choices", "value": {"choices": ["good"]}},
                        ],
                    },
                    {"was_cancelled": True, "result": [{"value": {"start": 9, "end": 10, "labels": ["walk"]}}]},
                ],
            },
            {
                "data": {"video": "/data/local-files/?d=x/b.mkv"},
                "annotations": [{"result": [{"value": {"start": 0, "end": 62.5, "labels": ["walk"]}}]}],
            },
        ]
    ),
    "elan.eaf": """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" FORMAT="3.0" VERSION="3.0">
  <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/old%20one/a.mp4" MIME_TYPE="video/mp4"/></HEADER>
  <TIME_ORDER><TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="1500"/><TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="3000"/>
    <TIME_SLOT TIME_SLOT_ID="ts3" TIME_VALUE="4250"/><TIME_SLOT TIME_SLOT_ID="ts4" TIME_VALUE="5000"/>
    <TIME_SLOT TIME_SLOT_ID="ts5"/></TIME_ORDER>
  <TIER LINGUISTIC_TYPE_REF="t" TIER_ID="A"><ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1"
    TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts3"><ANNOTATION_VALUE>walk</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION>
    </ANNOTATION><ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="ts3" TIME_SLOT_REF2="ts5">
    <ANNOTATION_VALUE>walk</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER>
  <TIER LINGUISTIC_TYPE_REF="t" TIER_ID="run"><ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a3"
    TIME_SLOT_REF1="ts2" TIME_SLOT_REF2="ts4"><ANNOTATION_VALUE></ANNOTATION_VALUE></ALIGNABLE_ANNOTATION>
    </ANNOTATION><ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a4" ANNOTATION_REF="a3">
    <ANNOTATION_VALUE>a word on it</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION></TIER>
</ANNOTATION_DOCUMENT>
""",
}
ONE_VIDEO = ("own.json", "elan.eaf")


@pytest.mark.parametrize("name", TABLES)
def test_segments_of_each_program(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TABLES[name], encoding="utf-8")
    data = read(tmp_path, annotations=str(tmp_path / name))
    assert sorted(rows(data)) == (TWO[:2] if name in ONE_VIDEO else TWO)


def test_what_is_no_segment_is_counted(tmp_path: Path) -> None:
    for name, note in (
        ("boris_aggregated.csv", "1 annotations are single points in time"),
        ("boris_events.tsv", "1 annotations are single points in time"),
        ("project.boris", "1 annotations are single points in time"),
        ("elan.eaf", "1 annotations have no time of their own"),
        ("thumos_14.json", "1 annotations are of a label in data.exclude (Ambiguous)"),
        ("Charades_v1_train.csv", "train: 1 videos have no segment (q): task=segments alone takes them"),
    ):
        (tmp_path / name).write_text(TABLES[name], encoding="utf-8")
        assert any(note in line for line in read(tmp_path, annotations=str(tmp_path / name)).notes), name
    (tmp_path / "x.csv").write_text("video,start,end,label\na,2,2,walk\na,-0.5,4,walk\n")
    data = read(tmp_path, annotations=str(tmp_path / "x.csv"))
    assert rows(data) == [("a.mp4", 0.0, 4.0, "walk")]
    assert any("1 annotations have no length" in note for note in data.notes)


def test_an_end_before_the_start(tmp_path: Path) -> None:
    """Refused in a table that somebody has made; published ones have a few."""
    (tmp_path / "x.csv").write_text("video,start,end,label\na,3,1,walk\na,1_0,20,walk\na,1,4,walk\n")
    with pytest.raises(DataError, match=r"x\.csv:2: got 'a,3,1,walk', expected a video, a label, a start and an end"):
        read(tmp_path, annotations=str(tmp_path / "x.csv"))
    segments = [{"segment": times, "label": "walk"} for times in ([3, 1], [1, 4])]
    file = tmp_path / "x.json"
    file.write_text(json.dumps({"database": {"a": {"annotations": segments}}}))
    data = read(tmp_path, annotations=str(file))
    assert rows(data) == [("a.mp4", 1.0, 4.0, "walk")]
    assert any("1 annotations have no length" in note for note in data.notes)
    segments.append({"segment": [0, 10**400], "label": "walk"})
    file.write_text(json.dumps({"database": {"a": {"annotations": segments}}}))
    with pytest.raises(DataError, match=r"expected segment: \[start, end\] and label"):
        read(tmp_path, annotations=str(file))


def test_an_encoding_that_nobody_knows(tmp_path: Path) -> None:
    (tmp_path / "x.eaf").write_text('<?xml version="1.0" encoding="UTF-99"?><ANNOTATION_DOCUMENT/>')
    with pytest.raises(DataError, match=r"x\.eaf: not a file of ELAN that can be read"):
        read(tmp_path, annotations=str(tmp_path / "x.eaf"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.mp4: 10 frames at 5 per second. vfr.mkv: frames at 0, 1, 2, 3, 10 fifths of a second."""
    folder = tmp_path_factory.mktemp("clips")
    write_video(folder / "a.mp4", numbered(10), fps=5)
    write_video(folder / "vfr.mkv", numbered(5), fps=5, times=[0, 1, 2, 3, 10])
    return folder


def test_frames_become_seconds_by_the_frames_own_times(clips: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"val_fraction": 0, "test_fraction": 0}
    file = tmp_path / "f.csv"
    file.write_text("video,start_frame,end_frame,label\na,2,7,walk\nvfr,1,4,run\na,8,15,walk\n")
    found = rows(segments(clips, annotations=str(file), **options))
    assert found == [("a.mp4", 0.4, 1.4, "walk"), ("vfr.mkv", 0.2, 2.0, "run"), ("a.mp4", 1.6, 3.0, "walk")]
    assert rows(segments(clips, annotations=str(file), fps=10, **options))[1] == ("vfr.mkv", 0.1, 0.4, "run")
    # the unit decides where the names do not
    file.write_text("video,start,end,label\na,2,7,walk\n")
    assert rows(segments(clips, annotations=str(file), unit="frames", **options)) == [("a.mp4", 0.4, 1.4, "walk")]
    assert rows(segments(clips, annotations=str(file), unit="milliseconds", **options))[0][1:3] == (0.002, 0.007)
    # DeepEthogram: a row per frame; two behaviors at once, one until the end
    lines = [",background,walk,run", *(f"{n},{int(n < 2)},{int(2 <= n < 6)},{int(n >= 5)}" for n in range(10))]
    (tmp_path / "deg").mkdir()
    (tmp_path / "deg" / "a_labels.csv").write_text("\n\n".join(lines) + "\n,,,\n")  # blank lines are no frames
    found = rows(segments(clips, annotations=str(tmp_path / "deg"), **options))
    assert found == [("a.mp4", 0.4, 1.2, "walk"), ("a.mp4", 1.0, 2.0, "run")]
    # Label Studio: frames from 1, the last one included
    value = {"ranges": [{"start": 3, "end": 7}], "timelinelabels": ["walk"]}
    task = {"data": {"video": "a.mp4"}, "annotations": [{"result": [{"type": "timelinelabels", "value": value}]}]}
    (tmp_path / "ls.json").write_text(json.dumps([task]))
    assert rows(segments(clips, annotations=str(tmp_path / "ls.json"), **options)) == [("a.mp4", 0.4, 1.4, "walk")]


def test_videos_in_which_nothing_happens(tmp_path: Path) -> None:
    """No row is theirs, but task=segments reads them; one that is not on disk is nowhere."""
    database: dict[str, Any] = {
        "a": {"subset": "training", "annotations": [{"label": "walk", "segment": [1, 2]}]},
        "b": {"subset": "training", "annotations": []},
        "c": {"subset": "testing", "annotations": []},
        "d": {"subset": "testing", "annotations": [{"label": "walk", "segment": [1, 2]}]},
        "e": {"subset": "testing", "annotations": []},
    }
    (tmp_path / "x.json").write_text(json.dumps({"database": database}))
    (tmp_path / ROOT).mkdir()
    for name in "cd":
        (tmp_path / ROOT / f"{name}.mp4").touch()
    data = read(tmp_path, annotations=str(tmp_path / "x.json"))
    assert rows(data) == [("a.mp4", 1, 2, "walk")]
    assert [Path(path).name for path in data.splits["train"].quiet] == ["b.mkv"]
    whole = untrimmed(data)
    for split, names in (("train", ["a.mp4", "b.mkv"]), ("test", ["d.mp4", "c.mp4"])):
        manifest = whole.splits[split]
        assert manifest.segments is not None
        assert [Path(path).name for path in manifest.paths] == names
        assert [len(table) for table in manifest.segments] == [1, 0]


def test_lists_of_thumos(tmp_path: Path) -> None:
    folder = tmp_path / "annotation"
    folder.mkdir()
    (folder / "walk_val.txt").write_text("a  1.5 4.25\nb 0.0 62.5\n")
    (folder / "Ambiguous_val.txt").write_text("a  8 9\n")
    (folder / "run_val.txt").write_text("a  3.0 5.0\n")
    (folder / "run_test.txt").write_text("c  3.0 5.0\na 3.0 6.0\n")
    data = read(tmp_path, annotations=str(folder))
    assert sorted(rows(data)) == TWO
    assert rows(data, "test") == [("a.mp4", 3.0, 6.0, "run")]
    assert data.splits["test"].missing == ("c",)


BOTH_TIMES = ["A\t\t00:00:01.500\t1.5\t00:00:04.250\t4.25\t00:00:02.750\t2.75\twalk", "run\t\t00:00:03.000\t3.0\t"
              "00:00:05.000\t5.0\t00:00:02.000\t2.0\trun"]  # fmt: skip
SECONDS = ["A\t\t1.5\t4.25\t2.75\twalk", "run\t\t3.0\t5.0\t2.0\trun"]


@pytest.mark.parametrize("lines", [BOTH_TIMES, SECONDS])
def test_elans_export_without_a_header(lines: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(lines))
    assert rows(read(tmp_path, annotations=str(tmp_path / "a.txt"))) == TWO[:2]


def test_splits_are_the_files_or_cut_by_video(tmp_path: Path) -> None:
    text = "video,start,end,label,split\n" + "".join(f"v{n},{k},{k + 1},walk,\n" for n in range(8) for k in range(3))
    (tmp_path / "x.csv").write_text(text)
    (tmp_path / ROOT).mkdir()
    for n in range(8):
        (tmp_path / ROOT / f"v{n}.mp4").touch()
    data = segments(tmp_path / ROOT, annotations=str(tmp_path / "x.csv"), val_fraction=0.25, test_fraction=0.25)
    homes = {split: set(m.paths) for split, m in data.splits.items()}
    assert sum(map(len, homes.values())) == 8  # no video in two splits
    assert {split: len(m) for split, m in data.splits.items()} == {s: 3 * len(p) for s, p in homes.items()}
    (tmp_path / "y.csv").write_text(text.replace("walk,\n", "walk,test\n", 9))
    data = segments(tmp_path / ROOT, annotations=str(tmp_path / "y.csv"), val_fraction=0)
    assert len(data.splits["test"]) == 9
    one = segments(tmp_path / ROOT, train=str(tmp_path / "x.csv"), test=str(tmp_path / "y.csv"), val_fraction=0)
    assert {split: len(m) for split, m in one.splits.items()} == {"train": 24, "test": 24}


def test_the_segments_of_one_video_are_no_group_of_videos(tmp_path: Path) -> None:
    names = [f"{label}/video{n}.mp4" for label in ("walk", "run") for n in range(12)]
    for name in names:
        (tmp_path / ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / ROOT / name).touch()
    text = "".join(f"{name},{k},{k + 1},{name.split('/')[0]}\n" for name in names for k in range(9))
    (tmp_path / "x.csv").write_text(f"video,start,end,label\n{text}")
    data = read(tmp_path, annotations=str(tmp_path / "x.csv"), test_fraction=0.3)
    assert "look grouped" not in " ".join(data.notes)


def test_labels_in_two_unicode_forms_are_one_class(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("video,start,end,label\na.mp4,1,2,cafe\u0301\n,,,\na.mp4,3,4,caf\u00e9\n")
    data = read(tmp_path, annotations=str(tmp_path / "x.csv"))
    assert data.class_names == ("caf\u00e9",)
    assert data.splits["train"].labels.tolist() == [0, 0]
    assert "two Unicode forms" in " ".join(data.notes)


def test_segments_are_cut_into_folds_whole_videos_and_names_that_look_grouped_are_said(tmp_path: Path) -> None:
    names = [f"cow{cow}_{n}.mp4" for cow in range(6) for n in range(4)]
    text = "".join(f"{name},{k},{k + 1},{'walk' if k % 2 else 'lie'}\n" for name in names for k in range(4))
    (tmp_path / "x.csv").write_text(f"video,start,end,label\n{text}{names[0]},9,10,run\n{names[0]},11,12,run\n")
    (tmp_path / ROOT).mkdir()
    for name in names:
        (tmp_path / ROOT / name).touch()
    given: dict[str, Any] = {"annotations": str(tmp_path / "x.csv"), "folds": 3, "exclude": ["run"]}
    tested: list[str] = []
    for fold in range(3):
        data = read(tmp_path, **given, fold=fold)
        assert not set(data.splits["train"].paths) & set(data.splits["test"].paths)
        tested += set(data.splits["test"].paths)
        assert "stand in two splits" in (note := " ".join(data.notes))
        assert r"data.group_by='(cow\d+)'" in note
    assert sorted(Path(path).name for path in tested) == sorted(names)
    assert "look grouped" not in " ".join(read(tmp_path, **given, group_by=r"cow\d+").notes)
    with pytest.raises(DataError, match=r"fewer videos: run \(1\)"):  # which has two segments
        read(tmp_path, **{**given, "folds": 2, "exclude": []})


STUDIO = json.dumps(
    [
        {
            "data": {"video": "a.mp4"},
            "annotations": [{"result": [{"value": {"start": 1, "end": 2, "labels": ["walk"]}}]}],
        }
    ]
)
BORIS = '{"observations": {"o": {"file": {"1": ["a.mp4"]}, "events": [[1, "", "walk", ""], [2, "", "walk", ""]]}}}'


@pytest.mark.parametrize("name", ["x.json", "x.boris"])
def test_what_the_refused_ones_are_changed_from(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(STUDIO if name == "x.json" else BORIS)
    assert rows(read(tmp_path, annotations=str(tmp_path / name))) == [("a.mp4", 1.0, 2.0, "walk")]


@pytest.mark.parametrize(("separator", "end"), [(";", "2,500"), ("\t", "2,5"), ("\t", "0:02,500")])
def test_a_comma_that_can_be_no_thousand_is_a_decimal_point(tmp_path: Path, separator: str, end: str) -> None:
    (tmp_path / "x.csv").write_text(f"video;start;end;label\na.mp4;1,250;{end};w\n".replace(";", separator))
    assert rows(read(tmp_path, annotations=str(tmp_path / "x.csv"))) == [("a.mp4", 1.25, 2.5, "w")]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("x.csv", "video,start,end,label\na,1,2\n", "x.csv:2: got 'a,1,2', expected 4 fields"),
        ("x.csv", "video,start,end,label\na,1,two,walk\n", "expected a video, a label, a start and an end"),
        ("x.csv", "video,start,label\na,1,walk\n", "no column for their end (its columns are video, start, label)"),
        ("x.csv", "video,end,label\na,1,walk\n", "no column for the start of segments"),
        ("x.csv", "video,start,end,kind\na,1,2,walk\n", "data.label_column names it"),
        ("x.csv", "video,start,end,label\na,nan,inf,walk\n", "expected a video, a label, a start and an end"),
        ("x.csv", "", "empty"),
        ("x.txt", "a 1 2\n", "no list of THUMOS"),
        ("walk_val.txt", "a 1\n", "expected a video, a start and an end in seconds"),
        ("x.json", "[1, 2]", "none of the JSON files with segments that are known"),
        ("x.json", '{"a": {"annotations": [{"segment": [1], "label": "x"}]}}', "segment: [start, end] and label"),
        (
            "x.boris",
            '{"observations": {"o": {"file": {"1": ["a", "b"]}, "events": []}}}',
            "one video in player 1, not 2",
        ),
        (
            "x.boris",
            '{"observations": {"o": {"file": {"1": ["a"]}, "events": [[1, "", "w", ""]]}}}',
            "an end of it, too",
        ),
        ("x.csv", "time,file,behavior,status\n1,a,w,START\n2,a,w,START\n", "START and STOP of a behavior in turn"),
        ("x.csv", "time,file,behavior,status\n1,a,w,STOP\n", "START and STOP of a behavior in turn"),
        ("x.eaf", "<a><b></a>", "not a file of ELAN that can be read (mismatched tag"),
        ("x.eaf", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "it declares a document type or entities"),
        ("x.eaf", "<a>" * 40, "elements more than 32 deep"),
        ("x.eaf", '<HEADER TIME_UNITS="PAL-frames"/>', "its TIME_UNITS are 'PAL-frames', expected 'milliseconds'"),
        ("x.eaf", '<MEDIA_DESCRIPTOR TIME_ORIGIN="nan"/>', "TIME_ORIGIN of a MEDIA_DESCRIPTOR is no number"),
        ("x.csv", "video,start,end,label,Set\na,1,2,w,heldout\n", "Set='heldout' of 'a' is no split that is known"),
        (
            "x.json",
            '{"a": {"subset": "test_seen", "annotations": []}, "b": {"annotations": [{"segment": [1, 2], '
            '"label": "w"}]}}',
            "x.json: subset='test_seen' of 'a' is no split that is known: train, training, val",
        ),
        (
            "x.csv",
            "Media file,Start (s),Stop (s),Behavior\n/x/a.mp4;/x/b.mkv,1,2,w\n",
            "x.csv:2: got '/x/a.mp4;/x/b.mkv', expected one video in player 1, not 2 one after the other",
        ),
        (
            "x.csv",
            'video,start,end,label\na.mp4,900,"1,000",walk\n',
            "x.csv:2: got 'a.mp4,900,1,000,walk', expected 1000 or 1.000 instead of '1,000', which may be either",
        ),
        ("x.tsv", "video\tstart\tend\tlabel\na.mp4\t1,250\t2\tw\n", "expected 1250 or 1.250 instead of '1,250'"),
        ("x.tsv", "video\tstart\tend\tlabel\na\t1,250\t2,5\tw\na\t1.5\t2\tw\n", "expected 1250 or 1.250 instead"),
        (
            "x.tsv",  # the first line labels nothing, so that its time is nobody's mistake
            "Begin Time - ss.msec\tEnd Time - ss.msec\twalk\n1,250\t2,5\t\n3\ttwo\tyes\n",
            "x.tsv:3: got '3,two,yes', expected a video, a label, a start and an end after it",
        ),
        (
            "x.csv",
            "video,start,Start,end,label\na.mp4,1,2,3,w\n",
            "x.csv: 2 columns are called 'start': rename all but one",
        ),
        ("x.csv", "video,start,end,label,Label\na.mp4,1,2,w,v\n", "2 columns are called 'label'"),
        (
            "x.csv",
            "youtube_id,start,end,label\na,1,2,w\n",
            "no column for the video (data.file_column names it)",
        ),
        ("x.csv", "frame,walk,walk\n0,1,0\n1,0,1\n", "x.csv: 2 columns are called 'walk'"),
        ("x.csv", "frame,walk,run\n0,1,0\n\n,,\n1,0,1\n,,\n", "x.csv:4: got ',,', expected 0 and 1 in every row"),
        ("x.json", STUDIO.replace('"walk"', '["walk"]'), "expected labels that are text"),
        ("x.json", STUDIO.replace('"walk"', '{"name": "walk"}'), "expected labels that are text"),
        ("x.boris", BORIS.replace('"walk"', '{"name": "walk"}'), "expected the code of a behavior, text"),
        ("x.eaf", "<a></a>", "the annotations hold no segment"),
        ("x.doc", "a", "expected an annotation file that ends in"),
    ],
)
def test_refused(tmp_path: Path, name: str, text: str, why: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as error:
        read(tmp_path, annotations=str(tmp_path / name))
    assert why in str(error.value)


def test_elan_counts_from_the_time_origin(tmp_path: Path) -> None:
    more = ' TIME_ORIGIN="2500" MIME_TYPE="video/mp4"/><MEDIA_DESCRIPTOR MEDIA_URL="file:///x/b.mkv" MIME_TYPE="v"/>'
    (tmp_path / "x.eaf").write_text(TABLES["elan.eaf"].replace(' MIME_TYPE="video/mp4"/>', more))
    data = read(tmp_path, annotations=str(tmp_path / "x.eaf"))
    assert rows(data) == [("a.mp4", 4.0, 6.75, "walk"), ("a.mp4", 5.5, 7.5, "run")]
    assert any("names 2 media files; its segments are taken of the first" in note for note in data.notes)


def test_a_name_with_a_semicolon_that_is_there(tmp_path: Path) -> None:
    (tmp_path / ROOT).mkdir()
    (tmp_path / ROOT / "a.mp4;b.mp4").touch()
    (tmp_path / "x.csv").write_text("Media file,Start (s),Stop (s),Behavior\na.mp4;b.mp4,1,2,w\na.mp4;,1,2,w\n")
    assert [name for name, *_ in rows(read(tmp_path, annotations=str(tmp_path / "x.csv")))] == ["a.mp4;b.mp4", "a.mp4"]


def test_one_name_in_two_folders(tmp_path: Path) -> None:
    for camera in ("camA", "camB"):
        (tmp_path / ROOT / camera).mkdir(parents=True)
        (tmp_path / ROOT / camera / "clip.mp4").touch()
    file = tmp_path / "x.csv"
    for name in ("camB/clip.mp4", "C:\\x\\camB\\clip.mp4"):
        file.write_text(f"video,start,end,label\n{name},1,2,w\n")
        assert Path(read(tmp_path, annotations=str(file)).splits["train"].paths[0]).parent.name == "camB"
    for name in ("clip.mp4", "clip", "/x/clip.mp4"):
        file.write_text(f"video,start,end,label\n{name},1,2,w\n")
        with pytest.raises(DataError, match=rf"{name}: is in 2 folders \(.*camA.*camB.*\): give its path"):
            read(tmp_path, annotations=str(file))
    (tmp_path / ROOT / "camA" / "clip.mp4").unlink()
    (tmp_path / ROOT / "camA" / "clip.mp4").symlink_to(tmp_path / ROOT / "camB" / "clip.mp4")
    assert len(read(tmp_path, annotations=str(file)).splits["train"]) == 1


def test_options_that_make_no_sense(tmp_path: Path) -> None:
    (tmp_path / "plain.csv").write_text(TABLES["plain.csv"])
    file = str(tmp_path / "plain.csv")
    for options, why in (
        ({}, "set data.annotations=FILE"),
        ({"annotations": file, "train": file}, "set data.annotations=FILE"),
        ({"annotations": file, "unit": "frame"}, "unit=frame: expected one of auto, seconds, frames, milliseconds"),
        ({"annotations": file, "fps": 0.0}, "fps=0.0"),
        ({"annotations": file, "start_column": "begin"}, "no column 'begin' (data.start_column)"),
        ({"annotations": file, "val_fraction": 2}, "val_fraction=2"),
    ):
        with pytest.raises(DataError) as error:
            read(tmp_path, **options)
        assert why in str(error.value)


def test_what_predict_writes_comes_back(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from vidtrain.reports.annotation_files import write_segments_csv, write_segments_json

    video: Any = SimpleNamespace(path="a.mp4", seconds=9.0, segments=[Segment(s, e, n, 0.9) for _, s, e, n in TWO[:2]])
    write_segments_csv(tmp_path / "1.csv", [video])
    write_segments_json(tmp_path / "3.json", video, {"class_names": ["walk"]})
    for name in ("1.csv", "3.json"):
        assert rows(read(tmp_path, annotations=str(tmp_path / name))) == TWO[:2]


def test_events_that_boris_pastes(tmp_path: Path) -> None:
    """Its rules, by its source: as many fields as a media observation has in every line, and no event twice."""
    from types import SimpleNamespace

    from vidtrain.reports.annotation_files import write_boris_events

    found = [(2, 5, "run"), (1, 2, "walk"), (2, 3, "walk"), (4, 4.5, "walk"), (2.5, 3, "a\tb\n")]
    video: Any = SimpleNamespace(path="a.mp4", seconds=9.0, segments=[Segment(s, e, n, 0.9) for s, e, n in found])
    write_boris_events(tmp_path / "x.tsv", video)
    rows = [line.split("\t") for line in (tmp_path / "x.tsv").read_text().split("\n")]
    assert [(float(time), code, comment) for time, _, code, _, comment, _ in rows] == [
        *((1, "walk", "0.90"), (2, "run", "0.90"), (2.5, r"a\tb\n", "0.90"), (3, r"a\tb\n", ""), (3, "walk", "")),
        *((4, "walk", "0.90"), (4.5, "walk", ""), (5, "run", "")),
    ]
    assert {(subject, modifier, frame) for _, subject, _, modifier, _, frame in rows} == {("", "", "NA")}
    assert len({tuple(row) for row in rows}) == len(rows)


def test_real_files(test_videos: Path, tmp_path: Path) -> None:
    file = test_videos / "annotations" / "charades" / "Charades_v1_test_200.csv"
    (tmp_path / "YSKX3.mp4").touch()
    (tmp_path / "T5ECU.mp4").touch()
    data = segments(tmp_path, test=str(file))
    found = data.splits["test"]
    assert len(found) == 5 + 14
    assert found.starts is not None
    assert np.isclose(found.starts[4], 5.4)
    assert len(found.missing) > 1000


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.boris", "{}", True),
        ("a.eaf", "", True),
        ("a.json", "{}", False),  # anything
        ("a.csv", "video,start,end,label\n", True),
        ("a.tsv", "Observation id\tMedia file name\tBehavior\tStart (s)\tStop (s)\n", True),
        ("a.csv", "Observation id,x\n\nTime,Media file path,Behavior,Status\n", True),
        ("a.csv", '"file";"Start Time";"Duration"\n', True),
        ("a.txt", "start_frame,stop_frame,action\n", True),
        ("a.csv", "path,label\nclips/start.mp4,end\n", False),
        ("a.csv", "videos/1.mp4 0\n" * 100 + "video,start,end,label\n", False),
        ("a.csv", "x" * 1_000_000, False),
        ("a.mp4", "start,end", False),
    ],
)
def test_a_file_with_times_is_known_by_its_first_lines(name: str, text: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert has_times(tmp_path / name) is expected
    assert not has_times(tmp_path / f"no{name}")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("90:12,5", 5412.5), ("0:59:59.5", 3599.5), ("100:00:00", 360_000.0)),
        *(("1:75:00", None), ("0:60", None), ("1:2:3:4", None), (f"{'9' * 400}:00:00", None)),
    ],
)
def test_clocks(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == seconds
