"""Channels last: values and results stay, and fused optimizers add up what belongs together."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vidtrain.engine.devices.memory_format import benefits_from_channels_last, match_layout, to_channels_last


def network() -> nn.Module:
    """3D and 2D convolutions: `nn.Module.to(memory_format=...)` refuses it."""
    torch.manual_seed(0)
    first = nn.Conv3d(3, 8, 3, padding=1, bias=False)  # a bias before BatchNorm has a gradient of rounding errors only
    return nn.Sequential(first, nn.BatchNorm3d(8), nn.ReLU(), nn.Flatten(2, 3), nn.Conv2d(8, 4, 3), nn.Flatten())


def clips() -> Tensor:
    return torch.randn(2, 3, 2, 8, 8, generator=torch.Generator().manual_seed(1))


def test_values_and_objects_stay() -> None:
    net = network()
    before, state, out = list(net.parameters()), copy.deepcopy(net.state_dict()), net(clips())
    to_channels_last(net)
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert net[4].weight.is_contiguous(memory_format=torch.channels_last)
    assert not net[0].weight.is_contiguous()
    assert all(one is other for one, other in zip(before, net.parameters(), strict=True))
    for name in ("0.weight", "4.weight"):
        assert torch.equal(net.state_dict()[name], state[name])
    torch.testing.assert_close(net(clips()), out)
    net.load_state_dict(state)
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last_3d)


def test_it_pays_for_convolutions_on_a_gpu() -> None:
    assert benefits_from_channels_last(network(), torch.device("cuda"))
    assert not benefits_from_channels_last(nn.Linear(2, 2), torch.device("cuda"))
    assert not benefits_from_channels_last(network(), torch.device("cpu"))


OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.1}),
}


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        net(clips()).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_checkpoint_in_another_order_continues_as_if_it_had_not(name: str) -> None:
    kind, options = OPTIMIZERS[name]

    def optimizer(net: nn.Module, **more: Any) -> torch.optim.Optimizer:
        return kind(net.parameters(), lr=0.05, **options, **more)

    plain = network()
    whole = optimizer(plain)
    train(plain, whole, 2)
    saved = copy.deepcopy((plain.state_dict(), whole.state_dict()))
    train(plain, whole, 2)

    def resumed(*, matched: bool) -> float:
        net = network()
        to_channels_last(net)
        fused = optimizer(net, fused=True)
        net.load_state_dict(saved[0])
        state = copy.deepcopy(saved[1])
        for group in state["param_groups"]:
            group["fused"] = True
        fused.load_state_dict(state)
        if matched:
            match_layout(fused)
        train(net, fused, 2)
        pairs = zip(net.parameters(), plain.parameters(), strict=True)
        return max((one - other).abs().max().item() for one, other in pairs)

    assert resumed(matched=True) < 1e-5
    # why it is needed: PyTorch adds numbers of other places up, and says nothing
    assert resumed(matched=False) > 1e-3
