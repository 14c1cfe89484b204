"""What of a stranger's neither runs nor keeps a command waiting: pipes and devices in place of files, expressions."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.conftest import Call, environment, error_line
from vidtrain.data.manifest.splits import StrangersRegex
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint


@pytest.fixture(autouse=True)
def ends() -> Iterator[None]:
    """Reading a pipe takes no processor time: what waits for its end is ended after two minutes."""

    def late(number: int, frame: Any) -> None:
        raise TimeoutError("waits forever")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has none of these files")
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_a_device_is_no_file(call: Call, tiny: list[str], trained: Path, tmp_path: Path, kind: str) -> None:
    def refused(*args: str) -> str:
        return error_line(call(*args, check=2))

    def put(name: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        os.mkfifo(file) if kind == "pipe" else file.symlink_to("/dev/zero")
        return file

    file = put("odd.pt")
    clip = next(Path(load_checkpoint(trained / "best.pt")["config"]["data"]["root"]).glob("*/test/*/*.mp4"))
    assert refused("predict", f"checkpoint={file}", f"input={clip}") == f"{file}: is not a regular file"
    if kind == "device":  # a pipe is read as a stream, docs/live.md: it waits for who writes
        line = refused("predict", f"checkpoint={trained / 'best.pt'}", f"input={file}")
        assert line == f"{file}: does not open (Inappropriate ioctl for device)"
    assert refused("inspect", f"weights={file}") == f"{file}: is not a regular file"
    for key in ("weights", "inflate_from"):
        assert f"{file}: is not a regular file" in refused("train", *tiny, f"model.{key}={file}", "run_dir=r")
    (tmp_path / "videos").mkdir()
    info = ["data", "info", "data.root=videos"]
    for data, name in (("list", "l.txt"), ("table", "t.csv"), ("table", "t.parquet")):
        file = put(name)
        line = refused(*info, f"data={data}", f"data.train={file}")
        assert line.startswith(f"{file}: ")
        assert "is not a regular file" in line
    for name, data in (("index.json", "index"), ("features.json", "features")):
        put(f"{data}/{name}")
        line = refused("data", "info", f"data={data}", f"data.root={tmp_path / data}")
        assert line.startswith(str(tmp_path / data)), line


@pytest.mark.slow
def test_the_program_imports_nothing_from_the_working_folder(trained: Path, tmp_path: Path) -> None:
    """The installed program in the folder of a stranger's checkpoint, and the process that decord reads in."""
    pytest.importorskip("decord")
    program = shutil.which("vidtrain", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("the program is not installed in this environment")
    for name in ("numpy", "av", "torch", "hydra", "yaml", "decord", "pickle", "signal", "encodings", "vidtrain"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write('{name} ')\n")
    shutil.copy(trained / "best.pt", tmp_path)
    root = Path(load_checkpoint(trained / "best.pt")["config"]["data"]["root"])
    clip = next(root.glob("*/test/*/*.mp4"))
    done = subprocess.run(
        [program, "predict", "checkpoint=best.pt", f"input={clip}", "decoder=decord", "trainer.device=cpu"],
        cwd=tmp_path,
        env={key: value for key, value in environment().items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()
    assert done.stdout.startswith(f"{clip}: "), done.stderr


def test_an_expression_out_of_a_checkpoint_ends(
    call: Call, tiny: list[str], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same splits by a sound one; one that takes forever is named. The user's own are not looked at."""
    content = load_checkpoint(trained / "best.pt")
    root = Path(content["config"]["data"]["root"])
    for name in sorted({file.parent.name for file in root.rglob("*.mp4")}):
        (tmp_path / "videos" / name).mkdir(parents=True)
        for number in range(6):
            copy = tmp_path / "videos" / name / f"{'a' * 40}_g{number // 2}_{number}.mp4"
            copy.write_bytes(next(root.glob(f"*/test/{name}/*.mp4")).read_bytes())
    options = {"root": str(tmp_path / "videos"), "test_fraction": 0.34, "val_fraction": 0.0}
    node = {"_target_": "vidtrain.data.formats.folder.folder", **options}

    def evaluate(group_by: str, *args: str, check: int = 0) -> Any:
        content["config"]["data"] = {**node, "group_by": group_by}
        torch.save(content, tmp_path / "other.pt")
        return call("eval", "checkpoint=other.pt", "output=out", "eval.clips=1", *args, check=check)

    assert "scored 16 of 16" in evaluate(r"_(g\d)_").stdout
    monkeypatch.setattr(StrangersRegex, "SECONDS", 0.5)
    line = error_line(evaluate("(a|aa)+b", check=2))
    assert "group_by='(a|aa)+b', which the file gives: took longer than" in line
    own = ["data=folder", *(f"data.{key}={value}" for key, value in options.items()), r"data.group_by=_(g\d)_"]
    assert "scored 16 of 16" in evaluate("(a|aa)+b", *own).stdout


@pytest.mark.parametrize(
    "name",
    [
        *("train.log", ".hydra", "figures"),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (".hydra/config.yaml", "metrics.jsonl", "tensorboard")
        ),
    ],
)
def test_a_run_that_would_write_elsewhere_is_not_continued(
    call: Call, tiny: list[str], trained: Path, tmp_path: Path, name: str
) -> None:
    """A link in the folder of a run leads to a file or folder of the user's; Hydra writes before a command runs."""
    run, mine = tmp_path / "run", tmp_path / "mine"
    shutil.copytree(trained, run)
    (run / "result.json").unlink()
    for entry in (run / name, mine):
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)
    mine.mkdir() if "." not in name.lstrip(".") else mine.write_text("mine")
    (run / name).symlink_to(mine)
    for given in (f"resume={run}", f"run_dir={run}"):
        line = error_line(call("train", *tiny, given, check=2))
        assert line.startswith(f"{run / name}: is a link to {mine}, and a training would write there")
    assert list(mine.iterdir()) == [] if mine.is_dir() else mine.read_text() == "mine"


def test_links_that_a_user_makes_are_followed(call: Call, tiny: list[str], trained: Path, tmp_path: Path) -> None:
    """To the whole folder, within it, and of checkpoints, which are replaced and not written through."""
    run = tmp_path / "disk" / "run"
    shutil.copytree(trained, run)
    (run / "result.json").unlink()
    (run / "best.pt").replace(tmp_path / "kept.pt")
    (run / "best.pt").symlink_to(tmp_path / "kept.pt")
    (run / "train.log").replace(run / "old.log")
    (run / "train.log").symlink_to("old.log")
    (tmp_path / "link").symlink_to(run)
    call("train", *tiny, "resume=link")
    assert (run / "result.json").is_file()
    assert (run / "old.log").read_text().count("\n") > 1
