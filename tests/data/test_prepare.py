"""A run that is cut short, or meets bad files, loses nothing; and what it leaves can be trained from."""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.prepared import READER, X264, as_data, made_folder, numbers, only_copy, painted, run
from tests.videos import info, read, scene, write_video
from vidtrain.data.manifest.index import read_index
from vidtrain.data.manifest.manifest import IntLists, Manifest, StringArray, VideoData
from vidtrain.data.prepare.prepare import check_settings
from vidtrain.data.settings import CopyFormat, PrepareConfig
from vidtrain.errors import ConfigError, DataError
from vidtrain.types import VideoInfo


def report_of(output: Path) -> dict[str, dict[str, str]]:
    with (output / "report.csv").open(newline="", encoding="utf-8") as file:
        return {Path(row["path"]).name: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("link", ["folder", "journal"])
def test_nothing_is_written_through_a_link(tmp_path: Path, link: str) -> None:
    """The output itself may be a link; those in it may lead anywhere."""
    for folder in "ab":
        (tmp_path / "in" / folder).mkdir(parents=True)
        write_video(tmp_path / "in" / folder / "1.mp4", painted(8))
    sources = [tmp_path / "in" / folder / "1.mp4" for folder in "ab"]
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    (tmp_path / "disk" / "b").mkdir(parents=True)
    out.symlink_to(tmp_path / "disk")
    where, target = (out / "a", elsewhere) if link == "folder" else (out / "copies.jsonl", elsewhere / "file")
    where.symlink_to(target)
    with pytest.raises(DataError, match=rf"^{where}: is a link to {target}, and .* would be written there"):
        run(as_data(sources), out)
    assert not list(elsewhere.iterdir())
    where.unlink()
    assert run(as_data(sources), out).made == 2


# ---------------------------------------------------------------- the index


def test_the_index_keeps_what_the_rows_say(tmp_path: Path) -> None:
    paths = [str(write_video(tmp_path / f"{n}.mp4", painted(8))) for n in range(3)]
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    rows = [paths[0], paths[1], paths[1], str(tmp_path / "bad.mp4"), paths[2]]
    many = Manifest(
        StringArray.of(rows),
        np.array([0, 1, 2, 1, -1]),
        np.array([0.0, 0.0, 0.1, 0.0, 0.2]),
        np.array([np.inf, 0.1, 0.2, 1.0, np.inf]),
        ("gone.mp4",),
        IntLists.of([[0], [1, 2], [2], [1], []]),
    )
    data = VideoData(("left", "right", "up"), {"train": many, "test": many}, (("left", "right"),), ("a note",))
    done = run(data, tmp_path / "out")
    assert (done.made, [b.path for b in done.bad]) == (3, [rows[3]])  # a file of two rows is copied once

    shutil.move(tmp_path / "out", tmp_path / "moved")
    found = read_index(tmp_path / "moved")
    assert (found.class_names, found.flip_pairs) == (data.class_names, data.flip_pairs)
    assert found.notes[0] == "a note"
    assert found.notes[1] == "train: 1 of 5 videos could not be prepared and are excluded"
    assert found.notes[2] == "test: 1 of 5 videos could not be prepared and are listed as missing"
    for split, missing in (("train", ["gone.mp4"]), ("test", ["gone.mp4", rows[3]])):
        manifest = found.splits[split]
        assert list(manifest.missing) == missing
        assert [Path(path).name for path in manifest.paths] == ["0.mp4", "1.mp4", "1.mp4", "2.mp4"]
        assert all(Path(path).is_file() for path in manifest.paths)
        assert manifest.labels.tolist() == [0, 1, 2, -1]
        assert manifest.starts is not None
        assert manifest.ends is not None
        assert manifest.tags is not None
        assert manifest.starts.tolist() == [0, 0, 0.1, 0.2]
        assert manifest.ends.tolist() == [np.inf, 0.1, 0.2, np.inf]
        assert [tags.tolist() for tags in manifest.tags] == [[0], [1, 2], [2], []]


def test_sources_may_be_folders_of_pictures(tmp_path: Path) -> None:
    home = made_folder(tmp_path / "in" / "clip.v2")
    for number, picture in enumerate(painted(20), start=1):
        Image.fromarray(picture).save(home / f"img_{number:05d}.png")
    run(as_data([home]), tmp_path / "out", short_side=32)
    copy = tmp_path / "out" / "clip.v2.mp4"
    assert numbers(read(copy, list(range(20)))) == list(range(20))
    assert info(copy).fps == pytest.approx(info(home, READER).fps)
    assert run(as_data([home]), tmp_path / "out", short_side=32).kept == 1
    Image.fromarray(painted(1)[0]).save(home / "img_00021.png")
    assert run(as_data([home]), tmp_path / "out", short_side=32).made == 1
    assert info(copy).num_frames == 21


def test_sources_may_be_packs(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", painted(40), 30)
    run(as_data([source]), tmp_path / "packs", format=CopyFormat.jpeg)
    run(as_data([only_copy(tmp_path / "packs")]), tmp_path / "out", short_side=32)
    copy = only_copy(tmp_path / "out")
    assert info(copy) == VideoInfo(40, 30, 32, 48)
    assert numbers(read(copy, list(range(40)))) == list(range(40))


# ---------------------------------------------------------------- going on


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    made_folder(tmp_path / "in")
    return [write_video(tmp_path / "in" / f"{n}.mp4", painted(12 + n)) for n in range(3)]


def times(output: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in output.rglob("*") if path.suffix in (".mp4", ".jpack")}


def test_what_is_finished_is_not_made_again(three: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(as_data(three), out).made == 3
    first = times(out)
    done = run(as_data(three), out, timeout=99.0, workers=1)
    assert (done.made, done.kept) == (0, 3)
    assert done.bytes_before == sum(path.stat().st_size for path in three)
    assert done.bytes_after == sum((out / name).stat().st_size for name in first)
    assert times(out) == first
    assert {row["status"] for row in report_of(out).values()} == {"kept"}

    write_video(three[1], painted(30))  # the source has changed
    (out / "2.mp4").write_bytes((out / "2.mp4").read_bytes()[:-1])  # the copy is not what was written
    with (out / "copies.jsonl").open("a") as journal:
        journal.write('{"source": "half a li')
    done = run(as_data(three), out)
    assert (done.made, done.kept) == (2, 1)
    assert times(out)["0.mp4"] == first["0.mp4"]
    assert info(out / "1.mp4").num_frames == 30
    assert run(as_data(three), out).kept == 3
    (out / "0.mp4").unlink()
    assert (run(as_data(three), out).made, sorted(times(out))) == (1, ["0.mp4", "1.mp4", "2.mp4"])


def test_a_source_that_is_cut_off_is_told(tmp_path: Path) -> None:
    """It opens, for its index lies at the front; its copy will not show that something is missing."""
    sources = [write_video(tmp_path / f"{n}.mp4", painted(40), options={"qp": "0", "g": "8"}) for n in range(2)]
    run(as_data(sources), tmp_path / "fast", crf=1)  # copies have their index at the front
    cut = tmp_path / "fast" / "0.mp4"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 3 // 4])
    done = run(as_data(sorted((tmp_path / "fast").glob("*.mp4"))), tmp_path / "out")
    assert [(Path(odd.path).name, odd.reason[:12]) for odd in done.odd] == [("0.mp4", "is cut off: ")]
    assert "bytes are missing at its end" in report_of(tmp_path / "out")["0.mp4"]["reason"]
    assert run(as_data(sorted((tmp_path / "fast").glob("*.mp4"))), tmp_path / "out").odd == done.odd


def test_other_settings_make_other_copies(three: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(as_data(three), out)
    sizes = {path.name: path.stat().st_size for path in out.glob("*.mp4")}
    assert run(as_data(three), out, crf=40).made == 3
    assert all(path.stat().st_size < sizes[path.name] for path in out.glob("*.mp4"))
    assert run(as_data(three), out, format=CopyFormat.jpeg).made == 3
    assert sorted(times(out)) == ["0.jpack", "1.jpack", "2.jpack"]  # those of other settings are gone
    assert [Path(p).name for p in read_index(out).splits["train"].paths] == sorted(times(out))


def test_a_set_that_grows_keeps_its_copies(three: list[Path], tmp_path: Path) -> None:
    """Also when the folder that all have in common becomes another."""
    out = tmp_path / "out"
    run(as_data(three), out)
    other = write_video(tmp_path / "0.avi", painted(5), codec="mpeg4", options={})
    done = run(as_data([*three, other]), out)
    assert (done.made, done.kept) == (1, 3)
    paths = list(read_index(out).splits["train"].paths)
    assert [info(Path(path)).num_frames for path in paths] == [12, 13, 14, 5]


def test_a_source_that_goes_bad_loses_its_copy(three: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(as_data(three), out)
    three[0].write_bytes(b"")
    done = run(as_data(three), out)
    assert [bad.reason for bad in done.bad] == ["the file is empty"]
    assert sorted(times(out)) == ["1.mp4", "2.mp4"]
    assert report_of(out)["0.mp4"]["reason"] == "the file is empty"


def test_a_file_that_takes_too_long_is_reported(three: list[Path], tmp_path: Path) -> None:
    frames = itertools.chain.from_iterable(itertools.repeat(scene(60, 200, 200), 25))
    long = write_video(tmp_path / "in" / "long.mp4", frames, 25, "libx264", {"preset": "ultrafast"})
    done = run(as_data([long, *three]), tmp_path / "out", timeout=1.0, short_side=200, crf=1)
    assert [(Path(bad.path).name, bad.reason) for bad in done.bad] == [("long.mp4", "took longer than 1 s")]
    assert not list((tmp_path / "out").rglob("*.part"))


SCRIPT = """
import sys
from pathlib import Path
from vidtrain.data.manifest.manifest import Manifest, VideoData
from vidtrain.data.prepare.prepare import prepare
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.data.settings import PrepareConfig
if __name__ == "__main__":
    paths = sorted(map(str, Path(sys.argv[1]).iterdir()))
    data = VideoData(("a",), {"train": Manifest.of(paths, [0] * len(paths))})
    prepare(data, sys.argv[2], PrepareConfig(), PyAVReader(), workers=2)
"""


def lines(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.is_file() else 0


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_and_continued(tmp_path: Path) -> None:
    source = write_video(tmp_path / "s.mp4", np.tile(scene(60, 128, 192), (3, 1, 1, 1)), 25, "libx264", X264)
    made_folder(tmp_path / "in")
    for n in range(8):
        shutil.copy(source, tmp_path / "in" / f"{n}.mp4")
    (tmp_path / "run.py").write_text(textwrap.dedent(SCRIPT))
    out, journal = tmp_path / "out", tmp_path / "out" / "copies.jsonl"
    command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "in"), str(out)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], start_new_session=True)
    deadline = time.monotonic() + 60
    while lines(journal) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)  # the workers, too, as a power cut would
    assert process.wait() == -signal.SIGKILL, "it was finished too early to be killed"

    before = times(out)
    assert 2 <= len(before) < 8
    assert not (out / "index.json").exists()
    for name in before:  # whatever has its name is whole
        assert info(out / name).num_frames == 180
    written = lines(journal)
    done = run(as_data(sorted((tmp_path / "in").iterdir())), out)
    assert (done.kept, done.made, done.bad) == (written, 8 - written, ())
    assert len(times(out)) == 8
    assert not list(out.rglob("*.part"))
    assert len(read_index(out).splits["train"]) == 8
    kept = [json.loads(line)["source"] for line in journal.read_text().splitlines()]
    assert len(kept) == len(set(kept)) == 8


def full_disk(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command with a disk of 256 kB mounted on `folder`, which needs Linux and user namespaces, or root."""
    script = f"mount -t tmpfs -o size=256k none '{folder}' && {command}; code=$?; ls -A '{folder}'; exit $code"
    root = [] if os.geteuid() == 0 else ["--map-root-user", "--user"]
    done = subprocess.run(
        ["unshare", *root, "--mount", "sh", "-c", script],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"cannot mount a small disk here: {done.stderr.strip()}")
    return done


@pytest.mark.skipif(sys.platform != "linux", reason="needs a mount")
def test_a_full_disk_ends_in_one_line(tmp_path: Path) -> None:
    source = write_video(tmp_path / "s.mp4", scene(200, 128, 192), 25, "libx264", X264)
    made_folder(tmp_path / "in"), made_folder(tmp_path / "out")
    for n in range(6):
        shutil.copy(source, tmp_path / "in" / f"{n}.mp4")
    (tmp_path / "run.py").write_text(textwrap.dedent(SCRIPT))
    done = full_disk(tmp_path / "out", f"{sys.executable} '{tmp_path}/run.py' '{tmp_path}/in' '{tmp_path}/out'")
    assert done.returncode != 0
    assert f"vidtrain.errors.DataError: {tmp_path}/out: the disk is full; free some space" in done.stderr
    left = done.stdout.split()
    assert set(left) <= {".lock", "copies.jsonl", *(f"{n}.mp4" for n in range(6))}, left
    assert len(left) < 8


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crf": 99}, r"prepare.crf=99: must be at least 0 and at most 51"),
        ({"gop": 0}, r"prepare.gop=0: must be at least 1 and at most 1000"),
        ({"quality": 100, "format": CopyFormat.jpeg}, r"prepare.quality=100: must be at least 1 and at most 95"),
        ({"short_side": 1}, r"prepare.short_side=1: must be at least 2 and at most 4320"),
        ({"short_side": 129}, r"prepare.short_side=129: must be even for prepare.format=video"),
        ({"timeout": 0.0}, r"prepare.timeout=0.0: must be above 0"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_settings(replace(PrepareConfig(), **settings))  # type: ignore[arg-type]


def test_outputs_that_cannot_be_used(three: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lies in it; choose a folder outside of the set"):
        run(as_data(three), tmp_path / "in")
    run(as_data(three), tmp_path / "out")
    with pytest.raises(ConfigError, match="lies in it"):
        run(read_index(tmp_path / "out"), tmp_path / "out")
    with pytest.raises(DataError, match=r"output=.*0.mp4: cannot be made"):
        run(as_data(three[1:]), three[0])
    with pytest.raises(DataError, match="there is no video to prepare"):
        run(as_data([]), tmp_path / "none")


def test_none_prepared(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(DataError, match=r"none of the 2 videos could be prepared; the first: .*a.mp4: is not a video"):
        run(as_data([tmp_path / "a.mp4", tmp_path / "gone.mp4"]), tmp_path / "out")
