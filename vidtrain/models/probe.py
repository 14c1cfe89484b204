"""Small heads on what a frozen network has found: linear, attentive (Bardes et al. 2024), nearest neighbours (Wu et al.
2018), class means (Snell et al. 2017). The network is run once, by `vidtrain extract`; a head then takes seconds.

A head with weights is trained as a grid of members, one for each learning rate and weight decay, in one pass over the
features; nearest neighbours have a member for each number of neighbours. The member that validates best answers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from vidtrain.errors import ConfigError
from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.feature_rnn import frozen_network, vector_length
from vidtrain.models.layers.attentive import AttentiveHead, check_probe
from vidtrain.models.layers.classifier import LinearHead, check_at_least, check_choice, check_clip, check_dropout
from vidtrain.models.layers.feature_tap import FeatureTap, OnFrozenNetwork
from vidtrain.ranges import Range

ENTRIES = {"probe": Entry(Family.PROBE, "Alain and Bengio 2016", (16, 112))}

HEADS = ("linear", "attentive", "knn", "prototypes")
_TINY = 1e-6
_SAME = 1 - 1e-5  # cosine of a video with itself, within float32's rounding


class FeatureProbe(OnFrozenNetwork):
    """Features, or with a `network` clips -> (B, K); in training, of a grid, the logits of each member by its name.

    in_features: D of the vectors it reads; None with a network.
    members: names. chosen: int64 (), the one that answers outside of training; trained members all stay in the file.
    """

    reads_tokens = True

    def __init__(
        self,
        *,
        num_classes: int,
        width: int,
        network: FeatureTap | None,
        size: int | None,
        members: Sequence[str],
        uses_tokens: bool = False,
    ) -> None:
        super().__init__()
        self.in_features = width if network is None else None
        self.inputs = ("features",) if network is None else tuple(getattr(network.model, "inputs", ("rgb",)))
        self.num_classes, self.width, self.size = num_classes, width, size
        self.freeze(network)
        self.members = list(members)
        self.uses_tokens = uses_tokens
        self.chosen: Tensor
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("chosen", torch.tensor(0))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    def factors_of(self, name: str) -> tuple[float, float]:
        """Of a parameter's learning rate and weight decay."""
        return 1.0, 1.0

    def read(self, x: Any) -> tuple[Tensor, Tensor]:
        """Features as a batch holds them, (B, L, D), or what the network reads -> (vectors (B, L, D), the last of them
        padding in shorter videos; bool (B, L), which are none)."""
        if self.network is not None:
            if self.size is not None:
                check_clip(x, "probe", size=self.size)
            with torch.no_grad():
                vectors = self.network(x)
            x = vectors if vectors.ndim == 3 else vectors[:, None]
        if isinstance(x, PackedSequence):
            vectors, lengths = pad_packed_sequence(x, batch_first=True)
            there = torch.arange(vectors.shape[1]) < lengths[:, None]
            there = there.to(vectors.device)
        else:
            vectors, there = x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        if vectors.ndim != 3 or vectors.shape[2] != self.width:
            raise ConfigError(f"probe: got features of shape {tuple(vectors.shape)}, expected (batch, L, {self.width})")
        return vectors, there

    def inputs_of_heads(self, x: Tensor | PackedSequence) -> tuple[Tensor, ...]:
        """What all members read, centred and scaled as the training features: tokens and which are there, or (B, D)."""
        vectors, there = self.read(x)
        if self.uses_tokens:
            return (vectors - self.mean) / self.deviation, there
        return ((_pooled(vectors, there) - self.mean) / self.deviation,)

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Any, Tensor]]) -> None:
        """Learn what needs no gradient from all training features: here their mean and deviation.

        Args:
            batches: (input as `forward` takes it, targets int64 (B,) or float32 (B, K)), each video once.
        """
        total, squares, count = torch.zeros_like(self.mean).double(), torch.zeros_like(self.mean).double(), 0
        for x, _ in batches:
            vectors, there = self.read(x)
            found = (vectors[there] if self.uses_tokens else _pooled(vectors, there)).double()
            total, squares, count = total + found.sum(0), squares + found.square().sum(0), count + len(found)
        mean = total / max(count, 1)
        spread = (squares / max(count, 1) - mean.square()).clamp_min(0).sqrt()
        self.mean.copy_(mean)
        # a number that never changes says nothing, and stays as it is
        self.deviation.copy_(torch.where(spread > _TINY * mean.abs().clamp_min(_TINY), spread, 1.0))

    @torch.no_grad()
    def _collected(self, batches: Iterable[tuple[Any, Tensor]]) -> tuple[Tensor, Tensor, bool]:
        """Of all N videos: vectors (N, D), whose mean is kept; targets (N, K) of 0 and 1; whether a video may have
        several."""
        parts = [(_pooled(*self.read(x)), targets) for x, targets in batches]
        vectors, targets = (torch.cat(column) for column in zip(*parts, strict=True))
        self.mean.copy_(vectors.mean(0))
        several = targets.ndim == 2
        return vectors, targets if several else F.one_hot(targets, self.num_classes), several

    def answers_of_all(self, x: Tensor | PackedSequence) -> Tensor:
        """Logits (B, G, K) of all members."""
        raise NotImplementedError

    def forward(self, x: Tensor | PackedSequence) -> Tensor | dict[str, Tensor]:
        logits = self.answers_of_all(x)
        if self.training and len(self.members) > 1:
            return dict(zip(self.members, logits.unbind(1), strict=True))
        return logits.index_select(1, self.chosen.view(1))[:, 0]


class GradientProbe(FeatureProbe):
    """Members with weights of their own, computed together. factors: (learning rate, weight decay) of each member."""

    def __init__(self, head: nn.Module, factors: Sequence[tuple[float, float]], **common: Any) -> None:
        super().__init__(members=[f"lr_x{rate:g}_decay_x{decay:g}" for rate, decay in factors], **common)
        self.factors = list(factors)
        self.heads = nn.ModuleList(copy.deepcopy(head) for _ in factors)

    def factors_of(self, name: str) -> tuple[float, float]:
        return self.factors[int(name.split(".")[1])] if name.startswith("heads.") else (1.0, 1.0)

    def answers_of_all(self, x: Tensor | PackedSequence) -> Tensor:
        return self._run(self._stacked(), self.inputs_of_heads(x))

    def forward(self, x: Tensor | PackedSequence) -> Tensor | dict[str, Tensor]:
        if self.training:
            return super().forward(x)
        one = {name: weights.index_select(0, self.chosen.view(1)) for name, weights in self._stacked().items()}
        return self._run(one, self.inputs_of_heads(x))[:, 0]

    def _stacked(self) -> dict[str, Tensor]:
        """Of each weight of a member those of all, (G, ...)."""
        columns = [dict(head.named_parameters()) for head in self.heads]
        return {name: torch.stack([column[name] for column in columns]) for name in columns[0]}

    def _run(self, weights: dict[str, Tensor], inputs: tuple[Tensor, ...]) -> Tensor:
        def one(own: dict[str, Tensor]) -> Tensor:
            logits: Tensor = functional_call(self.heads[0], own, inputs)
            return logits

        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels of attention would run member by member
            found: Tensor = vmap(one, out_dims=1, randomness="different")(weights)
        return found


class NearestNeighbours(FeatureProbe):
    """Votes of the training videos that are nearest by cosine, weighted by exp(cosine / temperature).

    support: M, the number of training videos. A member for each number of neighbours. In training a video is no
    neighbour of its own. Of a dataset with several classes per video the votes of each class are a probability.
    """

    def __init__(self, *, support: int, neighbours: Sequence[int], temperature: float, **common: Any) -> None:
        super().__init__(members=[f"neighbours_{k}" for k in neighbours], **common)
        self.neighbours, self.temperature = list(neighbours), temperature
        self.keys: Tensor
        self.values: Tensor
        self.known: Tensor
        self.several: Tensor
        self.register_buffer("keys", torch.zeros(support, self.width))
        self.register_buffer("values", torch.zeros(support, self.num_classes, dtype=torch.uint8))
        self.register_buffer("known", torch.tensor(0))  # rows in use: a file may have been unreadable
        self.register_buffer("several", torch.tensor(False))

    def fit(self, batches: Iterable[tuple[Any, Tensor]]) -> None:
        vectors, targets, several = self._collected(batches)
        self.keys[: len(vectors)] = _unit(vectors - self.mean)
        self.values[: len(vectors)] = targets.to(self.values)
        self.known.fill_(len(vectors))
        self.several.fill_(several)

    def answers_of_all(self, x: Tensor | PackedSequence) -> Tensor:
        vectors, there = self.read(x)
        with torch.autocast(vectors.device.type, enabled=False):
            queries = _unit(_pooled(vectors.float(), there) - self.mean)
            unused = torch.arange(len(self.keys), device=queries.device) >= self.known
            cosines = (queries @ self.keys.T).masked_fill(unused, -torch.inf)
            if self.training:
                cosines = cosines.masked_fill(cosines > _SAME, -torch.inf)
            near, rows = cosines.topk(min(max(self.neighbours), len(self.keys)), dim=1)
            weights = ((near - near[:, :1]) / self.temperature).exp().nan_to_num(0)
            votes = weights[:, :, None] * self.values[rows]
            found = []
            for k in self.neighbours:
                share = votes[:, :k].sum(1) / weights[:, :k].sum(1, keepdim=True).clamp_min(_TINY)
                share = share.clamp(_TINY, 1 - _TINY)
                found.append(torch.where(self.several, share.logit(), share.log()))
        return torch.stack(found, 1)


class Prototypes(FeatureProbe):
    """cosine / temperature between a video and the mean of each class's training videos, all of unit length."""

    def __init__(self, *, temperature: float, **common: Any) -> None:
        super().__init__(members=["prototypes"], **common)
        self.temperature = temperature
        self.prototypes: Tensor
        self.register_buffer("prototypes", torch.zeros(self.num_classes, self.width))

    def fit(self, batches: Iterable[tuple[Any, Tensor]]) -> None:
        vectors, targets, _ = self._collected(batches)
        self.prototypes.copy_(_unit(targets.to(vectors).T @ _unit(vectors - self.mean)))

    def answers_of_all(self, x: Tensor | PackedSequence) -> Tensor:
        vectors, there = self.read(x)
        with torch.autocast(vectors.device.type, enabled=False):
            cosines = _unit(_pooled(vectors.float(), there) - self.mean) @ self.prototypes.T
            cosines = cosines.masked_fill(~self.prototypes.any(1), -1.0)  # a class without a video is as far as can be
        return (cosines / self.temperature)[:, None]


def _pooled(vectors: Tensor, there: Tensor) -> Tensor:
    """(B, L, D), bool (B, L) -> (B, D): the mean of those that are there."""
    return (vectors * there[..., None]).sum(1) / there.sum(1, keepdim=True)


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors, dim=1)


def one_probe(tap: FeatureTap, *, num_classes: int, width: int, heads: int | None) -> GradientProbe:
    """A single probe of any network. width: channels of what the tap gives. heads: of the attention over its tokens;
    None: a linear layer on one vector."""
    if heads is not None:
        check_probe(0, heads, width, "tune.heads")
    head = LinearHead(width, num_classes) if heads is None else AttentiveHead(width, num_classes, 0.0, heads)
    own: dict[str, Any] = {"network": tap, "size": None, "uses_tokens": heads is not None}
    return GradientProbe(head, [(1.0, 1.0)], num_classes=num_classes, width=width, **own)


def probe(
    *,
    num_classes: int,
    size: int,
    in_features: int | None = None,
    support: int | None = None,
    network: str = "c3d",
    network_options: Mapping[str, Any] | None = None,
    clip: int = 16,
    layer: str | None = None,
    tokens: bool = False,
    head: str = "linear",
    lr_factors: Sequence[Annotated[float, Range(above=0)]] = (0.1, 1.0, 10.0),
    decay_factors: Sequence[Annotated[float, Range(least=0)]] = (0.0, 1.0, 100.0),
    probe_heads: int = 4,
    dropout: float = 0.0,
    neighbours: Sequence[int] = (1, 5, 20),
    temperature: Annotated[float, Range(above=0)] = 0.07,
) -> FeatureProbe:
    """A small head on features, or on a frozen network.

    in_features: length of the vectors when features are the data; None: the input is videos. support: of knn, the
        number of training videos, which it keeps.
    network, network_options, clip, layer, tokens: what is run over each clip, frozen, when the input is videos; see
        feature_rnn. size: of the frames.
    head: "linear" on the mean vector of a video; "attentive", a learned query over all its vectors or tokens; "knn";
        "prototypes".
    lr_factors, decay_factors: of linear and attentive: each pair of them is a member, trained with these shares of
        optimizer.lr and optimizer.weight_decay. probe_heads: of the attention. dropout: before the last layer.
    neighbours: of knn, a member each. temperature: of knn and prototypes, by which cosines are divided.
    """
    check_choice("head", head, HEADS)
    tap = None
    if in_features is None:
        tap = FeatureTap(
            frozen_network(network, dict(network_options or {}), clip=clip, size=size), layer, tokens=tokens
        )
    width = in_features if tap is None else vector_length(tap, clip, size)
    assert width is not None
    check_at_least("in_features", width, 1)
    check_dropout(dropout)
    common: dict[str, Any] = {"num_classes": num_classes, "width": width, "network": tap}
    common["size"] = None if tap is None else size
    if head == "knn":
        check_grid("neighbours", neighbours, 1)
        return NearestNeighbours(support=support or 0, neighbours=neighbours, temperature=temperature, **common)
    if head == "prototypes":
        return Prototypes(temperature=temperature, **common)
    check_grid("lr_factors", lr_factors, _TINY)
    check_grid("decay_factors", decay_factors, 0)
    factors = list(product(lr_factors, decay_factors))
    if head == "linear":
        return GradientProbe(LinearHead(width, num_classes, dropout), factors, **common)
    check_probe(0, probe_heads, width)
    one = AttentiveHead(width, num_classes, dropout, probe_heads)
    return GradientProbe(one, factors, uses_tokens=True, **common)


def check_grid(key: str, got: Sequence[float], least: float) -> None:
    """Refuse an empty list, numbers below `least` and one that stands twice."""
    if not got or min(got) < least or len(set(got)) < len(got):
        raise ConfigError(f"model.{key}: got {list(got)}, expected numbers of {least:g} or more, each once")
