"""TimeSformer: an image transformer that attends over time and over space in turn (Bertasius et al. 2021, "Is
Space-Time Attention All You Need for Video Understanding?"). At 400 classes and 8 x 224 x 224: divided attention
121.566M parameters and 195.8 GMAC, joint 86.112M and 179.6, space only 86.106M and 140.5."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from vidtrain.models.layers.classifier import check_choice
from vidtrain.models.layers.positions import Table, wave_table
from vidtrain.models.layers.transformer import (
    Attention,
    Block,
    PatchEmbed,
    VideoTransformer,
    drop_rates,
    init_transformer,
)
from vidtrain.models.layers.variant import variant

ATTENTIONS = ("divided", "joint", "space")
TABLES = ("image", "scratch")
_SCRATCH_STD = 0.5  # of a column of the tables: about that of a patch's own columns at the start


class DividedBlock(Block):
    """Attention over time at each position, then over space in each frame, then the MLP (the paper's section 3.2).

    The class token takes part in space only: it meets every frame, and the mean of what it got is added to it. The
    branch over time ends in temporal_fc, which starts at zero: at first the block is one of an image transformer.
    """

    def __init__(
        self, width: int, heads: int, *, grid: tuple[int, int, int], mlp_ratio: float, norm_eps: float, drop_path: float
    ) -> None:
        super().__init__(width, heads, mlp_ratio=mlp_ratio, norm_eps=norm_eps, drop_path=drop_path)
        self.frames, self.places = grid[0], grid[1] * grid[2]
        self.temporal_norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.temporal_attn = Attention(width, heads)
        self.temporal_fc = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1 + T * N, D), frame after frame -> the same."""
        token, x = x[:, :1], x[:, 1:]
        x = x + self.drop_path(self._over_time(x))
        token_over_space, over_space = self._over_space(token, x)
        # one draw for the token and the patches, so that a clip skips the branch as a whole
        x = torch.cat([token, x], 1) + self.drop_path(torch.cat([token_over_space, over_space], 1))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _over_time(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        tracks = x.view(batch, self.frames, self.places, width).transpose(1, 2).reshape(-1, self.frames, width)
        tracks = self.temporal_fc(self.temporal_attn(self.temporal_norm1(tracks)))
        return tracks.view(batch, self.places, self.frames, width).transpose(1, 2).reshape(batch, tokens, width)

    def _over_space(self, token: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        batch, tokens, width = x.shape
        frames = x.view(batch, self.frames, self.places, width)
        frames = torch.cat([token[:, None].expand(-1, self.frames, -1, -1), frames], 2).flatten(0, 1)
        frames = self.attn(self.norm1(frames)).view(batch, self.frames, 1 + self.places, width)
        return frames[:, :, 0].mean(1, keepdim=True), frames[:, :, 1:].reshape(batch, tokens, width)


class TimeSformer(VideoTransformer):
    """Names are those of facebookresearch/TimeSformer: cls_token, pos_embed, time_embed, patch_embed.proj, blocks."""

    def __init__(
        self,
        *,
        num_classes: int,
        num_frames: int,
        size: int,
        attention: str,
        tables: str,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float,
        norm_eps: float,
        dropout: float,
        drop_path: float,
    ) -> None:
        super().__init__(
            "timesformer",
            num_classes=num_classes,
            num_frames=num_frames,
            size=size,
            tubelet=1,
            patch=patch,
            width=width,
            heads=heads,
            dropout=dropout,
        )
        self.attention = attention
        frames, height, side = self.grid
        self.patch_embed = PatchEmbed(width, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + height * side, width))
        if attention != "space":
            self.time_embed = nn.Parameter(torch.zeros(1, frames, width))
        make = partial(DividedBlock, grid=self.grid) if attention == "divided" else Block
        self.blocks = nn.ModuleList(
            make(width, heads, mlp_ratio=mlp_ratio, norm_eps=norm_eps, drop_path=rate)
            for rate in drop_rates(drop_path, depth)
        )
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        init_transformer(self, self.head_name)
        self._start_tables(tables)
        for block in self.blocks:
            if isinstance(block, DividedBlock):
                nn.init.zeros_(block.temporal_fc.weight)

    @torch.no_grad()
    def _start_tables(self, tables: str) -> None:
        times = None if self.attention == "space" else self.time_embed
        if tables == "scratch":
            self.pos_embed.normal_(std=_SCRATCH_STD)
            if times is not None:
                times.copy_(wave_table(times.shape[1], times.shape[2], std=_SCRATCH_STD))
        elif times is not None:
            times.zero_()

    def block_names(self) -> Sequence[tuple[str, ...]]:
        return [(f"blocks.{i}.",) for i in range(len(self.blocks))]

    def position_tables(self) -> dict[str, Table]:
        tables = {"pos_embed": Table(self.grid[1:], tokens=1)}
        if self.attention != "space":
            tables["time_embed"] = Table(self.grid[:1], time="nearest")  # as the authors' code does it
        return tables

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, width): the class token after the last norm."""
        self.check(x)
        batch, frames = x.shape[0], x.shape[2]
        patches = self.patch_embed(x.transpose(1, 2).flatten(0, 1)).flatten(2).transpose(1, 2)  # (B * T, N, D)
        patches = patches + self.pos_embed[:, 1:]
        token = self.cls_token + self.pos_embed[:, :1]
        if self.attention == "space":
            tokens = torch.cat([token.expand(batch * frames, -1, -1), patches], 1)
            for block in self.blocks:
                tokens = block(tokens)
            tokens = tokens.view(batch, frames, *tokens.shape[1:])[:, :, 0].mean(1, keepdim=True)
        else:
            patches = patches.view(batch, frames, *patches.shape[1:]) + self.time_embed[:, :, None]
            tokens = torch.cat([token.expand(batch, -1, -1), patches.flatten(1, 2)], 1)
            for block in self.blocks:
                tokens = block(tokens)
        return self.norm(tokens[:, 0])


def timesformer(
    *,
    num_classes: int,
    num_frames: int,
    size: int,
    attention: str = "divided",
    tables: str = "image",
    patch: int = 16,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    mlp_ratio: float = 4.0,
    norm_eps: float = 1.0e-6,
    dropout: float = 0.0,
    drop_path: float = 0.1,
) -> TimeSformer:
    """TimeSformer for clips of num_frames x size x size; size is a multiple of patch.

    Weights of another clip size are loaded with their positions interpolated: bicubic in space, nearest in time.

    attention: "divided": over time, then over space; "joint": over all patches of the clip at once; "space": within
        each frame, the frames' tokens averaged at the end, which is blind to their order.
    tables: how the tables of positions and times start. "image": as published, near zero, so that an image
        transformer's weights work from the first step; "scratch": for training without such weights, as large as what
        stands in the patches, the times as waves, which tell neighbouring frames apart from the first step.
    patch: pixels of a patch's side. width, depth, heads: of the transformer, ViT-B's by default. mlp_ratio: hidden
        channels of the MLP over width. norm_eps: of all LayerNorms.
    dropout: before the head. drop_path: probability that a clip skips a branch of the last block in training, falling
        linearly to 0 at the first one.
    """
    check_choice("attention", attention, ATTENTIONS)
    check_choice("tables", tables, TABLES)
    return TimeSformer(**locals())


timesformer_tiny = variant(
    timesformer,
    "timesformer_tiny",
    "A small TimeSformer for a CPU.",
    tables="scratch",
    width=96,
    depth=3,
    heads=3,
    mlp_ratio=2.0,
    drop_path=0.0,
)
