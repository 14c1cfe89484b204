"""How fast a training step is when its data are at hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from vidtrain.engine.parameters import train_mode
from vidtrain.engine.preprocess import ModelRunner
from vidtrain.engine.step import TrainingStep
from vidtrain.tasks.task import Task
from vidtrain.types import Batch


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def rate(call: Callable[[], object], device: torch.device, *, seconds: float) -> float:
    """Calls a second, after two that warm up; at least three are timed."""
    for _ in range(2):
        call()
    synchronise(device)
    calls, began = 0, time.perf_counter()
    while calls < 3 or time.perf_counter() - began < seconds:
        call()
        calls += 1
        if calls % 8 == 0:
            synchronise(device)
    synchronise(device)
    return calls / (time.perf_counter() - began)


class Step:
    """The step of a training on the same batch again and again: forward, loss, backward, update.

    Attributes:
        training: the step itself. A batch that does not fit into the memory of a GPU is an error here.
    """

    def __init__(
        self,
        network: ModelRunner,
        optimizer: torch.optim.Optimizer,
        task: Task,
    ) -> None:
        train_mode(network.model)
        self.training = TrainingStep(network, optimizer, task, halve_on_oom=False)

    def __call__(self, batch: Batch) -> None:
        self.training([batch], 1.0)
        self.training.skipped.clear()  # a training reads and empties it


def random_batch(
    size: int,
    frames: int,
    side: int,
    task: Task,
    *,
    pin_memory: bool = False,
    inputs: Sequence[str] = ("rgb",),
) -> Batch:
    """A batch as a loader gives it, of noise, always the same; torch's generator stays as it is.

    inputs: names of the model's.
    """
    noise = torch.Generator().manual_seed(0)
    shapes = {"rgb": (frames, side, side, 3), "flow": (frames - 1, side, side, 2)}
    views = {
        name: torch.randint(0, 256, (size, 1, *shapes[name]), dtype=torch.uint8, generator=noise) for name in inputs
    }
    batch = Batch(views, task.random_targets(size, noise), torch.arange(size))
    return batch.pin_memory() if pin_memory else batch
