"""What the recurrent models share: a state that is handed from one piece of a video to the next.

    logits, state = model.eval().stream(first_frames)
    logits, state = model.stream(next_frames, state)  # as if all the frames had come at once

A state is a tuple: what the cells remember, then what the pooling over time does. Its tensors keep their graph:
detach them, or stream under torch.no_grad(), where no gradient shall flow back into earlier pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from vidtrain.errors import ConfigError
from vidtrain.models.layers.classifier import ClipClassifier, check_at_least, check_choice

State = tuple[Any, ...]
"""(cells, pool): nested tuples of tensors and whole numbers."""
PoolState = tuple[torch.Tensor, ...]


class WeightedSoFar(NamedTuple):
    """log of the sum of the weights (B, 1), and the weighted mean (B, D)."""

    log_weight: torch.Tensor
    mean: torch.Tensor


class LargestSoFar(NamedTuple):
    """(B, D)."""

    value: torch.Tensor


def state_at_start(state: Any) -> Any:
    """The state before the first frame, of the form of a later one: `stream` goes on from it as it does from None."""
    if isinstance(state, WeightedSoFar):
        return WeightedSoFar(torch.full_like(state.log_weight, -torch.inf), torch.zeros_like(state.mean))
    if isinstance(state, LargestSoFar):
        return LargestSoFar(torch.full_like(state.value, -torch.inf))
    if isinstance(state, tuple):
        return tuple(map(state_at_start, state))
    return torch.zeros_like(state) if isinstance(state, torch.Tensor) else state


HEADS = ("last", "mean", "max", "attention")
CELLS: dict[str, type[nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def widths(key: str, got: Sequence[int], *, empty: bool = False) -> list[int]:
    """Channels, one number per layer. empty: there may be none."""
    fits = isinstance(got, Sequence) and (empty or len(got) > 0)
    if not fits or not all(type(n) is int and n >= 1 for n in got):
        raise ConfigError(f"model.{key}: got {got!r}, expected a list of whole numbers of 1 or more, one per layer")
    return list(got)


def check_odd_kernel(got: int) -> None:
    """Refuse a kernel that has no centre: maps have to keep their size from step to step."""
    if got < 1 or got % 2 == 0:
        raise ConfigError(f"model.kernel: got {got}, expected an odd number, so that the maps keep their size")


class RecurrentClassifier(ClipClassifier):
    """A classifier that reads a video frame by frame; a subclass defines stream_features.

    In eval mode a video in pieces gives what it gives at once. In train mode BatchNorm sees one piece at a time.
    """

    def stream_features(self, x: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """(B, 3, T, H, W), the next T >= 1 frames -> (B, D) of all frames so far, and the state after them."""
        raise NotImplementedError

    def stream(self, x: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """(B, 3, T, H, W), the next T >= 1 frames -> (B, K) logits of all frames so far, and the state after them.

        state: what the call for the frames before returned, None for the first.

        Raises:
            ConfigError: the state belongs to another number of videos or to frames of another size, or the model
                needs the end of a video before it can begin.
        """
        features, state = self.stream_features(x, state)
        return getattr(self, self.head_name)(self.dropout(features)), state

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, D)."""
        return self.stream_features(x)[0]


class TimePool(nn.Module):
    """(B, L, D), the next L steps -> (B, D) of all steps so far.

    last: the last step. max: the largest value of each feature. mean. attention: sum_t a_t h_t with
    a = softmax_t(w . h_t); w starts at zero, so it starts as the mean. (A bias would cancel in the softmax.)
    """

    def __init__(self, features: int, mode: str) -> None:
        super().__init__()
        check_choice("head", mode, HEADS)
        self.mode = mode
        if mode == "attention":
            self.score = nn.Linear(features, 1, bias=False)
            nn.init.zeros_(self.score.weight)

    def forward(
        self, steps: torch.Tensor, state: PoolState | None = None, padding: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, PoolState]:
        """Any L, 0 too where there is a state: its last part is the result so far.

        padding: bool (B, L), steps that are none, at the end of a sequence; head "last" does not look at it.
        """
        if steps.shape[1] > 0 or state is None:
            pool = self._weighted if self.mode in ("mean", "attention") else self._picked
            state = pool(steps, state, padding)
        return state[-1], state

    def _picked(self, steps: torch.Tensor, state: PoolState | None, padding: torch.Tensor | None) -> PoolState:
        if self.mode == "last":
            return (steps[:, -1],)
        if padding is not None:
            steps = steps.masked_fill(padding[:, :, None], -torch.inf)
        largest = steps.amax(1)
        return LargestSoFar(largest if state is None else torch.maximum(state[0], largest))

    def _weighted(self, steps: torch.Tensor, state: PoolState | None, padding: torch.Tensor | None) -> PoolState:
        if self.mode == "mean":
            scores = steps.new_zeros(steps.shape[:2])
        else:
            scores = self.score(steps).squeeze(2).to(steps.dtype)
        if padding is not None:
            scores = scores.masked_fill(padding, -torch.inf)
        total = scores.logsumexp(1, keepdim=True)
        mean = ((scores - total).exp().unsqueeze(2) * steps).sum(1)
        if state is None:
            return WeightedSoFar(total, mean)
        both = torch.stack((state[0], total)).logsumexp(0)  # logaddexp overflows in ONNX files
        return WeightedSoFar(both, (state[0] - both).exp() * state[1] + (total - both).exp() * mean)


class SequenceEncoder(nn.Module):
    """(B, T, D) -> (B, features): nn.LSTM, nn.GRU or nn.RNN over a sequence of vectors, then TimePool.

    bidirectional: 2 hidden features per step; the last step of the reading backwards is the first of the sequence.
    """

    def __init__(
        self, inputs: int, *, cell: str, hidden: int, layers: int, bidirectional: bool = False, head: str = "last"
    ) -> None:
        super().__init__()
        check_choice("cell", cell, CELLS)
        check_at_least("hidden", hidden, 1)
        check_at_least("layers", layers, 1)
        self.hidden = hidden
        self.features = hidden * (2 if bidirectional else 1)
        self.rnn = CELLS[cell](inputs, hidden, layers, batch_first=True, bidirectional=bidirectional)  # type: ignore[arg-type]
        self.pool = TimePool(self.features, head)

    def steps(self, x: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        """(B, T, D) -> (B, T, features), and the cells' state."""
        if state is not None:
            known = state[0] if isinstance(state, tuple) else state
            if known.shape[1] != len(x):
                raise ConfigError(f"state: it belongs to {known.shape[1]} videos, got {len(x)}")
        steps, state = self.rnn(x, state)
        return steps, state

    def forward(self, x: torch.Tensor | PackedSequence, state: State | None = None) -> tuple[torch.Tensor, State]:
        """(B, T, D), or a packed batch of unequal T -> (B, features) of all steps so far, and the state after them."""
        if state is not None:
            self.check_can_stream()
        if isinstance(x, PackedSequence):
            return self._packed(x, state)
        cells, pooled = state if state is not None else (None, None)
        steps, cells = self.steps(x, cells)
        if self.rnn.bidirectional and self.pool.mode == "last":
            steps = torch.cat([steps[:, -1:, : self.hidden], steps[:, :1, self.hidden :]], 2)
        out, pooled = self.pool(steps, pooled)
        return out, (cells, pooled)

    def _packed(self, x: PackedSequence, state: State | None) -> tuple[torch.Tensor, State]:
        cells, pooled = state if state is not None else (None, None)
        packed, cells = self.rnn(x, cells)
        steps, lengths = pad_packed_sequence(packed, batch_first=True)
        lengths = lengths.to(steps.device)
        if self.pool.mode == "last":
            final = steps[torch.arange(len(steps), device=steps.device), lengths - 1]
            if self.rnn.bidirectional:
                final = torch.cat([final[:, : self.hidden], steps[:, 0, self.hidden :]], 1)
            out, pooled = self.pool(final[:, None], pooled)
        else:
            padding = torch.arange(steps.shape[1], device=steps.device) >= lengths[:, None]
            out, pooled = self.pool(steps, pooled, padding)
        return out, (cells, pooled)

    def check_can_stream(self) -> None:
        """Refuse where the sequence is also read backwards."""
        if self.rnn.bidirectional:
            raise ConfigError(
                "model.bidirectional: got true, but a stream has no end to read backwards from: set it to false"
            )
