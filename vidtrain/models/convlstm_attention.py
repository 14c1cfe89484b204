"""ConvLSTM with attention over time and space on its states (document 002, section 3.3, variant 2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vidtrain.models.convlstm import ConvLSTM, build_cells
from vidtrain.models.layers.conv_rnn import ConvLSTMCell
from vidtrain.models.layers.recurrent import State


class AttentionConvLSTM(ConvLSTM):
    """Reads sum a_tp h_tp with a = softmax over all times t and positions p of w . h_tp, instead of a mean over space.

    Key frames and key regions get large weights; w starts at zero, which is the mean over time and space.
    """

    def stream_features(self, x: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """(B, 3, T, H, W) -> (B, D) and the state."""
        maps, steps, cells = self.states(x, state)
        places = maps.flatten(2).unflatten(0, (steps, -1)).permute(1, 0, 3, 2).flatten(1, 2)  # (B, T H' W', D)
        out, pooled = self.pool(places, None if state is None else state[1])
        return out, (cells, pooled)


def convlstm_attention(
    *,
    num_classes: int,
    stem: Sequence[int] = (32, 64),
    hidden: Sequence[int] = (64, 128),
    kernel: int = 3,
    stride: int = 2,
    norm: bool = True,
    compile_step: bool = False,
    dropout: float = 0.0,
) -> AttentionConvLSTM:
    """A ConvLSTM whose last layer's states are weighted, each position of each frame. Options as for convlstm."""
    cells = build_cells(
        ConvLSTMCell,
        stem=stem,
        hidden=hidden,
        kernel=kernel,
        stride=stride,
        norm=norm,
        compiled=compile_step,
    )
    return AttentionConvLSTM(
        "convlstm_attention",
        num_classes=num_classes,
        stem=stem,
        cells=cells,
        norm=norm,
        head="attention",
        dropout=dropout,
    )
