"""Video Swin: attention within windows of 8 x 7 x 7 patches that shift from block to block (Liu et al. 2022, "Video
Swin Transformer"). torchvision's layers and state_dict keys, with the interface of our classifiers. At 400 classes and
16 x 224 x 224: swin3d_t 28.158M parameters and 43.9 GMAC, swin3d_s 49.817M and 82.8, swin3d_b 88.049M and 140.7."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torchvision.models.video.swin_transformer import ShiftedWindowAttention3d, SwinTransformer3d

from vidtrain.errors import ConfigError
from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.classifier import Headed, check_at_least, check_clip, check_dropout, make_head
from vidtrain.models.layers.layer_depth import LayerNumbers

ENTRIES = {
    "swin3d_t": Entry(Family.ATTENTION, "Liu et al. 2022", (16, 224), 78.8, "32x2, 4x3, the paper"),
    "swin3d_s": Entry(Family.ATTENTION, "Liu et al. 2022", (16, 224), 80.6, "32x2, 4x3, the paper"),
    "swin3d_b": Entry(Family.ATTENTION, "Liu et al. 2022", (16, 224), 80.6, "32x2, 4x3, the paper"),
}

PATCH = [2, 4, 4]
WINDOW = (8, 7, 7)


class Swin3d(LayerNumbers, Headed, SwinTransformer3d):
    """Video Swin of any size, T by default. Any T, H and W.

    Clips and maps are padded to whole patches and windows, and positions are relative within a window.

    width: channels of the first stage; each later one has twice as many. depths: blocks of the stages.
    heads: of the stages. window: patches in time, height and width that attend to each other.
    dropout: before the head. drop_path: probability that a clip skips a branch of the last block in training, falling
        linearly to 0 at the first one.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        width: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
        window: Sequence[int] = WINDOW,
        dropout: float = 0.0,
        drop_path: float = 0.1,
    ) -> None:
        check_at_least("width", width, 1)
        check_dropout(drop_path, "drop_path")
        _check_stages(width, depths, heads)
        if len(window) != 3 or min(window) < 1:
            raise ConfigError(f"model.window: got {list(window)}, expected patches in time, height and width: {WINDOW}")
        check_dropout(dropout)
        super().__init__(
            patch_size=PATCH,
            embed_dim=width,
            depths=list(depths),
            num_heads=list(heads),
            window_size=list(window),
            stochastic_depth_prob=drop_path,
        )
        self.dropout = nn.Dropout(dropout)
        self.head = make_head(self.num_features, num_classes)
        for module in self.modules():
            if isinstance(module, ShiftedWindowAttention3d):
                # The window alone gives it: no weights, which some files have and others have not.
                index = module.relative_position_index
                module.register_buffer("relative_position_index", index, persistent=False)

    def block_names(self) -> Sequence[tuple[str, ...]]:
        names: list[tuple[str, ...]] = []
        for number, stage in enumerate(self.features):
            if isinstance(stage, nn.Sequential):
                names += [(f"features.{number}.{block}.",) for block in range(len(stage))]
            else:  # what merges patches belongs to the block before it
                names[-1] = (*names[-1], f"features.{number}.")
        return names

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, D): the mean over all positions after the last norm."""
        check_clip(x, "swin3d")
        x = self.norm(self.features(self.patch_embed(x)))
        return x.mean((1, 2, 3))


def _check_stages(width: int, depths: Sequence[int], heads: Sequence[int]) -> None:
    if len(depths) < 1 or min(depths) < 1 or sum(depths) < 2:
        raise ConfigError(f"model.depths: got {list(depths)}, expected blocks per stage, each 1 or more, two in all")
    if len(heads) != len(depths) or min(heads) < 1 or any((width << i) % n for i, n in enumerate(heads)):
        raise ConfigError(
            f"model.heads: got {list(heads)}, expected one number for each of the {len(depths)} stages that divides "
            f"its channels, {[width << i for i in range(len(depths))]}"
        )


swin3d_t = Swin3d
