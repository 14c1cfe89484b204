"""Sweeps as a user runs them: continued after kills, several at once, by Optuna, by launchers."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import Call, environment, error_line
from vidtrain.commands.sweep import sweep_table
from vidtrain.commands.sweeps.objectives import validations
from vidtrain.commands.sweeps.record import RunState, SweepRecord, SweepRun, read_record, state_of
from vidtrain.engine import hooks
from vidtrain.runs.sole_writer import sole_writer
from vidtrain.shell import sweeper

QUICK = [
    "trainer.epochs=1",
    "trainer.compile=off",
    "eval.clips=1",
    "logger=none",
    "trainer.device=cpu",
    "eval.max_views=null",
]


def results(sweep: Path) -> dict[str, float]:
    """Folder of a finished run -> when its result was written."""
    return {file.parent.name: file.stat().st_mtime for file in sweep.glob("*/result.json")}


def rows(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "sweep.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_grid_goes_on_where_it_was_cut_and_may_grow(tiny: list[str], call: Call, tmp_path: Path) -> None:
    command = ["train", "-m", *tiny, *QUICK, "trainer.test=false"]
    done = call(*command, "optimizer.lr=0.01,-1", "hydra.sweep.dir=s", check=2)
    assert "1 of the runs failed: optimizer.lr=-1: " in done.stderr
    assert re.search(r"\t#0 : .* optimizer\.lr=0\.01\n", done.stderr)  # not what every run is given
    assert [row["state"] for row in rows(tmp_path / "s")] == ["finished", "failed"]
    before = results(tmp_path / "s")
    done = call(*command, "optimizer.lr=0.01,0.02", "hydra.sweep.dir=s", check=2)
    assert error_line(done) == "s holds a sweep: sweep.resume=s continues it; or take another folder"
    line = error_line(call(*command, "trainer.seed=3", "optimizer.lr=0.01,0.02", "sweep.resume=s", check=2))
    assert "s is another sweep: trainer.seed was not given, is 3" in line
    assert "no sweep there" in error_line(call(*command, "optimizer.lr=1,2", "sweep.resume=t", check=2))
    (tmp_path / "s" / "1_optimizer.lr--1" / "error.json").rename(tmp_path / "error.json")
    (tmp_path / "s" / "1_optimizer.lr--1" / "result.json").write_text("{torn")
    done = call(*command, "optimizer.lr=0.01,0.02", "sweep.resume=s", "logger=jsonl", check=2)
    assert "1 of the runs failed: optimizer.lr=-1: " in done.stderr  # it has been tried again
    assert results(tmp_path / "s").keys() == {*before, "1_optimizer.lr--1", "2_optimizer.lr-0.02"}
    assert results(tmp_path / "s")["0_optimizer.lr-0.01"] == before["0_optimizer.lr-0.01"]
    found = [(row["optimizer.lr"], row["state"]) for row in rows(tmp_path / "s")]
    assert found == [("0.01", "finished"), ("-1", "failed"), ("0.02", "finished")]
    assert (tmp_path / "s" / "sweep.png").read_bytes()[:4] == b"\x89PNG"
    assert "sweep.trial" not in (tmp_path / "s" / "table.txt").read_text()


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["hydra.sweep.subdir=a/${hydra.job.num}"], "hydra.sweep.subdir=a/0: expected a name of its own"),
        (["hydra.sweep.subdir=x", "hydra/sweeper=optuna"], "hydra.sweep.subdir=x: expected a name of its own"),
        (["optimizer.lr=1", "hydra.sweep.subdir=sweep.json"], "hydra.sweep.subdir=sweep.json: expected a name of its"),
        (["sweep.space={optimizer: {lr: 1}, a: [2]}"], "sweep.space: optimizer.lr: expected a text in Hydra's grammar"),
        (["hydra.sweep.dir=/proc/s"], "/proc/s: this folder cannot be made: give another"),
    ],
)
def test_folders_and_spaces_that_cannot_be_are_refused_before_the_first_run(
    given: list[str], shown: str, tiny: list[str], call: Call, tmp_path: Path
) -> None:
    command = ["train", "-m", *tiny, "optimizer.lr=0.1,0.2"]
    assert error_line(call(*command, "hydra.sweep.dir=s", *given, check=2)).startswith(shown)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("kind", "options", "seeds"),
    [
        ("grid", ["trainer.seed=1,3"], "123"),
        pytest.param("optuna", ["hydra/sweeper=optuna", "sweep.trials=2"], "13", marks=pytest.mark.slow),
    ],
)
def test_a_sweep_sees_what_another_did_while_it_waited_for_the_folder(
    tiny: list[str],
    call: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    options: list[str],
    seeds: str,
) -> None:
    if kind == "optuna":
        pytest.importorskip("optuna", reason="needs vidtrain[optuna]")
        options = [*options, "trainer.seed=1,2,3"]
    own = [*tiny, *QUICK, "trainer.test=false"]
    fixed = {key: value for key, _, value in (option.partition("=") for option in own)}
    space = {"trainer.seed": "1,3" if kind == "grid" else "1,2,3"}
    record = SweepRecord(tmp_path / "s", kind, fixed, space, [("primary", "maximize")])
    for number, seed in enumerate(seeds):
        run = SweepRun(number, f"{number}_trainer.seed-{seed}", {"trainer.seed": seed})
        (record.folder / run.folder).mkdir(parents=True)
        result = {"summary": {}, "test": None, "val": {"top1": 0.5}, "primary": "top1", "checkpoint": "best.pt"}
        (record.folder / run.folder / "result.json").write_text(json.dumps(result))
        record.runs.append(run)
    whole, record.runs = record.runs, record.runs[:1]
    record.save()

    @contextmanager
    def taken_late(folder: Path, key: str) -> Iterator[None]:
        record.runs = whole
        record.save()
        with sole_writer(folder, key):
            yield

    monkeypatch.setattr(sweeper, "sole_writer", taken_late)
    call("train", "-m", *own, *options, "sweep.resume=s")
    kept = read_record(record.folder)
    assert kept is not None
    assert kept.runs == whole
    assert [(row["trainer.seed"], row["state"]) for row in rows(record.folder)] == [(n, "finished") for n in seeds]


def test_a_run_that_is_pruned_is_finished_but_not_tested(
    tiny: list[str], call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "_LOOKS_EVERY", 0.0)
    run = tmp_path / "s" / "0_x"
    run.mkdir(parents=True)
    (run / hooks.PRUNE).touch()
    command = ["train", *tiny, *QUICK, "trainer.epochs=9", "sweep.trial=0", "hydra.run.dir=s/0_x", "resume=auto"]
    assert "pruned by its sweep in epoch 2; it is not tested" in call(*command).stderr
    result = json.loads((run / "result.json").read_text())
    assert (result["pruned"], result["test"], result["best_epoch"]) == (True, None, 1)
    assert result["val"]["top1"] == validations(run)[1]["primary"]
    assert (run / "best.pt").is_file()
    assert state_of(run) is RunState.pruned
    assert sweep_table(tmp_path / "s").splitlines()[2].split()[1] == "pruned"
    assert "was pruned by its sweep" in call("compare", "s", check=2).stderr
    assert "is finished already" in call(*command).stderr


@pytest.mark.slow
def test_a_run_as_a_process(tiny: list[str], call: Call, tmp_path: Path) -> None:
    """With the user's own configs, and a mistake that shows as it does in this process."""
    (tmp_path / "my conf" / "experiment").mkdir(parents=True)
    (tmp_path / "my conf" / "experiment" / "mine.yaml").write_text("# @package _global_\ntrainer:\n  seed: 7\n")
    flags = ["--config-dir", "my conf", "experiment=mine", "sweep.jobs=2", "hydra.sweep.dir=a b"]
    done = call("train", "-m", *flags, *tiny, *QUICK, "trainer.test=false", "optimizer.lr=0.02,-1", check=2)
    assert "1 of the runs failed: optimizer.lr=-1: " in done.stderr
    assert "Invalid learning rate" in done.stderr
    assert [row["state"] for row in rows(tmp_path / "a b")] == ["finished", "failed"]
    folder = tmp_path / "a b" / "0_optimizer.lr-0.02"
    assert json.loads((folder / "config.json").read_text())["trainer"]["seed"] == 7
    assert "scored" not in (folder / "output.txt").read_text()
    assert "run folder: " in (folder / "output.txt").read_text()


KILLS, TRIALS = 10, 12


@pytest.mark.slow
@pytest.mark.parametrize(("trials", "kills", "seed"), [(4, 2, 1), (TRIALS, KILLS, 2)])
def test_a_search_that_is_killed_at_random_moments(
    tiny: list[str], tmp_path: Path, trials: int, kills: int, seed: int
) -> None:
    """SIGKILL, every second time of the sweep, else of one of its runs."""
    draw = random.Random(seed)
    command = [sys.executable, "-m", "vidtrain", "train", "-m", *tiny, *QUICK, "trainer.epochs=2", "trainer.test=true"]
    command += ["hydra/sweeper=optuna", "optimizer.lr=tag(log, interval(0.001, 0.1))", "model.width=2,4"]
    command += ["hydra.sweep.dir=s", f"sweep.trials={trials}", "sweep.jobs=2", "sweep.resume=auto"]
    sweep, log = tmp_path / "s", tmp_path / "log"
    first_written: dict[str, float] = {}

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            return subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=out, stderr=out)

    def validated() -> int:
        return sum(len(file.read_text().splitlines()) for file in sweep.glob("*/validations.jsonl"))

    process, left = start(), kills
    while left:
        # some moments after a time, which on a busy machine is while PyTorch is imported, others after some epochs
        until, enough = time.monotonic() + draw.uniform(1, 20), validated() + draw.choice([0, 0, 1, 1, 2])
        while (time.monotonic() < until or validated() < enough) and process.poll() is None:
            time.sleep(0.2)
            for name, when in results(sweep).items():
                first_written.setdefault(name, when)
        runs = [pid for pid in children_of(process.pid) if process.poll() is None]
        if left % 2 == 0 and runs:
            os.kill(draw.choice(runs), signal.SIGKILL)
            left -= 1
        elif process.poll() is None and left % 2 == 1:
            process.kill()
            process.wait()
            left -= 1
            process = start()
        elif process.poll() is not None:
            break
    assert process.wait(timeout=1500) == 0, log.read_text()
    assert left == 0, log.read_text()
    record = json.loads((sweep / "sweep.json").read_text())["runs"]
    assert len(record) == trials
    assert len({json.dumps(run["varied"]) for run in record}) == trials
    assert results(sweep).keys() == {run["folder"] for run in record}
    for name, when in first_written.items():
        assert results(sweep)[name] == when, f"{name} was made twice"
    table = rows(sweep)
    assert Counter(row["state"] for row in table) == {"finished": trials}
    assert all(row["val top1"] for row in table)
    assert len((sweep / "table.txt").read_text().splitlines()) == trials + 2
    optuna = pytest.importorskip("optuna")
    [study] = optuna.get_all_study_summaries(f"sqlite:///{sweep / 'study.db'}")
    assert study.n_trials == trials


def children_of(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]
