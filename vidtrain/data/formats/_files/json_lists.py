"""MMAction2's lists in JSON: videos or folders of images with a label each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vidtrain.data.formats._files.find_videos import IMAGES_PER_SECOND
from vidtrain.data.formats._files.rows import Rows
from vidtrain.data.formats._files.text_files import BadRows, read_json_text
from vidtrain.errors import DataError

_EXPECTED = "an object with filename, frame_dir or video_dir, and label"
_MOST_IMAGES = 1 << 53  # what JSON has above is no number of images
_ONE = (int, float, str)  # what one label may be


def read_json_list(path: Path, bad: BadRows) -> tuple[Rows, str]:
    """The rows of a JSON list and their layout; entries that cannot be used go to `bad`.

    [{"filename": "a.mp4", "label": 3}, {"frame_dir": "b", "total_frames": 40, "label": [0, 2]}, ...]
    A label may also be an object of lists (HVU: {"action": [180], "scene": [206]}); its classes are "action 180"
    and so on. {"video_dir", "num_clips", "positive_clip_inds"} (OmniSource) stands for the clips part_N.mp4 in that
    folder that are said to show the action.

    Raises:
        DataError: the file is not such a list.
    """
    content = read_json_text(path)
    if isinstance(content, dict) and any(isinstance(v, dict) and "annotations" in v for v in content.values()):
        raise DataError(f"{path}: segments in whole videos, as ActivityNet has them; use data=activitynet")
    if not isinstance(content, list):
        raise DataError(f"{path}: no list of videos with labels; expected [{{filename, label}}, ...]")
    rows = Rows(path, entry=True)
    ends: list[float | None] = []
    several = False
    for number, entry in enumerate(content, 1):
        names = list(_names(entry)) if isinstance(entry, dict) else []
        labels = _labels(entry.get("label")) if names else None
        if labels is None:
            bad.add(path, number, json.dumps(entry), _EXPECTED, entry=True)
            continue
        several |= not isinstance(entry["label"], _ONE)
        total = entry.get("total_frames")
        for name in names:
            rows.add((number, entry), name, labels)
            ends.append(total / IMAGES_PER_SECOND if isinstance(total, int) and 0 < total <= _MOST_IMAGES else None)
    if any(end is not None for end in ends):
        rows.starts = [0.0] * len(ends)
        rows.ends = [float("inf") if end is None else end for end in ends]
    return rows, "path labels" if several else "path label"


def _names(entry: Mapping[str, Any]) -> Iterator[str]:
    """The videos of an entry."""
    for key in ("filename", "frame_dir"):
        if isinstance(entry.get(key), str):
            yield entry[key]
            return
    clips = entry.get("positive_clip_inds")
    if isinstance(entry.get("video_dir"), str) and isinstance(clips, list):
        for clip in clips:
            yield f"{entry['video_dir']}/part_{clip}.mp4"


def _labels(label: Any) -> tuple[str, ...] | None:
    """As text; None when that is no label."""
    if isinstance(label, _ONE) and not isinstance(label, bool):
        return (str(label),)
    if isinstance(label, list) and all(isinstance(each, _ONE) for each in label):
        return tuple(str(each) for each in label)
    if isinstance(label, dict) and all(isinstance(each, list) for each in label.values()):
        return tuple(f"{kind} {each}" for kind, numbers in label.items() for each in numbers)
    return None
