"""Folders and lists as users name them on the command line, through `vidtrain data info`: no file is opened."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import NUMBERS_ONLY, Call, error_line
from tests.videos import scene, write_video


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize("name", ["2019", "7", "1.5"])
def test_a_folder_called_by_a_number(call: Call, tmp_path: Path, name: str) -> None:
    make(tmp_path, *(f"{name}/{k}/{n}.mp4" for k in "ab" for n in range(4)))
    assert "folder: 2 classes" in call("data", "info", "data=folder", f"data.root={name}").stdout


def test_lists_and_columns_called_by_numbers(call: Call, tmp_path: Path) -> None:
    make(tmp_path, *(f"7/{n}.mp4" for n in range(4)))
    (tmp_path / "7/2019").write_text("".join(f"{n}.mp4 {n % 2}\n" for n in range(4)))
    (tmp_path / "7/2020").write_text("jump\nrun\n")
    args = ["data.root=7", "data.train=2019", "data.val_fraction=0", "data.test_fraction=0"]
    assert "jump" in call("data", "info", "data=list", *args, "data.classes=2020").stdout
    (tmp_path / "7/t.csv").write_text("1,2\n" + "".join(f"{n}.mp4,{n % 2}\n" for n in range(4)))
    args = ["data.root=7", "data.train=t.csv", "data.path_column=1", "data.label_column=2", "data.val_fraction=0"]
    assert "table: 2 classes" in call("data", "info", "data=table", *args, "data.test_fraction=0").stdout


def test_segments_are_not_counted_as_videos(call: Call, tmp_path: Path) -> None:
    make(tmp_path, "barn/a.mp4", "barn/b.mp4")
    (tmp_path / "barn/x.csv").write_text("video,start,end,label\na,0,1,walk\na,2,3,run\nb,0,1,walk\n")
    args = ["data.root=barn", "data.annotations=barn/x.csv", "data.val_fraction=0", "data.test_fraction=0"]
    said = call("data", "info", "data=segments", *args).stdout
    assert re.search(r"all segments +3\ntheir videos +2\n", said)


def test_built_in_sets_alone_are_made(call: Call) -> None:
    size = ["data.train_videos=1", "data.val_videos=1", "data.test_videos=1", "data.seconds=10", "data.size=32"]
    assert "their videos" in call("data", "make", "data=motion_long", "data.root=ml", *size).stdout
    assert len(list(Path("ml").rglob("*.mp4"))) == 3
    line = error_line(call("data", "make", "data=folder", "data.root=ml", check=2))
    assert "data=folder: motion, motion_long can be made; the others are yours" in line


def test_a_home_in_the_root(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, *(f"mine/{k}/{n}.mp4" for k in "ab" for n in range(4)))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "folder: 2 classes" in call("data", "info", "data=folder", 'data.root="~/mine"').stdout


def test_the_group_by_of_the_note_can_be_pasted(call: Call, tmp_path: Path) -> None:
    names = [f"{k}/v_{k}_g{n // 5:02d}_c{n % 5:02d}.avi" for k in ("walk", "run") for n in range(60)]
    make(tmp_path / "clips", *names)
    info = ["data", "info", "data=folder", "data.root=clips"]
    (note,) = (line for line in call(*info).stdout.splitlines() if "look grouped" in line)
    paste = note[note.index("data.group_by=") :]
    assert "look grouped" not in call(*info, *shlex.split(paste)).stdout
    assert "groups both" not in call(*info, *shlex.split(paste)).stdout
    # what needs quotes in Hydra's grammar, and a comma
    assert "look grouped" not in call(*info, r"data.group_by=(v_\w+_g\d{1,2})_c").stdout
    assert "finds no group" in error_line(call(*info, r"data.group_by=(x{1,2})[^/]", check=2))


def test_folds_on_the_command_line(call: Call, tmp_path: Path) -> None:
    make(tmp_path, *(f"clips/{k}/{n}.mp4" for k in "ab" for n in range(10)))
    info = ["data", "info", "data=folder", "data.root=clips"]
    for fold in (0, 4):
        out = call(*info, "data.folds=5", f"data.fold={fold}").stdout
        assert f"note: test: fold {fold} of 5, 4 videos held out of train, stratified by class, split_seed=0" in out
    assert "fold=5: expected 0 to 4" in error_line(call(*info, "data.folds=5", "data.fold=5", check=2))
    (tmp_path / "l.csv").write_text("".join(f"{k}/{n}.mp4,{k}\n" for k in "ab" for n in range(10)))
    out = call("data", "info", "data=list", "data.root=clips", "data.train=l.csv", "data.folds=2").stdout
    assert "fold 0 of 2, 10 videos" in out
    (tmp_path / "t.csv").write_text("path,label\n" + (tmp_path / "l.csv").read_text())
    out = call(
        "data", "info", "data=table", "data.root=clips", "data.train=t.csv", "data.folds=2", "data.fold=1"
    ).stdout
    assert "fold 1 of 2, 10 videos" in out


def test_a_sweep_over_folds_ends_in_one_row(call: Call, tmp_path: Path) -> None:
    for label in ("left", "right"):
        (tmp_path / "clips" / label).mkdir(parents=True)
        for number in range(4):
            write_video(tmp_path / "clips" / label / f"{number}.mp4", scene(8, seed=number), codec="mpeg4", options={})
    small = ["sampler.num_frames=4", "sampler.stride=1", "transform.size=32", "transform.resize=32", "model.width=2"]
    small += ["trainer.epochs=1", "trainer.batch_size=4", "trainer.num_workers=0", "eval.clips=1", *NUMBERS_ONLY]
    folds = ["data=folder", "data.root=clips", "data.folds=2", "data.fold=0,1", "data.val_fraction=0"]
    done = call("train", "-m", *folds, *small, "schedule.warmup_epochs=0", "hydra.sweep.dir=s")
    for text in (done.stdout, (tmp_path / "s" / "table.txt").read_text()):
        assert re.search(
            r"mean and standard deviation over data.fold:\nruns +test top-1 +std.*\n[- ]+\n *2/2 +0\.\d{3}", text
        )
