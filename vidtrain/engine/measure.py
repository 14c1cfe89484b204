"""How fast a training step is when its data are at hand."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vidtrain.engine.inputs import ModelInput
from vidtrain.engine.objective import Objective
from vidtrain.engine.precision import Precision
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
    """One training step on the same batch again and again: forward, loss, backward, update."""

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
        self.model = model.train()
        self.optimizer = optimizer
        self.to_input = to_input
        self.precision = precision
        self.objective = objective
        self.num_classes = num_classes

    def __call__(self, batch: Batch) -> None:
        labels = batch.labels.to(self.precision.device, non_blocking=True)
        clips, targets = self.objective.mix(self.to_input(batch.views), labels, self.num_classes)
        with self.precision.autocast():
            logits = self.model(clips)
        self.precision.scaler.scale(self.objective.loss(logits, targets)).backward()
        self.precision.scaler.step(self.optimizer)
        self.precision.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)


def random_batch(
    size: int, frames: int, side: int, num_classes: int, *, multi_label: bool = False, pin_memory: bool = False
) -> Batch:
    """A batch as a loader gives it, of noise."""
    views = torch.randint(0, 256, (size, 1, frames, side, side, 3), dtype=torch.uint8)
    numbers = torch.randint(0, num_classes, (size,))
    labels: Tensor = nn.functional.one_hot(numbers, num_classes).float() if multi_label else numbers
    batch = Batch(views, labels, torch.arange(size))
    return batch.pin_memory() if pin_memory else batch
