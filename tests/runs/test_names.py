"""What runs are called, and which of them began last."""

from __future__ import annotations

from pathlib import Path

from vidtrain.runs.names import newest_run, run_name


def test_the_newest_of_the_runs_that_have_the_file(tmp_path: Path) -> None:
    assert newest_run(tmp_path, "best.pt") is None
    for name in ("2026-11-30_19-00-00", "2026-11-30_19-00-00_2", "2026-11-30_19-00-00_10", "2026-11-30_18-59-59"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "best.pt").touch()
    for name in ("2026-12-30_19-00-00x", "first", "99_optimizer.lr-0.1", "2026-11-30_19-00-01"):
        (tmp_path / name).mkdir()
        if name != "2026-11-30_19-00-01":  # of a run that has only begun
            (tmp_path / name / "best.pt").touch()
    (tmp_path / "2027-01-01_00-00-00").touch()
    assert newest_run(tmp_path, "best.pt") == tmp_path / "2026-11-30_19-00-00_10"


def test_a_run_that_begins_now_is_the_newest(tmp_path: Path) -> None:
    names = [run_name(number) for number in (1, 2, 11)]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "best.pt").touch()
    assert newest_run(tmp_path, "best.pt") == tmp_path / names[-1]
