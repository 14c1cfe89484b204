"""20BN-Jester (Materzynska et al., 2019) with the files of its download page."""

from __future__ import annotations

from pathlib import Path

from vidtrain.data.formats._files import twentybn
from vidtrain.data.formats._files.text_files import without_gc
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.types import FilePath

_PREFIX = r"(?:jester-v1-)?"
_ENDING = "csv"


@without_gc
def jester(
    root: str | Path,
    *,
    train: FilePath | None = None,
    val: FilePath | None = None,
    test: FilePath | None = None,
    labels: FilePath | None = None,
    videos: FilePath | None = None,
) -> VideoData:
    """27 gestures: lists `id;label`, videos in folders of images `<id>/00001.jpg`.

    Videos are found by their number anywhere below root, as folders or as files. What is not on disk goes to
    `Manifest.missing`. Swiping, sliding and turning are exchanged by a horizontal flip: left with right, and
    "Turning Hand Clockwise" with "Counterclockwise", since a mirror turns the other way round.

    Without test answers the split "test" is "val", as the field reports it; a note says so.

    Args:
        root: folder of the dataset.
        train, val: the lists, below root or from the working directory. None: jester-v1-train.csv,
            jester-v1-validation.csv, train.csv and the like, in root, root/labels or root/annotations.
        test: the answers for the test videos, `id;label` a line. None: test-answers.csv, in the same places.
        labels: the classes in the order of their numbers, one per line. None: labels.csv, in the same places.
        videos: folder with the videos, below root or from the working directory. None: root.

    Raises:
        DataError: no lists, lines that cannot be used.
    """
    given = {"train": train, "val": val, "test": test, "labels": labels}
    return twentybn.dataset(root, _PREFIX, _ENDING, given, videos)
