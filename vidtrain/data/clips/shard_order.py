"""The order of an epoch where videos lie in few large files: file after file, mixed within a window.

A random order over all videos reads a little of every shard all the time, which a disk cache or a cold store cannot
follow. Here the shards come in a random order, drawn again each epoch, and each video moves fewer than `window`
positions from where it lies:

    shards        [c c c c][a a a a][b b b b]       in an order that is drawn
    window 3        c c a c  a b a a  b b b         those read at one time lie within about window + batch positions
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from vidtrain.errors import ConfigError
from vidtrain.tar_members import stretch_of
from vidtrain.types import Indices


@dataclass(frozen=True)
class ShardOrder:
    """Where the N videos lie, and how far they are mixed.

    rows: int64 (N,), the rows of the manifest, shard by shard, in each as they lie.
    shards: int64 (N,), the number of the shard that each of them is in, 0 to S - 1, ascending.
    window: positions, 1 or more.
    """

    rows: Indices
    shards: Indices
    window: int

    @classmethod
    def of(cls, paths: Iterable[str], window: int) -> ShardOrder:
        """That of these paths, all of which are members of tar files.

        Raises:
            ConfigError: one is not.
        """
        numbers: dict[str, int] = {}
        shards, starts = array("q"), array("q")
        for path in paths:
            file, start = _where(path)
            if start is None:
                raise ConfigError(
                    f"sampler.shuffle_window={window}: mixes videos within tar files, and {path} lies in none: "
                    "use data=shards, or leave it null"
                )
            shards.append(numbers.setdefault(file, len(numbers)))
            starts.append(start)
        rows = np.lexsort((np.array(starts), np.array(shards))).astype(np.int64)
        return cls(rows, np.array(shards, np.int64)[rows], window)

    def shuffled_shards(self, rng: np.random.Generator) -> Indices:
        """int64 (N,): the rows with the shards in a random order."""
        count = int(self.shards[-1]) + 1 if len(self.shards) else 0
        return self.rows[np.argsort(rng.permutation(count)[self.shards], kind="stable")]

    def mixed(self, rng: np.random.Generator) -> Indices:
        """int64 (N,): a permutation of the positions that moves none of them by `window` or more."""
        count = len(self.rows)
        return np.argsort(np.arange(count) + self.window * rng.random(count), kind="stable").astype(np.int64)


def _where(path: str) -> tuple[str, int | None]:
    """The tar file of a member and where it begins in it; None: it is none. It is asked for millions of paths."""
    file, _, rest = path.partition(".tar@")
    start, _, rest = rest.partition("+")
    size, _, name = rest.partition("/")
    if file and name and start.isascii() and start.isdecimal() and size.isdecimal() and len(start) < 19:
        return file, int(start)
    stretch = stretch_of(path)  # whatever else there is in its name
    return stretch.file.removesuffix(".tar"), None if stretch.size is None else stretch.start
