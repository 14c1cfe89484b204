"""The non-local block: its four forms against their equations, the identity at the start, where it can stand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.models import parity
from vidtrain import create_model
from vidtrain.errors import ConfigError
from vidtrain.models.i3d_resnet import i3d_r50
from vidtrain.models.layers.nonlocal_block import MODES, NonLocal, NonLocalBlock, check_places
from vidtrain.models.slowfast import slowfast_r50
from vidtrain.models.x3d import x3d_m

VARIANTS = [
    *((mode, pool, True) for mode in MODES for pool in (None, "before", "after")),
    ("embedded_gaussian", "before", False),
    ("gaussian", None, False),
]


def block(**options: Any) -> NonLocalBlock:
    """Every tensor drawn, so that nothing is left at a value that hides it."""
    torch.manual_seed(0)
    net = NonLocalBlock(6, **options).double().eval()
    for tensor in (*net.parameters(), *net.buffers()):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.2, 1.0)
    return net


@pytest.mark.parametrize(("mode", "pool", "scale"), VARIANTS)
def test_equals_its_equation_position_by_position(mode: str, pool: str | None, scale: bool) -> None:
    net = block(mode=mode, pool=pool, scale=scale)
    x = torch.randn(2, 6, 2, 4, 6, dtype=torch.float64)
    halve = nn.MaxPool3d((1, 2, 2))
    read = halve(x) if pool == "before" else x
    theta = x if net.theta is None else net.theta(x)
    phi = read if net.phi is None else net.phi(read)
    g = net.g(read)
    if pool == "after":
        phi, g = halve(phi), halve(g)
    theta, phi, g = (t.flatten(2) for t in (theta, phi, g))  # (B, channels, positions)
    y = torch.empty(2, 3, theta.shape[2], dtype=torch.float64)
    for b in range(2):
        for i in range(theta.shape[2]):
            a, others = theta[b, :, i], [phi[b, :, j] for j in range(phi.shape[2])]
            if net.pair is not None:
                f = torch.stack([torch.relu(net.pair(torch.cat([a, other]))).squeeze() for other in others])
                weights = f / len(others)
            else:
                f = torch.stack([a @ other for other in others])
                if mode == "dot_product":
                    weights = f / len(others)
                else:
                    weights = torch.softmax(f / (len(a) ** 0.5 if scale else 1), dim=0)
            y[b, :, i] = g[b] @ weights
    expected = net.bn(net.out(y.view(2, 3, 2, 4, 6))) + x
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize("scaled", [True, False])
def test_third_party_arrays(scaled: bool) -> None:
    cell = parity.cell("nonlocal_embedded_gaussian")
    arrays = {key: torch.tensor(value, dtype=torch.float64) for key, value in cell["inputs"].items()}
    net = NonLocalBlock(4, pool=None, scale=scaled).double().eval()
    state = {f"{name}.weight": arrays[f"{name}_w"][:, :, None, None, None] for name in ("theta", "phi", "g", "out")}
    state |= {f"{name}.bias": arrays[f"{name}_b"] for name in ("theta", "phi", "g", "out")}
    state |= {f"bn.{key}": arrays[f"bn_{key}"] for key in ("weight", "bias", "running_mean", "running_var")}
    net.load_state_dict(state, strict=False)
    expected = torch.tensor(cell["outputs"]["z_scaled" if scaled else "z_unscaled"], dtype=torch.float64)
    assert (net(arrays["x"]) - expected).abs().max() <= 1e-9


@pytest.mark.parametrize("mode", MODES)
def test_starts_as_the_identity_in_any_net(mode: str) -> None:
    x = torch.randn(2, 3, 8, 32, 32)
    torch.manual_seed(0)
    plain = i3d_r50(num_classes=5, depth=26, width=4).eval()
    places = ["layer2.0", "layer2.1", "layer3.1"]
    with_blocks = i3d_r50(num_classes=5, depth=26, width=4, nonlocal_blocks=places, nonlocal_mode=mode).eval()
    missing, unexpected = with_blocks.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    names = {key.rpartition(".nonlocal")[0] + "." + key.rpartition(".nonlocal")[2][0] for key in missing}
    assert names == set(places)
    with torch.no_grad():
        assert torch.equal(plain(x), with_blocks(x))


def test_gradients_reach_a_block_only_through_its_last_norm_at_the_start() -> None:
    net = NonLocalBlock(4)
    net(torch.randn(1, 4, 2, 4, 4)).sum().backward()
    assert net.bn.weight.grad is not None
    assert net.bn.weight.grad.abs().max() > 0
    assert net.theta is not None
    assert net.theta.weight.grad is not None
    assert net.theta.weight.grad.abs().max() == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 1), (7, 7)])
def test_any_map_can_be_pooled(size: tuple[int, int]) -> None:
    for pool in ("before", "after"):
        x = torch.randn(1, 4, 3, *size)
        assert NonLocalBlock(4, pool=pool)(x).shape == x.shape


def test_the_five_blocks_of_the_paper() -> None:
    with torch.device("meta"):
        net = create_model("i3d_r50_nonlocal", num_classes=5)
    found = [name for name, module in net.named_modules() if isinstance(module, NonLocalBlock)]
    assert found == [*(f"layer2.nonlocal{i}" for i in (1, 3)), *(f"layer3.nonlocal{i}" for i in (1, 3, 5))]
    layers = [name for name, _ in net.layer2.named_children()]
    assert layers == ["0", "1", "nonlocal1", "2", "3", "nonlocal3"]
    with torch.device("meta"):
        net = i3d_r50(num_classes=5, nonlocal_blocks=10)
    assert sum(isinstance(module, NonLocalBlock) for module in net.modules()) == 10


def test_stands_in_slowfast_and_x3d() -> None:
    with torch.device("meta"):
        slowfast = slowfast_r50(num_classes=5, nonlocal_blocks=["layer2.1"])
        x3d = x3d_m(num_classes=5, nonlocal_blocks=5)
    assert [n for n, m in slowfast.named_modules() if isinstance(m, NonLocalBlock)] == ["slow.layer2.nonlocal1"]
    assert sum(isinstance(module, NonLocalBlock) for module in x3d.modules()) == 5


def test_options_become_blocks() -> None:
    made = NonLocal(frozenset(), "gaussian", None, False).block(8)
    assert (made.mode, made.pool, made.scale, made.theta) == ("gaussian", None, False, None)
    assert check_places(None, ["a"], {}) == frozenset()
    assert check_places(2, ["a", "b"], {2: ("a", "b")}) == {"a", "b"}
    with pytest.raises(ConfigError, match=r"there is no c; this network has a, b"):
        check_places(["a", "c"], ["a", "b"], {})


def test_softmax_weights_are_a_mean() -> None:
    """With g and out the identity and no norm, each position becomes a weighted mean of all positions."""
    net = NonLocalBlock(2, inner=2, pool=None).double().eval()
    for conv in (net.g, net.out):
        nn.init.zeros_(conv.bias)
        conv.weight.data = torch.eye(2, dtype=torch.float64)[:, :, None, None, None]
    nn.init.constant_(net.bn.weight, (1 + net.bn.eps) ** 0.5)
    x = torch.rand(1, 2, 2, 3, 3, dtype=torch.float64)
    y = net(x) - x
    assert (y >= x.amin((2, 3, 4), keepdim=True) - 1e-12).all()
    assert (y <= x.amax((2, 3, 4), keepdim=True) + 1e-12).all()
    assert F.mse_loss(y, x) > 0
