"""What the commands share that work through all videos of a data set."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from vidtrain import build
from vidtrain.children import processors
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.errors import ConfigError
from vidtrain.types import BadVideo

_SHOWN = 10  # videos of a kind that are printed; the report has all


def load(cfg: DictConfig) -> VideoData:
    """The data set, or the one split of it that is asked for."""
    data = build.build_data(cfg.data)
    if cfg.split is None:
        return data
    name = cfg.split.value
    if name not in data.splits:
        raise ConfigError(f"split={name}: the data set has {', '.join(data.splits)}")
    return replace(data, splits={name: data.splits[name]})


def data_root(cfg: DictConfig) -> str | None:
    """The folder of the data set, for messages and to take paths from; None: it has none."""
    root = cfg.data.get("root")
    return None if root is None else str(Path(str(root)).expanduser())


def num_workers(cfg: DictConfig) -> int:
    if cfg.num_workers is not None and cfg.num_workers < 1:
        raise ConfigError(f"num_workers={cfg.num_workers}: must be at least 1")
    return processors() if cfg.num_workers is None else int(cfg.num_workers)


def listed(word: str, videos: Sequence[BadVideo]) -> list[str]:
    """A line for each of the first videos, and how many more there are."""
    lines = [f"{word}: {video.path}: {video.reason}" for video in videos[:_SHOWN]]
    return [*lines, f"{word}: and {len(videos) - _SHOWN} more"] if len(videos) > _SHOWN else lines


def printable(lines: Iterable[str]) -> str:
    """The lines as a terminal takes them: a file name need not be UTF-8."""
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode("utf-8")


def override(key: str, value: Path) -> str:
    """KEY=VALUE for a shell, whatever is in the value."""
    text = f"{key}={value}"
    return f'"{text}"' if sys.platform == "win32" else shlex.quote(text)
