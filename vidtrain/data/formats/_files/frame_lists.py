"""PySlowFast's and PyTorchVideo's lists of images (Charades, Something-Something): one line per image."""

from __future__ import annotations

from pathlib import Path

from vidtrain.data.formats._files.rows import Rows
from vidtrain.data.formats._files.text_files import BadRows, read_lines, whole
from vidtrain.untrusted_data import check_regular

# the first name is misspelt in the published files
_HEADERS = tuple(f"original_{name}_id video_id frame_id path labels" for name in ("vido", "video"))


def is_frame_list(path: Path) -> bool:
    """Whether the file starts with the header of such a list."""
    try:
        check_regular(path)
        with path.open("rb") as file:
            start = file.read(200).decode("utf-8", "replace").lstrip("\ufeff")
    except OSError:
        return False
    return " ".join(start.splitlines()[0].split() if start.strip() else []) in _HEADERS


def read_frame_list(path: Path, bad: BadRows) -> tuple[Rows, str]:
    """A row for each video of `original_vido_id video_id frame_id path labels`, a space between the fields.

    The video is the folder that the images are in; its labels are those of all its images, numbers separated by
    commas, in quotes or not.
    """
    lines = read_lines(path)[1:]
    labels: dict[str, set[str]] = {}
    folders: dict[str, str] = {}
    first: dict[str, int] = {}
    for at, (number, line) in enumerate(lines):
        cells = line.split()
        folder, slash, _ = cells[3].rpartition("/") if len(cells) == 5 else ("", "", "")
        found = set(filter(None, cells[4].replace('"', "").split(","))) if slash else {"-"}
        if any(whole(label) is None for label in found) or folders.get(cells[0], folder) != folder:
            expected = 'video number image folder/image "label,label", all images of a video in one folder'
            bad.add(path, number, line, expected)
            continue
        if cells[0] not in folders:
            folders[cells[0]], labels[cells[0]], first[cells[0]] = folder, set(), at
        labels[cells[0]] |= found
    videos = list(folders)
    rows = Rows(path, lambda row: lines[first[videos[row]]])
    rows.names = [folders[video] for video in videos]
    rows.labels = [tuple(sorted(labels[video], key=int)) for video in videos]
    # folders of images: what is not there is missing, not misread
    rows.starts, rows.ends = [0.0] * len(videos), [float("inf")] * len(videos)
    return rows, "path labels" if any(len(each) != 1 for each in rows.labels) else "path label"
