"""What `vidtrain extract` leaves: features of whole videos, to train a recurrent network on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vidtrain.data.features.files import read_info
from vidtrain.data.formats._files.text import check_root
from vidtrain.data.manifest.index import read_index
from vidtrain.data.manifest.manifest import VideoData


def features(root: str | Path, *, max_clips: int | None = None) -> VideoData:
    """The splits of a folder of features as they were extracted.

    Args:
        root: folder with features.json.
        max_clips: training takes a random stretch of this many consecutive clips of a longer video, which bounds the
            memory of a batch; None: all of them. Tests always read all.

    Raises:
        DataError: no such folder, no features in it, or some of another version.
    """
    folder = check_root(root)
    info = read_info(folder, max_clips)
    data = read_index(folder)
    unused = "the groups sampler, transform, decoder and eval's clips and crops are not used"
    return replace(data, features=info, notes=(*data.notes, f"{info.protocol}; {unused}"))
