"""What `vidtrain data check` and `vidtrain data prepare` leave: lists that open at once, however long they are."""

from __future__ import annotations

from pathlib import Path

from vidtrain.data.features.files import FILE
from vidtrain.data.formats._files.text import check_root
from vidtrain.data.manifest.index import read_index
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.errors import DataError


def index(root: str | Path) -> VideoData:
    """The splits of an index folder as they were checked or prepared.

    Args:
        root: folder with index.json.

    Raises:
        DataError: no such folder, no index in it, or one of another version.
    """
    folder = check_root(root)
    if (folder / FILE).is_file():
        raise DataError(f"{folder}: holds features, not videos: read them with data=features")
    return read_index(folder)
