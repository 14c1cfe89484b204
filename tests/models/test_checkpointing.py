"""Activation checkpointing changes what is kept, and nothing else."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from vidtrain import create_model
from vidtrain.errors import ConfigError
from vidtrain.models.layers.checkpointing import checkpoint_activations


class Block(nn.Module):
    """With batch norm and dropout, the two things that a second pass could disturb."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv3d(4, 4, 3, padding=1), nn.Conv3d(4, 4, 1)
        self.norm, self.dropout = nn.BatchNorm3d(4), nn.Dropout(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(self.dropout(self.norm(self.conv1(x)).relu()))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(3, 4, 1), nn.Sequential(Block(), Block()), nn.Flatten(), nn.LazyLinear(2))


def step(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(1)
    logits: torch.Tensor = model(x)
    logits.square().sum().backward()
    return logits


def test_outputs_gradients_and_statistics_stay() -> None:
    x = torch.randn(3, 3, 4, 6, 6)
    plain = net()
    plain(x)
    saving = copy.deepcopy(plain)
    assert checkpoint_activations(saving) == 2
    assert torch.equal(step(plain, x), step(saving, x))
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), name  # type: ignore[arg-type]
    for key, value in plain.state_dict().items():
        assert torch.equal(value, saving.state_dict()[key]), key
    assert saving[1][0].norm.num_batches_tracked == plain[1][0].norm.num_batches_tracked


def test_less_is_kept() -> None:
    x = torch.randn(2, 3, 8, 12, 12)
    kept = []
    for checkpointed in (False, True):
        model = net()
        model(x)
        if checkpointed:
            checkpoint_activations(model)
        sizes: list[int] = []

        def pack(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(x)
        kept.append(sum(sizes))
    assert kept[1] < 0.7 * kept[0]


def test_a_resnet_has_two_blocks_in_each_of_four_stages() -> None:
    model = create_model("r3d_18", num_classes=3)
    assert checkpoint_activations(model) == 8
    model(torch.randn(2, 3, 4, 16, 16)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_model_without_blocks_says_so() -> None:
    with pytest.raises(ConfigError, match="no repeated blocks"):
        checkpoint_activations(create_model("slow_fusion", num_classes=3))
