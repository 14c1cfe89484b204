"""What every clip classifier has in common: features, dropout, a linear head that can be replaced."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from vidtrain.errors import ConfigError, did_you_mean, one_of


def check_clip(
    x: torch.Tensor, model: str, *, num_frames: int | None = None, size: int | None = None, channels: int = 3
) -> None:
    """Refuse anything but (B, channels, T, H, W), and clips of another length or size where the model is built for one.

    Looks at the shape only, so it costs nothing and torch.compile sees through it.
    """
    if x.ndim != 5 or x.shape[1] != channels:
        raise ConfigError(
            f"{model}: got an input of shape {tuple(x.shape)}, expected (batch, {channels}, frames, height, width)"
        )
    if num_frames is not None and x.shape[2] != num_frames:
        raise ConfigError(
            f"{model}: got clips of {x.shape[2]} frames, but the model was built for {num_frames}: "
            f"set sampler.num_frames={num_frames}, or build it with num_frames={x.shape[2]}"
        )
    if size is not None and (x.shape[3] != size or x.shape[4] != size):
        raise ConfigError(
            f"{model}: got frames of {x.shape[3]} x {x.shape[4]} pixels, but the model was built for "
            f"{size} x {size}: set transform.size={size}, or build it with another size"
        )


def check_at_least(key: str, got: int, least: int, why: str = "") -> None:
    """Refuse an option below `least`."""
    if got < least:
        raise ConfigError(f"model.{key}: got {got}, expected {least} or more{f' ({why})' if why else ''}")


def check_choice(key: str, got: str, choices: Collection[str]) -> None:
    """Refuse an option that is none of `choices`."""
    if got not in choices:
        raise ConfigError(f"model.{key}: got {got!r}{did_you_mean(got, choices)}, expected {one_of(choices)}")


def check_dropout(got: float, key: str = "dropout") -> None:
    """Refuse a probability that drops everything, or none."""
    if not 0 <= got < 1:
        raise ConfigError(f"model.{key}: got {got}, expected 0 <= {key} < 1")


def make_head(num_features: int, num_classes: int) -> nn.Linear:
    """A linear layer that starts with nearly equal logits: weights N(0, 0.01), bias 0."""
    check_at_least("num_classes", num_classes, 1)
    head = nn.Linear(num_features, num_classes)
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    return head


class LinearHead(nn.Module):
    """Vectors (B, D) -> logits (B, K)."""

    def __init__(self, width: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.head = make_head(width, num_classes)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.dropout(vectors))
        return logits


def renew_head(model: nn.Module, name: str, num_classes: int) -> None:
    """Put a fresh linear layer with `num_classes` outputs where `name` stands; device and dtype stay."""
    old = model.get_submodule(name)
    assert isinstance(old, nn.Linear), f"{name} is no linear layer"
    setattr(model, name, make_head(old.in_features, num_classes).to(old.weight))


class Headed:
    """(B, 3, T, H, W) float -> (B, K) logits, as head(dropout(forward_features(x))).

    A module that is this, too, makes num_features, dropout, a head, and defines forward_features.
    Logits are never passed through softmax.
    """

    head_name = "head"
    """Where the last layer is kept; a net with published weights calls it as its checkpoints do."""
    num_features: int
    dropout: nn.Dropout

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, D), D = num_features: what the head classifies."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, K)."""
        logits: torch.Tensor = getattr(self, self.head_name)(self.dropout(self.forward_features(x)))
        return logits

    def reset_head(self, num_classes: int) -> None:
        """Re-initialise the head with `num_classes` outputs; everything below it stays."""
        assert isinstance(self, nn.Module)
        renew_head(self, self.head_name, num_classes)


class ClipClassifier(Headed, nn.Module):
    """A classifier that is ours. A subclass makes its layers and defines forward_features."""

    def __init__(self, *, num_features: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        check_dropout(dropout)
        self.num_features = num_features
        self.dropout = nn.Dropout(dropout)
        setattr(self, self.head_name, make_head(num_features, num_classes))
