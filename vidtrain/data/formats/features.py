"""What `vidtrain extract` leaves: features of whole videos, to train a recurrent network on."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Annotated

from vidtrain.data.features.files import read_info
from vidtrain.data.features.index import times_of_clips
from vidtrain.data.formats._files.text_files import check_root
from vidtrain.data.manifest.index import read_index
from vidtrain.data.manifest.manifest import Manifest, VideoData
from vidtrain.ranges import Range


def features(
    root: str | Path, *, max_clips: int | None = None, memory_gb: Annotated[float, Range(least=0)] = 1.0
) -> VideoData:
    """The splits of a folder of features as they were extracted.

    Args:
        root: folder with features.json.
        max_clips: training takes a random stretch of this many consecutive clips of a longer video, which bounds the
            memory of a batch; None: all of them. Tests always read all.
        memory_gb: files of at most this many GB (10^9 bytes) together are read once, by the main process, and kept;
            larger ones are read in every epoch.

    Raises:
        DataError: no such folder, no features in it, or some of another version.
    """
    folder = check_root(root)
    info = read_info(folder, max_clips)
    data = read_index(folder)
    unused = "the groups sampler, transform, decoder and eval's clips and crops are not used"
    if data.untrimmed:
        info = replace(info, times=times_of_clips(folder, data))
    if _fit(data.splits.values(), memory_gb * 1e9):
        info = replace(info, kept={})
    return replace(data, features=info, notes=(*data.notes, f"{info.protocol}; {unused}"))


def _fit(splits: Iterable[Manifest], most: float) -> bool:
    """Whether the files of all splits have at most so many bytes; one that is gone has none."""
    total = 0
    for path in chain.from_iterable(manifest.paths for manifest in splits):
        with suppress(OSError, ValueError):
            total += Path(path).stat().st_size
        if total > most:
            return False
    return True
