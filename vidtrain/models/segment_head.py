"""From features of a whole video to segments: a 1-D convolutional network over several scales of time, in the manner of
ActionFormer (Zhang et al. 2022), with convolutions in the place of its local attention.

    features (B, L, D) -> projection, residual blocks -> scale 1: L points -> halved -> scale 2: L/2 points -> ...
    every scale -> the same two heads: which classes happen at a point, and how far it is to their start and end
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from vidtrain.errors import ConfigError
from vidtrain.models.layers.classifier import check_at_least, check_dropout

_PRIOR = 0.01  # share of points with a class, from which the head begins (Lin et al. 2017)
_FIRST = 4.0  # windows: the longest reach of the first scale


class _Block(nn.Module):
    """x + what two convolutions find, the first dilated; (B, W, L) -> (B, W, L). Beyond its end a sequence is 0."""

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.dilated = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.mix = nn.Conv1d(width, width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        found = self.mix(F.gelu(self.dilated(_norm(self.norm, x, there))))
        return (x + self.dropout(found)) * there


def _norm(norm: nn.GroupNorm, x: Tensor, there: Tensor) -> Tensor:
    """Over the channels of each step by itself, so that no result depends on how far a sequence is padded."""
    steps = norm(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (x.shape[0], x.shape[2]))
    return steps.transpose(1, 2) * there


class _Head(nn.Module):
    """Two convolutions and a last one, for all scales: (B, W, L) -> (B, outputs, L)."""

    def __init__(self, width: int, outputs: int, bias: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.GroupNorm(1, width) for _ in range(2))
        self.last = nn.Conv1d(width, outputs, 3, padding=1)
        nn.init.constant_(self.last.bias, bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            assert isinstance(norm, nn.GroupNorm)
            x = F.relu(_norm(norm, layer(x), there))
        found: Tensor = self.last(x)
        return found


class SegmentHead(nn.Module):
    """A temporal head on features of whole videos, for task=segments.

    Packed features of B videos -> logits (B, P, K), offsets (B, P, 2), points (P, 4), there (B, P): see
    tasks/segments/from_points.py. P: points of all scales together.

    in_features: length of the vectors, filled in from data=features. width: channels. blocks: residual blocks before
    the scales, block n dilated by 2 ** n. scales: of time, each half as fine as the one before. dropout: in blocks.
    """

    inputs = ("features",)

    def __init__(
        self,
        *,
        num_classes: int,
        in_features: int | None = None,
        width: int = 128,
        blocks: int = 4,
        scales: int = 5,
        dropout: float = 0.1,
    ) -> None:
        if in_features is None:
            raise ConfigError(
                "model=segment_head reads features: give data=features, made by vidtrain extract untrimmed=true"
            )
        for key, value, least in (("width", width, 1), ("blocks", blocks, 0), ("scales", scales, 1)):
            check_at_least(key, value, least)
        check_dropout(dropout)
        super().__init__()
        self.in_features, self.scales = in_features, scales
        self.norm = nn.LayerNorm(in_features)
        self.project = nn.Conv1d(in_features, width, 3, padding=1)
        self.stem = nn.ModuleList(_Block(width, 2**n, dropout) for n in range(blocks))
        self.branch = nn.ModuleList(_Block(width, 1, dropout) for _ in range(scales))
        self.classes = _Head(width, num_classes, -math.log((1 - _PRIOR) / _PRIOR))
        self.ends = _Head(width, 2, 0.0)
        self.scale = nn.Parameter(torch.ones(scales))

    def forward(self, features: PackedSequence) -> dict[str, Tensor]:
        if not isinstance(features, PackedSequence) or features.data.shape[-1] != self.in_features:
            raise ConfigError(
                f"segment_head: expected packed features of length {self.in_features}: give data=features"
            )
        padded, lengths = pad_packed_sequence(features, batch_first=True)
        lengths = lengths.to(padded.device)
        steps = torch.arange(padded.shape[1], device=padded.device)
        there = (steps < lengths[:, None])[:, None].to(padded.dtype)  # (B, 1, L)
        x = self.project((self.norm(padded) * there.transpose(1, 2)).transpose(1, 2)) * there
        for block in self.stem:
            x = block(x, there)
        logits, offsets, points, known = [], [], [], []
        for number, block in enumerate(self.branch):
            if number:  # the mean of two steps, of the one that is there at an odd end
                x, there = _halved(x, there)
            x = block(x, there)
            logits.append(self.classes(x, there))
            offsets.append(F.softplus(self.ends(x, there) * self.scale[number]))
            points.append(_points(x.shape[2], number, self.scales, x.device))
            known.append(there[:, 0] > 0)
        return {
            "logits": torch.cat(logits, 2).transpose(1, 2),
            "offsets": torch.cat(offsets, 2).transpose(1, 2),
            "points": torch.cat(points),
            "there": torch.cat(known, 1),
        }


def _halved(x: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    odd = x.shape[2] % 2
    x, there = (F.pad(part, (0, odd)).unflatten(2, (-1, 2)) for part in (x, there))
    count = there.sum(3)
    return x.sum(3) / count.clamp_min(1), (count > 0).to(x.dtype)


def _points(length: int, number: int, scales: int, device: torch.device) -> Tensor:
    """float32 (length, 4): place in windows, stride, least and most distance to an end; the last scale takes all."""
    stride = 2.0**number
    place = torch.arange(length, device=device) * stride + (stride - 1) / 2
    low = 0.0 if not number else _FIRST * 2 ** (number - 1)
    high = math.inf if number == scales - 1 else _FIRST * 2**number
    rest = torch.tensor([stride, low, high], device=device).expand(length, 3)
    return torch.cat([place[:, None], rest], 1)


segment_head = SegmentHead
