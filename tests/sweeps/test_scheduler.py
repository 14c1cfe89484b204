"""Which run comes next: the queue of a sweep with workers that only pretend, in a time that only pretends."""

from __future__ import annotations

import heapq
import json
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest

from vidtrain.commands.sweep import FAILURE, RECORD
from vidtrain.commands.sweeps import scheduler as scheduling
from vidtrain.commands.sweeps.record import RunState, SweepRecord, SweepRun, read_record, refuse_other_sweep, state_of
from vidtrain.commands.sweeps.scheduler import Scheduler
from vidtrain.commands.sweeps.search_space import read_space
from vidtrain.commands.sweeps.workers import Ended
from vidtrain.errors import ConfigError
from vidtrain.runs.sole_writer import sole_writer

RESULT = {"summary": {}, "test": None, "val": None, "primary": "top1", "checkpoint": "best.pt"}


def finish(folder: Path, **more: object) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "result.json").write_text(json.dumps({**RESULT, **more}))


class Clock:
    """`slots` workers at once; a run takes durations[number] seconds and leaves what `leave` writes."""

    def __init__(self, slots: int, durations: Sequence[float], ways: dict[int, list[str]] | None = None) -> None:
        self.now, self.slots, self.durations = 0.0, slots, durations
        self.ways = {number: list(each) for number, each in (ways or {}).items()}
        self.running: list[tuple[float, int, Path]] = []
        self.started: list[tuple[float, int]] = []

    def free(self) -> bool:
        return len(self.running) < self.slots

    def start(self, number: int, folder: Path, overrides: Sequence[str]) -> None:
        assert overrides == [f"n={number}"]
        folder.mkdir(exist_ok=True)
        self.started.append((self.now, number))
        heapq.heappush(self.running, (self.now + self.durations[number], number, folder))

    def ended(self) -> list[Ended]:
        found = []
        while self.running and self.running[0][0] <= self.now:
            _, number, folder = heapq.heappop(self.running)
            way = self.ways[number].pop(0) if self.ways.get(number) else "done"
            if way == "done":
                finish(folder)
            elif way == "saved":  # at an earlier time, each time
                (folder / "last.pt").touch()
                os.utime(folder / "last.pt", (1e9 - self.now, 1e9 - self.now))
            reason = {"done": "", "silent": ""}.get(way, way)
            found.append(Ended(number, way in ("cut", "saved"), reason, mistake=way.startswith("model=")))
        return found

    def stop(self, *, at_once: bool) -> None:
        raise AssertionError


class Proposals:
    def __init__(self, record: SweepRecord, count: int) -> None:
        self.record, self.count = record, count
        self.told: list[tuple[int, str]] = []

    def propose(self) -> SweepRun | None:
        number = len(self.record.runs)
        if number >= self.count:
            return None
        self.record.add(SweepRun(number, f"{number}_run", {"n": str(number)}))
        return self.record.runs[-1]

    def watch(self, run: SweepRun) -> None:
        pass

    def over(self, run: SweepRun, state: RunState) -> None:
        self.told.append((run.number, state.value))


def record_in(folder: Path) -> SweepRecord:
    return read_record(folder) or SweepRecord(folder, "optuna", {}, {}, [("primary", "maximize")])


def work(record: SweepRecord, source: Proposals, clock: Clock, *, retries: int = 0, steps: int = 10_000) -> Scheduler:
    scheduler = Scheduler(record, source, clock, lambda run: [f"n={run.number}"], retries=retries)
    for _ in range(steps):
        if not scheduler.step():
            return scheduler
        clock.now += 1
    return scheduler


def test_unequal_runs_keep_both_workers_busy(tmp_path: Path) -> None:
    """Batches of two would wait for the longer of each: 110 s of work in 2 x 100 s are 55 %."""
    record, clock = record_in(tmp_path), Clock(2, [10, 100] * 12)
    source = Proposals(record, 24)
    work(record, source, clock)
    last = max(begun + clock.durations[number] for begun, number in clock.started)
    assert sum(clock.durations) / (2 * last) >= 0.9
    assert sorted(number for _, number in clock.started) == list(range(24))
    assert sorted(source.told) == [(number, "finished") for number in range(24)]


def test_none_is_lost_and_none_is_made_twice_wherever_the_sweep_is_cut(tmp_path: Path) -> None:
    """The sweep is killed after every number of steps; its runs are gone with it, or have finished behind its back."""
    finished: list[int] = []
    for cut in range(40):
        record, clock = record_in(tmp_path), Clock(2, [3, 5, 4, 7, 2, 6])
        source = Proposals(record, 6)
        scheduler = work(record, source, clock, steps=1 + cut % 5)
        finished += [number for number, state in source.told if state == "finished"]
        for number, run in enumerate(scheduler.running):  # what becomes of them
            folder = tmp_path / run.folder
            if (cut + number) % 3 == 0 and state_of(folder) is not RunState.finished:
                finish(folder)
                finished.append(run.number)
    record = record_in(tmp_path)
    assert [run.number for run in record.runs] == list(range(6))
    assert sorted(finished) == list(range(6))
    assert {record.state(run) for run in record.runs} == {RunState.finished}


def test_what_was_begun_comes_before_what_is_new(tmp_path: Path) -> None:
    record = record_in(tmp_path)
    source = Proposals(record, 5)
    for _ in range(3):
        source.propose()
    finish(tmp_path / "1_run")
    clock = Clock(1, [1] * 5)
    work(record, source, clock)
    assert [number for _, number in clock.started] == [0, 2, 3, 4]


def test_a_failed_run_is_tried_again_as_often_as_asked(tmp_path: Path) -> None:
    ways = {0: ["no memory", "no memory", "no memory"], 1: ["no memory"], 2: ["silent"] * 3}
    record, clock = record_in(tmp_path), Clock(1, [1] * 3, ways)
    source = Proposals(record, 3)
    work(record, source, clock, retries=2)
    assert [n for _, n in clock.started].count(0) == 3
    assert sorted(source.told) == [(0, "failed"), (1, "finished"), (2, "failed")]
    assert json.loads((tmp_path / "0_run" / FAILURE).read_text()) == {"run": "n=0", "error": "no memory"}
    assert "without a result" in (tmp_path / "2_run" / FAILURE).read_text()
    assert not (tmp_path / "1_run" / FAILURE).exists()


def test_a_run_whose_options_cannot_be_used_is_not_tried_again(tmp_path: Path) -> None:
    record, clock = record_in(tmp_path), Clock(1, [1], {0: ["model=none: no such model"] * 3})
    source = Proposals(record, 1)
    work(record, source, clock, retries=2)
    assert ([n for _, n in clock.started], source.told) == ([0], [(0, "failed")])


def test_a_failed_run_is_tried_again_by_a_sweep_that_goes_on(tmp_path: Path) -> None:
    record = record_in(tmp_path)
    work(record, Proposals(record, 1), Clock(1, [1], {0: ["disk full"]}))
    assert record.state(record.runs[0]) is RunState.failed
    again = record_in(tmp_path)
    work(again, Proposals(again, 1), Clock(1, [1]))
    assert again.state(again.runs[0]) is RunState.finished


def test_a_run_that_is_killed_is_continued_but_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, "_MOST_CUTS", 3)
    ways = {0: ["cut", "cut", "done"], 1: ["cut"] * 9, 2: ["saved"] * 4}
    record, clock = record_in(tmp_path), Clock(1, [1, 1, 1], ways)
    source = Proposals(record, 3)
    work(record, source, clock)
    assert source.told == [(0, "finished"), (1, "failed"), (2, "finished")]
    assert [n for _, n in clock.started] == [0] * 3 + [1] * 3 + [2] * 5
    assert "3 times without another checkpoint" in (tmp_path / "1_run" / FAILURE).read_text()


def test_a_run_that_another_process_is_at_is_waited_for(tmp_path: Path) -> None:
    record = record_in(tmp_path)
    source = Proposals(record, 2)
    source.propose()
    (tmp_path / "0_run").mkdir()
    clock = Clock(2, [1, 1])
    with sole_writer(tmp_path / "0_run", "run_dir"):
        assert record.state(record.runs[0]) is RunState.held
        work(record, source, clock, steps=5)
        assert [n for _, n in clock.started] == [1]
        finish(tmp_path / "0_run")  # by that process
    work(record, source, clock)
    assert [n for _, n in clock.started] == [1]
    assert sorted(source.told) == [(1, "finished")]


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"runs": 3},
        {"runs": [{"folder": "../up", "varied": {}}]},
        {"runs": [{"folder": "a", "varied": {}}] * 2},
        {"runs": [{"folder": "a", "varied": {"x": 1}}]},
        {"fixed": ["a"]},
    ],
)
def test_a_record_that_is_none_is_refused_with_its_name(tmp_path: Path, change: dict[str, object]) -> None:
    record_in(tmp_path).save()
    content = json.loads((tmp_path / RECORD).read_text())
    (tmp_path / RECORD).write_text(json.dumps({**content, **change}))
    with pytest.raises(Exception, match=r"sweep\.json: is not the record of a sweep"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("kind", "varied", "refused"),
    [
        ("optuna", {"x": "2", "y": "0.5"}, False),
        ("optuna", {"x": "3", "y": "0.5"}, True),
        ("optuna", {"x": "1", "y": "b"}, True),
        ("optuna", {"x": "1", "y": "nan"}, True),
        ("optuna", {"x": "1"}, True),
        ("grid", {"x": "3", "y": "9"}, False),  # of a grid the values may be others
        ("grid", {"x": "1", "y": "0", "z": "1"}, True),
    ],
)
def test_runs_of_a_record_are_of_its_sweep(tmp_path: Path, kind: str, varied: dict[str, str], refused: bool) -> None:
    space = read_space(["x=1,2", "y=interval(0.0,1.0)"], {})
    texts = {axis.key: axis.text for axis in space.axes}
    record = SweepRecord(tmp_path, kind, {}, texts, [("primary", "maximize")], [SweepRun(0, "0_run", varied)])
    with pytest.raises(ConfigError, match="run 0 has values that are not varied over") if refused else nullcontext():
        refuse_other_sweep(record, kind, space)


@pytest.mark.parametrize("folder", ["0_run", "a/b", "..", ""])
def test_each_run_has_a_folder_of_its_own(tmp_path: Path, folder: str) -> None:
    record = record_in(tmp_path)
    record.add(SweepRun(0, "0_run", {}))
    with pytest.raises(ConfigError, match=rf"^hydra\.sweep\.subdir={folder}: expected a name of its own for each run"):
        record.add(SweepRun(1, folder, {}))
    with pytest.raises(ConfigError, match="of its own"):
        record.check_folders([SweepRun(1, "1_run", {}), SweepRun(2, "1_run", {})])
    assert len(record.runs) == 1


def test_what_a_sweep_says_of_the_runs_that_it_told_to_end(tmp_path: Path) -> None:
    record = record_in(tmp_path)
    source = Proposals(record, 4)
    while run := source.propose():
        (tmp_path / run.folder).mkdir()
    assert record.left_by([]) == ""
    assert record.left_by(record.runs[:2]) == " (2 runs with nothing saved, to start again)"
    (tmp_path / "1_run" / "last.pt").touch()
    finish(tmp_path / "2_run")
    found = record.left_by(record.runs)
    assert found == " (1 run saved, to be continued, 2 runs with nothing saved, to start again, 1 run ended)"
