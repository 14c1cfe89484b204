"""Two processes that train together have the numbers of one: loader, World, step, merging, checkpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import warm
from tests.engine.pair import BATCH, VIDEOS, Net

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gloo's meeting by a file")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two found; they run once for all tests."""
    return run_pair("tests.engine.pair", tmp_path_factory.mktemp("pair"))


def run_pair(module: str, folder: Path) -> list[dict[str, Any]]:
    """What `python -m MODULE RANK FOLDER` wrote to RANK.json in each of two processes."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}  # tests is no installed package
    both = [
        warm.Python(
            ["-m", module, str(rank), str(folder)],
            cwd=root,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], "\n".join(errors)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def test_world(pair: list[dict[str, Any]]) -> None:
    zero, one = (found["world"] for found in pair)
    assert (zero["is_main"], one["is_main"]) == (True, False)
    assert (zero["part"], one["part"]) == ([[], [0], [0, 2, 4]], [[], [], [1, 3]])
    for own in (zero, one):
        assert own["sum"] == [2, 1]
        assert own["any"] == [True, False, True]
        assert own["gather"] == [{"rank": 0}, {"rank": 1}]
        assert own["from_main"] == ["main", 0]
        assert own["broadcast"] == [[0, 0], [10]]


def test_each_batch_is_shared_and_every_video_comes_once(pair: list[dict[str, Any]]) -> None:
    zero, one, alone = pair[0]["batches"], pair[1]["batches"], pair[0]["alone"]["batches"]
    for run, (first, second, whole) in enumerate(zip(zero, one, alone, strict=True)):
        assert len(first) == len(second) == len(whole) == (VIDEOS // BATCH if run < 2 else VIDEOS // BATCH - 2)
        for own, other, both in zip(first, second, whole, strict=True):
            assert len(own) == len(other) == BATCH // 2
            assert sorted(own + other) == sorted(both)
    rows = [row for batch in alone[0] for row in batch]
    assert len(set(rows)) == len(rows) == VIDEOS // BATCH * BATCH
    assert alone[0] != alone[1]
    assert alone[2] == alone[1][2:]


def test_two_processes_have_the_numbers_of_one(pair: list[dict[str, Any]]) -> None:
    zero, one, alone = pair[0]["trained"], pair[1]["trained"], pair[0]["alone"]["trained"]
    assert zero["weights"] == one["weights"]
    assert zero["weights"] == pytest.approx(alone["weights"], abs=1e-5)
    assert zero["progress"] == alone["progress"] == 2 * (VIDEOS // BATCH * BATCH)
    assert [line[:3] for line in zero["log"]] == [line[:3] for line in alone["log"]]
    assert {line[0] for line in zero["log"]} == {"train", "train_epoch", "val"}
    for own, other in zip(zero["log"], alone["log"], strict=True):
        assert own[3] == pytest.approx(other[3], abs=1e-5), own[:3]
    assert max(line[1] for line in zero["log"]) == 2 * 3  # 6 batches an epoch, two an update


def test_every_video_is_scored_once_by_one_of_them(pair: list[dict[str, Any]]) -> None:
    for way in (0, 1):  # some clips of each, or all of them in parts
        zero, one, alone = (found["scored"][way] for found in (pair[0], pair[1], pair[0]["alone"]))
        assert set(zero["opened"]) == {f"v{n}" for n in (100, 102, 104, 106)}
        assert set(one["opened"]) == {f"v{n}" for n in (101, 103, 105)}
        for found in (zero, one, alone):
            assert found["videos"] == list(range(7))
            for own, other in zip(found["probs"], alone["probs"], strict=True):
                assert own == pytest.approx(other, abs=1e-6)
    vals = [[line[3] for line in found["trained"]["log"] if line[0] == "val"] for found in pair]
    assert vals[0] == vals[1]


def test_stopped_within_an_epoch_and_continued(pair: list[dict[str, Any]]) -> None:
    for found in pair:
        again, whole = found["resumed"], found["trained"]
        assert "saved after update 2" in again["said"]
        assert again["began"][:2] == [0, 4]
        assert again["weights"] == whole["weights"]
        ends = [[line for line in log if line[0] != "train"] for log in (again["log"], whole["log"])]
        assert ends[0] == ends[1]
    sums = [found["resumed"]["began"][2] for found in pair]
    assert [own[2] for own in sums] == [8, 8]  # clips of each: four batches, half of each
    assert sums[0] != sums[1]


def test_low_rank_updates(pair: list[dict[str, Any]]) -> None:
    zero, one, alone = pair[0]["tuned"], pair[1]["tuned"], pair[0]["alone"]["tuned"]
    for way in (0, 1):  # whole, and stopped and continued
        assert zero[way]["weights"] == one[way]["weights"] == zero[0]["weights"]
    assert zero[0]["weights"] == pytest.approx(alone["weights"], abs=1e-5)
    assert zero[0]["best"] == zero[1]["best"]  # the plain network, of the averaged weights, updates merged
    assert sorted(zero[0]["best"]) == ["first.bias", "first.weight", "head.bias", "head.weight"]
    assert zero[0]["best"]["first.bias"] == Net().first.bias.tolist()
    assert zero[0]["best"]["first.weight"] != Net().first.weight.tolist()


def test_draws_are_each_processes_own_and_statistics_those_of_the_main_one(pair: list[dict[str, Any]]) -> None:
    zero, one = (found["noisy"] for found in pair)
    for part in ("weights", "buffers"):
        assert zero["whole"][part] == one["whole"][part]  # gradients are averaged, buffers are the main one's
        assert zero["whole"][part] == zero["again"][part] == one["again"][part]
    assert len(zero["whole"]["buffers"]) == 8 + 8 + 1


def test_the_command_gives_both_the_same_weights_and_not_the_same_dropout(pair: list[dict[str, Any]]) -> None:
    zero, one = (found["built"] for found in pair)
    assert zero["weights"] == one["weights"]
    assert zero["network"] == one["network"] == "DistributedDataParallel"
    assert one["seed"] == 41
    assert zero["seed"] != 41


def test_a_broken_video_counts_for_all(pair: list[dict[str, Any]]) -> None:
    for found in pair:
        known = found["bad"]["allowed"]
        assert all(len(own) == 1 for own in known)
        assert known[0] == known[1]
        assert found["bad"]["refused"].startswith("1 videos cannot be read, more than data.max_bad_fraction allows (0)")
