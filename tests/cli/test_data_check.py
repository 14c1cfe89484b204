"""`vidtrain data check`: on a folder with broken files, from the probes to a training on the index."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import NUMBERS_ONLY, Call, Done, error_line
from tests.videos import remux, scene, write_video
from vidtrain.data.manifest.index import read_index


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes with train, val and test; everything that can be wrong is wrong once."""
    root = tmp_path_factory.mktemp("encoded") / "my clips"
    seed = 0
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        for label in ("left", "right"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                seed += 1
                write_video(folder / f"{number}.mp4", scene(20, seed=seed), codec="libx264", options={"g": "5"})
    (root / "train/left/0.mp4").write_bytes(b"")
    (root / "test/left/0.mp4").write_bytes(b"this is no video\n" * 40)
    remux(root / "train/left/1.mp4", root / "train/left/copy.mkv")
    shutil.copy(root / "train/right/1.mp4", root / "val/right/leak.mp4")
    write_video(root / "val/left/short.mp4", scene(5, seed=99), codec="libx264", options={})
    return root


@pytest.fixture
def clips(encoded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(encoded, tmp_path / "my clips"))


def check(call: Call, root: Path, *options: str, code: int = 0) -> Done:
    spans_15 = ["sampler.num_frames=8", "sampler.stride=2", "num_workers=1"]
    return call("data", "check", "data=folder", f"data.root={root}", *spans_15, *options, check=code)


def test_what_it_finds(call: Call, clips: Path, tmp_path: Path) -> None:
    done = check(call, clips)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("19 rows, 19 files: 19 probed in ")
    counts = {words[0]: words[1:] for words in map(str.split, lines) if len(words) == 4}
    assert counts["problem"] == ["train", "val", "test"]
    assert counts["unreadable"] == ["1", "0", "1"]
    assert counts["duplicate"] == ["1", "0", "0"]
    assert counts["leak"] == ["0", "1", "0"]
    assert counts["short"] == ["0", "1", "0"]
    assert "unreadable: train: train/left/0.mp4: the file is empty" in lines
    said = "14 of 19 rows are without problems; serious problems: 4; short, still, black or with odd timestamps: 1"
    assert said in lines
    assert "note: train: 1 of 9 videos cannot be used and are excluded; report.csv of the check names them" in lines
    folder = Path("check/folder_my_clips")
    assert lines[-1] == f"train from it with: vidtrain train data=index data.root={folder}"

    with (tmp_path / folder / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    problems = {Path(row["path"]).relative_to(clips).as_posix(): row["problem"] for row in rows if row["problem"]}
    assert problems == {
        "train/left/0.mp4": "unreadable",
        "train/left/copy.mkv": "duplicate",
        "val/left/short.mp4": "short",
        "val/right/leak.mp4": "leak",
        "test/left/0.mp4": "unreadable",
    }
    assert {row["class"] for row in rows} == {"left", "right"}
    data = read_index(tmp_path / folder)
    assert {split: len(manifest) for split, manifest in data.splits.items()} == {"train": 8, "val": 6, "test": 4}


def test_a_second_run_and_what_is_new(call: Call, clips: Path) -> None:
    first = check(call, clips, "output=out").stdout.splitlines()
    second = check(call, clips, "output=out").stdout.splitlines()
    assert second[0] == "19 rows, 19 files: 0 probed, 19 were known from out/probes.jsonl"
    assert second[1:] == first[1:]
    shutil.copy(clips / "train/left/2.mp4", clips / "train/left/0.mp4")
    assert check(call, clips, "output=out").stdout.startswith("19 rows, 19 files: 1 probed in ")
    deeper = check(call, clips, "output=out", "check.full=false").stdout
    assert "19 were known" in deeper


def test_strict_is_an_error_for_scripts(call: Call, clips: Path, tmp_path: Path) -> None:
    done = check(call, clips, "check.strict=true", "output=out", code=2)
    assert error_line(done) == "check.strict=true: 4 serious problems, see out/report.csv"
    assert read_index(tmp_path / "out").num_classes == 2  # all is written before
    for broken in ("train/left/0.mp4", "train/left/copy.mkv", "val/right/leak.mp4", "test/left/0.mp4"):
        (clips / broken).unlink()
    check(call, clips, "check.strict=true", "output=out")
    done = check(call, clips, "check.strict=true", "output=out", "sampler.short=error", code=2)
    assert "1 serious problem" in error_line(done)


def test_one_split(call: Call, clips: Path, tmp_path: Path) -> None:
    done = check(call, clips, "split=val", "output=out")
    assert done.stdout.startswith("6 rows, 6 files: 6 probed")
    assert done.stdout.splitlines()[-1] == "no index is written: split=val is not the whole dataset"
    assert not (tmp_path / "out/index.json").exists()


def test_groups(call: Call, clips: Path) -> None:
    """By class and number: val/left/1.mp4 is of the group of train/left/1.mp4. A mistake shows before the long part."""
    done = check(call, clips, r"check.group_by='(left/\w+|right/\w+)'", "output=out")
    assert "leak: val: val/left/1.mp4: group left/1 is also in train" in done.stdout
    done = check(call, clips, "check.group_by=person", "output=new", code=2)
    assert error_line(done) == "group_by='person': finds no group in train/left/0.mp4; it must match every path"
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("num_workers=0", "num_workers=0: must be at least 1"),
        ("check.timeout=0", "check.timeout=0.0: must be above 0"),
        ("check.group_by='('", "group_by='(': not a regular expression"),
        ("check.ful=true", "check.full"),
    ],
)
def test_wrong_options(call: Call, clips: Path, option: str, message: str) -> None:
    assert message in error_line(check(call, clips, option, code=2))


def test_nothing_to_train_on(call: Call, clips: Path, tmp_path: Path) -> None:
    for file in (clips / "train").rglob("*.m*"):
        file.write_bytes(b"")
    message = error_line(check(call, clips, "output=out", code=2))
    assert message.startswith("train: none of the 9 videos can be used (first: ")
    assert (tmp_path / "out/report.csv").is_file()
    assert not (tmp_path / "out/index.json").exists()


def test_training_from_the_index(call: Call, clips: Path) -> None:
    """The line that the check ends in works as it stands, and the test still counts its broken video."""
    command = check(call, clips).stdout.splitlines()[-1].partition(": vidtrain ")[2].split()
    quick = [
        *["sampler.num_frames=8", "sampler.stride=1", "transform.size=32", "transform.resize=32", "eval.clips=1"],
        *["trainer.epochs=1", "trainer.batch_size=4", "trainer.num_workers=0", "trainer.device=cpu"],
        *["data.max_bad_fraction=0", "schedule.warmup_epochs=0", "model=single_frame", "run_dir=run"],
        *NUMBERS_ONLY,
    ]
    out = call(*command, *quick).stdout
    assert "3/4" in out
