"""ViViT: a transformer over tubelets of a clip (Arnab et al. 2021, "ViViT: A Video Vision Transformer"), as model 1
(all tubelets attend to each other) and model 2 (factorised encoder: first within each time step, then over the time
steps). At 400 classes and 32 x 224 x 224, B/16x2: model 1 88.954M parameters and 451.5 GMAC, model 2 115.063M and
283.3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.classifier import check_at_least
from vidtrain.models.layers.position_tables import Table
from vidtrain.models.layers.transformer import PatchEmbed, TransformerOptions, VideoTransformer, init_transformer
from vidtrain.ranges import takes

ENTRIES = {
    "vivit": Entry(Family.ATTENTION, "Arnab et al. 2021", (32, 224), 79.9, "32x2, 4x3, Scenic"),
    "vivit_fe": Entry(Family.ATTENTION, "Arnab et al. 2021", (32, 224), 78.4, "32x2, 4x3, Scenic"),
    "vivit_tiny": Entry(Family.ATTENTION, "Arnab et al. 2021", (16, 64)),
}


class ViViT(VideoTransformer):
    """Model 1, and what model 2 shares with it. The GELU is the tanh approximation, as in JAX."""

    def __init__(self, name: str, options: TransformerOptions, *, temporal_depth: int = 0) -> None:
        super().__init__(name, options)
        width, depth = options.width, options.depth
        time, height, side = self.grid
        self.patch_embed = PatchEmbed(width, options.patch, options.tubelet)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        places = height * side if temporal_depth else time * height * side
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + places, width))
        blocks = options.stack(further=temporal_depth, gelu="tanh")
        self.blocks = nn.ModuleList(blocks[:depth])
        if temporal_depth:
            self.space_norm = options.norm()
            self.time_token = nn.Parameter(torch.zeros(1, 1, width))
            self.time_embed = nn.Parameter(torch.zeros(1, 1 + time, width))
            self.temporal_blocks = nn.ModuleList(blocks[depth:])
        self.norm = options.norm()
        init_transformer(self, self.head_name)

    def position_tables(self) -> dict[str, Table]:
        return {"pos_embed": Table(self.grid, tokens=1)}

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, width): the class token after the last norm."""
        self.check(x)
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 0])


class FactorisedViViT(ViViT):
    """Model 2: an image transformer on the tubelets of each time step; its class tokens, with a class token and
    positions of their own, go through a second transformer."""

    def block_names(self) -> Sequence[tuple[str, ...]]:
        names: list[tuple[str, ...]] = [(f"blocks.{i}.",) for i in range(len(self.blocks))]
        names[-1] = (*names[-1], "space_norm.", "time_token", "time_embed")  # between the two transformers
        return [*names, *((f"temporal_blocks.{i}.",) for i in range(len(self.temporal_blocks)))]

    def position_tables(self) -> dict[str, Table]:
        return {"pos_embed": Table(self.grid[1:], tokens=1), "time_embed": Table(self.grid[:1], tokens=1)}

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, width): the class token of the second transformer after the last norm."""
        self.check(x)
        batch, time = x.shape[0], self.grid[0]
        x = self.patch_embed(x).transpose(1, 2).flatten(3).flatten(0, 1).transpose(1, 2)  # (B * T', N, D)
        x = torch.cat([self.cls_token.expand(batch * time, -1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        x = self.space_norm(x[:, 0]).view(batch, time, -1)
        x = torch.cat([self.time_token.expand(batch, -1, -1), x], 1) + self.time_embed
        for block in self.temporal_blocks:
            x = block(x)
        return self.norm(x[:, 0])


@takes(TransformerOptions)
def vivit(**options: Any) -> ViViT:
    """ViViT, model 1, a ViT-B by default.

    Weights of another clip size are loaded with their positions interpolated: bicubic in space, linear in time.
    """
    return ViViT("vivit", TransformerOptions(**options))


@takes(TransformerOptions)
def vivit_fe(*, temporal_depth: int = 4, **options: Any) -> FactorisedViViT:
    """ViViT, model 2 (factorised encoder). temporal_depth: blocks over the time steps."""
    check_at_least("temporal_depth", temporal_depth, 1)
    return FactorisedViViT("vivit_fe", TransformerOptions(**options), temporal_depth=temporal_depth)
