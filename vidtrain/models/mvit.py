"""MViT: a transformer whose attention pools time and space, so that it works from fine to coarse as a CNN does (v1: Fan
et al. 2021, "Multiscale Vision Transformers"; v2: Li et al. 2022, "MViTv2"). torchvision's layers and state_dict keys,
with the interface of our classifiers. At 400 classes and 16 x 224 x 224: mvit_v1_b 36.611M parameters and 70.60 GMAC,
mvit_v2_s 34.538M and 64.22."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torchvision.models.video.mvit import MSBlockConfig
from torchvision.models.video.mvit import MViT as TorchvisionMViT

from vidtrain.errors import ConfigError
from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.classifier import (
    Headed,
    check_choice,
    check_clip,
    check_dropout,
    make_head,
)
from vidtrain.models.layers.layer_depth import LayerNumbers
from vidtrain.models.layers.position_tables import Table
from vidtrain.models.layers.transformer import check_heads, patch_grid

ENTRIES = {
    "mvit_v1_b": Entry(Family.ATTENTION, "Fan et al. 2021", (16, 224), 78.4, "16x4, 5x1, PySlowFast"),
    "mvit_v2_s": Entry(Family.ATTENTION, "Li et al. 2022", (16, 224), 81.0, "16x4, 5x1, PySlowFast"),
}

DEPTHS = (1, 2, 11, 2)
"""Blocks of the four stages of MViTv1-B and MViTv2-S."""
VERSIONS = ("1", "2")
_KERNEL = [3, 3, 3]


class MViT(LayerNumbers, Headed, TorchvisionMViT):
    """MViT of any size for clips of num_frames x size x size, v1-B by default: an even number of frames, a multiple of
    4 pixels. Weights of another clip size are loaded with their positions interpolated.

    version: "1": a table of positions in space (other sizes: bicubic) and one in time (linear); "2": relative positions
        (linear), the pooled query added to what attention gives, wider before attention.
    width, heads: of the first of four stages; each later one has twice as many. depths: blocks of the stages. MViTv2-S
        has v1-B's; MViTv2-B has depths [2, 3, 16, 3], MViTv2-L [2, 6, 36, 4] with width 144 and 2 heads.
    dropout: before the head. drop_path: probability that a clip skips a branch of the last block in training, falling
        linearly to 0 at the first one.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        num_frames: int,
        size: int,
        version: str = "1",
        width: int = 96,
        depths: Sequence[int] = DEPTHS,
        heads: int = 1,
        dropout: float = 0.5,
        drop_path: float = 0.2,
    ) -> None:
        check_choice("version", version, VERSIONS)
        second, name = version == "2", f"mvit_v{version}"
        blocks = _blocks(depths, width, heads, second=second)
        patch_grid(name, num_frames=num_frames, size=size, tubelet=2, patch=4)
        check_dropout(drop_path, "drop_path")
        check_dropout(dropout)
        super().__init__(
            spatial_size=(size, size),
            temporal_size=num_frames,
            block_setting=blocks,
            residual_pool=second,
            residual_with_cls_embed=False,
            rel_pos_embed=second,
            proj_after_attn=second,
            stochastic_depth_prob=drop_path,
        )
        self.name = name
        self.num_frames = num_frames
        self.size = size
        self.num_features = blocks[-1].output_channels
        self.dropout = nn.Dropout(dropout)
        self.head = make_head(self.num_features, num_classes)

    def position_tables(self) -> dict[str, Table]:
        if self.pos_encoding.spatial_pos is not None:
            grid = (self.pos_encoding.temporal_size, *self.pos_encoding.spatial_size)
            return {"pos_encoding.spatial_pos": Table(grid[1:]), "pos_encoding.temporal_pos": Table(grid[:1])}
        relative = [(key, p) for key, p in self.named_parameters() if ".attn.rel_pos_" in key]
        return {key: Table((len(parameter),)) for key, parameter in relative}

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, D): the class token after the last norm."""
        check_clip(x, self.name, num_frames=self.num_frames, size=self.size)
        x = self.pos_encoding(self.conv_proj(x).flatten(2).transpose(1, 2))
        thw = (self.pos_encoding.temporal_size, *self.pos_encoding.spatial_size)
        for block in self.blocks:
            x, thw = block(x, thw)
        features: torch.Tensor = self.norm(x)[:, 0]
        return features


def _blocks(depths: Sequence[int], width: int, heads: int, *, second: bool) -> list[MSBlockConfig]:
    """Stage s works on width * 2^s channels with heads * 2^s heads; its first block halves the queries' grid (but
    not in stage 0). Channels double in that block (v2) or in the one before it (v1)."""
    if len(depths) != 4 or min(depths) < 1:
        raise ConfigError(f"model.depths: got {list(depths)}, expected four numbers of blocks, each 1 or more")
    check_heads(width, heads)
    settings = []
    for stage, depth in enumerate(depths):
        for block in range(depth):
            halves = stage > 0 and block == 0
            widens = stage < 3 and block == depth - 1
            here = width << stage
            kv = max(8 >> stage, 1)
            settings.append(
                MSBlockConfig(
                    num_heads=heads << stage,
                    input_channels=here // 2 if second and halves else here,
                    output_channels=2 * here if not second and widens else here,
                    kernel_q=_KERNEL if second or halves else [],
                    kernel_kv=_KERNEL,
                    stride_q=[1, 2, 2] if halves else [1, 1, 1] if second else [],
                    stride_kv=[1, kv, kv],
                )
            )
    return settings


mvit_v1_b = MViT
