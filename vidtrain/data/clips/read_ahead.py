"""Videos of a store are on their way while those before them are decoded.

A store takes 10 to 100 ms to begin with an answer, as long as a clip takes to decode: a process that asked for one
video after the other would stand still half of the time. The order of an epoch is known, so each batch comes with the
rows of the next one that its process will make.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch.utils.data import Dataset, Sampler

from vidtrain.store_cache import fetch_ahead

Key = tuple[int, int, int]
"""(epoch, row, copy)."""


class Keys(list[Any]):
    """The keys of a batch, rows or `Key`s. ahead: the rows of the next batch that the same process makes."""

    def __init__(self, keys: Iterable[Any], ahead: Sequence[int] = ()) -> None:
        super().__init__(keys)
        self.ahead = ahead


class RowBatches(Sampler[list[int]]):
    """Rows in their order, `size` to a batch.

    Args:
        ahead: batches from one to the next that the same process makes; 0: nobody reads ahead.
    """

    def __init__(self, rows: Sequence[int], size: int, ahead: int) -> None:
        self._rows = rows
        self._size = size
        self._ahead = ahead

    def __len__(self) -> int:
        return -(-len(self._rows) // self._size)

    def __iter__(self) -> Iterator[list[int]]:
        for first in range(0, len(self._rows), self._size):
            after = first + self._ahead * self._size
            yield Keys(
                self._rows[first : first + self._size], self._rows[after : after + self._size] if self._ahead else ()
            )


class ReadsAhead(Dataset[Any]):
    """A dataset that begins to fetch the videos of a batch, and of the next one, before it reads the first.

    Args:
        paths: of the rows.
    """

    def __init__(self, dataset: Any, paths: Sequence[str]) -> None:
        self._dataset = dataset
        self._paths = paths

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitems__(self, keys: Keys) -> list[Any]:
        rows = [key[1] if isinstance(key, tuple) else key for key in keys]
        fetch_ahead(self._paths[row] for row in (*rows, *keys.ahead))
        read = getattr(self._dataset, "__getitems__", None)
        return [self._dataset[key] for key in keys] if read is None else list(read(keys))
