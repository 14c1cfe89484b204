"""torch.compile for the training step, where it is measured to pay."""

from __future__ import annotations

import gc
import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from vidtrain.engine.checkpoints.content_checks import restore_rng, rng_state
from vidtrain.engine.parameters import train_mode
from vidtrain.engine.settings import CompileMode
from vidtrain.engine.speed.timing import rate, synchronise
from vidtrain.engine.step import TrainingStep
from vidtrain.errors import ConfigError
from vidtrain.types import Batch

WORTH_MINUTES = 20.0
"""A training that takes less than this is not worth the minutes that compiling takes."""
_TIMED_SECONDS = 3.0


def choose_compile(mode: CompileMode, step: TrainingStep, batch: Batch, *, batches: int) -> str:
    """Compile the model of `step` in place, or leave it as it is; returns a sentence for the log.

    Forward and backward passes run here, no update: parameters, buffers, gradients, modes and random states are
    afterwards what they were. A batch that does not fit into the memory of the GPU is halved as in training.

    Args:
        mode: on compiles; auto measures the step first as it is, then compiled, and keeps the faster.
        batch: as training will have it, of noise say: its shape is the one that is compiled.
        batches: how many of them are left to train on. auto does not try when they take less than WORTH_MINUTES.

    Raises:
        ConfigError: mode is on and the model cannot be compiled here.
    """
    if mode is CompileMode.off:
        return "compile=off"
    if not all(isinstance(value, Tensor) for value in batch.inputs.values()):
        return f"compile={mode.value}: left as it is, because its sequences differ in length from batch to batch"
    with _untouched(step):
        first = _seconds(step, batch)  # halves the batch where it must; a model that fails by itself fails here
        if mode is CompileMode.on:
            try:
                return f"compile=on: {_compile(step, batch):.0f} s to compile"
            except Exception as error:
                raise ConfigError(
                    f"trainer.compile=on: {_reason(error)}; trainer.compile=off trains without it"
                ) from error
        return f"compile=auto: {_measure(step, batch, batches, first)}"


def _measure(step: TrainingStep, batch: Batch, batches: int, first: float) -> str:
    """first: seconds of the first update, which takes longer than others: what is short by it is short."""
    device = step.precision.device
    if type(step.model).__name__.startswith("FSDP"):
        return "left as it is, because the measurement would need all devices in step; trainer.compile=on compiles"
    if batches * first < 60 * WORTH_MINUTES or batches * _seconds(step, batch) < 60 * WORTH_MINUTES:
        return f"left as it is, because the training takes less than {WORTH_MINUTES:.0f} minutes"
    eager = len(batch) * rate(lambda: _gradient(step, batch), device, seconds=_TIMED_SECONDS)
    try:
        took = _compile(step, batch)
        compiled = len(batch) * rate(lambda: _gradient(step, batch), device, seconds=_TIMED_SECONDS)
    except Exception as error:
        undo(step.model)
        return f"left as it is, because compiling fails: {_reason(error)}"
    faster = compiled > eager
    if not faster:
        undo(step.model)
    numbers = f"{compiled:.1f} clips/s compiled, {eager:.1f} as it is"
    return f"{numbers}: {'compiled' if faster else 'left as it is'} ({took:.0f} s to compile)"


def _compile(step: TrainingStep, batch: Batch) -> float:
    """Compile and run once; returns the seconds that took. The model is as before when it fails."""
    began = time.perf_counter()
    if not torch.cuda.is_available():
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # "No CUDA runtime is found"
    # the default mode: max-autotune takes many times as long to compile, and the CUDA graphs of reduce-overhead
    # help where a step is too short to keep a GPU busy, for the price of memory
    step.model.compile(dynamic=False)
    step.model._compiled_call_impl = _OneShape(step.model, step.model._compiled_call_impl)
    try:
        _gradient(step, batch, may_halve=False)
    except BaseException:
        undo(step.model)
        raise
    synchronise(step.precision.device)
    return time.perf_counter() - began


def undo(model: nn.Module) -> None:
    """Run as written again."""
    model._compiled_call_impl = None
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class _OneShape:
    """Compiled for training on inputs of the shape seen first; everything else runs as written.

    A smaller last batch, a validation, a test or a model that has frozen itself would each be compiled again, for a
    minute, to be used a few times.
    """

    def __init__(self, model: nn.Module, compiled: Any) -> None:
        self.model = model
        self.compiled = compiled
        self.shape: list[Any] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.model.training and torch.is_grad_enabled():
            leaves = tree_leaves((args, kwargs))
            shape = [(x.shape, x.stride(), x.dtype) if isinstance(x, Tensor) else x for x in leaves]
            self.shape = self.shape or shape
            if shape == self.shape:
                return self.compiled(*args, **kwargs)
        return self.model._call_impl(*args, **kwargs)


def _gradient(step: TrainingStep, batch: Batch, *, may_halve: bool = True) -> None:
    """Forward and backward as in training; the gradient is dropped."""
    while step.gradient([batch]) is None:
        if not may_halve:
            raise torch.OutOfMemoryError("the memory of the GPU does not suffice")
        step.halve(len(batch))
    step.model.zero_grad(set_to_none=True)


def _seconds(step: TrainingStep, batch: Batch) -> float:
    synchronise(step.precision.device)
    began = time.perf_counter()
    _gradient(step, batch)
    synchronise(step.precision.device)
    return time.perf_counter() - began


@contextmanager
def _untouched(step: TrainingStep) -> Iterator[None]:
    """Whatever runs inside, the model, its gradients and the generators are as before afterwards."""
    model, device, called = step.model, step.precision.device, step.network.called
    modes = {part: part.training for part in model.modules()}
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    generators = rng_state(device)
    model.zero_grad(set_to_none=True)
    step.network.called = model  # without the exchange of gradients: each process takes its own time here
    train_mode(model)
    try:
        yield
    finally:
        step.network.called = called
        for part, training in modes.items():
            part.training = training
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for parameter, gradient in gradients:
            parameter.grad = gradient
        restore_rng(generators, device)


def _reason(error: BaseException) -> str:
    """What torch's compiler says, on one line: its message begins with the name of the part that failed."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("backend="):
        lines = lines[1:]
    text = lines[0] if lines else ""
    return (text if re.match(r"\w+: ", text) else f"{type(error).__name__}: {text}")[:200]
