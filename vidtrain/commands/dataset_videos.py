"""What the commands share that work through all videos of a dataset."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from vidtrain import build
from vidtrain.child_python_path import processors
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.errors import ConfigError
from vidtrain.options.schema import DataCommandConfig
from vidtrain.remote import is_url
from vidtrain.types import BadVideo

_SHOWN = 10  # videos of a kind that are printed; the report has all


def load(options: DataCommandConfig) -> VideoData:
    """The dataset, or the one split of it that is asked for."""
    root = str(options.data.get("root"))
    if is_url(root):
        raise ConfigError(
            f"data.root={root}: vidtrain data {options.action} reads files of this machine: run it where they are"
        )
    data = build.build_data(options.data)
    name = options.split
    return data if name is None else replace(data, splits={str(name): data.split(str(name))})


def data_root(options: DataCommandConfig) -> str | None:
    """The folder of the dataset, for messages and to take paths from; None: it has none."""
    root = options.data.get("root")
    return None if root is None else str(Path(str(root)).expanduser())


def num_workers(options: DataCommandConfig) -> int:
    if options.num_workers is not None and options.num_workers < 1:
        raise ConfigError(f"num_workers={options.num_workers}: must be at least 1")
    return processors() if options.num_workers is None else options.num_workers


def listed(word: str, videos: Sequence[BadVideo]) -> list[str]:
    """A line for each of the first videos, and how many more there are."""
    lines = [f"{word}: {video.path}: {video.reason}" for video in videos[:_SHOWN]]
    return [*lines, f"{word}: and {len(videos) - _SHOWN} more"] if len(videos) > _SHOWN else lines


@contextmanager
def keeping(what: str, folder: Path) -> Iterator[None]:
    """Around work that the same command goes on with after Ctrl-C, which is said then."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"finished {what} are kept in {folder}; the same command goes on from there", file=sys.stderr)
        raise


def override(key: str, value: Path) -> str:
    """KEY=VALUE for a shell, whatever is in the value."""
    text = f"{key}={value}"
    return f'"{text}"' if sys.platform == "win32" else shlex.quote(text)
