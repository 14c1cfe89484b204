"""Options of every model: where its weights come from, and what is trained of it. `vidtrain train --help` prints the
text under each field."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from vidtrain.ranges import Choice, number

START_KEYS: Final = ("weights", "inflate_from", "pretrained", "backbone_weights", "network_weights")
"""Options of `model` that say where weights come from, see `weights.initial_weights`; no YAML has to list them."""


class TuneName(Choice):
    full = "full"
    head = "head"
    last = "last"
    norms = "norms"
    lora = "lora"
    probe = "probe"


class PoolingName(Choice):
    mean = "mean"
    attentive = "attentive"


@dataclass
class TuneConfig:
    name: TuneName = TuneName.full
    """What is trained: full (everything), head, last (blocks), norms, lora (low-rank updates), or probe, a new head in
    the place of the network's. The head always is; what is frozen has no gradient and is in eval mode."""
    blocks: int = number(4, least=1)
    """last: how many blocks, counted from the end, with all that comes after them."""
    rank: int = number(8, least=1)
    """lora: of the updates."""
    alpha: float = number(16.0, above=0, most=1e6)
    """lora: an update counts alpha / rank."""
    targets: list[str] = field(default_factory=lambda: ["auto"])
    """lora: names of layers, their ends or patterns, [attn.qkv,'mlp.*']; [auto]: all linear and recurrent layers and
    ungrouped convolutions whose weights have more than `rank` rows and columns, without a transformer's embedding."""
    layer: str | None = None
    """probe: what is read of the network: features (what its head reads), embed (c3d's fc6) or the name of a module,
    such as layer3; null: features, with pooling=attentive the last layer that has positions. Training fills it in."""
    pooling: PoolingName = PoolingName.mean
    """probe: mean over the layer's positions, then a linear layer; attentive: a learned query over them, then that."""
    heads: int = number(4, least=1)
    """probe, pooling=attentive: attention heads, a divisor of the layer's channels."""
