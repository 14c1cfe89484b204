"""Work on a Ray cluster: what comes back, and what a death costs. The cluster is a real one, on this machine."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.data.prepared import READER, as_data, painted
from tests.videos import write_video
from vidtrain.data.jobs import ray_executor
from vidtrain.data.jobs.pool import Outcome
from vidtrain.data.jobs.ray_executor import RayExecutor, _Tasks
from vidtrain.data.prepare.prepare import prepare
from vidtrain.data.settings import PrepareConfig
from vidtrain.errors import ConfigError, DataError, VideoError, VidtrainError

Item = tuple[str, int, str]  # the log, a number, what happens


def worked_at(item: Item) -> tuple[int, int]:
    """Ten times the number, and the process of Ray that had it."""
    log, number, what = item
    worker = os.getppid()
    with Path(log).open("a") as file:
        file.write(f"{number} {worker}\n")
    if what == "broken":
        raise VideoError("x", "is broken")
    if what == "full":
        raise DataError("out: the disk is full")
    if what == "bug":
        raise KeyError("a bug")
    if what == "deadly" or (what == "deadly once" and Path(log).read_text().count(f"{number} ") == 1):
        os.kill(worker, signal.SIGKILL)
        time.sleep(60)  # until it is killed, too
    if what in ("slow", "hangs"):
        time.sleep(1 if what == "slow" else 60)
    return number * 10, worker


def items(log: Path, *what: str) -> list[Item]:
    return [(str(log), number, one) for number, one in enumerate(what)]


def test_a_task_gives_what_came_of_each_file_in_their_order(tmp_path: Path) -> None:
    shared = (worked_at, ray_executor.__version__)
    found = list(ray_executor._work(shared, items(tmp_path / "log", "", "broken", "hangs", ""), [30, 30, 0.5, 30]))
    assert [(one.index, one.fault) for one in found] == [(0, ""), (1, "video"), (2, "timeout"), (3, "")]
    assert [one.value and one.value[0] for one in found] == [0, None, None, 30]
    with pytest.raises(VidtrainError, match="on a node: install the same everywhere"):
        next(ray_executor._work((worked_at, "0.0"), items(tmp_path / "log", ""), [1]))


def test_without_ray_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"^jobs=ray: Ray is not there .*: pip install 'vidtrain\[ray\]'$"):
        next(RayExecutor().run(worked_at, [("", 0, "")], 1.0))


@pytest.mark.parametrize(
    ("address", "said"),
    [(None, "jobs=ray: Ray does not start: timed out"), ("a:1", "jobs.address=a:1: Ray cannot be reached: timed out")],
)
def test_a_cluster_that_does_not_come_is_one_line(
    address: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: object) -> None:
        raise Exception("timed\nout")  # noqa: TRY002 - as Ray does

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    with pytest.raises(VidtrainError) as found:
        next(RayExecutor(address).run(worked_at, [("", 0, "")], 1.0))
    assert str(found.value) == said


@pytest.fixture
def on_ray(monkeypatch: pytest.MonkeyPatch) -> RayExecutor:
    """Two workers, two files each."""
    pytest.importorskip("ray", reason="needs Ray")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("RAY_worker_niceness", "0")  # of the cluster of two nodes, too
    return RayExecutor(tasks=2, chunk=3, deaths=1)


@pytest.mark.slow
def test_a_death_costs_the_file_in_hand(on_ray: RayExecutor, tmp_path: Path) -> None:
    given = items(tmp_path / "log", "", "deadly once", "", "broken", "", "deadly", "", "hangs", "")
    found = {one.index: one for one in on_ray.run(worked_at, given, lambda item: 1.0 if item[2] == "hangs" else 60.0)}
    assert len(found) == len(given)
    values = {number: one.value[0] for number, one in found.items() if one.value is not None}
    assert values == {number: 10 * number for number in (0, 1, 2, 4, 6, 8)}
    assert {n: one.fault for n, one in found.items() if one.fault} == {3: "video", 5: "crash", 7: "timeout"}
    assert found[5].error == "2 workers of the cluster died while they read it"
    begun = [int(line.split()[0]) for line in (tmp_path / "log").read_text().splitlines()]
    # more where results were lost with a worker: 4 with that of 3 to 5 and, behind 3 alone, with that of 4 and 5
    assert begun.count(1) == 2
    assert 3 <= begun.count(5) <= 5
    assert begun.count(4) <= 3
    assert {begun.count(n) for n in set(begun) - {1, 4, 5}} <= {1, 2}


def test_a_file_whose_result_is_lost_with_its_worker_is_not_blamed() -> None:
    class DeathError(Exception):
        pass

    def begin(rows: Sequence[int]) -> Iterator[Outcome[int]]:
        """Whoever has row 2 dies, before any result but that of row 0 has come."""
        for row in rows:
            if 2 in rows and row:
                raise DeathError
            yield Outcome(0, 10 * row)

    ray = SimpleNamespace(
        wait=lambda tasks, **_: (tasks, []),
        get=lambda result: result,
        exceptions=SimpleNamespace(RayTaskError=KeyError, RayError=DeathError),
    )
    tasks = _Tasks(ray, begin)
    tasks.waiting.append([0, 1, 2, 3])
    found: dict[int, Outcome[int]] = {}
    while tasks.waiting or tasks.running:
        tasks.start(1)
        found |= {one.index: one for one in tasks.wait(deaths=1)}
    assert {n: one.value for n, one in found.items()} == {0: 0, 1: 10, 2: None, 3: 30}
    assert {n: one.fault for n, one in found.items() if one.fault} == {2: "crash"}


@pytest.mark.slow
@pytest.mark.parametrize(("what", "error"), [("full", DataError), ("bug", KeyError)])
def test_what_ends_a_run_is_raised_here(on_ray: RayExecutor, tmp_path: Path, what: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        list(on_ray.run(worked_at, items(tmp_path / "log", "", what), 60.0))


@pytest.mark.slow
def test_a_node_that_dies_costs_its_files_in_hand(on_ray: RayExecutor, tmp_path: Path) -> None:
    """A cluster of two nodes, reached by its address; the one that dies has one worker."""
    from ray.cluster_utils import Cluster

    memory = {"object_store_memory": 1 << 27}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **memory})
    try:
        other = cluster.add_node(num_cpus=1, **memory)
        executor = replace(on_ray, address=cluster.address, tasks=None)
        outcomes = executor.run(worked_at, items(tmp_path / "log", *["slow"] * 12), 60.0)
        found = [next(outcomes)]
        until = time.monotonic() + 60
        while len({line.split()[1] for line in (tmp_path / "log").read_text().splitlines()}) < 2:
            assert time.monotonic() < until
            found.append(next(outcomes))
        cluster.remove_node(other, allow_graceful=False)
        found += outcomes
    finally:
        cluster.shutdown()
    assert sorted(one.index for one in found) == list(range(12))
    assert {one.fault for one in found} == {""}
    begun = [line.split()[0] for line in (tmp_path / "log").read_text().splitlines()]
    assert len(begun) <= 12 + 1


def workers_of_ray() -> list[int]:
    """Processes of Ray that work at a task and descend from this one."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text()
            names[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:  # it has just ended
            continue
        parents[int(folder.name)] = int(status.rpartition(")")[2].split()[1])

    def is_ours(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and is_ours(parents[pid]))

    return [pid for pid, name in names.items() if name.startswith("ray::vidtrain") and is_ours(pid)]


@pytest.mark.slow
def test_copies_are_those_of_one_machine_and_a_run_goes_on(on_ray: RayExecutor, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    data = as_data([write_video(tmp_path / "in" / f"{n}.mp4", painted(12 + 8 * n, 96, 128)) for n in range(8)])
    settings, out = PrepareConfig(short_side=48), tmp_path / "out"
    assert prepare(data, tmp_path / "here", settings, READER, workers=2).made == 8

    def kill_a_worker() -> None:
        while not list(out.rglob("*.part")):
            time.sleep(0.01)
        os.kill(workers_of_ray()[0], signal.SIGKILL)

    thread = threading.Thread(target=kill_a_worker)
    thread.start()
    done = prepare(data, out, settings, READER, workers=on_ray)
    thread.join()
    assert (done.made, done.kept, done.bad) == (8, 0, ())
    assert [(out / f"{n}.mp4").read_bytes() for n in range(8)] == [
        (tmp_path / "here" / f"{n}.mp4").read_bytes() for n in range(8)
    ]
    assert len((out / "copies.jsonl").read_text().splitlines()) == 8
    (out / "3.mp4").unlink()
    again = prepare(data, out, settings, READER, workers=on_ray)
    assert (again.made, again.kept) == (1, 7)
