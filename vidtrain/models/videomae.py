"""VideoMAE's classifier: a plain transformer over all tubelets of a clip with fixed sine-cosine positions (Tong et al.
2022, "VideoMAE: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video Pre-Training"), which is
VideoMAE V2's, too (Wang et al. 2023, "VideoMAE V2: Scaling Video Masked Autoencoders with Dual Masking"). At 400
classes and 16 x 224 x 224: S 22.034M parameters and 56.9 GMAC, B 86.535M and 180.3, L 304.27M and 596.8, H 632.119M and
1191, V2's g with patches of 14 pixels 1012.174M and 2543."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from vidtrain.errors import ConfigError
from vidtrain.models.layers.positions import resize_grid, sincos_table
from vidtrain.models.layers.transformer import (
    Block,
    PatchEmbed,
    VideoTransformer,
    drop_rates,
    init_transformer,
    patch_grid,
)

_PUBLISHED = (16, 224)
"""Frames and pixels of a side of the clips that the published weights were trained at."""


class VideoMAE(VideoTransformer):
    """Names are those of MCG-NJU/VideoMAE's fine-tuned nets: patch_embed.proj, blocks (keys without bias), fc_norm."""

    after_blocks = ("fc_norm.", "head.")
    pos_embed: torch.Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        num_frames: int,
        size: int,
        tubelet: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float,
        norm_eps: float,
        dropout: float,
        drop_path: float,
        table_frames: int | None,
        table_size: int | None,
    ) -> None:
        name = "videomae"
        super().__init__(
            name,
            num_classes=num_classes,
            num_frames=num_frames,
            size=size,
            tubelet=tubelet,
            patch=patch,
            width=width,
            heads=heads,
            dropout=dropout,
        )
        self.patch_embed = PatchEmbed(width, patch, tubelet)
        self.table_grid = self.grid
        frames, side = _PUBLISHED
        self.published_grid = (frames // tubelet, side // patch, side // patch)
        if table_frames is not None and table_size is not None:
            self.table_grid = patch_grid(name, num_frames=table_frames, size=table_size, tubelet=tubelet, patch=patch)
        self.blocks = nn.ModuleList(
            Block(width, heads, mlp_ratio=mlp_ratio, norm_eps=norm_eps, drop_path=rate, key_bias=False)
            for rate in drop_rates(drop_path, depth)
        )
        self.fc_norm = nn.LayerNorm(width, eps=norm_eps)
        table = resize_grid(sincos_table(math.prod(self.table_grid), width), self.table_grid, self.grid)
        self.register_buffer("pos_embed", table.to(self.fc_norm.weight.device), persistent=False)
        init_transformer(self, self.head_name)

    def block_names(self) -> Sequence[tuple[str, ...]]:
        return [(f"blocks.{i}.",) for i in range(len(self.blocks))]

    def position_note(self) -> str | None:
        """What whoever loads weights should know of the table, which no file holds."""
        if self.grid == self.published_grid or self.table_grid != self.grid:
            return None
        return (
            "positions are the sine-cosine table of this model's own clips; weights from 16 x 224 x 224, as the "
            "published ones, want model.table_frames=16 model.table_size=224"
        )

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, width): the norm of the mean over all tubelets."""
        self.check(x)
        x = self.patch_embed(x).flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.fc_norm(x.mean(1))


def videomae_vit_b(
    *,
    num_classes: int,
    num_frames: int,
    size: int,
    tubelet: int = 2,
    patch: int = 16,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    mlp_ratio: float = 4.0,
    norm_eps: float = 1.0e-6,
    dropout: float = 0.0,
    drop_path: float = 0.1,
    table_frames: int | None = None,
    table_size: int | None = None,
) -> VideoMAE:
    """VideoMAE's ViT-B for clips of num_frames x size x size: multiples of tubelet and of patch.

    tubelet: frames of a patch. patch: pixels of its side. width, depth, heads: of the transformer. mlp_ratio: hidden
        channels of the MLP over width. norm_eps: of all LayerNorms; Hugging Face's port says 1e-12, the authors 1e-6.
    dropout: before the head. drop_path: probability that a clip skips a branch of the last block in training, falling
        linearly to 0 at the first one.
    table_frames, table_size: the clip whose sine-cosine table is used, interpolated to this model's clips (bicubic in
        space, linear in time). None: the table of this model's own clips. The table numbers all tubelets through, so
        that of another clip is no part of it: weights trained at 16 x 224 x 224 that are to see other clips want
        16 and 224 here.
    """
    if (table_frames is None) != (table_size is None):
        raise ConfigError(
            f"model.table_frames={table_frames} and model.table_size={table_size}: both, or null for both"
        )
    return VideoMAE(**locals())
