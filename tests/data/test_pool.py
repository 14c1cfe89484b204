"""Many items in several processes: hangs, crashes, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.data.pooled import misbehave, processor_time, square
from vidtrain.data.jobs.killable import Worker, _workers
from vidtrain.data.jobs.pool import _MOST_SPARE, Outcome, _Crew, _spare, run
from vidtrain.data.jobs.progress import ProgressBar
from vidtrain.errors import ConfigError

_others: set[Worker] = set()

posix = pytest.mark.skipif(os.name != "posix", reason="signals and /proc")


@pytest.fixture(autouse=True)
def _of_others() -> Iterator[None]:
    """Guarded readers of other tests may have processes of their own, which are none of a run."""
    _others.update(_workers - set(_spare))
    yield
    _others.clear()


def assert_nobody_works() -> None:
    """No process of a run is left but those that wait for the next one."""
    assert _workers - _others == set(_spare)
    assert len(_spare) <= _MOST_SPARE
    assert all(worker.usable for worker in _spare)


def everything(items: list[str], **options: object) -> list[Outcome[str]]:
    found = list(run(misbehave, items, **{"workers": 2, "timeout": 20.0, **options}))  # type: ignore[arg-type]
    assert sorted(outcome.index for outcome in found) == list(range(len(items)))
    assert_nobody_works()
    return sorted(found, key=lambda outcome: outcome.index)


@pytest.mark.parametrize("workers", [None, 1, 3])
def test_every_item_once(workers: int | None) -> None:
    found = list(run(square, range(20), workers=workers, timeout=20.0))
    assert {outcome.index: outcome.value for outcome in found} == {n: n * n for n in range(20)}
    assert all(outcome.error is None and outcome.fault == "" for outcome in found)


def test_no_items_no_processes() -> None:
    assert everything([]) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_hang_costs_its_own_item(workers: int) -> None:
    """Its limit is short; the others get one that they keep on a busy machine as well."""
    items = ["a", "hang", "b", "c", "hang", "d"]
    began = time.monotonic()
    found = everything(items, workers=workers, timeout=lambda item: 0.5 if item == "hang" else 60.0)
    assert [outcome.fault for outcome in found] == ["", "timeout", "", "", "timeout", ""]
    assert found[1].error == "took longer than 0.5 s"
    assert found[1].value is None
    assert 0.5 <= found[1].seconds < 30  # it hangs for 60
    assert time.monotonic() - began < 60


def test_a_limit_for_each_item() -> None:
    """As long as its name, in tenths of a second; or the same for all."""
    found = list(run(misbehave, ["hang", "hang", "a" * 300], workers=1, timeout=lambda item: len(item) / 10))
    assert [outcome.error for outcome in found] == ["took longer than 0.4 s"] * 2 + [None]
    assert [outcome.error for outcome in run(misbehave, ["hang"], workers=1, timeout=0.3)] == ["took longer than 0.3 s"]


def test_waiting_for_a_processor_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = time.monotonic()
    monkeypatch.setattr(Worker, "waited", property(lambda worker: 0.7 * (time.monotonic() - begin)))
    assert [outcome.fault for outcome in run(time.sleep, [1.0], workers=1, timeout=0.4)] == [""]
    assert [outcome.fault for outcome in run(time.sleep, [9.0], workers=1, timeout=0.1)] == ["timeout"]


@posix
def test_a_crash_costs_its_own_item() -> None:
    found = everything(["a", "abort", "b", "exit", "kill", "c"])
    assert [outcome.fault for outcome in found] == ["", "crash", "", "crash", "crash", ""]
    assert found[1].error == "crashed the process that read it (SIGABRT)"
    assert found[3].error == "crashed the process that read it (exit code 3)"
    assert found[4].error == "crashed the process that read it (SIGKILL, out of memory?)"


def test_processes_are_used_again() -> None:
    found = everything([str(n) for n in range(50)], workers=2)
    assert len({str(outcome.value).split()[-1] for outcome in found}) <= 2


def test_a_broken_video_is_an_outcome() -> None:
    found = everything(["a", "video", "b"])
    assert (found[1].fault, found[1].error) == ("video", "is not a video")
    assert [outcome.error for outcome in found if outcome.index != 1] == [None, None]


def test_the_users_mistake_ends_the_run() -> None:
    with pytest.raises(ConfigError, match=r"^decoder=decord needs the package decord$"):
        everything(["a", "config", "b"])
    assert_nobody_works()


def test_our_mistake_ends_the_run_with_its_traceback() -> None:
    with pytest.raises(Exception, match=r"pickle|local object") as caught:
        everything(["lambda"])
    assert "_reply" in str(caught.value.__cause__)
    assert_nobody_works()


def test_leaving_early_kills_the_rest() -> None:
    with closing(run(misbehave, ["a", "hang"], workers=2, timeout=60)) as outcomes:
        assert next(outcomes).index == 0
        began = time.monotonic()
    assert time.monotonic() - began < 30
    assert_nobody_works()


def test_a_slow_listener_makes_nobody_late() -> None:
    everything(["a", "b"])  # two processes that need not start any more
    found: list[str] = []
    for outcome in run(time.sleep, [0.1] * 8, workers=2, timeout=1.0):
        if len(found) == 4:
            time.sleep(1.2)  # both have answered long ago
        found.append(outcome.fault)
    assert found == [""] * 8


def test_cost_of_an_item(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far less processor time, of both sides, than the fastest video takes to open (a millisecond); and this side
    sleeps until there is an answer."""
    woken: list[int] = []
    wait = _Crew.wait

    def waiting(crew: _Crew[Any, Any]) -> list[Outcome[Any]]:
        woken.append(1)
        return wait(crew)

    monkeypatch.setattr(_Crew, "wait", waiting)
    here, there = [], []
    for outcome in run(processor_time, range(2001), workers=1, timeout=60.0):
        here.append(time.process_time())
        there.append(outcome.value or 0.0)
    assert (here[-1] - here[0] + there[-1] - there[0]) / 2000 < 0.001
    assert len(woken) <= 1 + 2001  # the worker is ready, and each answer


def test_a_process_is_used_by_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it would not find what this process finds now."""
    first, second = (everything(["a"], workers=1)[0].value for _ in range(2))
    assert first == second
    monkeypatch.syspath_prepend(tmp_path)
    assert everything(["a"], workers=1)[0].value != first
    assert_nobody_works()


HANG = """
import os, time

def hang(folder):
    open(folder + "/" + str(os.getpid()), "w").close()
    time.sleep(60)
"""
SCRIPT = """
import sys
from contextlib import closing
from hanging_job import hang
from vidtrain.data.jobs.pool import run

try:
    with closing(run(hang, [sys.argv[1]] * 8, workers=3, timeout=60)) as outcomes:
        list(outcomes)
except KeyboardInterrupt:
    print("interrupted")
"""


def until(condition: Callable[[], bool], seconds: float) -> bool:
    limit = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < limit:
        time.sleep(0.02)
    return met


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_no_orphans(tmp_path: Path, sign: signal.Signals) -> None:
    script, pids = tmp_path / "script.py", tmp_path / "pids"
    script.write_text(SCRIPT)
    (tmp_path / "hanging_job.py").write_text(HANG)
    pids.mkdir()
    # a group of its own: Ctrl-C on a terminal reaches all processes of the group
    parent = subprocess.Popen(
        [sys.executable, script, pids],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        # where the tests run in a shell's background, they and their children ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert until(lambda: len(list(pids.iterdir())) == 3, 60)
        children = [int(file.name) for file in pids.iterdir()]
        if sign is signal.SIGINT:
            os.killpg(parent.pid, sign)
            out, err = parent.communicate(timeout=60)
            assert (out, err) == ("interrupted\n", "")
        else:
            parent.kill()
            parent.wait()
        assert until(lambda: not any(alive(pid) for pid in children), 5)
    finally:
        if parent.poll() is None:
            os.killpg(parent.pid, signal.SIGKILL)
        parent.communicate()


def test_progress_without_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidtrain.data.jobs.progress._LINE_EVERY", 0.0)
    with ProgressBar(4, "checking", done=1) as progress:
        for _ in run(square, range(3), workers=1, timeout=20.0, progress=progress):
            progress.note = "1 problem"
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[-1].startswith("checking: 4/4 files, ")
    assert lines[-1].endswith("files/s, 0 s left, 1 problem")


def test_a_short_job_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar(3, "checking") as progress:
        list(run(square, range(3), workers=1, timeout=20.0, progress=progress))
    assert capsys.readouterr() == ("", "")
