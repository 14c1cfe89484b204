"""A set in which some files are broken: trained and tested to the end, each one named, nothing else changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import NUMBERS_ONLY, Call
from tests.cli.test_runs import rows_of
from vidtrain.data.motion.motion import Recipe, make_motion
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint

TINY = [
    *["data=folder", "sampler.num_frames=8", "sampler.stride=1", "transform.size=32", "transform.resize=32"],
    *["trainer.epochs=2", "trainer.batch_size=8", "trainer.num_workers=0", "eval.clips=2", "schedule.warmup_epochs=0"],
    *NUMBERS_ONLY,
]
BROKEN = ("train/move_up/00000.mp4", "train/grow/00002.mp4", "test/shrink/00000.mp4")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """24 training, 8 validation and 8 test videos; a copy with three broken ones, and one without those three."""
    folder = tmp_path_factory.mktemp("sets")
    make_motion(folder / "made", Recipe(train_scenes=3, val_scenes=1, test_scenes=1, size=32, num_frames=12))
    for split in ("train", "val", "test"):
        shutil.copytree(folder / "made" / split, folder / "broken" / split)
        shutil.copytree(folder / "made" / split, folder / "without" / split)
    truncated, zeroed, emptied = (folder / "broken" / name for name in BROKEN)
    truncated.write_bytes(truncated.read_bytes()[:600])
    zeroed.write_bytes(bytes(zeroed.stat().st_size))
    emptied.write_bytes(b"")
    for name in BROKEN:
        (folder / "without" / name).unlink()
    # the folder of a class may not be empty
    shutil.copy(folder / "made" / "val" / "shrink" / "00000.mp4", folder / "broken" / "test" / "shrink" / "00001.mp4")
    shutil.copy(folder / "made" / "val" / "shrink" / "00000.mp4", folder / "without" / "test" / "shrink" / "00001.mp4")
    return folder / "broken", folder / "without"


def test_training_finishes_and_names_what_it_could_not_read(sets: tuple[Path, Path], call: Call) -> None:
    broken, without = sets
    done = call("train", *TINY, f"data.root={broken}", "run_dir=run")
    result = json.loads(Path("run/result.json").read_text())
    assert {str(Path(path).relative_to(broken)) for path in result["bad"]} == set(BROKEN[:2])
    for name in BROKEN[:2]:
        assert done.stderr.count(f"unreadable video replaced: {broken / name}: ") == 1
    assert (result["test"]["scored"], result["test"]["listed"], result["test"]["unreadable"]) == (8, 9, 1)
    assert "scored 8 of 9 (1 unreadable)" in done.stdout
    assert [row["path"] for row in rows_of(Path("run/test/not_scored.csv"))] == [str(broken / BROKEN[2])]

    # the readable videos get the scores that they get without the broken one beside them
    call("eval", "checkpoint=run/best.pt", f"data.root={without}", "output=alone")
    alone = {Path(row.pop("file")).relative_to(without): row for row in rows_of(Path("alone/predictions.csv"))}
    beside = {Path(row.pop("file")).relative_to(broken): row for row in rows_of(Path("run/test/predictions.csv"))}
    assert alone == beside
    assert len(alone) == 8


def test_checked_first_a_set_trains_as_if_they_had_never_been_there(sets: tuple[Path, Path], call: Call) -> None:
    broken, without = sets
    call("data", "check", "data=folder", f"data.root={broken}", "output=checked", "num_workers=1")
    table = {row["path"]: row for row in rows_of(Path("checked/report.csv"))}
    for name in BROKEN:
        assert table[str(broken / name)]["problem"], name
    call("train", *TINY[1:], "data=index", "data.root=checked", "trainer.epochs=1", "run_dir=checked_run")
    call("train", *TINY, f"data.root={without}", "trainer.epochs=1", "run_dir=without_run")
    one, other = (load_checkpoint(Path(run) / "last.pt")["model"] for run in ("checked_run", "without_run"))
    assert all(torch.equal(one[key], other[key]) for key in other)
    result = json.loads(Path("checked_run/result.json").read_text())
    assert not result["bad"]
    assert (result["test"]["scored"], result["test"]["listed"]) == (8, 9)  # the broken test video still counts


def test_too_many_broken_files_end_the_run(sets: tuple[Path, Path], call: Call) -> None:
    done = call("train", *TINY, f"data.root={sets[0]}", "data.max_bad_fraction=0.05", "run_dir=few", check=2)
    assert "2 videos cannot be read, more than data.max_bad_fraction allows (1)" in done.stderr
