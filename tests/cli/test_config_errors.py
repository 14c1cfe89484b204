"""A user's mistake: one line that names the key, what was got, what is allowed; exit code 2, no traceback."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.conftest import Call, Run, error_line
from vidtrain.shell import cli
from vidtrain.shell.multirun import prepared

MISTAKES = {
    "command": (["trian"], r"no command 'trian' \(did you mean train\?\); commands: init, train, eval,"),
    "flag": (["train", "--confg-dir", "x"], r"no flag '--confg-dir' \(did you mean --config-dir\?\)"),
    "flag without value": (["train", "--cfg"], r"flag '--cfg' requires a value"),
    "key": (
        ["train", "trainer.epoch=3"],
        r"no key 'trainer.epoch' \(did you mean trainer.epochs\?\); allowed: trainer",
    ),
    "key without its group": (["train", "lr=0.1"], r"no key 'lr' \(did you mean optimizer.lr\?\)"),
    "another program's name": (["train", "trainer.learning_rate=1"], r"learning_rate' \(did you mean optimizer.lr\?\)"),
    "another's, of testing": (["eval", "batch_size=8"], r"no key 'batch_size' \(did you mean eval.batch_size\?\)"),
    "what the data say": (
        ["train", "num_classes=8"],
        r"no key 'num_classes'; the number of classes comes",
    ),
    "options as flags": (
        ["train", "--epochs", "3"],
        r"no flag '--epochs'.*are written key=value, without dashes",
    ),
    "group": (["train", "modle=c3d"], r"no key 'modle' \(did you mean model"),
    "choice": (["train", "model=slow_fusoin"], r"model=slow_fusoin: no such model \(did you mean slow_fusion\?\)"),
    "own choice": (["train", "experiment=my_videos"], r"no such experiment.*; a folder of your own is .* --config-dir"),
    "experiment": (
        ["bench", "+experiment=my_videos"],
        r"no key 'experiment': vidtrain train and data take one, .*data.root=\.\.\.\); allowed: batch_size",
    ),
    "experiment of data": (["data", "check", "experiment=dmeo"], r"experiment=dmeo: no such .* \(did you mean demo"),
    "type": (["train", "trainer.epochs=many"], r"trainer.epochs: Value 'many' .* Integer"),
    "enum": (["train", "trainer.precision=bf61"], r"trainer.precision: Invalid value 'bf61', expected one of .*bf16"),
    "no equals sign": (["train", "model"], r"cannot read 'model'"),
    "section of another command": (["data", "sweep.space.a=1"], r"no key 'sweep.space.a'"),
    "missing": (["train", "data=folder"], r"data.root is not set: give data.root=\.\.\."),
    "missing checkpoint": (["eval"], r"checkpoint is not set"),
    "model option": (["inspect", "model=c3d", "model.dorpout=0.1"], r"no key 'model.dorpout'"),
    "added model option": (["inspect", "model=c3d", "+model.dorpout=0.1"], r"no key 'model.dorpout'.*takes: "),
    "option of another type": (["data", "info", "data.seed=x"], r"data.seed='x': expected int, got str"),
    "number for a choice": (["inspect", "num_classes=2", "model=3"], r"model=3: no such model; allowed: "),
    "list for a choice": (
        ["eval", "checkpoint=no.pt", "data=[]"],
        r"data=\[\]: expected one data, got a list; allowed",
    ),
    "data action": (
        ["data", "mkae"],
        r"vidtrain data mkae: no such action \(did you mean make\?\); allowed: info, make",
    ),
    "device": (["train", "trainer.device=gpu", "data.train_scenes=1"], r"trainer.device=gpu: not a device"),
    "crop over frame": (["train", "transform.resize=64"], r"transform.resize=64 is less than transform.size=112"),
    "crops": (["train", "eval.crops=2"], r"eval.crops=2: allowed are 1 \(centre\), 3"),
    "hop": (["train", "eval.hop=0s"], r"eval.hop=0s: must be at least 0.001s"),
    "hop of frames": (["train", "eval.hop=0"], r"eval.hop=0: must be at least 1"),
    "clips": (["train", "eval.clips=0"], r"eval.clips=0: must be at least 1"),
    "clip length": (["train", "sampler.num_frames=0"], r"sampler.num_frames=0: must be at least 1"),
    "batch size": (["train", "trainer.batch_size=0"], r"trainer.batch_size=0: must be at least 1"),
    "warm-up": (["train", "schedule.warmup_epochs=30"], r"schedule.warmup_epochs=30: must lie in 0 to trainer.epochs"),
}


TWINS = {"hop of frames", "clips", "clip length", "crops", "options as flags", "another's, of testing"}
"""Of others: the same lines with another key."""


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow) if case in TWINS else case for case in MISTAKES]
)
def test_mistake(call: Call, case: str) -> None:
    args, expected = MISTAKES[case]
    done = call(*args, check=2)
    assert re.search(expected, error_line(done)), done.stderr
    assert done.stdout == ""


def test_key_overridden_with_a_swept_group_says_how(call: Call) -> None:
    done = call("train", "-m", "model=late_fusion,single_frame", "model.fusion=fc", check=2)
    assert "write ++model.fusion=" in (said := error_line(done))
    assert "did you mean" not in said


def test_config_of_the_users_with_our_name_is_refused(call: Call, tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "c3d.yaml").write_text("_target_: mine.c3d\n")
    line = error_line(call("train", "--config-dir", "mine", "model=c3d", check=2))
    assert "c3d.yaml has the name of vidtrain's own" in line
    assert "rename it" in line


def test_config_dir_that_is_not_there(call: Call) -> None:
    assert "no such folder" in error_line(call("train", "--config-dir=nowhere", check=2))


@pytest.mark.parametrize("chosen", ["launcher=submitit_slurm", "sweeper=optuna"])
def test_launcher_or_sweeper_in_a_swept_experiment_is_refused(call: Call, tmp_path: Path, chosen: str) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    for name in ("one", "two"):
        text = f"# @package _global_\ndefaults:\n  - override /hydra/{chosen.replace('=', ': ')}\n"
        (tmp_path / "mine" / "experiment" / f"{name}.yaml").write_text(text)
    done = call("train", "-m", "--config-dir", "mine", "experiment=one,two", check=2)
    assert f"give hydra/{chosen} on the command line" in error_line(done)


def test_the_sweeper_is_the_one_that_is_named_else_the_grid(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "search.yaml").write_text("defaults:\n  - override /hydra/sweeper: optuna\n")
    assert prepared("train", ["a=1,2"], tmp_path)[1] == "hydra/sweeper=grid"
    assert prepared("train", ["experiment=demo"], tmp_path)[1] == "hydra/sweeper=grid"
    for given in (["hydra/sweeper=basic"], ["experiment=search"], ["experiment=[demo,search]"]):
        assert "hydra/sweeper=grid" not in prepared("train", given, tmp_path)
    assert "hydra/sweeper=grid" not in prepared("eval", ["a=1,2"], tmp_path)


def test_a_mistake_in_a_process_of_its_own(vidtrain: Run) -> None:
    done = vidtrain("train", "trainer.epoch=3", check=2)
    assert "no key 'trainer.epoch'" in error_line(done)
    assert done.stdout == ""


def test_an_unknown_action_is_said_before_anything_is_imported(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_run_hydra", None)  # which imports Hydra, and then PyTorch
    assert error_line(call("data", "mkae", check=2)).startswith("vidtrain data mkae: no such action")
