"""TimeSformer: an image transformer that attends over time and over space in turn (Bertasius et al. 2021, "Is
Space-Time Attention All You Need for Video Understanding?"). At 400 classes and 8 x 224 x 224: divided attention
121.566M parameters and 195.8 GMAC, joint 86.112M and 179.6, space only 86.106M and 140.5."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.classifier import check_choice
from vidtrain.models.layers.position_tables import Table, wave_shift, wave_table
from vidtrain.models.layers.transformer import (
    Attention,
    Block,
    PatchEmbed,
    TransformerOptions,
    VideoTransformer,
    init_transformer,
)
from vidtrain.ranges import takes

ENTRIES = {
    "timesformer": Entry(Family.ATTENTION, "Bertasius et al. 2021", (8, 224), 77.9, "8x32, 1x3, facebookresearch"),
    "timesformer_tiny": Entry(Family.ATTENTION, "Bertasius et al. 2021", (16, 64)),
}

ATTENTIONS = ("divided", "joint", "space")
INITS = ("image", "scratch")
_TABLE_STD = 0.5  # of a column of the tables: about that of a patch's own columns at the start
_SHARPNESS = 2.0  # of queries and keys over waves: most of a head's attention falls on one frame and its neighbours


class DividedBlock(Block):
    """Attention over time at each position, then over space in each frame, then the MLP (the paper's section 3.2).

    The class token takes part in space only: it meets every frame, and the mean of what it got is added to it. The
    branch over time ends in temporal_fc, which starts at zero (init="image"): at first the block is one of an image
    transformer.
    """

    def __init__(
        self, width: int, heads: int, *, grid: tuple[int, int, int], mlp_ratio: float, norm_eps: float, drop_path: float
    ) -> None:
        super().__init__(width, heads, mlp_ratio=mlp_ratio, norm_eps=norm_eps, drop_path=drop_path)
        self.frames, self.places = grid[0], grid[1] * grid[2]
        self.temporal_norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.temporal_attn = Attention(width, heads)
        self.temporal_fc = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]  # its positions are tables
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

    def __init__(self, options: TransformerOptions, *, attention: str, init: str) -> None:
        super().__init__("timesformer", options)
        width = options.width
        self.attention = attention
        frames, height, side = self.grid
        self.patch_embed = PatchEmbed(width, options.patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + height * side, width))
        if attention != "space":
            self.time_embed = nn.Parameter(torch.zeros(1, frames, width))
        kind = partial(DividedBlock, grid=self.grid) if attention == "divided" else Block
        self.blocks = nn.ModuleList(options.stack(kind))
        self.norm = options.norm()
        init_transformer(self, self.head_name)
        if init == "scratch":
            self._start_from_scratch()
        else:
            self._start_as_published()

    def _start_as_published(self) -> None:
        if self.attention != "space":
            nn.init.zeros_(self.time_embed)
        for block in self.blocks:
            if isinstance(block, DividedBlock):
                nn.init.zeros_(block.temporal_fc.weight)

    @torch.no_grad()
    def _start_from_scratch(self) -> None:
        self.pos_embed.normal_(std=_TABLE_STD)
        if self.attention != "space":
            self.time_embed.copy_(wave_table(self.grid[0], self.time_embed.shape[2], std=_TABLE_STD))
        for block in self.blocks:
            if isinstance(block, DividedBlock):
                start_as_differences(block.temporal_attn, self.grid[0])
                nn.init.eye_(block.temporal_fc.weight)

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


@torch.no_grad()
def start_as_differences(attention: Attention, frames: int) -> None:
    """Let heads 0 and 1 look one frame ahead and one back, heads 2 and 3 two frames, and so on, and let what the second
    of a pair finds be taken from what the first finds. An odd head is left as it is.

    Attention that starts with small random weights averages over the whole clip, in which the order of the frames is
    lost, and a small net finds no way out of that. Weights that start in the pattern of what attention has to learn are
    from Trockman and Kolter 2023, "Mimetic Initialization of Self-Attention Layers"; the pattern is ours.

    attention: of tokens that hold wave_table(frames, width).
    """
    width = attention.proj.in_features
    size = width // attention.heads
    query, key, value = attention.qkv.weight.chunk(3)
    columns = torch.arange(width // 2 * 2, device="cpu").view(-1, 2)
    for first in range(0, attention.heads - 1, 2):
        steps = 1 + first // 2 % max(frames - 1, 1)
        reads, writes = value.new_empty(size, width), value.new_empty(width, size)
        nn.init.orthogonal_(reads)
        nn.init.orthogonal_(writes)
        for head, sign in ((first, 1), (first + 1, -1)):
            rows = slice(head * size, (head + 1) * size)
            waves = columns[head :: attention.heads][: size // 2].flatten()  # fast and slow ones for every head
            query[rows], key[rows] = 0.0, 0.0
            query[rows][: len(waves)] = _SHARPNESS * torch.eye(width, device="cpu")[waves]
            key[rows][: len(waves)] = _SHARPNESS * wave_shift(frames, width, -sign * steps)[waves]
            value[rows] = reads
            attention.proj.weight[:, rows] = sign * writes


@takes(TransformerOptions, without=("tubelet",), drop_path=0.1)
def timesformer(*, attention: str = "divided", init: str = "image", **options: Any) -> TimeSformer:
    """TimeSformer, a ViT-B by default.

    Weights of another clip size are loaded with their positions interpolated: bicubic in space, nearest in time.

    attention: "divided": over time, then over space; "joint": over all patches of the clip at once; "space": within
        each frame, the frames' tokens averaged at the end, which is blind to their order.
    init: "image": as published, for the weights of an image transformer: the tables start near zero and attention over
        time adds nothing at first; "scratch": for training without such weights: tables as large as what stands in the
        patches, the times as waves, and divided attention that starts as differences between frames.
    """
    check_choice("attention", attention, ATTENTIONS)
    check_choice("init", init, INITS)
    return TimeSformer(TransformerOptions(tubelet=1, **options), attention=attention, init=init)
