"""The traps of Hydra that the design lists, each with a test; the errors among them are in test_config_errors."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from omegaconf import OmegaConf
from omegaconf.base import Metadata

from tests.cli.conftest import Call, Run, environment
from vidtrain.commands import run_dir
from vidtrain.options.commands import COMMANDS
from vidtrain.options.option_texts import conf_dir
from vidtrain.options.schema import register
from vidtrain.shell.flags import split_flags
from vidtrain.shell.hydra_speedups import composed_without_copies

ROOT = Path(__file__).parents[2]


def test_flags_may_stand_between_overrides(call: Call) -> None:
    out = call("train", "trainer.epochs=3", "--cfg", "job", "trainer.seed=5", "-p", "trainer").stdout
    shown = yaml.safe_load(out)
    assert (shown["epochs"], shown["seed"]) == (3, 5)


def test_split_flags_gives_flags_their_values() -> None:
    arguments = ["a=1", "-m", "--info", "b=2", "--config-dir", "d", "--cfg=job", "-i", "config"]
    flags, overrides = split_flags(arguments)
    assert flags == ["-m", "--info=all", "--config-dir", "d", "--cfg=job", "-i=config"]
    assert overrides == ["a=1", "b=2"]


def test_info_shows_the_defaults_list(call: Call) -> None:
    assert "model/slow_fusion" in call("train", "--info", "defaults").stdout


def test_job_keeps_the_working_directory_and_has_our_name(call: Call) -> None:
    job = yaml.safe_load(call("train", "--cfg", "hydra").stdout)["hydra"]["job"]
    assert (job["chdir"], job["name"]) == (False, "train")
    assert "vidtrain" in call("train", "--hydra-help").stdout


def test_a_users_config_dir_adds_a_choice(call: Call, tmp_path: Path) -> None:
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "clips.yaml").write_text("_target_: a.b\nroot: /clips\n")
    out = call("train", "--config-dir", "mine", "data=clips", "--cfg", "job", "-p", "data").stdout
    assert yaml.safe_load(out)["root"] == "/clips"


def test_every_folder_of_configs_is_packaged() -> None:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {f.parent for f in (ROOT / "conf").rglob("*.yaml")}
    names = {"vidtrain." + ".".join(f.relative_to(ROOT).parts) for f in folders}
    assert names <= set(packages), names - set(packages)
    modules = {
        "vidtrain." + ".".join(f.parent.relative_to(ROOT / "vidtrain").parts) for f in ROOT.glob("vidtrain/**/*.py")
    }
    assert {m.rstrip(".") for m in modules} <= set(packages)


def built(source: Path, output: Path) -> Path:
    """The wheel that `make wheel` makes of a tree."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        output,
        source,
    ]
    subprocess.run(command, check=True, timeout=300, env=environment)
    return next(output.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_has_the_package_and_its_configs_alone_and_runs_anywhere(tmp_path: Path, tiny: list[str]) -> None:
    pytest.importorskip("setuptools", minversion="78.1.1")
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    for tree in ("one", "two"):
        for name in (n for n in files if n and (ROOT / n).is_file()):
            (tmp_path / tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / tree / name)
    wheel, again = (built(tmp_path / tree, tmp_path / f"{tree}_wheel") for tree in ("one", "two"))
    assert wheel.read_bytes() == again.read_bytes()
    assert wheel.stat().st_size < 2_000_000
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        names = set(archive.namelist())
    for file in (ROOT / "conf").rglob("*.yaml"):
        assert f"vidtrain/conf/{file.relative_to(ROOT / 'conf').as_posix()}" in names
    assert {f"vidtrain/{f.relative_to(ROOT / 'vidtrain').as_posix()}" for f in ROOT.glob("vidtrain/**/*.py")} <= names
    assert {name.split("/")[0].split(".")[0].split("-")[0] for name in names} == {"vidtrain"}
    assert any(name.endswith("licenses/LICENSE") for name in names)

    code = "import sys, vidtrain.shell.cli as c; print(c.__file__, flush=True); c.main(sys.argv[1:])"
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "COMP_LINE": "vidtrain train experiment=de"}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        assert str(tmp_path / "site") in done.stdout
        return done.stdout

    assert "_target_: vidtrain.models" in run("train", "--cfg", "job")
    assert "experiment=demo" in run("-sc", "query=bash")
    assert "8/8" in run("train", "experiment=demo", *tiny, "trainer.epochs=1")


def test_a_users_list_of_defaults_may_name_a_choice(call: Call, tmp_path: Path) -> None:
    """By an interpolation in it, which Hydra resolves when the choices are known."""
    for name, text in {
        "experiment/mine": "# @package _global_\ndefaults:\n  - /notes: of_${experiment}\n",
        "notes/of_mine": "# @package trainer\nseed: 77\n",
    }.items():
        (tmp_path / "own" / name).parent.mkdir(parents=True)
        (tmp_path / "own" / f"{name}.yaml").write_text(text)
    out = call("train", "--config-dir", "own", "experiment=mine", "--cfg", "job", "-p", "trainer.seed").stdout
    assert out.split() == ["77"]


def test_composed_the_same_without_copies() -> None:
    register("train")
    run_dir.register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        usual = compose("train", ["model=c3d", "trainer.epochs=3"])
        with composed_without_copies():
            assert compose("train", ["model=c3d", "trainer.epochs=3"]) == usual
            changed = compose("train", ["model=c3d", "trainer.epochs=4", "++model.more=1", "optimizer=adamw"])
            assert changed != usual
            assert compose("train", ["model=c3d", "trainer.epochs=3"]) == usual  # nothing of it was kept
            closed = copy.deepcopy(usual)
            OmegaConf.set_readonly(closed.trainer, True)
            assert OmegaConf.is_readonly(closed.trainer)
            assert not OmegaConf.is_readonly(usual.trainer)
            assert closed.trainer._get_node("epochs")._metadata == usual.trainer._get_node("epochs")._metadata
    assert "__deepcopy__" not in vars(Metadata)


def test_a_file_is_parsed_twice_at_most_as_long_as_it_is_the_same(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own" / "data" / "clips.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("_target_: a.b\nroot: /one\n")
    parsed: list[str] = []
    load = OmegaConf.load

    def counted(file: Any) -> Any:
        parsed.append(Path(file.name).name)
        return load(file)

    monkeypatch.setattr(OmegaConf, "load", staticmethod(counted))

    def root() -> str:
        parsed.clear()
        return call("train", "--config-dir", "own", "data=clips", "--cfg", "job", "-p", "data.root").stdout.strip()

    for _ in range(2):
        assert (root(), "clips.yaml" in parsed) == ("/one", True)
    assert (root(), {"clips.yaml", "train.yaml"} & set(parsed)) == ("/one", set())
    own.write_text("_target_: a.b\nroot: /two\n")
    assert (root(), "clips.yaml" in parsed, "train.yaml" in parsed) == ("/two", True, False)


def test_shell_completion_of_commands_groups_and_keys(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def complete(line: str) -> list[str]:
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        return call("-sc", "query=bash").stdout.split()

    assert complete("vidtrain ") == list(COMMANDS)
    assert complete("vidtrain tr") == ["train"]
    assert "model=slow_fusion" in complete("vidtrain train model=slow")
    assert "trainer.epochs=" in complete("vidtrain train trainer.ep")
    odd = r"vidtrain train data=folder data.root='my clips (1)' run_dir=~/a\ b data.val_fr"
    assert complete(odd) == ["data.val_fraction="]
    assert "complete -o nospace" in call("--shell-completion", "install=bash").stdout


def test_hydra_is_pinned() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert re.search(r'"hydra-core>=1\.3\.\d+,<1\.5"', text)


@pytest.mark.slow
def test_a_sweep_in_processes_of_joblib(tiny: list[str], tmp_path: Path, vidtrain: Run) -> None:
    """Its way to start processes is not one that a loader knows; a run that fails there shows in the exit code."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs vidtrain[joblib]")
    options = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "trainer.epochs=1", "trainer.num_workers=1"]
    done = vidtrain(
        "train", "-m", *tiny, *options, "model=single_frame", "optimizer.lr=0.1,-1", "hydra.sweep.dir=s", check=2
    )
    assert "1 of the runs failed: optimizer.lr=-1: " in done.stderr
    lines = (tmp_path / "s" / "table.txt").read_text().splitlines()
    assert ["8/8" in line for line in lines[2:]] == [True, False]


@pytest.mark.parametrize(
    ("given", "times"),
    [([], 1), (["hydra.verbose=false"], 1), (["hydra.mode=RUN"], 2), (["--config-dir", "own"], 2)],
)
def test_composed_once_where_nothing_can_set_the_mode(
    given: list[str], times: int, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    seen = []
    compose = Hydra.compose_config

    def counted(*args: Any, **kwargs: Any) -> Any:
        seen.append(args)
        return compose(*args, **kwargs)

    monkeypatch.setattr(Hydra, "compose_config", counted)
    assert "slow_fusion: 400 classes" in call("inspect", "model=slow_fusion", "transform.size=16", *given).stdout
    # Hydra 1.4 looks the mode up without composing
    assert len(seen) == (times if hydra.__version__.startswith("1.3") else 1)


NEXT = ("hydra-core==1.4.0rc3", "omegaconf==2.4.1rc1")


@pytest.mark.slow
def test_the_next_line_of_hydra(tiny: list[str], tmp_path: Path) -> None:
    """1.4 beside the 1.3 that is installed: a sweep of processes, and a mistake in one line without Hydra's notices."""
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", tmp_path / "next", *NEXT]
    if subprocess.run(install, capture_output=True, timeout=300, check=False).returncode:
        pytest.skip(f"{', '.join(NEXT)} cannot be installed here")
    env = {**environment(), "PYTHONPATH": str(tmp_path / "next")}

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vidtrain", "train", *options]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)

    code = "import hydra; print(hydra.__version__)"
    found = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    assert found.stdout.startswith("1.4.")
    short = ["trainer.epochs=1", "trainer.test=false", "sweep.jobs=2", "hydra.sweep.dir=s"]
    done = run("-m", *tiny, *short, "optimizer.lr=0.1,-1")
    assert done.returncode == 2
    assert "Warning" not in done.stderr
    assert "1 of the runs failed: optimizer.lr=-1: " in done.stderr
    assert len((tmp_path / "s" / "table.txt").read_text().splitlines()) == 4
    lines = run("trainer.epoch=1").stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("vidtrain: error: no key 'trainer.epoch'")
