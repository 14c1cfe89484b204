"""Hierarchical ConvLSTM (document 002, section 3.3, variant 4): stacked levels, each at its own time scale (as in
Koutnik et al. 2014, "A Clockwork RNN")."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.convlstm import ConvLSTMOptions
from vidtrain.models.layers.backbone2d import halving_convs
from vidtrain.models.layers.classifier import check_at_least, check_clip
from vidtrain.models.layers.conv_rnn import by_step, readout, time_first
from vidtrain.models.layers.recurrent import RecurrentClassifier, State, TimePool
from vidtrain.ranges import takes

ENTRIES = {
    "convlstm_hierarchical": Entry(Family.RECURRENT, "document 002, section 3.3", (16, 112)),
    "convlstm_hierarchical_tiny": Entry(Family.RECURRENT, "document 002, section 3.3", (16, 64)),
}


class HierarchicalConvLSTM(RecurrentClassifier):
    """Level k makes a step at every time_scale ** k-th frame, from the first on, and reads level k - 1 at that frame.

    The features are those of all levels, one after the other: each level's states, averaged over space, over its time.
    """

    def __init__(self, options: ConvLSTMOptions, time_scale: int) -> None:
        cells = options.cells()
        features = sum(cell.channels for cell in cells)
        super().__init__(num_features=features, num_classes=options.num_classes, dropout=options.dropout)
        self.size = options.only_size
        self.time_scale = time_scale
        self.period = time_scale ** (len(cells) - 1)
        """Frames after which every level's turn comes again."""
        self.stem = halving_convs(3, options.stem)
        self.layers = nn.ModuleList(cells)
        self.readouts = nn.ModuleList(readout(cell.channels, norm=options.norm) for cell in cells)
        self.pools = nn.ModuleList(TimePool(cell.channels, options.head) for cell in cells)

    def stream_features(self, x: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """(B, 3, T, H, W) -> (B, D) and the state: cells, pools, and each level's steps until its next turn."""
        check_clip(x, "convlstm_hierarchical", size=self.size)
        levels = len(self.layers)
        cells, pools, waits = ((None,) * levels, (None,) * levels, (0,) * levels) if state is None else state
        maps, steps = self.stem(time_first(x)), x.shape[2]
        features, after = [], []
        for level, (cell, read, pool) in enumerate(zip(self.layers, self.readouts, self.pools, strict=True)):
            wait, every = waits[level], self.time_scale if level else 1
            turns = range(wait, steps, every)
            if level:
                maps = _take(maps, steps, turns)
            known, pooled = cells[level], pools[level]
            if turns:
                maps, known = cell(maps, len(turns), known)
                means = read(maps).mean((2, 3)).unflatten(0, (len(turns), -1)).transpose(0, 1)
            else:
                means = maps.new_zeros(x.shape[0], 0, cell.channels)
            mean, pooled = pool(means, pooled)
            features.append(mean)
            after.append((known, pooled, wait + len(turns) * every - steps))
            steps = len(turns)
        return torch.cat(features, 1), tuple(zip(*after, strict=True))


def _take(maps: torch.Tensor, steps: int, turns: range) -> torch.Tensor:
    """Those of the steps of (T B, C, H, W) whose turn it is."""
    frames = by_step(maps, steps) if steps else ()
    return torch.cat([frames[turn] for turn in turns]) if turns else maps[:0]


@takes(ConvLSTMOptions, hidden=(64, 96, 128))
def convlstm_hierarchical(*, time_scale: int = 2, **options: Any) -> HierarchicalConvLSTM:
    """A ConvLSTM whose layers are levels, each with a time scale of its own; a single level is convlstm.

    time_scale: steps of a level for one of the next.
    """
    check_at_least("time_scale", time_scale, 1)
    return HierarchicalConvLSTM(ConvLSTMOptions(**options), time_scale)
