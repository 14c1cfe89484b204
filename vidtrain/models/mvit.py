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
from vidtrain.models.layers.classifier import check_at_least, check_clip, make_head, renew_head
from vidtrain.models.layers.depth import LayerNumbers
from vidtrain.models.layers.positions import Table
from vidtrain.models.layers.transformer import check_drop_path, patch_grid

DEPTHS = (1, 2, 11, 2)
"""Blocks of the four stages of mvit_v1_b and mvit_v2_s."""
_KERNEL = [3, 3, 3]


class MViT(LayerNumbers, TorchvisionMViT):
    """(B, 3, T, H, W) float -> (B, K) logits, as head(dropout(forward_features(x)))."""

    head_name = "head"

    def __init__(
        self,
        name: str,
        blocks: Sequence[MSBlockConfig],
        *,
        second: bool,
        num_classes: int,
        num_frames: int,
        size: int,
        dropout: float,
        drop_path: float,
    ) -> None:
        """second: MViTv2: relative positions, the pooled query added to what attention gives, wider before it."""
        patch_grid(name, num_frames=num_frames, size=size, tubelet=2, patch=4)
        check_drop_path(drop_path)
        if not 0 <= dropout < 1:
            raise ConfigError(f"model.dropout: got {dropout}, expected 0 <= dropout < 1")
        super().__init__(
            spatial_size=(size, size),
            temporal_size=num_frames,
            block_setting=list(blocks),
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

    def block_names(self) -> Sequence[tuple[str, ...]]:
        return [(f"blocks.{i}.",) for i in range(len(self.blocks))]

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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, K)."""
        logits: torch.Tensor = self.head(self.dropout(self.forward_features(x)))
        return logits

    def reset_head(self, num_classes: int) -> None:
        """Re-initialise the head with `num_classes` outputs; everything below it stays."""
        renew_head(self, self.head_name, num_classes)


def _blocks(depths: Sequence[int] | None, width: int, heads: int, *, second: bool) -> list[MSBlockConfig]:
    """Stage s works on width * 2^s channels with heads * 2^s heads; its first block halves the queries' picture (but
    not in stage 0). Channels double in that block (v2) or in the one before it (v1)."""
    depths = DEPTHS if depths is None else depths
    if len(depths) != 4 or min(depths) < 1:
        raise ConfigError(f"model.depths: got {list(depths)}, expected four numbers of blocks, each 1 or more")
    check_at_least("width", width, 1)
    if heads < 1 or width % heads:
        raise ConfigError(f"model.heads: got {heads}, expected a divisor of model.width={width}")
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


def mvit_v1_b(
    *,
    num_classes: int,
    num_frames: int,
    size: int,
    width: int = 96,
    depths: list[int] | None = None,
    heads: int = 1,
    dropout: float = 0.5,
    drop_path: float = 0.2,
) -> MViT:
    """MViTv1-B for clips of num_frames x size x size: an even number of frames, a multiple of 4 pixels.

    Weights of another clip size are loaded with their positions interpolated: bicubic in space, linear in time.

    width, heads: of the first of four stages; each later one has twice as many. depths: blocks of the stages; None:
        [1, 2, 11, 2].
    dropout: before the head. drop_path: probability that a clip skips a branch of the last block in training, falling
        linearly to 0 at the first one.
    """
    return MViT(
        "mvit_v1_b",
        _blocks(depths, width, heads, second=False),
        second=False,
        num_classes=num_classes,
        num_frames=num_frames,
        size=size,
        dropout=dropout,
        drop_path=drop_path,
    )


def mvit_v2_s(
    *,
    num_classes: int,
    num_frames: int,
    size: int,
    width: int = 96,
    depths: list[int] | None = None,
    heads: int = 1,
    dropout: float = 0.5,
    drop_path: float = 0.2,
) -> MViT:
    """MViTv2-S: relative positions (of other clip sizes: interpolated linearly) and pooled residuals. MViTv2-B has
    depths [2, 3, 16, 3], MViTv2-L [2, 6, 36, 4] with width 144 and 2 heads. Options as for mvit_v1_b."""
    return MViT(
        "mvit_v2_s",
        _blocks(depths, width, heads, second=True),
        second=True,
        num_classes=num_classes,
        num_frames=num_frames,
        size=size,
        dropout=dropout,
        drop_path=drop_path,
    )
