"""A batch of sequences of vectors of unequal length: what stands in the place of views when features are the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence


@dataclass(frozen=True)
class Sequences:
    """values: float (L_1 + ... + L_B, D), one after the other. lengths: int64 (B,), on the CPU, each 1 or more where
    they are packed.

    Nothing is padded, so a long one among short ones costs no memory. Has the methods of a tensor that a Batch uses.
    """

    values: torch.Tensor
    lengths: torch.Tensor

    def __post_init__(self) -> None:
        assert int(self.lengths.sum()) == len(self.values), "lengths do not add up"

    @classmethod
    def of(cls, parts: Sequence[torch.Tensor]) -> Sequences:
        """(L_i, D) each."""
        return cls(torch.cat(list(parts)), torch.tensor([len(part) for part in parts]))

    @classmethod
    def joined(cls, parts: Sequence[Sequences]) -> Sequences:
        """Those of several batches."""
        return cls(torch.cat([part.values for part in parts]), torch.cat([part.lengths for part in parts]))

    def __len__(self) -> int:
        return len(self.lengths)

    def each(self) -> list[torch.Tensor]:
        """(L_i, D) of every sequence."""
        return list(self.values.split(self.lengths.tolist()))

    def __getitem__(self, rows: torch.Tensor) -> Sequences:
        """Some of them. rows: bool (B,), or int64 numbers of sequences."""
        numbers = rows.nonzero()[:, 0] if rows.dtype is torch.bool else rows
        parts, empty = self.each(), self.values[:0]
        kept = [parts[number] for number in numbers.tolist()]
        return Sequences(torch.cat(kept) if kept else empty, self.lengths[numbers])

    def finite(self) -> torch.Tensor:
        """bool (B,): whether all numbers of each are."""
        return torch.tensor([bool(part.isfinite().all()) for part in self.each()], dtype=torch.bool)

    def pack(self) -> PackedSequence:
        """As nn.LSTM and its like take them, float32, in the order given."""
        return pack_sequence(list(self.values.float().split(self.lengths.tolist())), enforce_sorted=False)

    def split(self, size: int) -> list[Sequences]:
        """In pieces of at most `size` sequences."""
        lengths = self.lengths.split(size)
        values = self.values.split([int(part.sum()) for part in lengths])
        return [Sequences(*part) for part in zip(values, lengths, strict=True)]

    def to(self, device: torch.device, non_blocking: bool = False) -> Sequences:
        values = self.values.float() if device.type == "mps" else self.values  # which has no float64
        return Sequences(values.to(device, non_blocking=non_blocking), self.lengths)

    def pin_memory(self) -> Sequences:
        return Sequences(self.values.pin_memory(), self.lengths)

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        self.values.record_stream(stream)


def stacked(targets: Sequence[int | torch.Tensor]) -> torch.Tensor | Sequences:
    """The targets of B samples: int64 (B,); float32 (B, K) where each is a vector; Sequences where each is a table."""
    tensors = [target for target in targets if isinstance(target, torch.Tensor)]
    if tensors and tensors[0].ndim == 2:
        return Sequences.of(tensors)
    return torch.stack(tensors) if tensors else torch.tensor(targets, dtype=torch.int64)
