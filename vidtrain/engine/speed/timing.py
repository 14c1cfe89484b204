"""How fast a training step is when its data are at hand."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vidtrain.engine.objective import Objective
from vidtrain.engine.precision import Precision
from vidtrain.engine.preprocess import ModelInput
from vidtrain.engine.step import TrainingStep
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
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        to_input: ModelInput,
        precision: Precision,
        objective: Objective,
        *,
        num_classes: int,
    ) -> None:
        self.training = TrainingStep(
            model.train(),
            optimizer,
            to_input=to_input,
            precision=precision,
            objective=objective,
            num_classes=num_classes,
            halve_on_oom=False,
        )

    def __call__(self, batch: Batch) -> None:
        self.training([batch], 1.0)
        self.training.skipped.clear()  # a training reads and empties it


def random_batch(
    size: int,
    frames: int,
    side: int,
    num_classes: int,
    *,
    multi_label: bool = False,
    pin_memory: bool = False,
    channels: int = 3,
) -> Batch:
    """A batch as a loader gives it, of noise, always the same; torch's generator stays as it is.

    channels: 3, or 5 with flow.
    """
    noise = torch.Generator().manual_seed(0)
    views = torch.randint(0, 256, (size, 1, frames, side, side, channels), dtype=torch.uint8, generator=noise)
    numbers = torch.randint(0, num_classes, (size,), generator=noise)
    labels: Tensor = nn.functional.one_hot(numbers, num_classes).float() if multi_label else numbers
    batch = Batch(views, labels, torch.arange(size))
    return batch.pin_memory() if pin_memory else batch
