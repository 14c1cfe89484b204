"""One learned query that reads many tokens: V-JEPA 2's attentive probe, and attention with a query of its own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from vidtrain.errors import ConfigError
from vidtrain.models.layers.classifier import LinearHead, check_at_least
from vidtrain.models.layers.transformer import Block, Mlp, init_transformer


def check_probe(depth: int, heads: int, width: int, key: str = "model.probe_heads") -> None:
    """Refuse options probe_depth and probe_heads (or `key`) that do not fit tokens of `width` channels."""
    check_at_least("probe_depth", depth, 0)
    if heads < 1 or width % heads:
        raise ConfigError(f"{key}: got {heads}, expected a divisor of the width of the tokens, {width}")


class CrossAttention(nn.Module):
    """A query (B, 1, D) over tokens (B, N, D) -> (B, 1, D). projected: with a linear layer on what it has read.

    there: bool (B, N), the tokens that are no padding; None: all.
    """

    def __init__(self, width: int, heads: int, *, projected: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width) if projected else nn.Identity()

    def forward(self, query: torch.Tensor, tokens: torch.Tensor, there: torch.Tensor | None = None) -> torch.Tensor:
        mask = None if there is None else there[:, None, None]
        q = self.q(query).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(tokens).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        read: torch.Tensor = self.proj(F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2))
        return read


class CrossBlock(nn.Module):
    """query + attention to norm1(tokens), then + mlp(norm2(.)). The query itself is not normalised."""

    def __init__(self, width: int, heads: int, norm_eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.xattn = CrossAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, query: torch.Tensor, tokens: torch.Tensor, there: torch.Tensor | None = None) -> torch.Tensor:
        query = query + self.xattn(query, self.norm1(tokens), there)
        out: torch.Tensor = query + self.mlp(self.norm2(query))
        return out


class AttentivePooler(nn.Module):
    """Tokens (B, N, D) -> (B, D): `depth` blocks of ordinary attention, then one learned query.

    there: see CrossAttention; the blocks know no padding.
    """

    def __init__(self, width: int, *, depth: int, heads: int, norm_eps: float) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(
            Block(width, heads, mlp_ratio=4.0, norm_eps=norm_eps, drop_path=0.0) for _ in range(depth)
        )
        self.cross_attention_block = CrossBlock(width, heads, norm_eps)
        init_transformer(self, "")

    def forward(self, tokens: torch.Tensor, there: torch.Tensor | None = None) -> torch.Tensor:
        assert there is None or not self.blocks, "the blocks would read the padding"
        for block in self.blocks:
            tokens = block(tokens)
        query = self.query_tokens.repeat(tokens.shape[0], 1, 1)
        out: torch.Tensor = self.cross_attention_block(query, tokens, there)[:, 0]
        return out


class AttentiveHead(nn.Module):
    """Tokens (B, L, D), of which those are read that are `there`, bool (B, L) -> logits (B, K)."""

    def __init__(self, width: int, num_classes: int, dropout: float, heads: int) -> None:
        super().__init__()
        self.pooler = AttentivePooler(width, depth=0, heads=heads, norm_eps=1e-5)
        self.read = LinearHead(width, num_classes, dropout)

    def forward(self, tokens: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.read(self.pooler(tokens, there))
        return logits
