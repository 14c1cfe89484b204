"""What README says is so: the number of models, the example of an own model and an own dataset."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

import vidtrain
from tests.cli.conftest import NUMBERS_ONLY, Call

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_number_of_models() -> None:
    found = re.findall(r"There are (\d+) of them", README)
    assert found == [str(len(vidtrain.list_models()))]


def test_names_of_models() -> None:
    table = README[README.index("| family |") : README.index("`vidtrain inspect` prints")]
    cells = [row.split("|")[2] for row in table.splitlines()[2:] if row]
    names = [n for cell in cells for n in re.findall(r"[a-z][a-z0-9_]+", re.sub(r"\([^)]*\)|with.*", "", cell))]
    assert len(names) > 20
    assert set(names) <= set(vidtrain.list_models())


def blocks(section: str) -> dict[str, str]:
    """Name -> text of the files that a section shows, indented, with the name in a comment above."""
    text = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert text is not None
    code = "\n".join(line[4:] for line in text[1].splitlines() if line.startswith("    ") or not line)
    parts = re.split(r"^# ([\w/]+\.(?:py|yaml))\n", code, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_own_model_and_the_own_data_set(
    tiny: list[str], trained: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = blocks("Your own model or dataset")
    assert set(files) == {"mycode.py", "my_conf/model/mine.yaml", "my_conf/data/mine.yaml"}
    code = "\n".join(files.values())
    commands = [line.removeprefix("PYTHONPATH=. ") for line in code.splitlines() if line.startswith("PYTHONPATH=.")]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text.split("\nPYTHONPATH=")[0])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mycode", raising=False)

    root = Path(next(o for o in tiny if o.startswith("data.root=")).removeprefix("data.root="))
    clip = next(root.rglob("*.mp4"))
    for number, day in enumerate(["monday", "tuesday", "friday"] * 2):
        for animal in ("cat", "dog"):
            target = tmp_path / "my_clips" / day / f"{animal}_{number:02}.mp4"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(clip, target)

    train, predict = (shlex.split(command)[1:] for command in commands)
    shown = call("inspect", "--config-dir", "my_conf", "model=mine", "num_classes=2").stdout
    assert shown.startswith("mine: 2 classes, input 3 x ")
    small = ["sampler.num_frames=4", "transform.size=32", "transform.resize=32", "trainer.num_workers=0"]
    done = call(*train, *small, "trainer.epochs=1", "model.width=8", "eval.clips=1", *NUMBERS_ONLY)
    assert "data mine: 2 classes; videos: train 8, test 4" in done.stderr
    assert "no validation split: the last epoch is kept\n" in done.stderr  # the function has no val_fraction
    assert "4/4" in done.stdout
    (best,) = tmp_path.glob("runs/mine/mine/*/best.pt")
    predict = [arg.replace("runs/mine/mine/.../best.pt", str(best)) for arg in predict]
    assert len(call(*predict).stdout.splitlines()) == 4


def test_the_python_lines_run(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = re.search(r"From Python:\n\n((?:    .*\n)+)", README)
    assert lines is not None
    shutil.copy(trained / "best.pt", tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(line.strip() for line in lines[1].splitlines()), "README.md", "exec"), {})
