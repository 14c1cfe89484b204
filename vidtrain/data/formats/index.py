"""What `vidtrain data check` and `vidtrain data prepare` leave: lists that open at once, however long they are."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from vidtrain.data.features.files import FILE
from vidtrain.data.formats._files.text_files import check_root
from vidtrain.data.formats.cutting import cut_splits
from vidtrain.data.manifest.index import fetch_index, read_index
from vidtrain.data.manifest.manifest import VideoData, joined
from vidtrain.data.manifest.splits import SplitOptions
from vidtrain.errors import DataError
from vidtrain.ranges import takes
from vidtrain.remote import check_url, is_url
from vidtrain.store_cache import Cache
from vidtrain.types import Regex

# notes on splits that are put together
_OF_SPLITS: Final = re.compile(
    r"held out of train| both in (train|val|test) | in two splits|^\w+: (no video of|the val)"
)


@takes(SplitOptions, without=["group_by", "test_fraction"])
def index(root: str | Path, *, group_by: Regex | None = None, **options: Any) -> VideoData:
    """The splits of an index folder as they were checked or prepared; with `folds`, its videos cut again.

    Args:
        root: folder with index.json; or its address in a store, see `vidtrain.remote`.
        folds, fold, val_fraction, split_seed: see `SplitOptions`, of all the videos together, whatever their split was.
            Without folds the splits stay.
        group_by: with folds: a regular expression on the path below root; what it matches is never parted.

    Raises:
        DataError: no such folder, no index in it, or one of another version; folds that cannot be cut.
    """
    cut = SplitOptions(test_fraction=0.0, group_by=group_by, **options)
    if is_url(root):
        url = str(root).rstrip("/")
        check_url(url)
        folder, data = Path(url), read_index(fetch_index(url, Cache.of_this_machine()), url)
    else:
        folder = check_root(root)
        if (folder / FILE).is_file():
            raise DataError(f"{folder}: holds features, not videos: read them with data=features")
        data = read_index(folder)
    if cut.folds is None:
        return data
    together = joined(list(data.splits.values()))
    splits, notes = cut_splits({"train": together}, data.class_names, folder, cut, own_names=True)
    kept = [note for note in data.notes if not _OF_SPLITS.search(note)]
    note = f"the splits of the index ({', '.join(data.splits)}) were put together and cut into {cut.folds} folds"
    return replace(data, splits=splits, notes=(*kept, note, *notes))
