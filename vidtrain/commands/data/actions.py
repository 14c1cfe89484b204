"""vidtrain data ACTION: `info` and `make` (the built-in data set) are here, each other action has a file."""

from __future__ import annotations

from importlib import import_module

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from vidtrain import build
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.errors import ConfigError, did_you_mean
from vidtrain.reports.table import table
from vidtrain.terminal import noted, say

ACTIONS = ("info", "make", "check", "prepare", "flow", "stats", "show", "doctor")


def run(cfg: DictConfig) -> None:
    """Do what `action` says."""
    if cfg.action not in ACTIONS:
        hint = did_you_mean(str(cfg.action), ACTIONS)
        raise ConfigError(f"vidtrain data {cfg.action}: no such action{hint}; allowed: {', '.join(ACTIONS)}")
    if cfg.action in ("info", "make"):
        _info(cfg)
    elif str(cfg.data.get("_target_")) == "vidtrain.data.formats.features.features":
        raise ConfigError(f"vidtrain data {cfg.action} looks at videos, data=features holds features; info shows them")
    else:
        import_module(f"vidtrain.commands.data.{cfg.action}").run(cfg)


def _info(cfg: DictConfig) -> None:
    """Print what the data set holds, after making it where that is asked for."""
    name = str(HydraConfig.get().runtime.choices["data"])
    if cfg.action == "make" and name != "motion":
        raise ConfigError(f"vidtrain data make data={name}: only data=motion can be made; the others are yours")
    # the built-in set is made when it is first listed, so both actions do the same here
    print(describe(name, build.build_data(cfg.data)))
    if "root" in cfg.data:
        say(f"root: {cfg.data.root}")


def describe(name: str, data: VideoData, most: int = 20) -> str:
    """A table of videos per class and split, with the notes of the format reader."""
    # a video counts for each of its classes; one without a class has the label -1
    labels = {split: m.labels if m.tags is None else m.tags.values for split, m in data.splits.items()}
    counts = {split: np.bincount(own[own >= 0], minlength=data.num_classes) for split, own in labels.items()}
    rows = [[c, *(int(counts[s][n]) for s in counts)] for n, c in enumerate(data.class_names[:most])]
    if data.num_classes > most:
        rows.append([f"... {data.num_classes - most} more", *("" for _ in counts)])
    rows.append(["all videos", *(len(m) for m in data.splits.values())])
    if any(m.missing for m in data.splits.values()):
        rows.append(["listed, not on disk", *(len(m.missing) for m in data.splits.values())])
    lines = [f"{name}: {data.num_classes} classes", table(["class", *counts], rows)]
    return "\n".join([*lines, *noted(data.notes)])
