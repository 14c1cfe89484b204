"""What launchers say in the environment, as numbers of processes."""

from __future__ import annotations

import os
import threading

import pytest
import torch.distributed

from vidtrain.engine.devices.distributed import meeting, neighbours
from vidtrain.engine.devices.environment import first_host, local_process_count, process_count, tasks_per_node
from vidtrain.errors import ConfigError

OWN = (
    "WORLD_SIZE",
    "RANK",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_RESTART_COUNT",
)

STEP = {  # srun's, for task 3 of 2 + 1 + 1
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "2",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2,1(x2)",
    "SLURM_NODEID": "0",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "gpu[003-005]",
    "SLURM_JOB_NODELIST": "gpu[001-009]",
}


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without launchers; what is set in a test is gone after it."""
    for name in [*OWN, *(name for name in os.environ if name.startswith("SLURM_"))]:
        monkeypatch.setenv(name, "")  # remembered as it was
        monkeypatch.delenv(name)


def slurm(monkeypatch: pytest.MonkeyPatch, **changed: str | None) -> int:
    for name, value in {**STEP, **changed}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    return process_count()


def test_a_task_of_srun(monkeypatch: pytest.MonkeyPatch) -> None:
    assert slurm(monkeypatch) == 4
    assert [os.environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR")] == [
        "1",
        "1",
        "4",
        "gpu003",
    ]
    assert local_process_count() == 2
    assert os.environ["MASTER_PORT"] == str(20000 + (4711 * 61 + 2) % 20000)


def test_the_last_node_has_one_task(monkeypatch: pytest.MonkeyPatch) -> None:
    slurm(monkeypatch, SLURM_NODEID="2", SLURM_PROCID="3", SLURM_LOCALID="0")
    assert local_process_count() == 1


def test_a_batch_script_is_no_task_of_srun(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the job's number of tasks and is process 0, but nobody has started the others."""
    assert slurm(monkeypatch, SLURM_STEP_NUM_TASKS=None, SLURM_STEP_ID=None, SLURM_STEP_NODELIST=None) == 1
    assert "RANK" not in os.environ


def test_torchrun_within_a_step_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("RANK", "5")
    assert slurm(monkeypatch) == 8
    assert os.environ["RANK"] == "5"


def test_ports_of_neighbours_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = set()
    for job in ("100", "101", "102"):
        for step in ("0", "1", "2"):
            slurm(monkeypatch, SLURM_JOB_ID=job, SLURM_STEP_ID=step)
            ports.add(int(os.environ["MASTER_PORT"]))
            for name in ("WORLD_SIZE", "MASTER_PORT"):
                monkeypatch.delenv(name)
    assert len(ports) == 9
    assert all(20000 <= port < 40000 for port in ports)


def test_alone() -> None:
    assert (process_count(), local_process_count()) == (1, None)


@pytest.mark.parametrize("value", ["", "many", "-1", "2.0", "9" * 30])
def test_a_variable_that_is_no_number(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", value)
    with pytest.raises(ConfigError, match=r"WORLD_SIZE=.* in the environment: expected a whole number"):
        process_count()


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("gpu[003-007,9],big1", "gpu003"),
        ("gpu-a[1,4]-ib,x", "gpu-a1-ib"),
        ("", "localhost"),
    ],
)
def test_the_first_host_of_slurms_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


@pytest.mark.parametrize(
    ("counts", "each"),
    [("8", [8]), ("2(x3)", [2, 2, 2]), ("8(x2),4", [8, 8, 4]), ("", []), ("2(x", []), ("2,x", [])],
)
def test_tasks_per_node(counts: str, each: list[int]) -> None:
    assert tasks_per_node(counts) == each


def test_processes_that_compete_for_processors() -> None:
    """srun binds each task to processors of its own, torchrun does not."""
    low, high, all_of_them = frozenset({0, 1}), frozenset({2, 3}), frozenset({0, 1, 2, 3})
    bound = [("a", low), ("a", high), ("b", low)]
    assert [neighbours(bound, rank) for rank in range(3)] == [(2, 1), (2, 1), (1, 1)]
    assert neighbours([("a", all_of_them)] * 4, 3) == (4, 4)
    assert neighbours([("a", frozenset())] * 2, 0) == (2, 2)  # a system that does not say


def test_processes_of_an_earlier_start_are_not_met() -> None:
    """Three starts by one store, as torchrun keeps it; a question of a process that was killed is left in it."""
    store = torch.distributed.HashStore()

    def start(size: int) -> set[str]:
        words: list[str] = []
        own = [
            threading.Thread(target=lambda rank=rank: words.append(meeting(store, rank, size, 20.0)))
            for rank in reversed(range(size))
        ]
        for thread in own:
            thread.start()
        for thread in own:
            thread.join(20)
        assert len(words) == size
        return set(words)

    store.set("vidtrain/question/1", "of one that was killed")
    found = [start(3), start(2), start(3)]
    assert [len(words) for words in found] == [1, 1, 1]
    assert len(set.union(*found)) == 3


def test_a_process_that_does_not_come() -> None:
    with pytest.raises(torch.distributed.DistStoreError, match="process 1 has not come"):
        meeting(torch.distributed.HashStore(), 0, 2, 0.05)
