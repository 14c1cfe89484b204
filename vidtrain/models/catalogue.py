"""What is published about a model: its file says it of its names in conf/model, in a mapping ENTRIES = {name: Entry}.

`vidtrain inspect` and docs/models.md are made of these. A model without an entry works all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

from torch import nn


class Family(Enum):
    """What a network does with time; the order is that of the table."""

    FUSION = "fusion of frames"
    FRAMES = "2D network over segments"
    CONV3D = "3D convolution"
    FACTORISED = "space and time apart"
    PATHWAYS = "two pathways"
    RECURRENT = "recurrent"
    PROBE = "probe of a frozen network"
    ATTENTION = "attention"


@dataclass(frozen=True)
class Entry:
    """The facts of one name. Parameters and multiply-adds are not among them: they are counted, at `clip`."""

    family: Family
    paper: str
    clip: tuple[int, int]
    """Frames and pixels of a side that the paper's network sees; for ours, what they are meant for."""
    accuracy: float | None = None
    """Top-1 on Kinetics-400 in percent, as published with weights of this very network."""
    protocol: str = ""
    """How the accuracy was measured: frames x stride, views as clips x crops, and who published it."""


def catalogue() -> dict[str, Entry]:
    """Name in conf/model -> what is known; families in their order, within one the files by name."""
    order = list(Family)
    found = [(name, entry) for file in _files() for name, entry in file.ENTRIES.items()]
    return dict(sorted(found, key=lambda item: order.index(item[1].family)))


def factory(name: str) -> Callable[..., nn.Module] | None:
    """The function that makes the model of this name; None for a preset of another, and for what is no model."""
    return next((getattr(file, name, None) for file in _files() if name in file.ENTRIES), None)


@cache
def _files() -> list[ModuleType]:
    """The files of the architectures, those of this folder that have ENTRIES."""
    names = sorted(file.stem for file in Path(__file__).parent.glob("*.py") if file.stem != "__init__")
    files = [import_module(f"vidtrain.models.{name}") for name in names]
    return [file for file in files if hasattr(file, "ENTRIES")]
