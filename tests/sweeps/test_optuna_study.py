"""What Optuna draws for a sweep, and that it is the same whether the sweep was cut or not."""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from vidtrain.commands.sweeps import optuna_study as studies
from vidtrain.commands.sweeps import output_files as sweep_files
from vidtrain.commands.sweeps.objectives import best_of, chosen_objectives, validations, values_of
from vidtrain.commands.sweeps.optuna_study import STUDY, Study, check_search
from vidtrain.commands.sweeps.output_files import write_files
from vidtrain.commands.sweeps.record import RunState, SweepRecord, SweepRun, state_of
from vidtrain.commands.sweeps.run_sources import OptunaSource
from vidtrain.commands.sweeps.search_space import Space, read_space
from vidtrain.engine.hooks import PRUNE, VALIDATIONS
from vidtrain.errors import ConfigError
from vidtrain.options.schema import SweepConfig, SweepDirection, SweepPruner, SweepSampler

optuna = pytest.importorskip("optuna", reason="needs vidtrain[optuna]")

PRIMARY = [("primary", "maximize")]
NUMBERS = read_space(["lr=tag(log, interval(0.001, 1))", "width=range(1,64)", "drop=range(0,0.5,0.1)"], {})


def score(varied: dict[str, str]) -> float:
    """The best learning rate is 0.1."""
    return -abs(math.log10(float(varied["lr"])) + 1)


def search(space: Space, options: SweepConfig, count: int, *, cut_every: int = 1000) -> list[dict[str, str]]:
    """What one worker tries; after every `cut_every` runs another process goes on."""
    tried: list[dict[str, str]] = []
    study = Study(space, options, PRIMARY)
    for number in range(count):
        if number and number % cut_every == 0:
            study = Study(space, options, PRIMARY)
            for earlier, varied in enumerate(tried):
                study.restore(earlier, varied)
                study.tell(earlier, [score(varied)], pruned=False)
            study.resumed()
        varied = study.ask(number)
        assert varied is not None
        tried.append(varied)
        study.tell(number, [score(varied)], pruned=False)
    return tried


@pytest.mark.parametrize("sampler", [SweepSampler.tpe, SweepSampler.random])
def test_a_cut_changes_nothing_of_what_is_drawn(sampler: SweepSampler) -> None:
    options = SweepConfig(sampler=sampler, startup_trials=4)
    whole = search(NUMBERS, options, 12)
    assert search(NUMBERS, options, 12, cut_every=3) == whole
    assert search(NUMBERS, SweepConfig(sampler=sampler, startup_trials=4, seed=1), 4) != whole[:4]
    assert len({json.dumps(varied) for varied in whole}) == 12


@pytest.mark.slow
def test_tpe_and_cmaes_find_what_is_good() -> None:
    pytest.importorskip("cmaes")
    for sampler in (SweepSampler.tpe, SweepSampler.cmaes):
        tried = search(NUMBERS, SweepConfig(sampler=sampler, startup_trials=5), 40, cut_every=20)
        first, last = (sum(map(score, part)) / 10 for part in (tried[:10], tried[-10:]))
        assert last > first + 0.2, sampler


def test_values_are_those_of_the_space() -> None:
    space = read_space(["a=int(interval(1,3))", "b=range(0,0.5,0.1)", "c='x y',z", "d=tag(log,range(1,9))"], {})
    for varied in search(read_space(["lr=interval(0.1,1)"], {}), SweepConfig(), 3):
        assert 0.1 <= float(varied["lr"]) <= 1
    study = Study(space, SweepConfig(), PRIMARY)
    for number in range(20):
        varied = study.ask(number)
        assert varied is not None
        assert varied["a"] in "123"
        assert varied["b"] in ("0.0", "0.1", "0.2", "0.30000000000000004", "0.4", "0", "0.3")
        assert varied["c"] in ("'x y'", "z")
        assert 1 <= int(varied["d"]) <= 8


def test_no_combination_comes_twice_and_the_space_has_an_end() -> None:
    space = read_space(["a=1,2", "b=x,y,z"], {})
    study, tried = Study(space, SweepConfig(startup_trials=2), PRIMARY), []
    while (varied := study.ask(len(tried))) is not None:
        tried.append(varied)
        study.tell(len(tried) - 1, [1.0], pruned=False)
    assert sorted(map(str, tried)) == sorted(map(str, space.grid()))


@pytest.mark.parametrize("listed", [True, False])
def test_a_search_that_draws_the_same_again_and_again_goes_on_to_the_last_one(
    listed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a space that is too large for a list of what was not tried."""
    monkeypatch.setattr(studies, "_TRIES", 1)
    if not listed:
        monkeypatch.setattr(studies, "_LARGEST_SPACE", 0)
    space = read_space(["a=int(interval(1,4))", "b=range(0,0.5,0.3)"], {})
    study = Study(space, SweepConfig(startup_trials=2), PRIMARY)
    tried = []
    while (varied := study.ask(len(tried))) is not None:
        tried.append(tuple(varied.values()))
        study.tell(len(tried) - 1, [-float(varied["a"])], pruned=False)
    assert sorted(tried) == [(a, b) for a in "1234" for b in ("0.0", "0.3")]


@pytest.mark.filterwarnings("error")
def test_the_last_value_of_a_range_is_drawn_like_the_others() -> None:
    study = Study(read_space(["a=range(0,1,0.3)"], {}), SweepConfig(), PRIMARY)
    study.restore(0, {"a": "0.9"})
    [distribution] = study._distributions.values()
    assert (distribution.low, distribution.high) == (0.0, 0.9)


def test_a_run_that_is_worse_than_the_others_is_pruned() -> None:
    study = Study(NUMBERS, SweepConfig(pruner=SweepPruner.median, startup_trials=2, prune_after=2), PRIMARY)
    for number, level in enumerate([0.8, 0.9, 0.1]):
        study.ask(number)
        asked = []
        for epoch in (1, 2, 3):
            study.report(number, epoch, level)
            asked.append(study.wants_no_more(number))
        if level > 0.5:
            assert not any(asked)
            study.tell(number, [level], pruned=False)
    assert asked == [False, True, True]  # optuna's first step after the warm-up is prune_after itself


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (["a=1"], SweepConfig(), "nothing is varied"),
        (["a=x,y"], SweepConfig(sampler=SweepSampler.cmaes), "needs numbers"),
        (["a=1,2"], SweepConfig(objectives=["top1", "gmac"], pruner=SweepPruner.median), "no run is pruned"),
        (["a=1,2"], SweepConfig(objectives=["top1", "gmac"], sampler=SweepSampler.cmaes), "has one objective"),
    ],
)
def test_options_that_do_not_go_together(arguments: list[str], options: SweepConfig, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_search(read_space(arguments, {}), options, chosen_objectives(options.objectives, options.directions))


def test_directions_go_by_the_names_unless_they_are_given() -> None:
    assert chosen_objectives([], []) == PRIMARY
    found = chosen_objectives(["top1", "gmac", "test.loss"], [])
    assert [direction for _, direction in found] == ["maximize", "minimize", "minimize"]
    assert chosen_objectives(["gmac"], [SweepDirection.maximize]) == [("gmac", "maximize")]
    with pytest.raises(ConfigError, match="one per objective; there are 1"):
        chosen_objectives(["gmac"], [SweepDirection.maximize] * 2)


def finished(folder: Path, top1: float, gmac: float, **more: object) -> None:
    folder.mkdir(parents=True)
    result = {"summary": {}, "test": {"top1": 0.3}, "val": {"top1": top1}, "primary": "top1", "best_epoch": 2}
    (folder / "result.json").write_text(json.dumps({**result, "gmac": gmac, "checkpoint": "", **more}))
    lines = [{"epoch": epoch, "primary": top1, "loss": 1 / epoch, "scored": 40} for epoch in (1, 2, 3)]
    (folder / VALIDATIONS).write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"epoch": 4, "lo')


def test_objectives_are_read_from_what_a_run_wrote(tmp_path: Path) -> None:
    finished(tmp_path / "a", 0.5, 2.0)
    assert values_of(tmp_path / "a", ["primary", "top1", "loss", "gmac", "test.top1"]) == [0.5, 0.5, 0.5, 2.0, 0.3]
    assert list(validations(tmp_path / "a")) == [1, 2, 3]
    with pytest.raises(ConfigError, match=r"no 'top2'; it has primary, loss, scored, top1, gmac, test\.top1$"):
        values_of(tmp_path / "a", ["top2"])
    finished(tmp_path / "b", 0.5, 2.0, val=None)
    (tmp_path / "b" / VALIDATIONS).unlink()
    with pytest.raises(ConfigError, match=r"without a val split there is only the test's, such as test\.top1"):
        values_of(tmp_path / "b", ["primary"])


def test_the_best_are_those_that_none_beats() -> None:
    scored = {0: [0.5, 9.0], 1: [0.7, 10.0], 2: [0.5, 8.0], 3: [0.6, 11.0]}
    assert best_of(scored, [("top1", "maximize"), ("gmac", "minimize")]) == [1, 2]
    assert best_of({0: [0.5], 1: [0.7], 2: [0.7]}, [("top1", "maximize")]) == [1]
    assert best_of({0: [0.5], 1: [0.7]}, [("loss", "minimize")]) == [0]
    assert best_of({}, PRIMARY) == []


def source_in(
    folder: Path, options: SweepConfig, wanted: int = 4, objectives: list[tuple[str, str]] = PRIMARY
) -> OptunaSource:
    runs = [SweepRun(n, f"{n}_run", {"lr": f"0.{n + 1}", "width": "3", "drop": "0.1"}) for n in range(3)]
    record = SweepRecord(folder, "optuna", {}, {}, objectives, runs)
    study = Study(NUMBERS, options, record.objectives)
    return OptunaSource(record, study, lambda number, varied: SweepRun(number, f"{number}_run", varied), wanted)


def test_runs_of_an_earlier_process_are_told_to_the_study_and_copied_for_optuna(tmp_path: Path) -> None:
    finished(tmp_path / "0_run", 0.5, 1)
    finished(tmp_path / "1_run", 0.25, 1, pruned=True)
    source = source_in(tmp_path, SweepConfig())
    source.close()
    url = f"sqlite:///{tmp_path / STUDY}"
    study = optuna.load_study(study_name=tmp_path.name, storage=url)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED"]  # the third goes on
    assert study.best_value == 0.5
    assert study.best_params == {"lr": 0.1, "width": 3, "drop": 0.1}
    assert study.trials[0].user_attrs == {"folder": "0_run"}
    assert source.propose() is not None
    assert source.propose() is None  # four are wanted
    assert json.loads((tmp_path / "sweep.json").read_text())["runs"][3]["folder"] == "3_run"


def test_the_copy_for_optuna_is_in_a_folder_of_any_name_and_waits_for_no_other_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(studies, "_PATIENCE", 0.0)
    folder = tmp_path / "50%20off?x=1#y"
    finished(folder / "0_run", 0.5, 1)
    source = source_in(folder, SweepConfig())
    source.close()
    assert list(tmp_path.iterdir()) == [folder]
    finished(folder / "1_run", 0.6, 1)
    with closing(sqlite3.connect(folder / STUDY, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        source.over(SweepRun(1, "1_run", {}), RunState.finished)
        assert "study.db: is not written ((sqlite3.OperationalError) database is locked)" in caplog.text
        other.execute("ROLLBACK")
        source.close()
        assert other.execute("SELECT state FROM trials").fetchall() == [("COMPLETE",)] * 2


def test_a_search_for_what_no_run_has_ends_with_the_first_one(tmp_path: Path) -> None:
    source = source_in(tmp_path, SweepConfig(), objectives=[("top2", "maximize")])
    finished(tmp_path / "0_run", 0.5, 1)
    with pytest.raises(ConfigError, match=r"^sweep.objectives: the run has no 'top2'; it has primary, loss,"):
        source.over(SweepRun(0, "0_run", {}), RunState.finished)
    with pytest.raises(ConfigError, match=r"no 'top2'"):  # continued as it was
        source_in(tmp_path, SweepConfig(), objectives=[("top2", "maximize")])
    source_in(tmp_path, SweepConfig(), objectives=[("top1", "maximize")])


@pytest.mark.parametrize(
    "more",
    [
        {"primary": []},
        {"best_epoch": []},
        {"titles": None},
        {"test": {"intervals": {}}},
        {"test": {"intervals": {"level": 10**400, "resamples": 1, "over": "", "count": 1, "values": {}}}},
    ],
)
def test_what_no_run_has_written_is_no_result(tmp_path: Path, more: dict[str, object]) -> None:
    finished(tmp_path / "0_run", 0.5, 1, **more)
    assert state_of(tmp_path / "0_run") is RunState.new
    (tmp_path / "0_run" / VALIDATIONS).write_text('{"epoch": -1, "primary": 0.5}\n')
    source = source_in(tmp_path, SweepConfig())
    source.watch(SweepRun(0, "0_run", {}))


def test_a_run_that_has_diverged_does_not_end_a_search(tmp_path: Path) -> None:
    source = source_in(tmp_path, SweepConfig())
    finished(tmp_path / "0_run", math.nan, 1)
    source.over(SweepRun(0, "0_run", {}), RunState.finished)
    with pytest.raises(ConfigError, match=r"^sweep.objectives: 'primary' of the run is not a number$"):
        values_of(tmp_path / "0_run", ["primary"])


def test_a_run_is_asked_to_end_by_a_file(tmp_path: Path) -> None:
    finished(tmp_path / "0_run", 0.5, 1)
    finished(tmp_path / "1_run", 0.6, 1)
    source = source_in(tmp_path, SweepConfig(pruner=SweepPruner.median, startup_trials=2))
    run, folder = SweepRun(2, "2_run", {}), tmp_path / "2_run"
    source.watch(run)
    folder.mkdir()
    (folder / VALIDATIONS).write_text('{"epoch": 1, "primary": 0.9}\n')
    source.watch(run)
    assert not (folder / PRUNE).exists()
    (folder / VALIDATIONS).write_text('{"epoch": 1, "primary": 0.9}\n{"epoch": 2, "primary": 0.1}\n' * 2)
    source.watch(run)
    assert not (folder / PRUNE).exists()  # its best is what counts
    (folder / VALIDATIONS).unlink()
    source = source_in(tmp_path, SweepConfig(pruner=SweepPruner.median, startup_trials=2))
    (folder / VALIDATIONS).write_text('{"epoch": 1, "primary": 0.1}\n{"epoch": 2, "primary": 0.1}\n')
    source.watch(run)
    assert (folder / PRUNE).exists()


def test_the_best_run_says_how_sure_it_is_and_which_are_as_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wilson's interval of 28 right answers of 40 is 0.5457 to 0.8193."""
    monkeypatch.setattr(sweep_files, "write_sweep_figure", lambda *_: None)  # tests/reports/test_sweep_figure.py

    def files(option: str, *shares: float, name: str = "primary", **more: object) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        runs = [SweepRun(n, f"{n}_run", {option: str(n)}) for n in range(len(shares))]
        for run, share in zip(runs, shares, strict=True):
            finished(folder / run.folder, share, 1.0, videos={"val": 45}, **more)
        write_files(SweepRecord(folder, "grid", {}, {}, [(name, "maximize")], runs))
        return (folder / "sweep.md").read_text().replace("\\", "").replace(str(folder), "DIR")

    text = files("lr", 0.5, 0.7, 0.6, 0.55)
    assert "best: run 1, lr=1: val top1 0.7, 95 % interval 0.55-0.82 over 40 videos (DIR/1_run); " in text
    assert "; run 2 (0.6) and 1 more lie within that: vidtrain compare DIR tests the differences\n" in text
    text = files("lr", 0.55, 0.7, 0.6, test=None)
    assert "; run 2 (0.6) and 1 more lie within that\n" in text  # there is no test to compare
    assert "over 40 videos (DIR/0_run)\n" in files("lr", 0.9, 0.2)
    text = files("lr", 1.0, 1.0, 0.9)  # the ends of Wilson's are off 1 by rounding
    assert "val top1 1, 95 % interval 0.91-1.00 over 40 videos (DIR/0_run); run 1 (1) lies within that" in text
    intervals = {"level": 0.95, "resamples": 9, "values": {"top1": [0.3, 0.5]}, "count": 8, "over": "groups"}
    test = {"top1": 0.4, "intervals": intervals}
    text = files("lr", 0.5, 0.6, name="test.top1", test=test)
    assert "test.top1 0.4, 95 % interval 0.30-0.50 over 8 groups (DIR/0_run); run 1 (0.4) lies within that" in text
    assert "gmac 1 (DIR/0_run)\n" in files("lr", 0.5, 0.6, name="gmac")
    assert "best" not in files("+data.fold", 0.5, 0.7)


def test_a_file_that_cannot_be_written_keeps_none_of_the_others_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_files, "write_sweep_figure", lambda *_: None)
    finished(tmp_path / "0_run", 0.5, 1)
    (tmp_path / "sweep.csv").mkdir()
    write_files(SweepRecord(tmp_path, "grid", {}, {}, PRIMARY, [SweepRun(0, "0_run", {"lr": "1"})]))
    assert (tmp_path / "sweep.md").is_file()
    assert "sweep.csv is not written: " in caplog.text
