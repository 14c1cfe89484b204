"""A frozen network over successive clips of a long video, then a recurrent network over their features (document 003,
"long-term" models; Yue-Hei Ng et al. 2015, "Beyond Short Snippets").

Two ways to run it, with the same recurrent part and the same result:

- on features that `vidtrain extract` has written: batches of sequences of unequal length, packed. The frozen network
  is run once, not once an epoch.
- on the videos themselves: (B, 3, L * clip, H, W), the frozen network without a gradient, a few clips at a time. What
  is kept of each clip is its vector, so memory for the gradient depends on neither the depth nor the width of that
  network.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from vidtrain.errors import ConfigError
from vidtrain.models.catalogue import Entry, Family, factory
from vidtrain.models.late_fusion import late_fusion
from vidtrain.models.layers.classifier import check_at_least, check_choice, check_clip
from vidtrain.models.layers.feature_tap import FeatureTap, OnFrozenNetwork
from vidtrain.models.layers.recurrent import RecurrentClassifier, SequenceEncoder, State

ENTRIES = {
    "feature_rnn": Entry(Family.RECURRENT, "Yue-Hei Ng et al. 2015", (64, 112)),
    "feature_rnn_tiny": Entry(Family.RECURRENT, "Yue-Hei Ng et al. 2015", (16, 64)),
}

NORMS = ("none", "layer", "batch")


class FeatureRNN(OnFrozenNetwork, RecurrentClassifier):
    """An RNN over the features of the clips of a long video.

    Sequences of features or, with a network, clips -> (B, K).

    in_features: length of the vectors when features are the data; there is then no network and the options up to
        chunk are not used. None: the input is videos.
    network: that is run over the clips, frozen: one of the catalogue that is no preset of another, or any 2D one of
        layers/backbone2d.py, whose features are averaged over the frames of a clip. network_options: further options
        of its factory. Without weights (model.network_weights, model.pretrained) the frozen network is a random one.
    layer: of the network, see layers/feature_tap.py.
    size: of the frames. clip: frames of a clip, stride apart as the sampler takes them. chunk: clips in a forward pass.
    norm: of each vector before the cells: "none", "layer" or "batch".
    cell: "lstm", "gru" or "rnn". hidden, layers: of them. bidirectional: another reading from the end backwards.
    head: "last" step, or the "mean", "max" or "attention" over time. dropout: before the head.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        size: int,
        in_features: int | None = None,
        network: str = "c3d",
        network_options: Mapping[str, Any] | None = None,
        layer: str | None = None,
        clip: int = 16,
        chunk: int = 8,
        norm: str = "layer",
        cell: str = "lstm",
        hidden: int = 256,
        layers: int = 1,
        bidirectional: bool = False,
        head: str = "last",
        dropout: float = 0.0,
    ) -> None:
        check_at_least("clip", clip, 1)
        check_at_least("chunk", chunk, 1)
        tap, length = None, in_features or 0
        if in_features is None:
            tap = FeatureTap(frozen_network(network, dict(network_options or {}), clip=clip, size=size), layer)
            length = vector_length(tap, clip, size)
        else:
            check_at_least("in_features", in_features, 1)
        encoder = SequenceEncoder(
            length, cell=cell, hidden=hidden, layers=layers, bidirectional=bidirectional, head=head
        )
        super().__init__(num_features=encoder.features, num_classes=num_classes, dropout=dropout)
        check_choice("norm", norm, NORMS)
        self.in_features = in_features
        self.inputs = ("features",) if tap is None else ("rgb",)
        self.clip, self.chunk, self.size = clip, chunk, None if tap is None else size
        self.freeze(tap)
        norms = {"none": nn.Identity, "layer": nn.LayerNorm, "batch": nn.BatchNorm1d}
        self.norm = norms[norm](length)
        self.encoder = encoder

    def vectors(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, L * clip, H, W) -> (B, L, D), `chunk` clips at a time (at least one of each video)."""
        assert self.network is not None, "this one reads features"
        check_clip(x, "feature_rnn", size=self.size)
        if x.shape[2] % self.clip:
            raise ConfigError(
                f"feature_rnn: got {x.shape[2]} frames, expected a multiple of model.clip={self.clip}: set "
                f"sampler.num_frames={-(-x.shape[2] // self.clip) * self.clip}"
            )
        steps = max(1, self.chunk // x.shape[0])
        found = []
        with torch.no_grad():
            for part in x.split(steps * self.clip, 2):
                clips = part.unflatten(2, (-1, self.clip)).transpose(1, 2)  # (B, steps, 3, clip, H, W)
                found.append(self.network(clips.flatten(0, 1)).unflatten(0, clips.shape[:2]))
        return torch.cat(found, 1)

    def stream_features(
        self, x: torch.Tensor | PackedSequence, state: State | None = None
    ) -> tuple[torch.Tensor, State]:
        """A PackedSequence of (L_i, D), or (B, L, D); with a network clips -> (B, features) and the state."""
        if isinstance(x, PackedSequence):
            self._check(x.data.shape[-1], tuple(x.data.shape))
            return self.encoder(x._replace(data=self.norm(x.data)), state)
        if self.network is not None:
            x = self.vectors(x)
        elif x.ndim != 3:
            self._check(-1, tuple(x.shape))
        self._check(x.shape[-1], tuple(x.shape))
        normed = self.norm(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return self.encoder(normed, state)

    def _check(self, length: int, shape: tuple[int, ...]) -> None:
        expected = self.encoder.rnn.input_size
        if length != expected:
            what = "clips (batch, 3, frames, height, width)" if self.network is not None else "(batch, steps, length)"
            raise ConfigError(f"feature_rnn: got an input of shape {shape}, expected {what} of features of {expected}")

    def forward_features(self, x: torch.Tensor | PackedSequence) -> torch.Tensor:
        """As stream_features, without the state."""
        return self.stream_features(x)[0]

    def forward(self, x: torch.Tensor | PackedSequence) -> torch.Tensor:
        """-> (B, K), in the order of the batch."""
        logits: torch.Tensor = getattr(self, self.head_name)(self.dropout(self.forward_features(x)))
        return logits

    def stream(self, x: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """The next clips or features, see RecurrentClassifier.stream."""
        self.encoder.check_can_stream()
        return super().stream(x, state)


feature_rnn = FeatureRNN


def frozen_network(name: str, options: dict[str, Any], *, clip: int, size: int) -> nn.Module:
    """The network that is run over the clips. Its head is made for one class and never used."""
    function = factory(name)
    if function is None:
        function, options = late_fusion, {"backbone": name, **options}
    known = inspect.signature(function).parameters
    for key in options:
        if key not in known:
            raise ConfigError(f"model.network_options: {name} has no option {key}; it has: {', '.join(known)}")
    given = {key: value for key, value in (("num_frames", clip), ("size", size)) if key in known}
    return function(num_classes=1, **{**given, **options})


def vector_length(tap: FeatureTap, clip: int, size: int) -> int:
    """D, from one pass on the meta device."""
    from vidtrain.models.layers.model_copy import copy_on_meta

    with torch.no_grad():
        return int(copy_on_meta(tap)(torch.empty(1, 3, clip, size, size, device="meta")).shape[-1])
