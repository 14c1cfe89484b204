"""VideoMAE's classifier: a plain transformer over all tubelets of a clip with fixed sine-cosine positions (Tong et al.
2022, "VideoMAE: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video Pre-Training"), which is
VideoMAE V2's, too (Wang et al. 2023, "VideoMAE V2: Scaling Video Masked Autoencoders with Dual Masking"). At 400
classes and 16 x 224 x 224: S 22.034M parameters and 56.9 GMAC, B 86.535M and 180.3, L 304.27M and 596.8, H 632.119M and
1191, V2's g with patches of 14 pixels 1012.174M and 2543."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from vidtrain.errors import ConfigError
from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.position_tables import resize_grid, sincos_table
from vidtrain.models.layers.transformer import (
    PatchEmbed,
    TransformerOptions,
    VideoTransformer,
    init_transformer,
    patch_grid,
)
from vidtrain.ranges import takes

ENTRIES = {
    "videomae_vit_s": Entry(Family.ATTENTION, "Tong et al. 2022", (16, 224), 79.0, "16x4, 5x3, MCG-NJU"),
    "videomae_vit_b": Entry(Family.ATTENTION, "Tong et al. 2022", (16, 224), 81.5, "16x4, 5x3, MCG-NJU"),
    "videomae_vit_l": Entry(Family.ATTENTION, "Tong et al. 2022", (16, 224), 85.2, "16x4, 5x3, MCG-NJU"),
    "videomae_vit_h": Entry(Family.ATTENTION, "Tong et al. 2022", (16, 224), 86.6, "16x4, 5x3, MCG-NJU"),
    "videomaev2_vit_s": Entry(Family.ATTENTION, "Wang et al. 2023", (16, 224), 83.7, "distilled, 16x4, 5x3, OpenGVLab"),
    "videomaev2_vit_b": Entry(Family.ATTENTION, "Wang et al. 2023", (16, 224), 86.6, "distilled, 16x4, 5x3, OpenGVLab"),
    "videomaev2_vit_g": Entry(Family.ATTENTION, "Wang et al. 2023", (16, 224), 87.2, "16x4, 5x3, OpenGVLab"),
    "videomae_tiny": Entry(Family.ATTENTION, "Tong et al. 2022", (16, 64)),
}

_PUBLISHED = (16, 224)
"""Frames and pixels of a side of the clips that the published weights were trained at."""


class VideoMAE(VideoTransformer):
    """Names are those of MCG-NJU/VideoMAE's fine-tuned nets: patch_embed.proj, blocks (keys without bias), fc_norm."""

    after_blocks = ("fc_norm.", "head.")
    pos_embed: torch.Tensor

    def __init__(self, options: TransformerOptions, *, table_frames: int | None, table_size: int | None) -> None:
        super().__init__("videomae", options)
        width, patch, tubelet = options.width, options.patch, options.tubelet
        self.patch_embed = PatchEmbed(width, patch, tubelet)
        self.table_grid = self.grid
        frames, side = _PUBLISHED
        self.published_grid = (frames // tubelet, side // patch, side // patch)
        if table_frames is not None and table_size is not None:
            self.table_grid = patch_grid(
                self.name, num_frames=table_frames, size=table_size, tubelet=tubelet, patch=patch
            )
        self.blocks = nn.ModuleList(options.stack(key_bias=False))
        self.fc_norm = options.norm()
        table = resize_grid(sincos_table(math.prod(self.table_grid), width), self.table_grid, self.grid)
        self.register_buffer("pos_embed", table.to(self.fc_norm.weight.device), persistent=False)
        init_transformer(self, self.head_name)

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


@takes(TransformerOptions, drop_path=0.1)
def videomae_vit_b(*, table_frames: int | None = None, table_size: int | None = None, **options: Any) -> VideoMAE:
    """VideoMAE's ViT, B by default. norm_eps: Hugging Face's port says 1e-12, the authors 1e-6.

    table_frames, table_size: the clip whose sine-cosine table is used, interpolated to this model's clips (bicubic in
        space, linear in time). None: the table of this model's own clips. The table numbers all tubelets through, so
        that of another clip is no part of it: weights trained at 16 x 224 x 224 that are to see other clips want
        16 and 224 here.
    """
    if (table_frames is None) != (table_size is None):
        raise ConfigError(
            f"model.table_frames={table_frames} and model.table_size={table_size}: both, or null for both"
        )
    return VideoMAE(TransformerOptions(**options), table_frames=table_frames, table_size=table_size)
