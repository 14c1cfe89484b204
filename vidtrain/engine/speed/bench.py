"""Speed and memory of a model's training step and of its inference, for `vidtrain bench`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count

import torch

from vidtrain.engine.settings import CompileMode
from vidtrain.engine.speed.compiling import choose_compile
from vidtrain.engine.speed.memory import PeakMemory
from vidtrain.engine.speed.timing import Step, rate, synchronise
from vidtrain.engine.trainer import EpochLoader
from vidtrain.errors import ConfigError
from vidtrain.types import Batch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_LARGEST = 8192  # side of the matrices; three of them in float32 are 0.8 GB


@dataclass(frozen=True)
class BenchRow:
    """One line of the table. What was not measured is None; `note` says what went wrong.

    Attributes:
        precision: fp32, bf16 or fp16.
        train, infer: clips per second of the training step, and of the forward pass in eval mode, with data at hand.
        waiting: share of the time that a training waits for its loader.
        memory: bytes at the peak of training, see engine/memory.py.
        compile_seconds: what compiling took.
    """

    batch_size: int
    precision: str
    compiled: bool
    train: float | None = None
    infer: float | None = None
    waiting: float | None = None
    memory: int | None = None
    compile_seconds: float | None = None
    note: str = ""


def measure(
    row: BenchRow,
    device: torch.device,
    make: Callable[[BenchRow], tuple[Step, Batch]],
    clips: EpochLoader | None,
    *,
    seconds: float,
) -> BenchRow:
    """The row with its figures. What this device cannot do, or has not the memory for, is noted in it.

    Args:
        make: builds the model with its step, as training would, and a batch.
        clips: real data; None leaves `waiting` out.
        seconds: time of each measurement.
    """
    memory = PeakMemory(device)
    try:
        step, batch = make(row)
        if row.compiled:
            began = time.perf_counter()
            choose_compile(CompileMode.on, step.training, batch, batches=0)
            row = replace(row, compile_seconds=time.perf_counter() - began)
        row = replace(row, train=len(batch) * rate(lambda: step(batch), device, seconds=seconds))
        row = replace(row, memory=memory.bytes())
        if clips is not None:
            row = replace(row, waiting=waiting_share(step, clips, seconds=seconds))
        if not row.compiled:  # a compiled model is tested as it is written, see compiling.py
            row = replace(row, infer=len(batch) * rate(lambda: _forward(step, batch), device, seconds=seconds))
    except ConfigError as error:
        return replace(row, note=str(error).partition(": ")[2])
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is one
        if not _no_memory(error):
            raise
        return replace(row, note="out of memory")
    return row


def waiting_share(step: Step, clips: EpochLoader, *, seconds: float) -> float:
    """The share of the time that training waits for `clips`; the start of the loader does not count."""
    device = step.training.precision.device
    batches = _endless(clips)
    step(next(batches))
    synchronise(device)
    waited, steps, began = 0.0, 0, time.perf_counter()
    while steps < 3 or time.perf_counter() - began < seconds:
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        step(batch)
        steps += 1
    synchronise(device)
    return waited / (time.perf_counter() - began)


def matmul_ceiling(precision: str, device: torch.device, *, seconds: float) -> float:
    """Operations a second of square matrix products in this precision, two for each multiply-add: what to hope for.

    The best of sides 1024, 2048, ... up to 8192, each timed for `seconds`; sides whose product takes longer than that
    are dropped. On a GPU fp32 may use TF32, as cuDNN's convolutions do.
    """
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    best, side = 0.0, 1024
    try:
        while side <= _LARGEST:
            left, right = (torch.randn(side, side, device=device).to(DTYPES[precision]) for _ in range(2))
            products = rate(lambda: left @ right, device, seconds=seconds)  # noqa: B023 - called before they change
            best = max(best, 2 * side**3 * products)
            if 8 / products > seconds:  # the next takes eight times as long
                break
            side *= 2
    finally:
        torch.set_float32_matmul_precision(before)
    return best


def utilisation(row: BenchRow, macs: int, ceiling: float) -> float | None:
    """Model FLOP utilisation: a training step is three forward passes of `macs` multiply-adds per clip."""
    return None if row.train is None else 6 * macs * row.train / ceiling


@torch.inference_mode()
def _forward(step: Step, batch: Batch) -> None:
    training = step.training
    training.model.eval()
    training.network(training.network.ready(batch.inputs))


def _endless(clips: EpochLoader) -> Iterator[Batch]:
    for epoch in count():
        yield from clips.epoch(epoch)


def _no_memory(error: Exception) -> bool:
    text = str(error).lower()
    words = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(word in text for word in words)
