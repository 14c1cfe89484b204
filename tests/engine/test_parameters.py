"""Which parameters get which learning rate and weight decay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vidtrain.build import build_optimizer
from vidtrain.engine.parameters import parameter_groups
from vidtrain.errors import ConfigError


class Net(nn.Module):
    """An embedding with a table, two blocks, a head."""

    num_layers = 4

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(2, 3)
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 3))
        self.blocks = nn.ModuleList([nn.Linear(3, 3), nn.LayerNorm(3)])
        self.head = nn.Linear(3, 2)

    def layer_of(self, name: str) -> int:
        if name.startswith("blocks."):
            return 1 + int(name.split(".")[1])
        return 3 if name.startswith("head") else 0


def found(model: nn.Module, groups: list[dict[str, object]]) -> dict[str, tuple[float, float]]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: (group["lr"], group["weight_decay"])  # type: ignore[misc]
        for group in groups
        for p in group["params"]  # type: ignore[attr-defined]
    }


def test_every_parameter_is_in_one_group() -> None:
    model = Net()
    model.embed.bias.requires_grad = False
    groups = parameter_groups(model, lr=1.0, weight_decay=0.1, layer_decay=0.5, decay_norms=False)
    count = sum(len(group["params"]) for group in groups)
    assert count == len(found(model, groups)) == len(list(model.parameters())) - 1


def test_layers_below_learn_more_slowly_and_vectors_do_not_decay() -> None:
    model = Net()
    rates = found(model, parameter_groups(model, lr=1.0, weight_decay=0.1, layer_decay=0.5, decay_norms=False))
    assert rates["head.weight"] == (1.0, 0.1)
    assert rates["head.bias"] == (1.0, 0.0)
    assert rates["blocks.1.weight"] == (0.5, 0.0)
    assert rates["blocks.0.weight"] == (0.25, 0.1)
    assert rates["embed.weight"] == (0.125, 0.1)
    assert rates["pos_embed"] == (0.125, 0.0)
    plain = found(model, parameter_groups(model, lr=1.0, weight_decay=0.1))
    assert set(plain.values()) == {(1.0, 0.1)}


def test_from_the_configuration() -> None:
    node = {"_target_": "torch.optim.AdamW", "lr": 0.1, "weight_decay": 0.2, "layer_decay": 0.5, "decay_norms": False}
    optimizer = build_optimizer(node, Net())
    assert {group["lr"] for group in optimizer.param_groups} == {0.1, 0.05, 0.025, 0.0125}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.2}
    assert len(build_optimizer({**node, "layer_decay": None, "decay_norms": True}, Net()).param_groups) == 1
    with pytest.raises(ConfigError, match=r"optimizer\.layer_decay=0\.5: Linear does not number its layers"):
        build_optimizer(node, nn.Linear(2, 2))
    with pytest.raises(ConfigError, match=r"optimizer\.layer_decay=2: must be above 0"):
        build_optimizer({**node, "layer_decay": 2}, Net())
