"""UniFormerV2: CLIP's image transformer on each frame, and a decoder whose one query reads the tokens of all frames
after the last blocks (Li et al. 2022, "UniFormerV2: Spatiotemporal Learning by Arming Image ViTs with Video
UniFormer"). At 400 classes and 8 frames: B/16 114.552M parameters and 148.1 GMAC at 224 pixels, L/14 354.100M and
665.6, L/14 at 336 pixels 354.427M and 1567; the form for Something-Something at 174 classes, B/16: 162.993M and 187.2
at 16 x 224 x 224.
"""

from __future__ import annotations

import torch
from torch import nn

from vidtrain.errors import ConfigError
from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.attentive import CrossAttention
from vidtrain.models.layers.classifier import ClipClassifier, check_at_least, check_choice, check_clip, check_dropout
from vidtrain.models.layers.layer_depth import LayerNumbers
from vidtrain.models.layers.position_tables import Table
from vidtrain.models.layers.transformer import (
    Block,
    Mlp,
    StochasticDepth,
    check_heads,
    drop_rates,
    init_transformer,
    patch_grid,
)

_K710 = "through K710, 8 segments, 4x3, OpenGVLab"
ENTRIES = {
    "uniformerv2_b16": Entry(Family.ATTENTION, "Li et al. 2022", (8, 224), 85.6, _K710),
    "uniformerv2_l14": Entry(Family.ATTENTION, "Li et al. 2022", (8, 224), 88.8, _K710),
    "uniformerv2_b16_ssv2": Entry(Family.ATTENTION, "Li et al. 2022", (16, 224)),
    "uniformerv2_tiny": Entry(Family.ATTENTION, "Li et al. 2022", (16, 64)),
}

LOCALS = ("none", "before", "both")
_EPS = 1e-5


class _LocalRelation(nn.Sequential):
    """(B, C, T, H, W) -> the same: each position's frames t - 1, t and t + 1, in fewer channels. Starts at zero."""

    def __init__(self, width: int, reduction: float) -> None:
        hidden = int(width // reduction)
        super().__init__(
            nn.BatchNorm3d(width),
            nn.Conv3d(width, hidden, 1),
            nn.Conv3d(hidden, hidden, (3, 1, 1), padding=(1, 0, 0), groups=hidden),
            nn.Conv3d(hidden, width, 1),
        )
        for parameter in self[-1].parameters():
            nn.init.zeros_(parameter)


class _FrameBlock(Block):
    """A block of the image transformer, (B T, 1 + H W, C) -> the same, with relations in time around its attention."""

    def __init__(
        self, width: int, heads: int, *, mlp_ratio: float, drop_path: float, local: str, reduction: float
    ) -> None:
        super().__init__(width, heads, mlp_ratio=mlp_ratio, norm_eps=_EPS, drop_path=drop_path, gelu="quick")
        self.local1 = None if local == "none" else _LocalRelation(width, reduction)
        self.local2 = _LocalRelation(width, reduction) if local == "both" else None

    def forward(self, x: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:  # type: ignore[override]
        x = self._related(x, self.local1, grid)
        x = x + self.drop_path(self.attn(self.norm1(x)))
        x = self._related(x, self.local2, grid)
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _related(self, x: torch.Tensor, local: nn.Module | None, grid: tuple[int, int, int]) -> torch.Tensor:
        if local is None:
            return x
        maps = patch_maps(x, grid)
        return torch.cat([x[:, :1], frame_tokens(maps + self.drop_path(local(maps)))], 1)


def patch_maps(x: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
    """The patches of (B T, 1 + H W, C), without the class token, as (B, C, T, H, W)."""
    return x[:, 1:].unflatten(0, (-1, grid[0])).unflatten(2, grid[1:]).movedim(-1, 1)


def frame_tokens(maps: torch.Tensor) -> torch.Tensor:
    """(B, C, T, H, W) -> (B T, H W, C)."""
    return maps.movedim(1, -1).flatten(0, 1).flatten(1, 2)


class _Reader(nn.Module):
    """A layer of the decoder: the query (B, 1, C) reads the tokens of all frames (B T, 1 + H W, C), whose patches have
    been told their neighbours in time and space; these convolved tokens go nowhere else."""

    def __init__(self, width: int, heads: int, *, mlp_ratio: float, dropout: float, drop_path: float) -> None:
        super().__init__()
        self.neighbours = nn.Conv3d(width, width, 3, padding=1, groups=width)
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.norm_tokens = nn.LayerNorm(width, eps=_EPS)
        self.xattn = CrossAttention(width, heads, projected=True)
        self.norm2 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = Mlp(width, round(width * mlp_ratio), gelu="quick", dropout=dropout)
        self.drop_path = StochasticDepth(drop_path)
        assert self.neighbours.bias is not None
        nn.init.zeros_(self.neighbours.bias)

    def forward(self, query: torch.Tensor, x: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
        near = frame_tokens(self.neighbours(patch_maps(x, grid)))
        tokens = torch.cat([x[:, :1], x[:, 1:] + near], 1).unflatten(0, (-1, grid[0])).flatten(1, 2)
        query = query + self.drop_path(self.xattn(self.norm1(query), self.norm_tokens(tokens)))
        out: torch.Tensor = query + self.drop_path(self.mlp(self.norm2(query)))
        return out


class UniFormerV2(LayerNumbers, ClipClassifier):
    """UniFormerV2 on CLIP's ViT-B/16, the form for Kinetics, for any number of frames of
    size x size pixels, a multiple of patch.

    patch: pixels of its side. width, depth, heads: of the image transformer. mlp_ratio: hidden channels of its MLP over
        width.
    read_after: the blocks after which the decoder reads, one layer for each: the last so many, or a list of numbers.
    decoder_heads: None for those of the image transformer. decoder_mlp_ratio: as mlp_ratio.
    balanced: the decoder's query and the mean class token are weighed, per channel. False: the query alone, as in the
        published models with a frozen CLIP.
    local: convolutions in time around each attention: "none", "before" it, or "both" before and after, as published for
        Something-Something. reduction: width over their channels.
    temporal_downsample: patches span three frames and every second time step is kept.
    dropout: before the head. decoder_dropout: in the decoder's MLPs.
    drop_path, decoder_drop_path: probability that a clip skips a branch of the last block, or layer of the decoder, in
        training, falling linearly to 0 at the first one.
    """

    after_blocks = ("query_token", "decoder.", "balance", "norm.", "head.")

    def __init__(
        self,
        *,
        num_classes: int,
        size: int,
        patch: int = 16,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        read_after: int | list[int] = 4,
        decoder_heads: int | None = None,
        decoder_mlp_ratio: float = 4.0,
        balanced: bool = True,
        local: str = "none",
        reduction: float = 1.5,
        temporal_downsample: bool = False,
        dropout: float = 0.5,
        decoder_dropout: float = 0.5,
        drop_path: float = 0.0,
        decoder_drop_path: float = 0.0,
    ) -> None:
        check_choice("local", local, LOCALS)
        check_heads(width, heads)
        self.grid = patch_grid("uniformerv2", num_frames=1, size=size, tubelet=1, patch=patch)
        self.reads = _reads(read_after, depth)
        if not 1 <= reduction <= width:
            raise ConfigError(f"model.reduction: got {reduction}, expected 1 to model.width={width}")
        check_dropout(decoder_dropout, "decoder_dropout")
        decoder_heads = heads if decoder_heads is None else decoder_heads
        check_heads(width, decoder_heads, "decoder_heads")
        super().__init__(num_features=width, num_classes=num_classes, dropout=dropout)
        self.size = size
        kernel, stride, padding = (3, 2, 1) if temporal_downsample else (1, 1, 0)
        self.conv1 = nn.Conv3d(
            3, width, (kernel, patch, patch), stride=(stride, patch, patch), padding=(padding, 0, 0), bias=False
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid[1] * self.grid[2], width))
        self.norm_pre = nn.LayerNorm(width, eps=_EPS)
        self.blocks = nn.ModuleList(
            _FrameBlock(width, heads, mlp_ratio=mlp_ratio, drop_path=rate, local=local, reduction=reduction)
            for rate in drop_rates(drop_path, depth)
        )
        self.query_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder = nn.ModuleList(
            _Reader(width, decoder_heads, mlp_ratio=decoder_mlp_ratio, dropout=decoder_dropout, drop_path=rate)
            for rate in drop_rates(decoder_drop_path, len(self.reads), "decoder_drop_path")
        )
        self.balance = nn.Parameter(torch.zeros(width)) if balanced else None
        self.norm = nn.LayerNorm(width, eps=_EPS)
        init_transformer(self, self.head_name)
        if not balanced:
            self.blocks[self.reads[-1] + 1 :].requires_grad_(False)  # nothing reads them: DDP would wait for gradients

    def position_tables(self) -> dict[str, Table]:
        return {"pos_embed": Table(self.grid[1:], tokens=1)}

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, width): the norm of the decoder's query and the mean of the frames' class tokens."""
        check_clip(x, "uniformerv2", size=self.size)
        batch = x.shape[0]  # not len(), which torch.export takes for a constant
        maps = self.conv1(x)
        grid = (maps.shape[2], maps.shape[3], maps.shape[4])
        patches = frame_tokens(maps)
        y = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], 1) + self.pos_embed
        y, query = self.norm_pre(y), self.query_token.repeat(batch, 1, 1)
        readers = dict(zip(self.reads, self.decoder, strict=True))
        for number, block in enumerate(self.blocks):
            y = block(y, grid)
            if number in readers:
                query = readers[number](query, y, grid)
        features = query[:, 0]
        if self.balance is not None:
            share = self.balance.sigmoid()
            features = (1 - share) * features + share * y[:, 0].unflatten(0, (batch, -1)).mean(1)
        out: torch.Tensor = self.norm(features)
        return out


def _reads(read_after: int | list[int], depth: int) -> list[int]:
    """The option model.read_after as the blocks' numbers."""
    check_at_least("depth", depth, 1)
    reads = list(range(max(depth - read_after, 0), depth)) if isinstance(read_after, int) else list(read_after)
    if not reads or reads != sorted(set(reads)) or not 0 <= reads[0] <= reads[-1] < depth:
        raise ConfigError(
            f"model.read_after: got {read_after}, expected how many of the last blocks are read, 1 or more, or the "
            f"blocks' rising numbers, from 0 to {depth - 1}"
        )
    return reads


uniformerv2_b16 = UniFormerV2
