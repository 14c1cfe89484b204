"""What limits a run, from measured numbers."""

from __future__ import annotations

from vidtrain.data.checks.loading_times import Stages
from vidtrain.reports.doctor import Findings, Trial, advice, tables

STAGES = Stages(open=2.0, decode=30.0, augment=8.0, waiting=0.0, clips=10)


def findings(
    loading: float, stepping: float, device: str = "cuda", stages: Stages = STAGES, workers: int = 4
) -> Findings:
    return Findings(stages, loading, 9000.0, stepping, workers, 8, device, "bf16")


def test_on_a_gpu_the_slower_part_decides() -> None:
    assert findings(100, 400).run_rate(100) == 100
    assert findings(100, 400).data_limits
    assert findings(500, 400).run_rate(500) == 400
    assert not findings(500, 400).data_limits
    assert not findings(390, 400).data_limits  # nothing to be won


def test_on_the_cpu_the_times_add_up() -> None:
    found = findings(100, 100, "cpu")
    # four of eight processors decode: a clip costs 10 ms of the model and half of 10 ms of decoding
    assert abs(found.run_rate(100) - 1 / 0.015) < 1e-9
    assert abs(findings(100, 100, workers=0).run_rate(100) - 50) < 1e-9  # one after the other, on a GPU, too


def test_the_model_limits() -> None:
    text = advice(findings(500, 400), [])
    assert text.startswith("a run makes about 400 clips/s: the model limits it")
    assert "recommended" not in text


def test_the_best_change_that_was_measured_is_recommended() -> None:
    trials = [Trial("more", 150, "a"), Trial("copies", 900, "b"), Trial("none", 90, "c")]
    lines = advice(findings(100, 400), trials).splitlines()
    assert "the data limit it" in lines[0]
    assert "decoding above all (75% of a clip's time)" in lines[0]
    assert [line.split()[1] for line in lines[1:4]] == ["copies:", "more:", "none:"]
    assert lines[1].split()[0] == "4.0x"  # the model stops it at 400
    assert lines[-1] == "recommended: copies"


def test_nothing_is_recommended_that_gains_nothing() -> None:
    assert "none of the changes that were tried helps" in advice(findings(100, 400), [Trial("more", 105, "a")])


def test_a_slow_disk_is_named() -> None:
    waiting = Stages(open=2.0, decode=30.0, augment=8.0, waiting=120.0, clips=10)
    assert "waiting for the disk above all (75% of a clip's time)" in advice(findings(100, 400, stages=waiting), [])


def test_the_table_has_a_row_for_each_part() -> None:
    text = tables(findings(100, 400))
    for part in ("open the file", "decode, scale", "crop, augment", "loader", "move to the device", "training step"):
        assert part in text
