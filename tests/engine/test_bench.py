"""What the bench measures: waiting, memory, matrix products."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from vidtrain.engine.precision import Precision
from vidtrain.engine.preprocess import ModelRunner, Preprocess
from vidtrain.engine.settings import PrecisionName
from vidtrain.engine.speed.bench import matmul_ceiling, waiting_share
from vidtrain.engine.speed.memory import PeakMemory
from vidtrain.engine.speed.timing import Step, random_batch
from vidtrain.tasks.classification.task import Classification
from vidtrain.types import Batch

CPU = torch.device("cpu")


class Clips:
    """Two batches an epoch, each after a pause."""

    def __init__(self, pause: float) -> None:
        self.pause = pause

    def __len__(self) -> int:
        return 2

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        for _ in range(len(self)):
            time.sleep(self.pause)
            yield random_batch(2, 2, 4, Classification(["no", "yes"]))


def test_waiting_is_the_share_of_the_loader() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(96, 2))
    network = ModelRunner(model, Preprocess([0.5] * 3, [0.25] * 3, CPU), Precision(PrecisionName.fp32, CPU))
    step = Step(network, torch.optim.SGD(model.parameters(), lr=0.1), Classification(["no", "yes"]))
    slow, quick = (waiting_share(step, Clips(pause), seconds=0.3) for pause in (0.2, 0.0))
    assert 0.5 < slow < 1
    assert 0 < quick < slow


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_peak_memory_is_that_since_it_was_made() -> None:
    size = 64 * 2**20
    for _ in range(2):  # what the first has freed must not hide the second
        memory = PeakMemory(CPU)
        large = torch.ones(size // 4)
        del large
        found = memory.bytes()
        assert found is not None
        assert size - 2**22 <= found < 2 * size


def test_matrix_products_are_counted_in_operations() -> None:
    left, right = torch.randn(2, 1024, 1024)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - began)
    ceiling = matmul_ceiling("fp32", CPU, seconds=0.05)
    assert 0.1 < ceiling / (2 * 1024**3 / best) < 10  # on a machine that is busy with other things
