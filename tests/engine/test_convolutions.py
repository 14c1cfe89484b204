"""A wrong or slow kernel is found, a right one is not refused. The kernels here are the CPU's, and ones made wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from vidtrain import build
from vidtrain.engine.precision import Precision
from vidtrain.engine.preprocess import ModelRunner, Preprocess
from vidtrain.engine.settings import PrecisionName
from vidtrain.engine.speed import convolutions as convolutions_module
from vidtrain.engine.speed.convolutions import (
    Convolution,
    check_convolutions,
    convolutions,
    known_faults,
    try_convolution,
)
from vidtrain.errors import ConfigError

CPU = torch.device("cpu")


class Wrong(TorchDispatchMode):
    """Spoils the results of one operator in bfloat16, as a kernel that reads past a tile would."""

    def __init__(self, name: str, output: int, spoil: Callable[[torch.Tensor], None]) -> None:
        super().__init__()
        self.name, self.output, self.spoil = name, output, spoil

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        results = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ == self.name and args[0].dtype == torch.bfloat16:
            self.spoil(results[self.output] if isinstance(results, tuple) else results)
        return results


def few(tensor: torch.Tensor) -> None:
    tensor.flatten()[-3:] = 0.0


def scaled(tensor: torch.Tensor) -> None:
    tensor.mul_(1.3)


def not_a_number(tensor: torch.Tensor) -> None:
    tensor.flatten()[7] = float("nan")


SMALL = Convolution((2, 4, 4, 9, 9), (6, 2, 3, 3, 3), (1, 2, 2), (1, 1, 1), (1, 1, 1), 2, channels_last=False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "convolution",
    [
        SMALL,
        Convolution((2, 8, 4, 7, 7), (8, 1, 3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 8, channels_last=True),
        Convolution((1, 64, 2, 7, 7), (32, 64, 1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1), 1, channels_last=True),
        Convolution((1, 3, 8, 32, 32), (16, 3, 5, 7, 7), (1, 2, 2), (2, 3, 3), (1, 1, 1), 1, channels_last=False),
        Convolution((1, 4, 8, 8, 8), (4, 4, 3, 3, 3), (1, 1, 1), (2, 2, 2), (2, 2, 2), 1, channels_last=False),
    ],
)
def test_right_ones_are_let_through(convolution: Convolution, dtype: torch.dtype) -> None:
    assert try_convolution(convolution, dtype, CPU).wrong == ()


@pytest.mark.parametrize("spoil", [few, scaled, not_a_number])
@pytest.mark.parametrize(
    ("name", "output", "what"),
    [
        ("convolution", 0, "output"),
        ("convolution_backward", 0, "gradient of the input"),
        ("convolution_backward", 1, "gradient of the weights"),
    ],
)
def test_a_wrong_kernel_is_found(name: str, output: int, what: str, spoil: Callable[[torch.Tensor], None]) -> None:
    with Wrong(name, output, spoil):
        assert try_convolution(SMALL, torch.bfloat16, CPU).wrong == (what,)


@pytest.fixture(scope="module")
def network() -> ModelRunner:
    model = build.create_model("slow_fusion", num_classes=4)
    return ModelRunner(model, Preprocess([0.5] * 3, [0.5] * 3, CPU), Precision(PrecisionName.bf16, CPU))


@pytest.fixture
def clips() -> dict[str, torch.Tensor]:
    return {"rgb": torch.randint(0, 256, (1, 1, 16, 32, 32, 3), dtype=torch.uint8)}


def test_the_convolutions_are_those_that_the_model_calls(network: ModelRunner, clips: dict[str, torch.Tensor]) -> None:
    model = network.model.train()
    ready = network.ready(clips)
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    found = convolutions(model, lambda: network(ready))
    layers = [part for part in model.modules() if isinstance(part, nn.Conv3d)]
    assert {each.weight for each in found} == {tuple(layer.weight.shape) for layer in layers}
    assert found[0].input == (1, 3, 16, 32, 32)
    assert found[0].channels_last
    assert model.training
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in model.named_buffers())


def test_training_with_a_wrong_kernel_is_refused(network: ModelRunner, clips: dict[str, torch.Tensor]) -> None:
    with Wrong("convolution", 0, scaled), pytest.raises(ConfigError) as error:
        check_convolutions(network, clips)
    line = str(error.value)
    assert "trainer.precision: in bfloat16" in line
    assert "3D convolutions are wrong on this device, for instance the output of " in line
    assert "trainer.check_convolutions=false" in line


def test_slow_kernels_are_said(
    network: ModelRunner, clips: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([1.0, 1.6] * 100)  # float32, then bfloat16
    monkeypatch.setattr(convolutions_module, "_timed", lambda call, device: (call(), next(seconds)))
    (line,) = check_convolutions(network, clips)
    assert line.startswith("in bfloat16 the model's 3D convolutions take 1.6 times as long as in float32")
    seconds = iter([1.0, 1.4] * 100)
    assert check_convolutions(network, clips) == []


def test_the_versions_of_cudnn_that_have_faults() -> None:
    assert "cuDNN 9.10.2 has 3D convolutions that are wrong or slow" in str(known_faults(91002))
    assert [known_faults(version) is None for version in (None, 90701, 90800, 91499, 91500, 92000)] == [
        True,
        True,
        False,
        False,
        True,
        True,
    ]
