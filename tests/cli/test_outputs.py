"""output=: a folder that is not there is made, whatever the command; one that cannot be made is one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Call, error_line
from tests.reports.made import write_made_test
from vidtrain.options.commands import ACTIONS, COMMANDS
from vidtrain.options.option_texts import fields

SMALL = ["trainer.num_workers=0", "eval.clips=1"]
CLIPS = ["data=folder", "data.root=clips", "num_workers=1", "transform.size=32"]
FILES = {
    "predict": ["checkpoint=best.pt", "input=clip.mp4", *SMALL, "output={}/a.csv"],
    "bench": ["model=slow_fusion", "transform.size=32", "batch_size=[2]", "seconds=0.01", "output={}/a.json"],
    "inspect": ["model=slow_fusion", "output={}/a.txt"],
    "doctor": ["output={}/a.txt"],
    "compare": ["out", "output={}/a.csv", "disagreements={}/b.csv"],
    "report": ["out", "thumbnails=0", "output={}/a.html"],
    "search": ["index=index", "split=test", "output={}/a.csv"],
}
"""What writes a file. {}: a folder that is not there."""
FOLDERS = {
    "init": ["clips", "num_workers=0", "output={}"],
    "convert": ["config=slow.yaml", "output={}"],
    "eval": ["checkpoint=best.pt", *SMALL, "eval.figures=false", "output={}"],
    "explain": ["checkpoint=best.pt", "input=clip.mp4", "method=gradcam", *SMALL, "output={}"],
    "label_errors": ["out", "clips=0", "output={}"],
    "publish": ["checkpoint=best.pt", "output={}"],
    "export": ["checkpoint=best.pt", "input=clip.mp4", "output={}"],
    "extract": ["checkpoint=best.pt", "trainer.num_workers=0", "output={}"],
    "data check": [*CLIPS, "output={}"],
    "data stats": [*CLIPS, "output={}"],
    "data show": [*CLIPS, "show.clips=1", "output={}"],
    "data prepare": [*CLIPS, "prepare.short_side=32", "output={}"],
    "data shard": [*CLIPS, "output={}"],
    "data flow": [*CLIPS, "output={}"],
}
QUICK = ("compare", "report", "doctor")


def test_every_command_with_an_output_is_here() -> None:
    known = {name for name in COMMANDS if name != "data" and "output" in {key for key, *_ in fields(name)}}
    without = {"info", "make", "doctor"}  # these print
    assert FILES.keys() | FOLDERS.keys() == known | {f"data {action}" for action in ACTIONS if action not in without}


@pytest.fixture
def shelf(tmp_path: Path, trained: Path, tiny: list[str]) -> None:
    root = Path(next(o for o in tiny if o.startswith("data.root=")).removeprefix("data.root="))
    clips = sorted(root.rglob("*.mp4"))
    for number in range(12):
        target = tmp_path / "clips" / "ab"[number % 2] / f"{number}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clips[number % len(clips)], target)
    shutil.copy(clips[0], tmp_path / "clip.mp4")
    shutil.copy(trained / "best.pt", tmp_path)
    (tmp_path / "slow.yaml").write_text("MODEL: {ARCH: slow}\nSOLVER: {BASE_LR: 0.1}\n")
    write_made_test(tmp_path / "out", 2, 8)


def written(name: str, call: Call) -> list[Path]:
    call(*name.split(), *(word.format("some/where/new") for word in {**FILES, **FOLDERS}[name]))
    return [file for file in Path("some/where/new").rglob("*") if file.is_file()]


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize("name", QUICK)
def test_the_folder_is_made(name: str, call: Call) -> None:
    assert written(name, call)


@pytest.mark.slow
@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize("name", [name for name in [*FILES, *FOLDERS] if name not in QUICK])
def test_the_folder_is_made_by_all_the_others(name: str, call: Call) -> None:
    if name == "search":
        call("extract", *FOLDERS["extract"][:-1], "output=index")
    assert written(name, call)


@pytest.mark.usefixtures("shelf")
def test_a_folder_that_cannot_be_made_is_one_line(call: Call) -> None:
    assert error_line(call("report", "out", "thumbnails=0", "output=/proc/x/a.html", check=2)).startswith("/proc/x: ")
    assert error_line(call("report", "out", "thumbnails=0", "output=clip.mp4/a.html", check=2)).startswith("clip.mp4")
