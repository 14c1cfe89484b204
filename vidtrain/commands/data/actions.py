"""vidtrain data ACTION: `info` and `make` (a built-in dataset) are here, each other action has a file."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

import numpy as np

from vidtrain import build
from vidtrain.commands.slurm import submitted
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.data.settings import JobsConfig
from vidtrain.errors import ConfigError, one_of
from vidtrain.options.commands import ACTIONS, check_action
from vidtrain.options.invocation import Invocation
from vidtrain.options.schema import DataCommandConfig
from vidtrain.reports.table import table
from vidtrain.terminal import note_lines, print_line

_BUILT_IN: Final = ("motion", "motion_long")


def run(call: Invocation[DataCommandConfig]) -> None:
    """Do what `action` says."""
    action, section = call.options.action, call.options.data
    check_action(action)
    if call.options.jobs != JobsConfig() and not ACTIONS[action].jobs:
        able = one_of(name for name, row in ACTIONS.items() if row.jobs)
        raise ConfigError(f"jobs: vidtrain data {action} works here; {able} take parts and clusters")
    if submitted("data", call.options.jobs, call.options.output or action, "num_workers"):
        return
    if action in ("info", "make"):
        _info(action, str(call.choices["data"]), section)
    elif str(section.get("_target_")) == "vidtrain.data.formats.features.features":
        raise ConfigError(f"vidtrain data {action} looks at videos, data=features holds features; info shows them")
    else:
        import_module(f"vidtrain.commands.data.{action}").run(call)


def _info(action: str, name: str, section: Mapping[str, Any]) -> None:
    """Print what the dataset holds, after making it where that is asked for."""
    if action == "make" and name not in _BUILT_IN:
        raise ConfigError(f"vidtrain data make data={name}: {one_of(_BUILT_IN)} can be made; the others are yours")
    # a built-in set is made when it is first listed, so both actions do the same here
    print(describe(name, build.build_data(section)))
    if "root" in section:
        print_line(f"root: {section['root']}")


def describe(name: str, data: VideoData, most: int = 20) -> str:
    """A table of videos per class and split, with the notes of the format reader."""
    # a video counts for each of its classes; one without a class has the label -1
    labels = {split: m.labels if m.tags is None else m.tags.values for split, m in data.splits.items()}
    counts = {split: np.bincount(own[own >= 0], minlength=data.num_classes) for split, own in labels.items()}
    rows = [[c, *(int(counts[s][n]) for s in counts)] for n, c in enumerate(data.class_names[:most])]
    if data.num_classes > most:
        rows.append([f"... {data.num_classes - most} more", *("" for _ in counts)])
    timed = any(m.starts is not None for m in data.splits.values())
    rows.append(["all segments" if timed else "all videos", *(len(m) for m in data.splits.values())])
    if timed:
        rows.append(["their videos", *(len(set(m.paths)) for m in data.splits.values())])
    if any(m.missing for m in data.splits.values()):
        rows.append(["listed, not on disk", *(len(m.missing) for m in data.splits.values())])
    lines = [f"{name}: {data.num_classes} classes", table(["class", *counts], rows)]
    return "\n".join([*lines, *note_lines(data.notes)])
