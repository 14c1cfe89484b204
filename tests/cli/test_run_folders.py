"""Where a run is written: a folder for each dataset, also of the same format, and resume=auto finds it."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.cli.conftest import Call
from vidtrain import published
from vidtrain.commands import resuming, run_dir, search
from vidtrain.data.manifest.manifest import FeatureInfo, VideoData
from vidtrain.errors import CheckpointError, ConfigError
from vidtrain.hub_folder import checkpoint_file
from vidtrain.options.commands import COMMANDS
from vidtrain.options.invocation import Invocation
from vidtrain.options.option_texts import fields
from vidtrain.options.schema import schema_of


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/x/my_videos", "my_videos"),
        ("/x/my clips (1)", "my_clips_1_"),
        ("/x/喧嘩", "喧嘩"),
        ("/projects/cats/videos", "cats_videos"),
        ("/videos", "videos"),
        ("/", ""),
        ("small/", "small"),
    ],
)
def test_folder_name(path: str, name: str) -> None:
    assert run_dir.folder_name(path) == name


def stored(folder: Path, root: str | int) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"data": {"root": root}}))


def test_folders_of_one_name_get_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def name(choice: str, root: str | int | None) -> str:
        return run_dir._data_folder(choice, {"data": {"root": root}})

    assert name("folder", "a/mine") == "mine"
    stored(Path("runs/mine/c3d/1"), "a/mine")
    assert name("folder", str(tmp_path / "a" / "mine")) == name("list", "a/mine") == "mine"
    assert name("index", "b/mine") == "mine_2"
    stored(Path("runs/mine_2/c3d/1"), "b/mine")
    assert [name("table", root) for root in ("a/mine", "b/mine", "c/mine")] == ["mine", "mine_2", "mine_3"]
    assert name("ucf101", "a/mine") == "ucf101"  # the name of a dataset, not of a format
    assert name("folder", 2019) == "2019"
    assert name("segments", "d/barn") == "barn"
    assert name("folder", "/") == name("folder", None) == "folder"
    (tmp_path / "runs" / "torn" / "c3d" / "1").mkdir(parents=True)
    (tmp_path / "runs" / "torn" / "c3d" / "1" / "config.json").write_text('{"data"')
    assert name("folder", "x/torn") == "torn"


SMALL = [
    *["sampler.num_frames=4", "sampler.stride=1", "transform.size=32", "transform.resize=32", "trainer.epochs=1"],
    *["trainer.num_workers=0", "trainer.test=false", "schedule.warmup_epochs=0", "logger=none", "model.width=4"],
    *["eval.figures=false", "report=false"],
]


def test_runs_of_two_folders_and_a_resume(tiny: list[str], trained: Path, call: Call, tmp_path: Path) -> None:
    source = Path(next(o for o in tiny if o.startswith("data.root=")).removeprefix("data.root="))
    clips = sorted(source.rglob("*.mp4"))[:8]
    for root in ("first/set (a)", "second/set (a)"):
        for number, clip in enumerate(clips):
            target = tmp_path / root / "xy"[number % 2] / f"{number}.mp4"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(clip, target)
        call("train", *SMALL, "data=folder", f"data.root={root}")
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["set_a_", "set_a__2"]
    (run,) = (tmp_path / "runs" / "set_a_" / "slow_fusion").iterdir()
    (run / "result.json").unlink()
    # an older vidtrain wrote all runs of data=folder to runs/folder
    (tmp_path / "runs" / "folder" / "slow_fusion").mkdir(parents=True)
    run.rename(tmp_path / "runs" / "folder" / "slow_fusion" / run.name)
    done = call("train", *SMALL, "data=folder", "data.root=first/set (a)", "resume=auto")
    assert f"resumed from runs/folder/slow_fusion/{run.name}/last.pt" in done.stderr.replace(f"{tmp_path}/", "")


def test_show_names_its_image_after_the_data(tiny: list[str], trained: Path, call: Call, tmp_path: Path) -> None:
    source = Path(next(o for o in tiny if o.startswith("data.root=")).removeprefix("data.root="))
    clip = next(source.rglob("*.mp4"))
    for root in ("cats/videos", "dogs/videos"):
        for name in ("x", "y"):
            (tmp_path / root / name).mkdir(parents=True)
            for number in range(4):
                shutil.copy(clip, tmp_path / root / name / f"{number}.mp4")
        call("data", "show", "data=folder", f"data.root={root}", "show.clips=1", "show.frames=2")
    files = sorted(p.name for p in (tmp_path / "show").iterdir())
    assert files == ["folder_cats_videos_train.png", "folder_dogs_videos_train.png"]


def test_a_sweep_that_is_refused_leaves_no_folder(call: Call) -> None:
    args = ["train", "-m", "model=c3d,nope", "logger=none"]
    assert "model=nope: no such model" in call(*args, check=2).stderr
    assert not Path("runs").exists()
    Path("runs/sweeps").mkdir(parents=True)
    call(*args, check=2)
    assert [*Path("runs").rglob("*")] == [Path("runs/sweeps")]


@pytest.mark.parametrize("content", [None, "{torn", pytest.param("[1]", marks=pytest.mark.slow)])
def test_a_run_whose_configuration_cannot_be_read(
    trained: Path, tiny: list[str], call: Call, content: str | None
) -> None:
    shutil.copytree(trained, "run")
    Path("run/result.json").unlink()
    Path("run/config.json").unlink()
    if content is not None:
        Path("run/config.json").write_text(content)
    refused = call("train", *tiny, "run_dir=run", "resume=auto", check=2)
    assert f"config.json: cannot be read ({'damaged' if content else 'No such file or directory'})" in refused.stderr
    assert "resume_changed=true continues it with these" in refused.stderr
    done = call("train", *tiny, "run_dir=run", "resume=auto", "resume_changed=true")
    assert "continued with the options given now" in done.stderr
    assert json.loads(Path("run/result.json").read_text())["test"] is not None


def test_resume_auto_says_which_run_it_skips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        stored(Path(f"runs/mine/c3d/{number}"), "a/mine")
        Path(f"runs/mine/c3d/{number}/config.json").write_text("{torn")
    Path("runs/mine/c3d/2/last.pt").touch()
    assert resuming.find_unfinished(Path("runs"), "c3d", {}) is None
    said = "runs/mine/c3d/2/config.json: cannot be read: resume=auto skips its run; resume=runs/mine/c3d/2 names it"
    assert [record.getMessage() for record in caplog.records] == [said]


def checkpoint_commands() -> list[str]:
    return [name for name in COMMANDS if any(key == "checkpoint" for key, *_ in fields(name))]


def ran(command: str, **options: Any) -> None:
    """A command without Hydra, which takes most of the time."""
    module = import_module(f"vidtrain.commands.{command}")
    given = schema_of(command)(**options)
    module.run(Invocation(given, {}, Path(), OmegaConf.create({"model": None, "eval": None})))


@pytest.mark.parametrize("command", checkpoint_commands())
def test_the_folder_of_a_run_is_its_checkpoint_to_every_command(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The file is damaged, so the error names which one was taken; a folder of nothing is one line."""
    monkeypatch.chdir(tmp_path)
    more: dict[str, Any] = {"input": "x"} if command in ("predict", "explain") else {}
    more |= {"output": "out"} if command in ("publish", "export", "extract") else {}
    if command == "search":
        more |= {"query": "clip.mp4", "index": "index"}
        Path("clip.mp4").touch()
        Path("index").mkdir()
        made = FeatureInfo(4, {"dtype": "float16"})
        monkeypatch.setattr(search, "features", lambda _: VideoData(("a",), {}, features=made))
    for name in ("2026-11-30_19-00-00", "2026-11-30_19-00-01"):
        Path("runs/motion/c3d", name).mkdir(parents=True)
        Path("runs/motion/c3d", name, "best.pt").write_bytes(b"damaged")
    newest = "runs/motion/c3d/2026-11-30_19-00-01"
    for folder in (newest, "runs/motion/c3d"):
        with pytest.raises(CheckpointError, match=rf"^{newest}/best\.pt: "):
            ran(command, checkpoint=folder, **more)
    with pytest.raises(CheckpointError, match=r"^runs/motion: holds neither best.pt nor last.pt"):
        ran(command, checkpoint="runs/motion", **more)


def test_the_newest_run_is_named_and_gets_the_files_of_its_test(trained: Path, call: Call) -> None:
    runs = Path("runs/motion/slow_fusion")
    for name in ("2026-11-30_19-00-00", "2026-11-30_19-00-01"):
        (runs / name).mkdir(parents=True)
        shutil.copy(trained / "best.pt", runs / name)
    done = call("eval", f"checkpoint={runs}", "eval.clips=1", "eval.figures=false", "trainer.num_workers=0")
    assert f"{runs}: its newest run, {runs}/2026-11-30_19-00-01/best.pt" in done.stderr
    assert (runs / "2026-11-30_19-00-01" / "eval" / "test_1x1" / "result.json").is_file()
    (runs / "2026-11-30_19-00-00" / "best.pt").rename(runs / "2026-11-30_19-00-00" / "last.pt")
    assert Path(checkpoint_file(runs / "2026-11-30_19-00-00")).name == "last.pt"
    with pytest.raises(ConfigError, match="a checkpoint of vidtrain"):  # as a start it is read from its folder, too
        published.Subject.of_file(str(runs / "2026-11-30_19-00-01"), "slow_fusion", {})
