"""The non-local block (Wang et al. 2018, "Non-local Neural Networks"): every position of a clip reads all others.

    y_i = sum_j f(x_i, x_j) g(x_j) / C        z = BN(out(y)) + x

A net asks `NonLocal` where its blocks stand, and puts `NonLocal.block(channels)` there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from vidtrain.errors import ConfigError, did_you_mean, one_of
from vidtrain.models.layers.classifier import check_choice

MODES = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
POOLS = ("before", "after")


class NonLocalBlock(nn.Module):
    """(B, C, T, H, W) -> (B, C, T, H, W). The last BatchNorm starts with gamma 0, so that it begins as the identity.

    mode: f(x_i, x_j) is, with theta = theta(x_i), phi = phi(x_j) and the sum running over j,
        "gaussian": softmax of x_i . x_j (no theta and phi then),
        "embedded_gaussian": softmax of theta . phi,
        "dot_product": theta . phi / number of positions,
        "concatenation": relu(w . [theta, phi]) / number of positions.
    pool: 2 x 2 max pooling in space of what the positions read: "before" phi and g (the authors' and PySlowFast's
        way), "after" them (MMCV's), or None. The result has all positions in any case.
    scale: multiply the two softmax forms by d^-1/2 before the softmax, d = length of what is multiplied. The paper's
        equation has no such factor, the authors' code has.
    inner: channels of theta, phi and g; None: C / 2.
    """

    def __init__(
        self,
        channels: int,
        *,
        mode: str = "embedded_gaussian",
        pool: str | None = "before",
        scale: bool = True,
        inner: int | None = None,
    ) -> None:
        super().__init__()
        inner = max(channels // 2, 1) if inner is None else inner
        self.mode = mode
        self.pool = pool
        self.scale = scale
        self.theta = None if mode == "gaussian" else _point(channels, inner)
        self.phi = None if mode == "gaussian" else _point(channels, inner)
        self.g = _point(channels, inner)
        self.pair = _pair(inner) if mode == "concatenation" else None
        self.out = _point(inner, channels)
        self.bn = nn.BatchNorm3d(channels)
        nn.init.zeros_(self.bn.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, T, H, W) -> the same."""
        read = _halve(x) if self.pool == "before" else x
        theta = x if self.theta is None else self.theta(x)
        phi = read if self.phi is None else self.phi(read)
        g = self.g(read)
        if self.pool == "after":
            phi, g = _halve(phi), _halve(g)
        y = self._weigh(_rows(theta), _rows(phi), _rows(g))
        return self.bn(self.out(y.transpose(1, 2).unflatten(2, x.shape[2:]))) + x

    def _weigh(self, theta: torch.Tensor, phi: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        """(B, N, d), (B, M, d), (B, M, D) -> (B, N, D)."""
        if self.mode in ("gaussian", "embedded_gaussian"):
            query, key, value = (
                theta[:, None],
                phi[:, None],
                g[:, None],
            )  # ONNX's exporter takes attention with heads only
            return F.scaled_dot_product_attention(query, key, value, scale=None if self.scale else 1.0)[:, 0]
        if self.pair is None:
            affinity = theta @ phi.transpose(1, 2)
        else:  # w . [theta, phi] is a sum of two terms, so the (N x M) concatenations need not be made
            on_theta, on_phi = self.pair.weight.chunk(2, dim=1)
            affinity = torch.relu(theta @ on_theta.T + (phi @ on_phi.T).transpose(1, 2))
        return affinity @ g / phi.shape[1]


@dataclass(frozen=True)
class NonLocal:
    """Where a network has non-local blocks, and which.

    after: names of the parts of the network that are followed by one, as check_places gives them.
    """

    after: frozenset[str]
    mode: str = "embedded_gaussian"
    pool: str | None = "before"
    scale: bool = True

    def __post_init__(self) -> None:
        check_choice("nonlocal_mode", self.mode, MODES)
        if self.pool is not None and self.pool not in POOLS:
            raise ConfigError(f"model.nonlocal_pool: got {self.pool!r}, expected null, {one_of(POOLS)}")

    def block(self, channels: int) -> NonLocalBlock:
        """A new block for maps of `channels`."""
        return NonLocalBlock(channels, mode=self.mode, pool=self.pool, scale=self.scale)


NOWHERE = NonLocal(frozenset())


@dataclass(frozen=True, kw_only=True)
class NonLocalOptions:
    """Options of every network that may have non-local blocks."""

    nonlocal_blocks: int | list[str] | None = None
    """The parts of the network that are each followed by one: their names (layer2.1, ...), or how many there are in a
    published pattern."""
    nonlocal_mode: str = "embedded_gaussian"
    """See NonLocalBlock, as for the next two."""
    nonlocal_pool: str | None = "before"
    nonlocal_scale: bool = True

    def nonlocals(self, places: Sequence[str], presets: Mapping[int, Sequence[str]]) -> NonLocal:
        """See check_places."""
        after = check_places(self.nonlocal_blocks, places, presets)
        return NonLocal(after, self.nonlocal_mode, self.nonlocal_pool, self.nonlocal_scale)


def check_places(
    value: int | Sequence[str] | None, places: Sequence[str], presets: Mapping[int, Sequence[str]]
) -> frozenset[str]:
    """The option model.nonlocal_blocks as names of parts of a network.

    value: None, the number of a preset, or a list of names.
    places: the names that the network has. presets: number of blocks -> the names they follow.
    """
    if value is None:
        return frozenset()
    if isinstance(value, int):
        if value not in presets:
            raise ConfigError(
                f"model.nonlocal_blocks: got {value}, expected null, {one_of(map(str, presets))} or a list of parts "
                f"of the network, each followed by a block: {one_of(places, 8)}"
            )
        names = list(presets[value])
    else:
        names = [str(name) for name in value]
    for name in names:
        if name not in places:
            raise ConfigError(
                f"model.nonlocal_blocks: there is no {name}{did_you_mean(name, places)}; this network has "
                f"{one_of(places, 40)}"
            )
    return frozenset(names)


def _point(channels: int, out: int) -> nn.Conv3d:
    conv = nn.Conv3d(channels, out, 1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def _pair(inner: int) -> nn.Linear:
    pair = nn.Linear(2 * inner, 1, bias=False)
    nn.init.normal_(pair.weight, std=0.01)
    return pair


def _halve(x: torch.Tensor) -> torch.Tensor:
    """2 x 2 max pooling in space, as far as there is space."""
    return F.max_pool3d(x, (1, min(2, x.shape[3]), min(2, x.shape[4])))


def _rows(x: torch.Tensor) -> torch.Tensor:
    """(B, C, T, H, W) -> (B, T*H*W, C)."""
    return x.flatten(2).transpose(1, 2)
