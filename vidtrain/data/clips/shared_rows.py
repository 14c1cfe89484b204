"""Videos that are read as a stream: each row goes to the worker that is free first, so that one long video does not
hold up the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from torch.utils.data import DataLoader, IterableDataset

from vidtrain.data.clips.batch_transfer import HandOver
from vidtrain.data.clips.workers import Batches, Board, Workers, process_context

_Part = TypeVar("_Part")


class SharedRows(IterableDataset[_Part]):
    """A subclass defines __iter__, which takes places among `rows` as long as there are any, and gives what a loader
    hands on as it is.

    Args:
        rows: of the videos.
        paths: of all rows, for messages.
    """

    def __init__(self, rows: Sequence[int], paths: Sequence[str]) -> None:
        self._rows, self._paths = rows, paths
        self._next = process_context().Value("q", 0)
        self._board: Board | None = None

    def loader(self, workers: Workers) -> Batches[_Part]:
        """The parts of all videos, in the order in which they are ready; those of one come from one worker, which keeps
        their order.

        Raises (while they come):
            LoaderError: a worker has died, or no batch came within the limit.
        """
        workers = workers.at_most(len(self._rows))
        self._board = workers.board(self._paths)
        loader: DataLoader[_Part] = DataLoader(
            self, batch_size=None, collate_fn=HandOver(_as_is), in_order=False, **workers.options(self._board)
        )
        return Batches(loader, self._board, workers.wait_limit)

    def take(self) -> int | None:
        """The next place among the rows that no worker has taken; None: there is none."""
        with self._next.get_lock():
            place: int = self._next.value
            self._next.value = place + 1
        there = place < len(self._rows)
        if self._board is not None:
            self._board.note(self._rows[place] if there else -1)
        return place if there else None


def _as_is(part: _Part) -> _Part:
    return part
