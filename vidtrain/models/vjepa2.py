"""V-JEPA 2 with its attentive classifier (Assran et al. 2025, "V-JEPA 2: Self-Supervised Video Models Enable
Understanding, Prediction and Planning"): a plain transformer over tubelets whose queries and keys are turned by their
position in time, height and width, and a probe that reads all tokens with one learned query. At 400 classes: L
353.632M parameters and 935.2 GMAC at 16 x 256 x 256, H 709.232M, g 1,105.987M. V-JEPA 2.1 of March 2026 is version
"2.1".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from vidtrain.errors import ConfigError
from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.attentive import AttentivePooler, check_probe
from vidtrain.models.layers.classifier import ClipClassifier, check_choice, check_clip
from vidtrain.models.layers.layer_depth import LayerNumbers
from vidtrain.models.layers.transformer import (
    Attention,
    Block,
    PatchEmbed,
    Rotation,
    check_heads,
    drop_rates,
    init_transformer,
)

ENTRIES = {
    "vjepa2_vit_l": Entry(Family.ATTENTION, "Assran et al. 2025", (16, 256)),
    "vjepa2_vit_h": Entry(Family.ATTENTION, "Assran et al. 2025", (16, 256)),
    "vjepa2_vit_g": Entry(Family.ATTENTION, "Assran et al. 2025", (16, 256)),
    "vjepa21_vit_b": Entry(Family.ATTENTION, "Assran et al. 2025", (16, 256)),
    "vjepa21_vit_l": Entry(Family.ATTENTION, "Assran et al. 2025", (16, 256)),
    "vjepa2_tiny": Entry(Family.ATTENTION, "Assran et al. 2025", (16, 64)),
}

VERSIONS = ("2", "2.1")
TUBELET, PATCH = 2, 16
_STRETCHED_TO = 15  # version 2.1: the last row and column stand at the index that they have in a grid of 256 pixels


def rotation(grid: tuple[int, int, int], width: int, version: str, device: torch.device) -> Rotation:
    """The turns of queries and keys at each token of a grid (T', H', W'): cosines and sines, float32 (N, width).

    A third of a head's channels, rounded down to a multiple of two, stands for each of t, y and x; what is left over
    is not turned. Neighbouring channels are the pairs that turn, and in version 2 the two of a pair turn by different
    angles: its code tiles the list of angles where version 2.1 repeats each of them, and the weights know it so.
    """
    part = 2 * (width // 3 // 2)
    frequencies = 10000.0 ** (-torch.arange(part // 2, device=device, dtype=torch.float32) / (part / 2))
    frequencies = frequencies.repeat(2) if version == "2" else frequencies.repeat_interleave(2)
    axes = [torch.arange(steps, device=device, dtype=torch.float32) for steps in grid]
    if version == "2.1":
        axes[1:] = [axis * (_STRETCHED_TO / max(len(axis) - 1, 1)) for axis in axes[1:]]
    places = torch.meshgrid(*axes, indexing="ij")
    angles = torch.cat([place.flatten()[:, None] * frequencies for place in places], 1)
    angles = F.pad(angles, (0, width - angles.shape[1]))
    return angles.cos(), angles.sin()


class VJEPA2(LayerNumbers, ClipClassifier):
    """V-JEPA 2's ViT-L/16 with an attentive classifier.

    Names are those of facebookresearch/vjepa2 without `encoder.` and `classifier.`; its `linear` is our `head`.

    Any even number of frames, or one, and any frames whose sides are multiples of 16: positions come from the clip.

    version: "2", or "2.1" of March 2026: positions stretched to those of 256 pixels, a learned vector that says that
        the clip is a video, the norm of the last depth.
    width, depth, heads: of the encoder. mlp_ratio: hidden channels of its MLP over width.
    probe_depth: blocks of self-attention before the query. probe_heads: the published probes have 16 at every width;
        Hugging Face's port takes the encoder's number, with which the published g files give other logits.
    probe_norm_eps: 1e-5 in the authors' code, 1e-6 in Hugging Face's.
    dropout: before the head. drop_path: probability that a clip skips a branch of the last block in training, falling
        linearly to 0 at the first one.
    """

    after_blocks = ("norm.", "norms_block.", "pooler.", "head.")

    def __init__(
        self,
        *,
        num_classes: int,
        version: str = "2",
        width: int = 1024,
        depth: int = 24,
        heads: int = 16,
        mlp_ratio: float = 4.0,
        probe_depth: int = 3,
        probe_heads: int = 16,
        probe_norm_eps: float = 1.0e-5,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        check_choice("version", version, VERSIONS)
        check_heads(width, heads)
        check_probe(probe_depth, probe_heads, width)
        super().__init__(num_features=width, num_classes=num_classes, dropout=dropout)
        self.version = version
        self.patch_embed = PatchEmbed(width, PATCH, TUBELET)
        self.blocks = nn.ModuleList(
            Block(width, heads, mlp_ratio=mlp_ratio, norm_eps=1e-6, drop_path=rate)
            for rate in drop_rates(drop_path, depth)
        )
        if version == "2":
            self.norm = nn.LayerNorm(width, eps=1e-6)
        else:
            self.patch_embed_img = PatchEmbed(width, PATCH, 1)
            self.img_mod_embed = nn.Parameter(torch.zeros(1, 1, width))
            self.video_mod_embed = nn.Parameter(torch.zeros(1, 1, width))
            # one for each of four depths that pre-training reads; a classifier reads the last
            self.norms_block = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(4))
            for unused in (self.patch_embed_img, *self.norms_block[:3]):
                unused.requires_grad_(False)  # no clip reaches them: DDP would wait for their gradients
            self.img_mod_embed.requires_grad_(False)
        init_transformer(self, self.head_name)
        self.pooler = AttentivePooler(width, depth=probe_depth, heads=probe_heads, norm_eps=probe_norm_eps)

    def tokens(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> what the encoder gives, (B, T/2 * H/16 * W/16, width) in the order t, y, x."""
        check_clip(x, "vjepa2")
        frames, height, width = x.shape[2:]
        if (frames > 1 and frames % TUBELET) or height % PATCH or width % PATCH:
            raise ConfigError(
                f"vjepa2: got clips of {frames} frames of {height} x {width} pixels, expected an even number of frames "
                f"and sides that are multiples of {PATCH}: set sampler.num_frames and transform.size"
            )
        maps = self._embedded(x)
        grid = (maps.shape[2], maps.shape[3], maps.shape[4])
        attention = self.blocks[0].get_submodule("attn")
        assert isinstance(attention, Attention)
        turns = rotation(grid, self.num_features // attention.heads, self.version, x.device)
        y = maps.flatten(2).transpose(1, 2)
        if self.version == "2.1":
            y = y + (self.img_mod_embed if frames == 1 else self.video_mod_embed)
        for block in self.blocks:
            y = block(y, turns)
        out: torch.Tensor = self.norm(y) if self.version == "2" else self.norms_block[-1](y)
        return out

    def _embedded(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[2] > 1:
            maps: torch.Tensor = self.patch_embed(x)
            return maps
        image: torch.Tensor = (
            self.patch_embed_img(x) if self.version == "2.1" else self.patch_embed(x.repeat(1, 1, 2, 1, 1))
        )
        return image

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, width): what the probe's query has read."""
        out: torch.Tensor = self.pooler(self.tokens(x))
        return out


vjepa2_vit_l = VJEPA2
