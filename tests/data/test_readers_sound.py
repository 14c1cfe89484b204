"""Both sides of the readers' checks: every frame of sound files is accepted and right, none of damaged files is wrong.

`tests.data.encodes` makes the files: all of them where `slow` tests run, a sample of every kind where not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.encodes import COUNT, UNSEEN, Kind, _distance, make, sound
from tests.videos import full_decode
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.errors import VideoError

USUAL = ("libx264", "libx265", "mpeg", "mjpeg", "h263", "flv.")
ROOT = Path(__file__).parents[2]


def reports(what: str, folder: Path, step: int) -> list[dict[str, Any]]:
    """What `tests.data.encodes` prints, in a process with dirty memory."""
    command = [sys.executable, "-m", "tests.data.encodes", what, str(folder), str(step)]
    environment = {**os.environ, "MALLOC_PERTURB_": "170", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("step", "least"), [(26, 12), pytest.param(1, 250, marks=pytest.mark.slow)])
def test_sound_files_are_read_whole(step: int, least: int, tmp_path: Path) -> None:
    made = [report for report in reports("sound", tmp_path, step) if "skipped" not in report]
    assert [report for report in made if report["problem"]] == []
    assert len(made) >= least  # this FFmpeg may lack an encoder or two


@pytest.mark.parametrize(("step", "least"), [(22, 12), pytest.param(1, 250, marks=pytest.mark.slow)])
def test_damaged_files_give_no_wrong_frame(step: int, least: int, tmp_path: Path) -> None:
    """Damage that leaves a trace is seen in the codecs that videos come in; of all damage, most."""
    made = [report for report in reports("damaged", tmp_path, step) if "skipped" not in report]
    assert len(made) >= least
    wrong = [report for report in made if report.get("wrong")]
    given, bad = (sum(report.get("given", 0) for report in made), sum(len(report["wrong"]) for report in wrong))
    print(f"{len(wrong)} of {len(made)} damaged files give a wrong frame, {bad} of the {given} frames given are wrong")
    traced = [r for r in wrong if r["kind"].startswith(USUAL) and not any(word in r["damage"] for word in UNSEEN)]
    # A zero in place of a few bits may be what stood there, and an FFmpeg's own encoder decides where they fall.
    assert len(traced) <= 0.02 * len(made), traced
    assert bad <= 0.08 * given
    assert given >= 0.7 * sum(report.get("count", 0) for report in made)


def test_a_joint_of_recordings_is_no_damage_and_a_lost_end_is(tmp_path: Path) -> None:
    """Two recordings joined, the first without some of its last transport packets: no frame is a wrong one."""
    kind = Kind("libx264", "ts", {"g": "12", "bf": "2"})
    path = make(kind, "scene", tmp_path)
    data, whole = path.read_bytes(), full_decode(path)
    joined = tmp_path / "joined.ts"
    accepted = []
    for lost in (0, 1, 2, 7):
        joined.write_bytes(data[: len(data) - 188 * lost] + data)
        given, wrong = read_each(joined, whole)
        assert wrong == [], lost
        accepted.append(given)
    assert accepted[0] == 2 * COUNT
    assert min(accepted) > COUNT


@pytest.mark.parametrize(
    ("first", "second"), [("libx264", "mpeg2video"), ("mpeg2video", "libx264"), ("mpeg4", "libx264")]
)
def test_a_joint_of_two_codecs_is_refused(first: str, second: str, tmp_path: Path) -> None:
    """FFmpeg keeps the decoder of the first, and gives nothing of the second."""
    paths = [make(Kind(codec, "ts", {"g": "12"}), "scene", tmp_path) for codec in (first, second)]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(path.read_bytes() for path in paths))
    with pytest.raises(VideoError, match="recordings of different codecs are joined in it"):
        PyAVReader().open(str(joined))


def test_a_damaged_table_of_programs_names_no_codec(tmp_path: Path) -> None:
    path = make(Kind("libx264", "ts", {"g": "12"}), "scene", tmp_path)
    data = path.read_bytes()
    at = data.index(b"\x1b\xe1\x00", len(data) // 2)  # H.264 in stream 0x100
    path.write_bytes(data[:at] + b"\x02" + data[at + 1 :])
    assert sound(path, PyAVReader()) == ""


def test_mpeg1_and_mpeg2_have_one_decoder(tmp_path: Path) -> None:
    one, two = (make(Kind(codec, "ts", {"g": "12"}), "scene", tmp_path) for codec in ("mpeg1video", "mpeg2video"))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(one.read_bytes() + two.read_bytes())
    assert sound(joined, PyAVReader()) == ""


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video", "mpeg4"])
def test_lost_transport_packets(codec: str, tmp_path: Path) -> None:
    """Some in a row are missing; of exactly 16 of a stream no trace would be left, they are counted modulo 16."""
    options = {"x265-params": "log-level=none:keyint=12"} if codec == "libx265" else {"g": "12", "bf": "2"}
    path = make(Kind(codec, "ts", options), "scene", tmp_path)
    data, whole = path.read_bytes(), full_decode(path)
    for lost in (1, 9):
        for first in range(30, len(data) // 188 - 30, len(data) // 188 // 5):
            path.write_bytes(data[: first * 188] + data[(first + lost) * 188 :])
            given, wrong = read_each(path, whole)
            assert wrong == [], (lost, first)
            assert given > 10


def read_each(path: Path, whole: Any) -> tuple[int, list[int]]:
    """How many frames of a damaged file are given one by one, and those that the sound file does not show."""
    shown = {frame.tobytes() for frame in whole}
    whole = whole.astype(np.int16)
    given, wrong = 0, []
    with PyAVReader().open(str(path)) as video:
        for number in range(video.info.num_frames):
            try:
                frame = video.read(np.array([number]))[0]
            except VideoError:
                continue
            given += 1
            if frame.tobytes() in shown:  # which is the same, and quicker than to compare it with each
                continue
            if min(_distance(frame.astype(np.int16), other) for other in whole) > 0:
                wrong.append(number)
    return given, wrong


@pytest.mark.parametrize(
    "name",
    [
        *("mjpeg_flat_zero_test/c0.avi", "mjpeg_flat_zero_test/m4v_pad.avi", "ts_cat_joint/tssame_libx264.ts"),
        pytest.param("h264_zero_filled/clip_a.mp4", marks=pytest.mark.slow),
    ],
)
def test_cases(name: str, test_cases: Path) -> None:
    assert sound(test_cases / name, PyAVReader()) == ""
