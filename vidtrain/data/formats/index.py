"""What `vidtrain data check` and `vidtrain data prepare` leave: lists that open at once, however long they are."""

from __future__ import annotations

from pathlib import Path

from vidtrain.data.formats.text import check_root
from vidtrain.data.index import read_index
from vidtrain.data.manifest import VideoData


def index(root: str | Path) -> VideoData:
    """The splits of an index folder as they were checked or prepared.

    Args:
        root: folder with index.json.

    Raises:
        DataError: no such folder, no index in it, or one of another version.
    """
    return read_index(check_root(root))
