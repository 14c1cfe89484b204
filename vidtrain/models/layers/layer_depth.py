"""Which layer of a transformer a parameter belongs to, for learning rates that fall with the depth."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


class LayerNumbers:
    """Mixin: layer 0 is the embedding (patches, tokens, positions), then come the blocks, the last one is the final
    norm and the head."""

    blocks: nn.ModuleList | nn.Sequential
    after_blocks: tuple[str, ...] = ("norm.", "head.")
    """Beginnings of the names that lie behind the last block."""

    def block_names(self) -> Sequence[tuple[str, ...]]:
        """For every block, in order, the beginnings of its parameters' names; those of `blocks` by default."""
        return [(f"blocks.{i}.",) for i in range(len(self.blocks))]

    @property
    def num_layers(self) -> int:
        """Blocks, and two: the embedding and the head."""
        return len(self.block_names()) + 2

    def layer_of(self, name: str) -> int:
        """0 for the embedding ... num_layers - 1 for the head."""
        if name.startswith(self.after_blocks):
            return self.num_layers - 1
        return next((i for i, names in enumerate(self.block_names(), start=1) if name.startswith(names)), 0)
