"""A mistake is one line, and leaves nothing behind; a damaged file beside a sound checkpoint stops no run."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Call, environment, error_line
from tests.cli.test_runs import rows_of
from vidtrain.commands import train as train_command
from vidtrain.engine.checkpoints.checkpoint import Checkpoints, load_checkpoint, save_checkpoint
from vidtrain.engine.trainer import Trainer
from vidtrain.errors import VidtrainError
from vidtrain.shell import cli
from vidtrain.tasks.classification import scores
from vidtrain.tasks.classification.predictions_file import PredictionsFile
from vidtrain.tasks.task import Predictions


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # the two words of an "or" are libyaml's, which OmegaConf 2.4 reads with
        ("lr: [1, 2\nname: x\n", r":2: not a YAML file: (did not find )?expected ',' or ']'"),
        ("a: b: c\n", ":1: not a YAML file: mapping values are not allowed (here|in this context)"),
        ("\tkey: 1\n", r":1: not a YAML file: found character ('\\t' )?that cannot start any token"),
        ("a: \x01\n", "not a YAML file: unacceptable character"),
    ],
)
def test_a_file_that_is_no_yaml_is_named_with_its_line(
    tiny: list[str], call: Call, tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "own" / "optimizer" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    line = error_line(call("train", *tiny, "--config-dir", "own", "optimizer=mine", check=2))
    assert str(file) in line
    assert re.search(said, line)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "wrong",
    [pytest.param(f"trainer.seed={2**70}", marks=pytest.mark.slow), "trainer.batch_size=7", "model=nothing"],
)
def test_a_refused_run_leaves_no_folder(tiny: list[str], call: Call, wrong: str) -> None:
    arguments = [*tiny, "sampler.clips_per_video=2"]
    error_line_of = call("train", *arguments, wrong, check=2).stderr.splitlines()[-1]
    assert error_line_of.startswith("vidtrain: error: ")
    assert not Path("runs").exists()
    call("train", *arguments, wrong, "run_dir=mine", check=2)
    assert not Path("mine").exists()
    assert Path.cwd().is_dir()  # empty, too, and not ours to remove
    Path("all/of/mine").mkdir(parents=True)
    call("train", *arguments, wrong, "run_dir=all/of/mine/new/run", check=2)
    assert not Path("all/of/mine/new").exists()
    assert Path("all/of/mine").is_dir()


@pytest.fixture
def unreadable(tmp_path: Path) -> list[str]:
    """Options of a training whose videos are none, which shows in its first batch."""
    for number in range(20):
        file = tmp_path / "none" / "ab"[number % 2] / f"{number}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"no video")
    small = ["model=slow_fusion", "model.width=4", "transform.size=32", "trainer.num_workers=0", "eval.figures=false"]
    return [*small, "data=folder", "data.root=none"]


def test_a_training_that_fails_before_its_first_numbers_leaves_nothing(unreadable: list[str], call: Call) -> None:
    done = call("train", *unreadable, check=2)
    assert "cannot be read" in done.stderr.splitlines()[-1]
    assert not Path("runs").exists()


def test_what_somebody_has_put_into_a_folder_stays_with_it(
    unreadable: list[str], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Trainer.fit

    def fit(self: Trainer) -> None:
        Path("mine/notes.txt").write_text("mine")
        begin(self)

    monkeypatch.setattr(Trainer, "fit", fit)
    call("train", *unreadable, "run_dir=mine", check=2)
    assert {"notes.txt", "config.json", "train.log", ".hydra"} <= {entry.name for entry in Path("mine").iterdir()}


def test_a_training_that_fails_later_names_its_folder(
    tiny: list[str], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise VidtrainError("the test fails")

    monkeypatch.setattr(train_command, "_tested", fails)
    done = call("train", *tiny, "trainer.epochs=1", "run_dir=mine", check=2)
    before, last = done.stderr.splitlines()[-2:]
    assert before == f"vidtrain: {Path('mine').absolute()} holds what was trained; resume=auto goes on there"
    assert last == "vidtrain: error: the test fails"
    assert Path("mine/last.pt").is_file()
    monkeypatch.setattr(Checkpoints, "save_last", fails)
    assert "holds what was trained" not in call("train", *tiny, "run_dir=unsaved", check=2).stderr
    assert Path("unsaved/metrics.jsonl").is_file()


@pytest.mark.parametrize("folder", ["file", "file/run"])
def test_a_run_folder_that_is_a_file_is_named(tiny: list[str], call: Call, folder: str) -> None:
    Path("file").write_text("mine")
    assert error_line(call("train", *tiny, f"run_dir={folder}", check=2)).startswith(f"{folder}: ")
    assert Path("file").read_text() == "mine"


def test_a_folder_that_was_there_stays_when_a_run_is_refused(tiny: list[str], call: Call) -> None:
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    call("train", *tiny, "trainer.batch_size=7", "sampler.clips_per_video=2", "run_dir=mine", check=2)
    assert Path("mine/notes.txt").read_text() == "mine"


@pytest.mark.parametrize("content", [b"{", pytest.param(b"[1]", marks=pytest.mark.slow), b"\xff\xfe"])
def test_a_damaged_result_is_made_again(
    tiny: list[str], call: Call, trained: Path, tmp_path: Path, content: bytes
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    Path("run/result.json").write_bytes(content)
    if content == b"{":
        Path("run/metrics.jsonl").write_bytes(b"\x00\n" + Path("run/metrics.jsonl").read_bytes())
    done = call("train", *tiny, "run_dir=run", "resume=auto")
    assert "result.json is damaged: it is made again" in done.stderr
    before, after = (json.loads((run / "result.json").read_text())["test"] for run in (trained, Path("run")))
    assert before == after
    assert ("metrics.jsonl: 1 damaged lines are skipped" in done.stderr) == (content == b"{")


@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_a_lost_best_checkpoint_is_replaced_and_the_run_ends(
    tiny: list[str], call: Call, trained: Path, tmp_path: Path, how: str
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    Path("run/result.json").unlink()
    if how == "gone":
        Path("run/best.pt").unlink()
    else:
        Path("run/best.pt").write_bytes(b"damaged")
    done = call("train", *tiny, "run_dir=run", "resume=auto")
    assert "best.pt" in done.stderr
    assert "; using the weights of the last epoch" in done.stderr
    last, best = (load_checkpoint(Path("run") / name) for name in ("last.pt", "best.pt"))
    assert all((last["model"][key] == value).all() for key, value in best["model"].items())
    assert json.loads(Path("run/result.json").read_text())["test"]["scored"] == 8


def test_eval_of_a_checkpoint_where_nobody_may_write(trained: Path, call: Call, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shutil.copy(trained / "best.pt", shared)
    (shared / "eval").write_text("in the way")  # root may write anywhere, but not below a file
    done = call("eval", "checkpoint=shared/best.pt")
    assert "scored 8 of 8" in done.stdout
    folder = Path("runs/eval/shared/test_2x1")
    assert f"the files go to {folder}" in done.stderr
    assert rows_of(folder / "predictions.csv") == rows_of(trained / "test" / "predictions.csv")
    done = call("eval", "checkpoint=shared/best.pt", "output=shared/eval/x", check=2)
    assert "output=shared/eval/x: cannot be written to (Not a directory)" in error_line(done)
    assert not done.stdout  # before the work


def test_the_numbers_of_a_test_come_before_the_files(
    trained: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = PredictionsFile.add

    def full(self: PredictionsFile, answers: Predictions) -> None:
        if self.file.name == "predictions.csv":
            raise OSError(28, "No space left on device", "out/predictions.csv")
        real(self, answers)

    monkeypatch.setattr(PredictionsFile, "add", full)
    done = call("eval", f"checkpoint={trained / 'best.pt'}", "output=out", check=2)
    assert "scored 8 of 8" in done.stdout
    assert "No space left on device" in error_line(done)


def test_a_test_that_is_ended_leaves_the_rows_so_far(
    trained: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vidtrain.commands import scoring

    whole = scoring.evaluate

    def killed(task: object, model: object, batches: object, **kwargs: object) -> object:
        return whole(task, model, itertools.chain(itertools.islice(batches, 2), [None]), **kwargs)  # type: ignore

    monkeypatch.setattr(scoring, "evaluate", killed)
    with pytest.raises(AttributeError):  # the third batch, after two videos each
        cli.main(["eval", f"checkpoint={trained / 'best.pt'}", "output=out", "eval.batch_size=4"])
    assert rows_of(Path("out/predictions.partial.csv")) == rows_of(trained / "test" / "predictions.csv")[:4]
    assert [file.name for file in Path("out").iterdir()] == ["predictions.partial.csv"]
    monkeypatch.setattr(scoring, "evaluate", whole)
    monkeypatch.setattr(scores, "_MOST_CLASSES", 7)
    call("eval", f"checkpoint={trained / 'best.pt'}", "output=out")
    files = ["not_scored.csv", "predictions.csv", "probabilities.npy", "result.json"]
    assert sorted(file.name for file in Path("out").iterdir() if file.is_file()) == files
    assert rows_of(Path("out/predictions.csv")) == rows_of(trained / "test" / "predictions.csv")
    kept = json.loads((trained / "test" / "result.json").read_text())
    found = json.loads(Path("out/result.json").read_text())
    assert "confusion" not in found  # of eight classes
    assert {key: value for key, value in kept.items() if key != "confusion"} == found


def test_names_are_safe_in_logs_and_tables(tiny: list[str], call: Call, tmp_path: Path) -> None:
    source = next(Path(tiny[0].partition("=")[2]).rglob("train"), None)
    assert source is not None
    names = ["a\x1b[31m$_{", "b\n$5_to_$10"]
    for split in ("train", "val", "test"):
        for number, name in enumerate(names):
            shutil.copytree(source / sorted(p.name for p in source.iterdir())[number], tmp_path / "set" / split / name)
    (tmp_path / "set" / "train" / names[0] / "broken\x1b]0;x\x07.mp4").write_bytes(b"no video")
    options = [o for o in tiny[4:] if not o.startswith("data.")]
    done = call("train", "data=folder", "data.root=set", *options, "data.max_bad_fraction=1", "run_dir=run")
    text = done.stdout + done.stderr + Path("run/train.log").read_text()
    assert not {"\x1b", "\x07"} & {*text}
    assert "broken\\x1b]0;x\\x07.mp4" in done.stderr
    assert "Traceback" not in done.stderr
    assert "cannot be" not in done.stderr.replace("cannot be opened", "").replace("cannot be read", "")
    for action in ("show", "check", "info"):
        done = call("data", action, "data=folder", "data.root=set", "output=out\x1b[1m", *options[:4])
        assert not {"\x1b", "\x07"} & {*(done.stdout + done.stderr)}, action
        assert "\\x1b" in done.stdout
    content = load_checkpoint(Path("run/best.pt"))
    assert content["class_names"] == names
    save_checkpoint(Path("again.pt"), content)


def test_ctrl_c_while_the_program_is_imported_is_no_traceback(tmp_path: Path) -> None:
    script = """
import runpy, sys
name = sys.argv.pop(1)
class Interrupt:
    def find_spec(self, wanted, path=None, target=None):
        if wanted == name:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
runpy.run_module("vidtrain", run_name="__main__")
"""
    for name, said in (("vidtrain.shell.cli", ""), ("torch", "vidtrain: interrupted; ")):
        command = [sys.executable, "-c", script, name, "train", "trainer.epochs=1"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment())
        assert done.returncode == 130
        assert done.stderr.startswith(said)
        assert len(done.stderr.splitlines()) == bool(said)
    assert not (tmp_path / "runs").exists()
