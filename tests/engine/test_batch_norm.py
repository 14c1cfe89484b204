"""BatchNorm's statistics measured again: over the batches given, and nothing else is changed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vidtrain.engine.batch_norm import kept_statistics, measure_statistics


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3), nn.Linear(3, 3), nn.BatchNorm1d(3, momentum=0.3))


def test_the_mean_over_the_batches_in_eval_mode_but_for_the_norms() -> None:
    model, batches = network(), [torch.randn(5, 3, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    model[3].eval()  # a frozen part keeps what it has
    modes = {name: part.training for name, part in model.named_modules()}
    frozen, weights = model[3].running_mean.clone(), model[2].weight.clone()
    assert measure_statistics(model, batches, model) == 3
    torch.testing.assert_close(model[1].running_mean, torch.stack(batches).mean((0, 1)))  # without dropout
    torch.testing.assert_close(model[1].running_var, torch.stack([b.var(0) for b in batches]).mean(0))
    assert torch.equal(model[3].running_mean, frozen)
    assert torch.equal(model[2].weight, weights)
    assert {name: part.training for name, part in model.named_modules()} == modes
    assert [model[1].momentum, model[3].momentum] == [0.1, 0.3]


def test_all_is_as_before_when_a_batch_fails() -> None:
    model = network()
    with pytest.raises(RuntimeError):
        measure_statistics(model, [torch.zeros(2, 4)], model)
    assert all(part.training for part in model.modules())
    assert model[3].momentum == 0.3


def test_without_norms_no_batch_is_read() -> None:
    assert measure_statistics(nn.Linear(2, 2), iter([torch.zeros(1, 2)]), print) == 0


def test_statistics_are_put_back() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with kept_statistics(model):
        measure_statistics(model, [torch.randn(5, 3)], model)
        assert not torch.equal(model[1].running_mean, before["1.running_mean"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
