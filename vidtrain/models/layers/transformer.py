"""What the video transformers share: attention, blocks, the checks of their clips, the initial weights.

Names are timm's, which TimeSformer and VideoMAE use too: blocks.0.norm1, attn.qkv, attn.proj, norm2, mlp.fc1, mlp.fc2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vidtrain.errors import ConfigError
from vidtrain.models.layers.classifier import ClipClassifier, check_at_least, check_clip, check_dropout
from vidtrain.models.layers.layer_depth import LayerNumbers

Rotation = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines (N, D of a head) by which queries and keys are turned, neighbouring channels being pairs."""


class Attention(nn.Module):
    """Multi-head self-attention, (B, N, D) -> (B, N, D).

    key_bias: False as in BEiT and VideoMAE: queries and values have a bias, keys have none.
    """

    def __init__(self, width: int, heads: int, *, key_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=key_bias)
        self.proj = nn.Linear(width, width)
        self.q_bias = None if key_bias else nn.Parameter(torch.zeros(width))
        self.v_bias = None if key_bias else nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor, rotation: Rotation | None = None) -> torch.Tensor:
        batch, tokens, width = x.shape
        if self.q_bias is None or self.v_bias is None:
            qkv = self.qkv(x)
        else:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
            qkv = F.linear(x, self.qkv.weight, bias)
        q, k, v = qkv.view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        if rotation is not None:
            q, k = _turned(q, rotation), _turned(k, rotation)
        y = F.scaled_dot_product_attention(q, k, v)
        out: torch.Tensor = self.proj(y.transpose(1, 2).reshape(batch, tokens, width))
        return out


def _turned(x: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """(..., N, D), each pair of neighbouring channels turned in its plane."""
    cosines, sines = rotation
    even, odd = x[..., ::2], x[..., 1::2]
    crossed = torch.stack([-odd, even], -1).flatten(-2)
    return (x * cosines + crossed * sines).to(x.dtype)


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), which CLIP has in place of the GELU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


class Mlp(nn.Module):
    """fc2(dropout(gelu(fc1(x)))). gelu: "none" for the exact one, "tanh" for its approximation, "quick" for CLIP's."""

    def __init__(self, width: int, hidden: int, *, gelu: str = "none", dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = QuickGELU() if gelu == "quick" else nn.GELU(approximate=gelu)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc2(self.dropout(self.act(self.fc1(x))))
        return y


class StochasticDepth(nn.Module):
    """Zeroes each clip of a residual branch (B, ...) with probability p in training and divides the others by 1 - p
    (Huang et al. 2016, "Deep Networks with Stochastic Depth")."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return x
        kept = x.new_empty((len(x), *(1,) * (x.ndim - 1))).bernoulli_(1 - self.p)
        return x * (kept if self.p == 1 else kept / (1 - self.p))

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Block(nn.Module):
    """x + attn(norm1(x)), then x + mlp(norm2(x)); (B, N, D) -> (B, N, D).

    drop_path: with this probability a clip skips a branch in training.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        mlp_ratio: float,
        norm_eps: float,
        drop_path: float,
        key_bias: bool = True,
        gelu: str = "none",
    ) -> None:
        super().__init__()
        if not round(width * mlp_ratio) >= 1:
            raise ConfigError(f"model.mlp_ratio: got {mlp_ratio}, expected hidden channels, so more than 0")
        if not norm_eps >= 0:
            raise ConfigError(f"model.norm_eps: got {norm_eps}, expected 0 or more")
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = Attention(width, heads, key_bias=key_bias)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width, round(width * mlp_ratio), gelu=gelu)
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, x: torch.Tensor, rotation: Rotation | None = None) -> torch.Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), rotation))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchConv3d(nn.Conv3d):
    """A 3D convolution whose stride is its kernel, as one matrix product. (B, C, T, H, W) -> (B, D, T', H', W'); what
    does not fill a patch at the far ends is dropped, as by nn.Conv3d, whose weights these are.

    On a GPU it does not depend on cuDNN's 3D kernels, some of which are wrong or slow in bfloat16. On the CPU it is as
    fast as the convolution or faster (docs/speed.md).
    """

    def __init__(self, channels: int, width: int, kernel: tuple[int, int, int]) -> None:
        super().__init__(channels, width, kernel, stride=kernel)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        size = self.kernel_size
        grid = [extent // step for extent, step in zip(input.shape[2:], size, strict=True)]
        if min(grid) == 0:
            return super().forward(input)  # its error says what does not fit
        for axis, (count, step) in enumerate(zip(grid, size, strict=True)):
            input = input.narrow(2 + axis, 0, count * step)
        (t, h, w), (a, b, c) = grid, size
        patches = input.reshape(*input.shape[:2], t, a, h, b, w, c).permute(0, 2, 4, 6, 1, 3, 5, 7)
        tokens = F.linear(patches.reshape(input.shape[0], t * h * w, -1), self.weight.flatten(1), self.bias)
        return tokens.transpose(1, 2).unflatten(2, (t, h, w))


class PatchEmbed(nn.Module):
    """Patches as tokens: a convolution whose stride is its kernel. (B, 3, T, H, W) -> (B, D, T', H', W') where patches
    are `tubelet` frames long, (B, 3, H, W) -> (B, D, H', W') without it."""

    def __init__(self, width: int, patch: int, tubelet: int | None = None) -> None:
        super().__init__()
        if tubelet is None:
            self.proj: nn.Module = nn.Conv2d(3, width, patch, stride=patch)
        else:
            self.proj = PatchConv3d(3, width, (tubelet, patch, patch))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.proj(x)
        return y


@dataclass(frozen=True, kw_only=True)
class TransformerOptions:
    """Options of every transformer for clips of num_frames x size x size that are cut into patches."""

    num_classes: int
    num_frames: int
    """A multiple of tubelet."""
    size: int
    """Pixels of a frame's side: a multiple of patch."""
    tubelet: int = 2
    """Frames of a patch."""
    patch: int = 16
    """Pixels of its side."""
    width: int = 768
    """Channels of a token."""
    depth: int = 12
    """Blocks."""
    heads: int = 12
    """Attention heads, a divisor of width."""
    mlp_ratio: float = 4.0
    """Hidden channels of the MLP over width."""
    norm_eps: float = 1.0e-6
    """Epsilon of all LayerNorms."""
    dropout: float = 0.0
    """Before the head."""
    drop_path: float = 0.0
    """Probability that a clip skips a branch of the last block in training, falling linearly to 0 at the first one."""

    def norm(self) -> nn.LayerNorm:
        return nn.LayerNorm(self.width, eps=self.norm_eps)

    def stack(self, kind: Callable[..., Block] = Block, *, further: int = 0, **own: Any) -> list[Block]:
        """The blocks, and `further` ones after them; `own` are the options of this kind of block."""
        check_at_least("depth", self.depth, 1)
        shape: dict[str, Any] = {"mlp_ratio": self.mlp_ratio, "norm_eps": self.norm_eps}
        rates = drop_rates(self.drop_path, self.depth + further)
        return [kind(self.width, self.heads, drop_path=rate, **shape, **own) for rate in rates]


class VideoTransformer(LayerNumbers, ClipClassifier):
    """A classifier of clips that are cut into `grid` = (T', H', W') patches."""

    blocks: nn.ModuleList

    def __init__(self, name: str, options: TransformerOptions) -> None:
        self.grid = patch_grid(
            name, num_frames=options.num_frames, size=options.size, tubelet=options.tubelet, patch=options.patch
        )
        check_heads(options.width, options.heads)
        super().__init__(num_features=options.width, num_classes=options.num_classes, dropout=options.dropout)
        self.name = name
        self.num_frames = options.num_frames
        self.size = options.size

    def check(self, x: torch.Tensor) -> None:
        """Refuse clips of another length or size than the table of positions is for."""
        check_clip(x, self.name, num_frames=self.num_frames, size=self.size)


def patch_grid(name: str, *, num_frames: int, size: int, tubelet: int, patch: int) -> tuple[int, int, int]:
    """(T', H', W') patches of a clip, for options that fit each other."""
    check_at_least("tubelet", tubelet, 1)
    check_at_least("patch", patch, 1)
    for key, got, step, unit, setting in (
        ("num_frames", num_frames, tubelet, "frames", "sampler.num_frames"),
        ("size", size, patch, "pixels", "transform.size"),
    ):
        below = got // step * step
        if below == got and got > 0:
            continue
        fits = " and ".join(str(n) for n in (below, below + step) if n > 0)
        raise ConfigError(
            f"model.{key}: got {got}, {name} cuts clips into patches of {step} {unit}: {fits} would fit, "
            f"for instance {setting}={below + step}"
        )
    return num_frames // tubelet, size // patch, size // patch


def check_heads(width: int, heads: int, key: str = "heads") -> None:
    check_at_least("width", width, 1)
    if heads < 1 or width % heads:
        raise ConfigError(f"model.{key}: got {heads}, expected a divisor of model.width={width}")


def drop_rates(drop_path: float, depth: int, key: str = "drop_path") -> list[float]:
    """The option model.drop_path as a rate per block: from 0, rising linearly."""
    check_at_least("depth", depth, 1)
    check_dropout(drop_path, key)
    return [drop_path * i / max(depth - 1, 1) for i in range(depth)]


def init_transformer(model: nn.Module, head: str) -> None:
    """Linear layers (but for the head) N(0, s), biases 0; parameters named `*_token` or `*_embed` N(0, 0.02); all cut
    at two. s is the published 0.02; below 384 inputs it is 0.55 / sqrt(inputs), the scale that 0.02 has in ViT-B, since
    narrow nets would begin with attention that is flat."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != head:
            inputs = module.in_features
            nn.init.trunc_normal_(module.weight, std=0.02 if inputs >= 384 else 0.55 / inputs**0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, parameter in model.named_parameters(recurse=False):
        if name.endswith(("_token", "_embed")):
            nn.init.trunc_normal_(parameter, std=0.02)
