"""Are a GPU's 3D convolutions right in half precision, and no slower than in full?

cuDNN 9.8 to 9.14 have kernels that are not, for some shapes and some GPUs, or PyTorch goes around them at several times
the memory and time: pytorch/pytorch issues 163539, 166122, 166643, 174051. A version says nothing about the shapes of a
model, so these are tried: each 3D convolution that the model calls, forward and backward, in half precision and in
float32 on the same numbers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vidtrain.dispatch import DispatchMode
from vidtrain.engine.preprocess import ModelRunner
from vidtrain.engine.speed.timing import synchronise
from vidtrain.errors import ConfigError

FAULTY_CUDNN = 90800, 91500
"""Versions from the first to before the second have the faults, as torch.backends.cudnn.version() numbers them."""

_SLOWER = 1.5  # times float32: below it is noise
_MOST = 2**27  # numbers in the input and in the output: 0.5 GB each in float32
_SPREAD, _RELATIVE = 0.1, 0.02
"""How far a number may be off: bfloat16 rounds to 2^-9, and kernels may add up parts that are rounded."""


@dataclass(frozen=True)
class Convolution:
    """A 3D convolution as a model calls it.

    Attributes:
        input: (B, C, T, H, W). weight: (D, C / groups, kernel of three).
        channels_last: the input's order in memory.
    """

    input: tuple[int, ...]
    weight: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    channels_last: bool

    def __str__(self) -> str:
        kernel, size = ("x".join(map(str, part)) for part in (self.weight[2:], self.input[2:]))
        more = f", stride {'x'.join(map(str, self.stride))}" if max(self.stride) > 1 else ""
        more += f", {self.groups} groups" if self.groups > 1 else ""
        return f"{kernel}, {self.input[1]}->{self.weight[0]}{more}, on {size}"


@dataclass(frozen=True)
class Tried:
    """What came of one convolution.

    Attributes:
        wrong: which of its results are: "output", "gradient of the input", "gradient of the weights".
        seconds: forward and backward in half precision, and in float32.
    """

    convolution: Convolution
    wrong: tuple[str, ...]
    seconds: tuple[float, float]


class _Recorder(DispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[Convolution, None] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.convolution.default and args[1].ndim == 5 and not args[6]:
            x, weight, _, stride, padding, dilation, _, _, groups = args
            last = x.is_contiguous(memory_format=torch.channels_last_3d) and not x.is_contiguous()
            shape = tuple(x.shape), tuple(weight.shape), tuple(stride), tuple(padding), tuple(dilation)
            self.found[Convolution(*shape, groups, last)] = None
        return func(*args, **(kwargs or {}))


def convolutions(model: nn.Module, call: Callable[[], object]) -> list[Convolution]:
    """The 3D convolutions, each once, that run in `call`, a forward pass of `model`; its mode stays as it is."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), _Recorder() as recorder:
            call()
    finally:
        for module, training in modes.items():
            module.training = training
    return list(recorder.found)


def try_convolution(convolution: Convolution, dtype: torch.dtype, device: torch.device) -> Tried:
    """Run it on noise in `dtype` and in float32 and compare; a batch that is too large for that is made smaller."""
    x, weight, out = _noise(convolution, dtype, device)

    def passes(kind: torch.dtype) -> tuple[torch.Tensor, ...]:
        inputs = x.to(kind).requires_grad_(), weight.to(kind).requires_grad_()
        y = F.conv3d(*inputs, None, convolution.stride, convolution.padding, convolution.dilation, convolution.groups)
        return (y.detach(), *torch.autograd.grad(y, inputs, out.to(kind)))

    with torch.enable_grad(), _exact_float32():
        rights, full = _timed(lambda: passes(torch.float32), device)
        founds, half = _timed(lambda: passes(dtype), device)
    names = "output", "gradient of the input", "gradient of the weights"
    wrong = tuple(name for name, a, b in zip(names, founds, rights, strict=True) if not _alike(a, b))
    return Tried(convolution, wrong, (half, full))


def check_convolutions(network: ModelRunner, inputs: Mapping[str, Any]) -> list[str]:
    """Try each 3D convolution that a forward pass of the model calls, in the half precision it is run in.

    Args:
        inputs: those of a Batch as training has it.

    Returns:
        A sentence where together they are slower than in float32, or where the memory did not suffice; else nothing.

    Raises:
        ConfigError: one gives wrong numbers.
    """
    device, dtype = network.precision.device, network.precision.dtype
    if dtype is None:
        return []
    ready = network.ready(inputs)
    try:
        tried = [try_convolution(each, dtype, device) for each in convolutions(network.model, lambda: network(ready))]
    except torch.OutOfMemoryError:
        return ["the model's 3D convolutions were not tried against float32: the device's memory does not suffice"]
    name = str(dtype).removeprefix("torch.")
    if wrong := [each for each in tried if each.wrong]:
        first = wrong[0]
        raise ConfigError(
            f"trainer.precision: in {name} {len(wrong)} of the model's {len(tried)} 3D convolutions are wrong on this "
            f"device, for instance the {first.wrong[0]} of {first.convolution}{_blame(device)}; use "
            "trainer.precision=fp32, another cuDNN, or trainer.check_convolutions=false to train with them"
        )
    half, full = (sum(each.seconds[n] for each in tried) for n in (0, 1))
    if half <= _SLOWER * full:
        return []
    worst = max(tried, key=lambda each: each.seconds[0] - each.seconds[1])
    ratio = worst.seconds[0] / worst.seconds[1]
    return [
        f"in {name} the model's 3D convolutions take {half / full:.1f} times as long as in float32 on this device, "
        f"most of all {worst.convolution}: {ratio:.1f} times{_blame(device)}; trainer.precision=fp32 may be faster"
    ]


def known_faults(version: int | None) -> str | None:
    """What is known of a version of cuDNN; None: nothing."""
    if version is None or not FAULTY_CUDNN[0] <= version < FAULTY_CUDNN[1]:
        return None
    return (
        f"cuDNN {version // 10000}.{version // 100 % 100}.{version % 100} has 3D convolutions that are wrong or slow "
        "in bfloat16 for some shapes (pytorch issues #163539, #166122, #166643, #174051)"
    )


def _blame(device: torch.device) -> str:
    version = torch.backends.cudnn.version() if device.type == "cuda" else None
    known = known_faults(version)
    return "" if version is None else f" ({known or f'cuDNN {version}'})"


def _noise(
    convolution: Convolution, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Input, weights and gradient of the output, of a size that leaves every result near 1, as `dtype` has them."""
    batch, *rest = convolution.input
    spans = [d * (k - 1) + 1 for d, k in zip(convolution.dilation, convolution.weight[2:], strict=True)]
    out = [
        (size + 2 * pad - span) // step + 1
        for size, pad, span, step in zip(
            convolution.input[2:], convolution.padding, spans, convolution.stride, strict=True
        )
    ]
    largest = max(math.prod(rest), convolution.weight[0] * math.prod(out))
    batch = max(1, min(batch, _MOST // largest))
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int, scale: float) -> torch.Tensor:
        drawn = torch.randn(shape, generator=generator, device=device) * scale
        return drawn.to(dtype)

    x = normal(batch, *rest, scale=1.0)
    if convolution.channels_last:
        x = x.contiguous(memory_format=torch.channels_last_3d)
    weight = normal(*convolution.weight, scale=math.prod(convolution.weight[1:]) ** -0.5)
    gradient = normal(batch, convolution.weight[0], *out, scale=math.prod([batch, *out]) ** -0.5)
    return x, weight, gradient


def _timed(
    call: Callable[[], tuple[torch.Tensor, ...]], device: torch.device
) -> tuple[tuple[torch.Tensor, ...], float]:
    """What it returns, and the seconds of its second run: in the first cuDNN looks for its fastest kernel."""
    call()
    synchronise(device)
    began = time.perf_counter()
    found = call()
    synchronise(device)
    return found, time.perf_counter() - began


def _alike(found: torch.Tensor, right: torch.Tensor) -> bool:
    allowed = _SPREAD * right.square().mean().sqrt() + _RELATIVE * right.abs()
    return bool(((found.float() - right).abs() <= allowed).all())  # NaN is not


@contextmanager
def _exact_float32() -> Iterator[None]:
    """Without TF32, which rounds more than bfloat16's sums do."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
