"""ConvLSTM with attention over time and space on its states (document 002, section 3.3, variant 2)."""

from __future__ import annotations

from typing import Any

import torch

from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.convlstm import ConvLSTMOptions
from vidtrain.models.layers.classifier import check_choice
from vidtrain.models.layers.conv_rnn import ConvRecurrent
from vidtrain.models.layers.recurrent import State
from vidtrain.ranges import takes

ENTRIES = {
    "convlstm_attention": Entry(Family.RECURRENT, "document 002, section 3.3", (16, 112)),
    "convlstm_attention_tiny": Entry(Family.RECURRENT, "document 002, section 3.3", (16, 64)),
}


class AttentionConvLSTM(ConvRecurrent):
    """Reads sum a_tp h_tp with a = softmax over all times t and positions p of w . h_tp, instead of a mean over space.

    Key frames and key regions get large weights. w starts at zero, which is the mean over time and space.
    """

    def stream_features(self, x: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """(B, 3, T, H, W) -> (B, D) and the state."""
        maps, steps, cells = self.states(x, state)
        places = maps.flatten(2).unflatten(0, (steps, -1)).permute(1, 0, 3, 2).flatten(1, 2)  # (B, T H' W', D)
        out, pooled = self.pool(places, None if state is None else state[1])
        return out, (cells, pooled)


@takes(ConvLSTMOptions, head="attention")
def convlstm_attention(**options: Any) -> ConvRecurrent:
    """A ConvLSTM whose last layer's states are weighted, each position of each frame.

    head: "attention", or "mean" or "max" over all positions of all frames.
    """
    shared = ConvLSTMOptions(**options)
    check_choice("head", shared.head, ("attention", "mean", "max"))
    return shared.net("convlstm_attention", reads=AttentionConvLSTM)
