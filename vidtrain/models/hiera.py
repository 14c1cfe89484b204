"""Hiera: a transformer whose tokens become fewer and wider from stage to stage, with nothing but attention, pooling
and learned positions (Ryali et al. 2023, "Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles").
At 400 classes and 16 x 224 x 224: B 51.093M parameters and 101.7 GMAC, B+ 69.392M and 132.3, L 213.092M and 412.1,
H 671.628M and 1157.8.

The authors reorder tokens so that windows and pooling become views; here they stay in the order t, y, x.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from vidtrain.errors import ConfigError
from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.classifier import check_at_least
from vidtrain.models.layers.position_tables import Table
from vidtrain.models.layers.resnet3d import Triple
from vidtrain.models.layers.transformer import (
    Mlp,
    StochasticDepth,
    TransformerOptions,
    VideoTransformer,
    check_heads,
    drop_rates,
    init_transformer,
)

ENTRIES = {
    "hiera_b": Entry(Family.ATTENTION, "Ryali et al. 2023", (16, 224), 84.0, "16x4, 5x3, PySlowFast"),
    "hiera_b_plus": Entry(Family.ATTENTION, "Ryali et al. 2023", (16, 224), 85.0, "16x4, 5x3, PySlowFast"),
    "hiera_l": Entry(Family.ATTENTION, "Ryali et al. 2023", (16, 224), 87.3, "16x4, 5x3, PySlowFast"),
    "hiera_h": Entry(Family.ATTENTION, "Ryali et al. 2023", (16, 224), 87.8, "16x4, 5x3, PySlowFast"),
    "hiera_tiny": Entry(Family.ATTENTION, "Ryali et al. 2023", (16, 64)),
}

TUBELET, PATCH = 2, 4
_POOL = 2  # tokens of a side that become one


def _pooled(tokens: torch.Tensor, grid: Triple) -> torch.Tensor:
    """(B, T H W, C) -> (B, T H/2 W/2, C): the largest of 1 x 2 x 2 tokens, channel by channel."""
    x = tokens.unflatten(1, (grid[0], grid[1] // _POOL, _POOL, grid[2] // _POOL, _POOL))
    return x.amax((3, 5)).flatten(1, 3)


def _windows(tokens: torch.Tensor, grid: Triple, side: int) -> torch.Tensor:
    """(B, T H W, C) -> (B T H/side W/side, side side, C): windows of 1 x side x side tokens."""
    x = tokens.unflatten(1, (grid[0], grid[1] // side, side, grid[2] // side, side))
    return x.transpose(3, 4).flatten(0, 3).flatten(1, 2)


def _joined(windows: torch.Tensor, grid: Triple, side: int) -> torch.Tensor:
    """The way back from _windows."""
    x = windows.unflatten(1, (side, side)).unflatten(0, (-1, grid[0], grid[1] // side, grid[2] // side))
    return x.transpose(3, 4).flatten(1, 5)


class WindowAttention(nn.Module):
    """(B, T H W, channels) -> (B, T H' W', out), H' and W' halved where `pool`: then queries are pooled, keys and
    values are not. window: None, or the side of the windows inside which tokens attend to each other."""

    def __init__(self, channels: int, out: int, heads: int, *, grid: Triple, pool: bool, window: int | None) -> None:
        super().__init__()
        self.heads, self.grid, self.pool, self.window = heads, grid, pool, window
        self.qkv = nn.Linear(channels, 3 * out)
        self.proj = nn.Linear(out, out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        grid, side = self.grid, self.window
        if self.pool:
            q = _pooled(q, grid)
            grid = (grid[0], grid[1] // _POOL, grid[2] // _POOL)
        small = None if side is None else side // _POOL if self.pool else side
        if side is not None and small is not None:
            q, k, v = _windows(q, grid, small), _windows(k, self.grid, side), _windows(v, self.grid, side)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out: torch.Tensor = self.proj(y if small is None else _joined(y, grid, small))
        return out


class _Block(nn.Module):
    """x + attn(norm1(x)), then x + mlp(norm2(x)). Where the channels change, x itself is replaced by the pooled
    projection of norm1(x)."""

    def __init__(
        self,
        channels: int,
        out: int,
        heads: int,
        *,
        grid: Triple,
        pool: bool,
        window: int | None,
        hidden: int,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.grid, self.pool = grid, pool
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = WindowAttention(channels, out, heads, grid=grid, pool=pool, window=window)
        self.norm2 = nn.LayerNorm(out, eps=1e-6)
        self.mlp = Mlp(out, hidden)
        self.proj = nn.Linear(channels, out) if channels != out else None
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed = self.norm1(x)
        if self.proj is not None:
            x = self.proj(normed)
            x = _pooled(x, self.grid) if self.pool else x
        x = x + self.drop_path(self.attn(normed))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Hiera(VideoTransformer):
    """Hiera for clips of num_frames x size x size: an even number of frames, sides that are multiples of 32 (of 4 times
    the window).

    Names are those of facebookresearch/hiera, whose `head.projection` is our `head`.

    width, heads: channels of a token and attention heads in the first stage; each of the others has twice as many as
        the one before. stages: blocks of the stages.
    window: side, in patches of 4 pixels, of the windows of the first stages, one frame of patches deep; it is halved
        with every pooling. window_stages: how many stages attend inside windows; the others attend to all tokens.
    pools: after how many stages the sides are halved. mlp_ratio: hidden channels of the MLP over a block's own.
    dropout: before the head. drop_path: probability that a clip skips a branch of the last block in training, falling
        linearly to 0 at the first one.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        num_frames: int,
        size: int,
        width: int = 96,
        heads: int = 1,
        stages: Sequence[int] = (2, 3, 16, 3),
        window: int = 8,
        window_stages: int = 2,
        pools: int = 3,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        drop_path: float = 0.1,
    ) -> None:
        check_heads(width, heads)
        _check_stages(stages, window=window, window_stages=window_stages, pools=pools)
        unit = math.lcm(window, _POOL**pools) if window_stages else _POOL**pools
        doublings = len(stages) - 1
        super().__init__(
            "hiera",
            TransformerOptions(
                num_classes=num_classes,
                num_frames=num_frames,
                size=size,
                tubelet=TUBELET,
                patch=PATCH * unit,
                width=width << doublings,
                heads=heads << doublings,
                dropout=dropout,
            ),
        )
        self.grid = (self.grid[0], unit * self.grid[1], unit * self.grid[2])
        self.patch_embed = nn.Sequential(
            OrderedDict(proj=nn.Conv3d(3, width, (3, 7, 7), (TUBELET, PATCH, PATCH), (1, 3, 3)))
        )
        self.pos_embed_spatial = nn.Parameter(torch.zeros(1, self.grid[1] * self.grid[2], width))
        self.pos_embed_temporal = nn.Parameter(torch.zeros(1, self.grid[0], width))
        for table in (self.pos_embed_spatial, self.pos_embed_temporal):
            nn.init.trunc_normal_(table, std=0.02)
        rates = iter(drop_rates(drop_path, sum(stages)))
        self.blocks = nn.ModuleList()
        grid, channels = self.grid, width
        for stage, first in ((stage, stage > 0 and block == 0) for stage, n in enumerate(stages) for block in range(n)):
            kind = stage - 1 if first else stage  # a stage's first block still attends as the stage before it
            pool, out = first and stage <= pools, width << stage
            self.blocks.append(
                _Block(
                    channels,
                    out,
                    heads << stage,
                    grid=grid,
                    pool=pool,
                    window=window // _POOL ** min(kind, pools) if kind < window_stages else None,
                    hidden=int(out * mlp_ratio),
                    drop_path=next(rates),
                )
            )
            channels = out
            grid = (grid[0], grid[1] // _POOL, grid[2] // _POOL) if pool else grid
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        init_transformer(self, self.head_name)

    def position_tables(self) -> dict[str, Table]:
        """The learned tables of positions, for weights of other clips."""
        return {"pos_embed_spatial": Table(self.grid[1:]), "pos_embed_temporal": Table(self.grid[:1])}

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, D): the norm of the mean over all tokens."""
        self.check(x)
        tokens = self.patch_embed(x).flatten(2).transpose(1, 2).unflatten(1, (self.grid[0], -1))
        tokens = (tokens + self.pos_embed_spatial[:, None] + self.pos_embed_temporal[:, :, None]).flatten(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens.mean(1))


def _check_stages(stages: Sequence[int], *, window: int, window_stages: int, pools: int) -> None:
    if len(stages) < 1 or min(stages) < 1:
        raise ConfigError(f"model.stages: got {list(stages)}, expected the blocks of each stage, 1 or more")
    if not 0 <= pools < len(stages):
        raise ConfigError(f"model.pools: got {pools}, expected 0 to {len(stages) - 1}, one fewer than model.stages has")
    if not 0 <= window_stages <= len(stages):
        raise ConfigError(f"model.window_stages: got {window_stages}, expected 0 to {len(stages)}, the stages")
    # the last stage with windows is followed by a block that pools inside them
    halved = _POOL ** min(window_stages, pools)
    if window_stages:
        check_at_least("window", window, 1)
    if window_stages and window % halved:
        raise ConfigError(
            f"model.window: got {window}, expected a multiple of {halved}, as windows are halved "
            f"{min(window_stages, pools)} times"
        )


hiera_b = Hiera
