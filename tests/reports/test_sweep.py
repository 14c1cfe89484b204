"""The tables at the end of a sweep, from the files that its runs leave."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from vidtrain.commands import sweep
from vidtrain.commands.sweep import sweep_table
from vidtrain.reports.results import summary_cells
from vidtrain.tasks.classification.task import Classification
from vidtrain.untrusted_data import read_texts


def run(folder: Path, number: int, overrides: list[str], top1: float | None, *, val: float | None = 0.5) -> None:
    """What a run leaves that has finished, or, without a score, one that failed."""
    home = folder / f"{number}_run"
    (home / ".hydra").mkdir(parents=True)
    (home / ".hydra" / "overrides.yaml").write_text("".join(f"- {each}\n" for each in overrides))
    if top1 is None:
        (home / "error.json").write_text(json.dumps({"error": "no memory"}))
        return
    test = {"top1": top1, "top5": 1.0, "clip_top1": top1 / 2, "scored": 8, "listed": 8}
    result = {"test": test, "val": None if val is None else {"top1": val}, "clips_per_second": 3.0, "minutes": 1.0}
    result |= {"primary": "top1", "titles": dict(Classification("ab").titles)}
    result["params"] = 1000
    (home / "result.json").write_text(json.dumps({**result, "summary": summary_cells(result)}))


def means(text: str) -> list[list[str]]:
    """The cells of the second table, its header first."""
    lines = text[text.index("mean and standard deviation") :].splitlines()
    return [lines[1].split("  "), *(line.split() for line in lines[3:])]


def test_folds_end_in_a_row_with_mean_and_spread(tmp_path: Path) -> None:
    scores = (0.5, 0.75, 0.875, 0.625, 1.0)
    for fold, score in enumerate(scores):
        run(tmp_path, fold, ["data=folder", "data.folds=5", f"data.fold={fold}"], score)
    text = sweep_table(tmp_path)
    usual = text.split("\n\n")[0].splitlines()
    assert len(usual) == 7  # a row per run
    assert "test top-1  test top-5  test clip top-1  test scored  val top-1" in usual[0]
    assert "over data.fold:" in text
    # mean 0.75; squares 0.0625 + 0 + 0.015625 + 0.015625 + 0.0625 = 0.15625, by 4, root
    assert means(text)[1:] == [["5/5", "0.750", "0.198", "1.000", "0.000", "0.375", "0.099", "0.500", "0.000"]]


def test_each_setting_has_a_row_over_its_folds_and_seeds(tmp_path: Path) -> None:
    jobs = [(m, f, s) for m in ("a", "b") for f in (0, 1) for s in (0, 1)]
    for number, (model, fold, seed) in enumerate(jobs):
        names = [f"model={model}", "data.folds=2", f"data.fold={fold}", f"trainer.seed={seed}"]
        run(tmp_path, number, names, 0.5 + 0.25 * (model == "b"))
    text = sweep_table(tmp_path)
    assert "over data.fold, trainer.seed:" in text
    assert [row[:4] for row in means(text)[1:]] == [["a", "4/4", "0.500", "0.000"], ["b", "4/4", "0.750", "0.000"]]


def test_failed_and_missing_folds_are_counted(tmp_path: Path) -> None:
    for fold, score in enumerate((0.5, None, float("nan"))):
        run(tmp_path, fold, ["data.folds=5", f"data.fold={fold}"], score)
    # two of five have a result, one of them has a score: of one there is no spread
    assert means(sweep_table(tmp_path))[1][:2] == ["2/5", "0.500"]
    assert "failed" in sweep_table(tmp_path)


def test_records_of_anybody_are_rows_as_well(tmp_path: Path) -> None:
    for fold in range(3):
        run(tmp_path, fold, [f"data.folds={'9' * 5000}", f"data.fold={fold}"], 0.5)
    for number, changed in enumerate([{"titles": []}, {"test": {"top1": 10**400}}, {"summary": {"a\x1b[31m": [1]}}]):
        file = tmp_path / f"{number}_run" / "result.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    text = sweep_table(tmp_path)
    assert text.isprintable() or {c for c in text if not c.isprintable()} == {"\n"}
    assert text.splitlines()[2].split() == ["0", "unfinished"]
    assert means(text)[1][0] == "2/3"


@pytest.mark.parametrize("key", ["data.split", "trainer.seed", "data.split_seed"])
def test_official_splits_and_seeds_are_repeats(tmp_path: Path, key: str) -> None:
    for number in (1, 2, 3):
        run(tmp_path, number, [f"{key}={number}"], 0.25 * number, val=None)
    assert means(sweep_table(tmp_path))[1] == ["3/3", "0.500", "0.250", "1.000", "0.000", "0.250", "0.125"]


def test_other_sweeps_have_one_table(tmp_path: Path) -> None:
    for number, rate in enumerate((0.1, 0.01)):
        run(tmp_path, number, [f"optimizer.lr={rate}", "data.folds=2", "data.fold=0"], 0.5)
    assert "mean" not in sweep_table(tmp_path)
    assert sweep_table(tmp_path / "0_run") == ""


def test_compare_is_named_where_it_has_tests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    for number in (0, 1):
        run(tmp_path, number, [f"optimizer.lr={number}"], 0.5)
        file = tmp_path / f"{number}_run" / "result.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "checkpoint": "best.pt"}))
    sweep.SweepEnd(with_table=True).on_multirun_end(config)
    assert capsys.readouterr().out.endswith(f"table.txt; which differences are shown: vidtrain compare {tmp_path}\n")
    file.write_text(json.dumps({**json.loads(file.read_text()), "test": None}))
    sweep.SweepEnd(with_table=True).on_multirun_end(config)
    assert capsys.readouterr().out.endswith("table.txt\n")


def test_a_table_that_cannot_be_written_is_shown_and_hides_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "failed", [])
    run(tmp_path, 0, ["optimizer.lr=1"], 0.5)
    run(tmp_path, 1, ["optimizer.lr=2"], None)
    (tmp_path / "1_run" / "error.json").write_text(json.dumps({"run": "optimizer.lr=2", "error": "no memory"}))
    (tmp_path / "table.txt").mkdir()
    sweep.SweepEnd(with_table=True).on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert capsys.readouterr().out.startswith("optimizer.lr ")
    assert sweep.failed == ["optimizer.lr=2: no memory"]


def test_failures_are_counted_by_what_the_runs_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "failed", [])
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    for name in ("0_before", "1_again", "2_new", "3_cut_off"):
        (tmp_path / name).mkdir()
    (tmp_path / "0_before" / "error.json").write_text(json.dumps({"run": "a=0", "error": "of an earlier sweep"}))
    again = tmp_path / "1_again" / "error.json"
    again.write_text(json.dumps({"run": "a=1", "error": "old"}))
    os.utime(again, (1, 1))
    count = sweep.SweepEnd()
    count.on_multirun_start(config)
    again.write_text(json.dumps({"run": "a=1", "error": "no memory"}))
    (tmp_path / "2_new" / "error.json").write_text(json.dumps({"run": "a=2", "error": "no data"}))
    (tmp_path / "3_cut_off" / "error.json").write_text("{")
    count.on_multirun_end(config)
    assert sweep.failed[:2] == ["a=1: no memory", "a=2: no data"]
    assert sweep.failed[2].startswith("3_cut_off: see ")
    assert len(sweep.failed) == 3


@pytest.mark.parametrize(
    "text",
    [
        "{a: 1}", "3", "- [a]", "- *x", "[" * 500, "- 'x=" + "y" * 70_000 + "'",
        "\n".join(["- &a0 x", *(f"- &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]),
    ],
)  # fmt: skip
def test_overrides_that_hydra_has_not_written(tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str) -> None:
    run(tmp_path, 0, ["data.fold=0"], 0.5)
    run(tmp_path, 1, ["data.fold=1"], 0.75)
    (tmp_path / "1_run" / ".hydra" / "overrides.yaml").write_text(text)
    lines = sweep_table(tmp_path).splitlines()
    assert len(lines) == 3
    assert "1_run/.hydra/overrides.yaml: is not what Hydra writes" in caplog.text


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"summary": 3}', '{"test": {}}'])
def test_a_damaged_result_is_one_unfinished_run(tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str) -> None:
    for number in range(3):
        run(tmp_path, number, [f"data.fold={number}"], 0.5)
    (tmp_path / "1_run" / "result.json").write_text(text)
    (tmp_path / "2_run" / "error.json").write_text(text)
    rows = sweep_table(tmp_path).split("\n\n")[0].splitlines()[2:]
    assert [next(word for word in ("unfinished", "failed", "50.0", "0.5") if word in row) for row in rows][1:] == [
        "unfinished",
        "failed",
    ]
    assert "1_run/result.json: cannot be read" in caplog.text


def test_texts_of_overrides(tmp_path: Path) -> None:
    file = tmp_path / "overrides.yaml"
    for overrides in (["a=1", "b=[1,2]", "c='x: y'"], ["+x={a: 1}", "7", "~y", "d=\u00e9 #"]):
        OmegaConf.save(OmegaConf.create(overrides), file)
        assert read_texts(file) == overrides
